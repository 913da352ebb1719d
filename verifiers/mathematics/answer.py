r"""The `math` verifier: is the completion's answer equal to the truth?

Exact by default: 0.3333 is not 1/3, 1.414 is not √2. Answers that are rational are decided in this
process without sympy; the others go to a warm worker process that is killed at the deadline.
"""

import functools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

from ..errors import TaskError, UsageError
from ..extract import check_how, extract
from ..numerals import TooLarge, Unreadable, brief, value_text
from ..verdict import Verdict
from ..workers import WorkerPool, check_timeout
from .compare import Decision, Leniency, Reading, check_value, decide
from .nodes import Number
from .reader import read
from .tokens import without_unit

SHOWN_CHARS = 200
"""Characters of an answer that could not be read which are kept as evidence."""


def read_answer(text: str) -> Reading:
    """Read a text into a tree with its rational parts computed.

    Raises:
        TooLarge: It is over a cap.
        Unreadable: It is not understood, or has no value.
    """
    return Reading.of(read(text))


@functools.lru_cache(maxsize=65_536)
def _truth(text: str) -> Reading:
    return read_answer(text)


def compile_truth(truth: Any) -> Reading:
    """Read the truth of a row; each text is read once.

    Args:
        truth: A number, or a text such as `"3/4"`, `"1,234"`, `"$5.50"`.

    Raises:
        TaskError: It is something else, or cannot be read.
    """
    if isinstance(truth, bool) or not isinstance(truth, str | int | float):
        raise TaskError(f"a math truth is a number or a text, got {brief(truth)}")
    try:
        return _truth(truth if isinstance(truth, str) else value_text(truth))
    except Unreadable as error:
        raise TaskError(
            f"the truth {brief(truth)} cannot be read: {error}; give a number or an expression "
            "such as '3/4', '1,234' or '2\\sqrt{3}'"
        ) from None


def _prove(answer: str, truth: str, leniency: list[Any]) -> dict[str, Any]:
    """Decide in a worker; texts travel, and our own reader reads them again there."""
    absolute, relative, either = leniency
    given = Leniency(Fraction(absolute), Fraction(relative), either)
    gold = _truth(truth)
    try:
        check_value(gold.node)
    except Unreadable as error:
        return Verdict.bad_truth(f"the truth has no value: {error}").to_json()
    try:
        decision = decide(read_answer(answer), gold, given, prove=True)
    except Unreadable as error:
        return Verdict.unparsed(str(error)).to_json()
    except (MemoryError, OverflowError, RecursionError) as error:
        return Verdict.limit(f"too large for sympy: {type(error).__name__}").to_json()
    return _verdict(decision, {}).to_json()


def _import_sympy() -> None:
    from . import symbolic  # noqa: F401  (loaded before the first deadline starts)


_PROVERS = WorkerPool(_prove, setup=_import_sympy, memory=1 << 30, name="math")


def _verdict(decision: Decision, evidence: dict[str, Any]) -> Verdict:
    evidence = {**evidence, "tier": decision.tier}
    if decision.reason:
        evidence["reason"] = decision.reason
    if decision.equal is None:
        return Verdict.error(**{"reason": "undecided", **evidence})
    return Verdict.correct(**evidence) if decision.equal else Verdict.wrong(**evidence)


class MathAnswer:
    r"""Judge a mathematical answer by exact equality.

    Reads integers, decimals, fractions (`3/4`, `\frac{3}{4}`, `1\frac{1}{2}`), thousands
    separators, a currency sign in front, percent, scientific notation, and expressions of
    `+ - * / ^ !`, roots, π and one-letter variables. `x = 5` equals 5; `5 = 5`, `4 or 5` and
    `5 apples` do not.

    Args:
        extract: Where the answer stands, tried in order: see `rlvr.verifiers.extract`.
        timeout: Seconds of work that an answer may cost, above 0.
        percent: `"fraction"`: 50% is 1/2. `"either"`: it also equals 50, if only one side has the
            sign. `"forbid"`: an answer with the sign is wrong unless the truth has it too.
        absolute: Greatest absolute difference that counts as equal, at least 0.
        relative: The same as a share of the truth.
        units: Drop words after the number (`5 apples`, `5\text{ cm}`) without comparing them;
            only where the truth is a plain number.

    Example:
        >>> MathAnswer()(r"so it is \boxed{0.5}", "1/2").status
        <Status.CORRECT: 'correct'>
    """

    def __init__(
        self,
        *,
        extract: str | Sequence[str] = ("boxed", "tag", "hash", "answer_is", "whole"),
        timeout: float = 1.0,
        percent: Literal["fraction", "either", "forbid"] = "fraction",
        absolute: float = 0.0,
        relative: float = 0.0,
        units: bool = False,
    ) -> None:
        """Check the options."""
        if percent not in ("fraction", "either", "forbid"):
            raise UsageError(f"percent= is 'fraction', 'either' or 'forbid', got {percent!r}")
        check_timeout(timeout)
        for name, value in (("absolute", absolute), ("relative", relative)):
            if not 0 <= value < float("inf"):
                raise UsageError(f"{name}= is a tolerance of at least 0, got {value!r}")
        self.extract = check_how(extract)
        self.timeout = timeout
        self.percent = percent
        self.units = units
        # through the text: a tolerance of 0.1 means a tenth, not the nearest binary fraction
        bounds = (Fraction(str(absolute)), Fraction(str(relative)))
        self.leniency = Leniency(*bounds, either_percent=percent == "either")

    def check_truth(self, truth: Any) -> None:
        """Raise `TaskError` for a truth that cannot be read."""
        compile_truth(truth)

    def __call__(self, completion: str, truth: Any, **context: Any) -> Verdict:
        """Judge a completion; a truth that cannot be read is unscored."""
        try:
            gold = compile_truth(truth)
        except TaskError as error:
            return Verdict.bad_truth(str(error))
        text = extract(completion, self.extract)
        if text is None:
            return Verdict.unparsed("no answer was found")
        if self.units and isinstance(gold.node, Number):
            text = without_unit(text)
        try:
            answer = read_answer(text)
        except TooLarge as error:
            return Verdict.limit(str(error), answer=text[:SHOWN_CHARS])
        except Unreadable as error:
            return Verdict.unparsed(str(error), answer=text[:SHOWN_CHARS])
        evidence: dict[str, Any] = {"answer": answer.shown}
        if self.percent == "forbid" and answer.percent and not gold.percent:
            return Verdict.wrong(**evidence, tier="structure", reason="a percent sign")
        decision = decide(answer, gold, self.leniency, prove=False)
        if decision.equal is not None:
            return _verdict(decision, evidence)
        return self._proved(text, truth, evidence)

    def _proved(self, answer: str, truth: Any, evidence: dict[str, Any]) -> Verdict:
        leniency = self.leniency
        bounds = [str(leniency.absolute), str(leniency.relative), leniency.either_percent]
        gold = truth if isinstance(truth, str) else value_text(truth)
        verdict = _PROVERS.call_within(self.timeout, answer, gold, bounds)
        shown = {**evidence, "tier": "symbolic", **verdict.evidence}
        return Verdict(
            reward=verdict.reward, status=verdict.status, evidence=shown, cost=verdict.cost
        )
