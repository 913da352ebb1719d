"""Texts as the comparison needs them: read, shaped, with the one text that is shown for them."""

import functools
import re
from dataclasses import dataclass
from typing import Any

from ..errors import TaskError
from ..extract import boxed, clean
from ..numerals import TooLarge, Unreadable, brief, show_fraction, value_text
from .matrices import evaluate
from .nodes import SCALARS, Items, Node, Number, Percent, SetOf, Tuple, symbols
from .rational import fold
from .reader import read
from .shapes import holds, naming, shape

MAX_SHOWN = 200
"""Characters of an answer that are kept as evidence."""
_ANSWER_IS = re.compile(r"(?:the\s+)?(?:final\s+)?answer(?:\s+is\b|\s*:)\s*:?", re.IGNORECASE)


@dataclass(frozen=True)
class Reading:
    """A text that was read."""

    text: str
    tree: Node
    """As it was written."""
    node: Node
    """In the shape that is compared."""

    @functools.cached_property
    def shown(self) -> str:
        """One text for all equal rationals: `x = 1/2`, `0.5` and `50%` are all shown as `1/2`."""
        return _shown(self.text, self.node)

    @property
    def percent(self) -> bool:
        """Whether a percent sign stands in it."""
        return holds(self.tree, Percent)


def read_answer(text: str) -> Reading:
    """Read a text into a tree.

    Raises:
        TooLarge: It is over a cap.
        Unreadable: It is not understood.
    """
    tree = read(text)
    if isinstance(tree, Number):
        return Reading(text, tree, tree)
    return Reading(text, tree, shape(evaluate(tree)))


def _shown(text: str, node: Node) -> str:
    if isinstance(node, Number):
        return show_fraction(node.value)
    named = naming(node)
    value = named[1][0] if named and len(named[1]) == 1 else node
    if isinstance(value, SCALARS) and not symbols(value):
        try:
            folded = fold(value)
        except Unreadable:
            return text[:MAX_SHOWN]
        if isinstance(folded, Number):
            return show_fraction(folded.value)[:MAX_SHOWN]
    return text[:MAX_SHOWN]


@functools.lru_cache(maxsize=65_536)
def read_truth(text: str) -> Reading:
    """Read the text of a truth, once; of a whole solution the last box is taken.

    Raises:
        Unreadable: It is not understood, or has no value.
    """
    inner = boxed(text) if "box" in text else None
    if inner is None:
        inner = text[found.end() :] if (found := _ANSWER_IS.match(text.lstrip())) else text
    # the reader sees a currency sign in front, which cleaning would take for a mark of math
    reading = read_answer(" ".join(inner.split()))
    _check_value(reading.node)
    return Reading(normal(inner), reading.tree, reading.node)


def _check_value(node: Node) -> None:
    """Raise `Unreadable` if a number in a truth has no value, such as 1/0."""
    if isinstance(node, SCALARS):
        try:
            fold(node)
        except TooLarge:
            return
    elif isinstance(node, Items | SetOf | Tuple):
        for item in node.items:
            _check_value(item)
    elif (named := naming(node)) is not None:
        for value in named[1]:
            _check_value(value)


def normal(text: str) -> str:
    """Return a text without marks around it and with single spaces."""
    return " ".join(clean(text).split())


def truth_text(truth: Any) -> str:
    """Return a truth as text.

    Raises:
        TaskError: It is no number and no text.
    """
    if isinstance(truth, str):
        return truth
    if isinstance(truth, bool) or not isinstance(truth, int | float):
        raise TaskError(f"a math truth is a number or a text, got {brief(truth)}")
    try:
        return value_text(truth)
    except Unreadable as error:
        raise _unusable(truth, error) from None


def compile_truth(truth: Any) -> Reading:
    """Read the truth of a row; each text is read once.

    Args:
        truth: A number, or a text such as `"3/4"`, `"(-∞, 2]"`, `"x = 5 or x = -5"`, or a whole
            solution with the answer in its last box.

    Raises:
        TaskError: It is something else, or cannot be read, or has no value.
    """
    text = truth_text(truth)
    try:
        return read_truth(text)
    except Unreadable as error:
        raise _unusable(truth, error) from None


def _unusable(truth: Any, error: Unreadable) -> TaskError:
    return TaskError(
        f"the truth {brief(truth)} cannot be read: {error}; give a number or an expression "
        "such as '3/4', '1,234' or '2\\sqrt{3}'"
    )
