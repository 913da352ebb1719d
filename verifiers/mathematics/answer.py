r"""The `math` verifier: is the completion's answer equal to the truth?

Exact by default: 0.3333 is not 1/3, 1.414 is not √2. Nearly all answers are decided in this
process without sympy; the others go to a warm worker process that is killed at the deadline.
"""

import dataclasses
import os
import re
import threading
import time
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

from ..errors import TaskError, UsageError
from ..extract import check_how, conclusion, formula, locate
from ..numerals import TooLarge, Unreadable
from ..verdict import Status, Verdict
from ..workers import WorkerPool, check_timeout
from .compare import compare
from .decisions import Decision, Rules
from .draws import Draw, run_salt
from .nodes import Number, Quantity, Text
from .readings import MAX_SHOWN, Reading, compile_truth, normal, read_answer, read_truth, truth_text
from .scalars import ScalarOptions
from .units import canonical

MAX_WHOLE = 400
"""Characters of a completion that is taken as the answer itself, where no marker is."""
MAX_WHOLE_WORDS = 3
"""Words behind a number that is the whole completion: more of them are a sentence about it."""

_DECIMAL_COMMA = re.compile(r"[-+]?(?![1-9][0-9]{0,2},[0-9]{3}\Z)[0-9]{1,9},[0-9]{1,9}")
"""A list of two numbers, or where the truth is one number a decimal comma; 1,234 is neither."""

_CHOICES = {
    "percent": ("fraction", "either", "forbid"),
    "units": ("optional", "require", "ignore"),
    "decimals": ("rounded", "exact"),
    "forms": ("value", "same"),
}


def _prove(answer: str, truth: str, options: dict[str, Any], salt: str) -> dict[str, Any]:
    """Decide in a worker; texts travel, and our own reader reads them again there."""
    reading, gold = read_answer(answer), read_truth(truth)
    draw = Draw(gold.text, reading.text, salt=bytes.fromhex(salt))
    try:
        decision = compare(reading.node, gold.node, _rules(**options), draw, prove=True)
    except TooLarge as error:
        return Verdict.limit(f"over a limit: {error}").to_json()
    except Unreadable as error:
        return Verdict.unparsed(f"no value: {error}").to_json()
    except (MemoryError, OverflowError, RecursionError) as error:
        return Verdict.limit(f"over a limit: {type(error).__name__} in sympy").to_json()
    except Exception as error:
        # sympy's failure on an answer that was read: an error would let it escape from being scored
        reason = f"sympy failed: {type(error).__name__}"
        return Verdict.wrong(tier="undecided", reason=reason).to_json()
    return _verdict(decision, {}).to_json()


def _import_sympy() -> None:
    from . import symbolic  # noqa: F401  (loaded before the first deadline starts)


_PROVERS = WorkerPool(
    _prove,
    setup=_import_sympy,
    memory=1 << 30,
    died=Verdict.limit,  # an answer that ends its worker twice would else escape from being scored
    name="math",
    copies=True,
)


_TURN = threading.Lock()
"""Held while this process computes. Threads could not compute at the same time anyway, and those
that wait here do not take the interpreter from the caller's event loop, 5 ms each."""


def _after_fork() -> None:
    global _TURN
    _TURN = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _rules(
    *, decimals: str, absolute: str, relative: str, units: str, ordered: bool, percent: str
) -> Rules:
    scalars = ScalarOptions(
        decimals=decimals, absolute=Fraction(absolute), relative=Fraction(relative)
    )
    return Rules(
        scalars=scalars,
        units=units,
        ordered=ordered,
        degrees=units != "require",
        either_percent=percent == "either",
    )


def _verdict(decision: Decision, evidence: dict[str, Any]) -> Verdict:
    evidence = {**evidence, "tier": decision.tier}
    if decision.equal:
        return Verdict.correct(**evidence)
    if decision.equal is None:
        # wrong, not unscored: a policy could write such answers to escape from being scored
        evidence["tier"] = "undecided"
        return Verdict.wrong(**evidence, reason="undecided")
    return Verdict.wrong(**evidence, reason=decision.reason or "different value")


