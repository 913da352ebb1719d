"""Function calls: inputs go in, results come out, and we compare.

The program answers one call at a time in a process of its own. What is expected never goes there.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from ..sandbox import Pool, Slot
from .asserts import MAX_LATE
from .candidate import Answer, Asked, Candidate, ended
from .comparison import Same, show
from .guest.codec import quoted
from .judges import Judge
from .prelude import prelude
from .results import End, Results, TestResult
from .session import Bounds, Failed


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call and what it must return; `args` and `named` as lines, the others as trees."""

    args: str
    named: str
    given: Any
    """The arguments as a tree."""
    expected: Any
    after: Any = None
    """What the arguments must be afterwards, a list of trees, where that is tested."""
    shown: str = ""
    """The arguments as evidence shows them."""
    size: int = 0
    """Characters of what comes back when it is right."""


ROOM = 1 << 18
"""Bytes of an answer that are read in any case: a wrong one may be longer than the right one, but
reading megabytes call after call would cost us more than it costs the program."""


@dataclass(frozen=True, kw_only=True)
class CallTests:
    """Calls of one function.

    Example:
        `CallTests(function="Solution.twoSum", calls=(Call(args="[[1,2],3]", …),))`
    """

    function: str
    calls: tuple[Call, ...]
    same: Same = field(default_factory=Same)
    judge: str = ""
    """Source of a special judge."""
    imports: bool = False
    """Whether programs may leave out the usual imports."""

    def __len__(self) -> int:
        """How many tests there are."""
        return len(self.calls)


def run_calls(tests: CallTests, source: str, pool: Pool, bounds: Bounds, *, every: bool) -> Results:
    """Make all calls of a program; one that ends in the middle is started anew for the next call.

    Args:
        tests: The calls.
        source: The program.
        pool: Where.
        bounds: What the program may use for one call.
        every: Go on after a call that failed.

    Raises:
        Lost: The sandbox failed.
    """
    results = Results(tier=pool.tier)
    late = 0
    with pool.slot() as slot:
        running = _Running(tests, source, pool, bounds, slot, results)
        for place, call in enumerate(tests.calls):
            result = running.test(place, call)
            results.tests.append(result)
            late += result.end is End.TIMEOUT
            if not result.passed and (not every or not results.loaded or late >= MAX_LATE):
                break
        running.close()
    return results


class _Running:
    """The program, started when it is needed."""

    def __init__(
        self, tests: CallTests, source: str, pool: Pool, bounds: Bounds, slot: Slot,
        results: Results,
    ) -> None:  # fmt: skip
        self.tests, self.source, self.pool = tests, source, pool
        self.slot, self.results = slot, results
        if not tests.judge:
            bounds = replace(bounds, answer=ROOM + 4 * max(call.size for call in tests.calls))
        self.bounds = bounds
        self.candidate: Candidate | None = None
        self.judge = Judge(tests.judge, slot, pool, bounds, len(tests))

    def test(self, place: int, call: Call) -> TestResult:
        """Make one call."""
        try:
            if self.candidate is None:
                self._start(place)
            assert self.candidate is not None
            asked = Asked(place, 1 + (call.after is not None))
            answer = self.candidate.ask(self._line(place, call), asked)
            return self._judged(place, call, answer)
        except Failed as failure:
            self.candidate = None
            outcome = failure.outcome
            if outcome is not None:
                self._account(outcome.cost.cpu, outcome.cost.memory)
            return TestResult(
                end=failure.end,
                test=place,
                reason=failure.reason,
                input=call.shown,
                expected=show(call.expected),
                stderr=outcome.errors if outcome is not None else "",
                slept=failure.slept,
            )

    def _start(self, place: int) -> None:
        self.results.runs += 1
        left = len(self.tests) - place
        try:
            imports = prelude(self.source) if self.tests.imports else ""
            self.candidate = Candidate(
                self.slot, self.pool, self.source, self.bounds, left, imports
            )
        except Failed:
            self.results.loaded = place > 0
            raise

    def _line(self, place: int, call: Call) -> str:
        after = "true" if call.after is not None else "false"
        name = quoted(self.tests.function)
        return f'[{place},"call",{name},{call.args},{call.named},{after}]'

    def _judged(self, place: int, call: Call, answer: Answer) -> TestResult:
        """Compare what came back with what is expected."""
        shown: dict[str, Any] = {"input": call.shown, "expected": show(call.expected)}
        if answer.what == "raised":
            name, message, _ = answer.given
            return TestResult(
                end=ended(name), test=place, reason=f"{name}: {message}".rstrip(": "), **shown
            )
        if answer.what != "value":
            assert self.candidate is not None
            raise self.candidate.failed(End.MALFORMED, f"it answered a call with '{answer.what}'")
        shown["got"] = show(answer.given[0])
        if self.tests.judge:
            share, reason = self.judge(call.given, answer.given[0], call.expected)
            end = End.PASSED if share >= 1 else End.WRONG
            return TestResult(end=end, test=place, reason=reason, share=share, **shown)
        if not self.tests.same(answer.given[0], call.expected):
            return TestResult(end=End.WRONG, test=place, **shown)
        if call.after is not None and not self.tests.same.match(answer.given[1], call.after):
            reason = f"the arguments afterwards are {show(answer.given[1])}"
            return TestResult(end=End.WRONG, test=place, reason=reason, **shown)
        return TestResult(end=End.PASSED, test=place, **shown)

    def _account(self, cpu: float, memory: int) -> None:
        self.results.cpu += cpu
        self.results.memory = max(self.results.memory, memory)

    def close(self) -> None:
        """End the program; the last test that failed gets what it printed to standard error."""
        if self.candidate is None:
            return
        outcome = self.candidate.close()
        self._account(outcome.cost.cpu, outcome.cost.memory)
        self.results.attach(outcome.errors)