class MathAnswer:
    r"""Judge a mathematical answer by equality with the truth.

    Reads numbers in all their spellings, expressions, equations, inequalities, intervals and sets,
    lists, tuples, matrices, piecewise values, units, times, words and choices. Lists and sets are
    compared in any order, tuples in theirs; `(0, 1)` is not `[0, 1]`; `x = 5` is 5 and `6 = 5` is
    not; `x > 1` is `(1, ∞)`; two equations are equal if they are the same curve. A choice such as
    `(B) 12` is known by its letter and by its text.

    Args:
        extract: Where the answer stands, tried in order: see `rlvr.verifiers.extract`.
        timeout: Seconds of work that an answer may cost, above 0.
        percent: `"fraction"`: 50% is 1/2. `"either"`: it also equals 50, if only one side has the
            sign. `"forbid"`: an answer with the sign is wrong unless the truth has it too.
        units: `"optional"`: a unit on one side only is not compared (`5 cm` is 5), two are, after
            conversion (1 m is 100 cm, not 1 cm). `"require"`: both sides have one or neither, and
            45° is not 45. `"ignore"`: units are dropped.
        decimals: `"rounded"`: a decimal truth of three or more digits, such as 6.46, equals an
            exact answer without end that is rounded or cut off to it (84/13), and an answer of ten
            or more digits equals the truth whose digits they are (0.0833333333 is 1/12).
            `"exact"`: neither.
        ordered: Compare bare lists in order: `1, 2` is not `2, 1`.
        forms: `"value"`: 1/2 is 0.5. `"same"`: the answer is written as the truth is, but for
            spaces and the like; 2/4 is not 1/2.
        absolute: Greatest absolute difference that counts as equal, at least 0.
        relative: The same as a share of the truth.
        strict: Short for `units="require", decimals="exact", ordered=True, forms="same"`.

    Example:
        >>> MathAnswer()(r"so it is \boxed{0.5}", "1/2").status
        <Status.CORRECT: 'correct'>
        >>> MathAnswer(extract=("hash",))("#### 42", 42).reward
        1.0
        >>> MathAnswer(percent="either")("50%", 50).reward, MathAnswer()("50%", 50).reward
        (1.0, 0.0)
        >>> MathAnswer(units="require")("5", "5 cm").reward, MathAnswer()("5", "5 cm").reward
        (0.0, 1.0)
        >>> MathAnswer(units="ignore")("5 kg", "5 cm").reward, MathAnswer()("5 kg", "5 cm").reward
        (1.0, 0.0)
        >>> MathAnswer(decimals="exact")("2/3", "0.667").reward, MathAnswer()("2/3", "0.667").reward
        (0.0, 1.0)
        >>> MathAnswer(ordered=True)("2, 1", "1, 2").reward, MathAnswer()("2, 1", "1, 2").reward
        (0.0, 1.0)
        >>> MathAnswer(forms="same")("0.5", "1/2").reward, MathAnswer()("0.5", "1/2").reward
        (0.0, 1.0)
        >>> MathAnswer(absolute=0.1)("1.1", 1).reward, MathAnswer(relative=0.01)("1.1", 1).reward
        (1.0, 0.0)
        >>> MathAnswer(strict=True)("2, 1", "1, 2").reward
        0.0
    """

    def __init__(
        self,
        *,
        extract: str | Sequence[str] = ("boxed", "tag", "hash", "answer_is", "whole"),
        timeout: float = 1.0,
        percent: Literal["fraction", "either", "forbid"] = "fraction",
        units: Literal["optional", "require", "ignore"] = "optional",
        decimals: Literal["rounded", "exact"] = "rounded",
        ordered: bool = False,
        forms: Literal["value", "same"] = "value",
        absolute: float = 0.0,
        relative: float = 0.0,
        strict: bool = False,
    ) -> None:
        """Check the options."""
        if strict:
            units, decimals, ordered, forms = "require", "exact", True, "same"
        given = {"percent": percent, "units": units, "decimals": decimals, "forms": forms}
        for name, choice in given.items():
            if choice not in _CHOICES[name]:
                allowed = " or ".join(map(repr, _CHOICES[name]))
                raise UsageError(f"{name}= is {allowed}, got {choice!r}")
        check_timeout(timeout)
        for name, value in (("absolute", absolute), ("relative", relative)):
            if not 0 <= value < float("inf"):
                raise UsageError(f"{name}= is a tolerance of at least 0, got {value!r}")
        self.extract = check_how(extract)
        self.timeout = timeout
        self.percent = percent
        self.forms = forms
        # through the text: a tolerance of 0.1 means a tenth, not the nearest binary fraction
        self._options: dict[str, Any] = {
            "decimals": decimals,
            "absolute": str(absolute),
            "relative": str(relative),
            "units": units,
            "ordered": ordered,
            "percent": percent,
        }
        self._rules = _rules(**self._options)

    def check_truth(self, truth: Any) -> None:
        """Raise `TaskError` for a truth that cannot be read."""
        compile_truth(truth)

    def __call__(self, completion: str, truth: Any, **context: Any) -> Verdict:
        """Judge a completion; a truth that cannot be read is unscored."""
        try:
            gold = compile_truth(truth)
        except TaskError as error:
            return Verdict.bad_truth(str(error))
        marker, text = locate(completion, self.extract)
        if not text or (marker == "whole" and len(text) > MAX_WHOLE):
            return Verdict.unparsed("no answer")
        text = normal(text)
        if text == gold.text:
            return Verdict.correct(answer=gold.shown, tier="text")
        found = self._judged(text, truth, gold, whole=marker == "whole")
        if found.reward == 0.0 and isinstance(gold.node, Number) and _DECIMAL_COMMA.fullmatch(text):
            found = self._judged(text.replace(",", "."), truth, gold, whole=False)
        if found.reward != 0.0:
            return found
        inner = _inner(marker, text, prose=bool(found.evidence.get("words")))
        if inner is not None:
            return _without_note(self._judged(inner, truth, gold, whole=False))
        if marker == "whole" and "words" in found.evidence and not isinstance(gold.node, Text):
            return Verdict.unparsed("no answer")
        return _without_note(found)

    def _judged(self, text: str, truth: Any, gold: Reading, *, whole: bool) -> Verdict:
        """Judge one text as the answer."""
        shown = text[:MAX_SHOWN]
        try:
            with _TURN:
                answer = read_answer(text)
        except TooLarge as error:
            return Verdict.limit(f"over a limit: {error}", answer=shown)
        except Unreadable as error:
            return Verdict.unparsed(f"not understood: {error}", answer=shown, words=True)
        evidence: dict[str, Any] = {"answer": answer.shown}
        if whole and _is_sentence(answer):
            return Verdict.unparsed("no answer", answer=shown)
        refused = self._refused(answer, gold)
        if refused:
            return Verdict.wrong(**evidence, tier="structure", reason=refused)
        verdict = self._compared(answer, truth, gold, evidence)
        if isinstance(answer.node, Text) and verdict.reward == 0.0:
            return dataclasses.replace(verdict, evidence={**verdict.evidence, "words": True})
        return verdict

    def _refused(self, answer: Reading, gold: Reading) -> str:
        """Return what an option has against the way the answer is written."""
        if self.percent == "forbid" and answer.percent and not gold.percent:
            return "percent sign"
        if self.forms == "same" and answer.tree != gold.tree:
            return "different form"
        return ""

    def _compared(
        self, answer: Reading, truth: Any, gold: Reading, evidence: dict[str, Any]
    ) -> Verdict:
        if isinstance(answer.node, Number) and answer.node == gold.node:
            return Verdict.correct(**evidence, tier="rational")
        started = time.thread_time()
        draw = Draw(gold.text, answer.text)
        try:
            with _TURN:
                decision = compare(answer.node, gold.node, self._rules, draw, prove=False)
        except TooLarge as error:
            return Verdict.limit(f"over a limit: {error}", **evidence)
        except Unreadable as error:
            return Verdict.unparsed(f"no value: {error}", **evidence)
        except (RecursionError, OverflowError, MemoryError) as error:
            return Verdict.limit(f"over a limit: {type(error).__name__}", **evidence)
        if decision.equal is not None:
            return _verdict(decision, evidence)
        left = max(self.timeout - (time.thread_time() - started), 0.1 * self.timeout)
        verdict = _PROVERS.call_within(
            left, answer.text, truth_text(truth), self._options, run_salt().hex()
        )
        shown = {"tier": "symbolic", **evidence, **verdict.evidence}
        if verdict.status is Status.TIMEOUT:  # the same text whatever time this process took
            shown["reason"] = f"the check took longer than {self.timeout:g} s"
        return Verdict(
            reward=verdict.reward, status=verdict.status, evidence=shown, cost=verdict.cost
        )


def _inner(marker: str, text: str, *, prose: bool) -> str | None:
    """Return what a sentence gives as its answer."""
    inner = formula(text)
    if inner is None and prose and marker == "answer_is":
        inner = conclusion(text)
    return None if inner is None or inner == text else normal(inner)


def _is_sentence(answer: Reading) -> bool:
    """Return whether a completion without a marker is a number in prose: `5 is too much for me`."""
    node = answer.node
    if not isinstance(node, Quantity) or canonical(node.unit) is not None:
        return False
    return len(node.unit.split()) > MAX_WHOLE_WORDS


def _without_note(verdict: Verdict) -> Verdict:
    if "words" not in verdict.evidence:
        return verdict
    kept = {key: value for key, value in verdict.evidence.items() if key != "words"}
    return dataclasses.replace(verdict, evidence=kept)
