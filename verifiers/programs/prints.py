"""Programs that read standard input and print: a run for each test, all of the output compared."""

from dataclasses import dataclass, field, replace

from ..sandbox import Ended, Job, Outcome, Pool
from .asserts import MAX_LATE
from .judges import Judge
from .prelude import prelude
from .results import STOPPED, End, Results, TestResult
from .session import FAILURES, Bounds, Failed, Lost
from .texts import Output


@dataclass(frozen=True, kw_only=True)
class PrintTests:
    """Inputs and outputs.

    Example:
        `PrintTests(pairs=(("3\\n", "9\\n"),))`
    """

    pairs: tuple[tuple[str, str], ...]
    output: Output = field(default_factory=Output)
    judge: str = ""
    """Source of a special judge."""
    imports: bool = False
    """Whether programs may leave out the usual imports."""

    def __len__(self) -> int:
        """How many tests there are."""
        return len(self.pairs)


def run_prints(
    tests: PrintTests, source: str, pool: Pool, bounds: Bounds, *, every: bool
) -> Results:
    """Run a program once for each test.

    Args:
        tests: The tests.
        source: The program.
        pool: Where.
        bounds: What the program may use for one test.
        every: Go on after a test that failed.

    Raises:
        Lost: The sandbox failed.
    """
    results = Results(tier=pool.tier)
    imports = prelude(source) if tests.imports else ""
    if imports and "__future__" not in source:  # which must come first
        source = f"{imports}\n{source}"
    late = 0
    for place, (given, expected) in enumerate(tests.pairs):
        # room for all of the right output, and for a wrong one to be told from a flood
        room = replace(bounds, answer=max(bounds.answer, 2 * len(expected)))
        job = Job(
            program=source, stdin=given.encode("utf-8", "surrogatepass"), limits=room.limits()
        )
        outcome = pool.run_job(job)
        if outcome.ended is Ended.INFRA:
            raise Lost(outcome.reason)
        results.runs += 1
        results.cpu += outcome.cost.cpu
        results.memory = max(results.memory, outcome.cost.memory)
        result = _judged(tests, place, outcome, pool, bounds)
        results.tests.append(result)
        if result.end is End.SYNTAX:
            results.loaded = False
        late += result.end is End.TIMEOUT
        if not result.passed and (not every or not results.loaded or late >= MAX_LATE):
            break
    return results


def _judged(
    tests: PrintTests, place: int, outcome: Outcome, pool: Pool, bounds: Bounds
) -> TestResult:
    """Compare one output."""
    given, expected = tests.pairs[place]
    end, reason, got = _end(outcome)
    share = None
    if end is End.PASSED and tests.judge:
        try:
            with pool.slot() as slot:
                judge = Judge(tests.judge, slot, pool, bounds, 1)
                share, reason = judge(given, got, expected)
        except Failed as failure:
            end, reason = failure.end, f"the judge: {failure.reason}"
        else:
            end = End.PASSED if share >= 1 else End.WRONG
    elif end is End.PASSED and not tests.output(got, expected):
        end = End.WRONG
    # what a program had printed when it was stopped depends on the clock
    stopped = end in STOPPED or end is End.MEMORY
    return TestResult(
        end=end,
        test=place,
        reason=reason,
        input=given,
        expected=expected,
        got="" if stopped else got,
        stderr=outcome.errors,
        cpu=outcome.cost.cpu,
        memory=outcome.cost.memory,
        share=share,
        slept=end is End.TIMEOUT and outcome.cost.cpu < bounds.cpu,
    )


def _end(outcome: Outcome) -> tuple[End, str, str]:
    """Return how a run ended, why, and what it printed."""
    try:
        text = outcome.stdout.decode("utf-8")
    except UnicodeDecodeError:
        if outcome.ended is Ended.OK:
            return End.MALFORMED, "its output is not UTF-8", ascii(outcome.stdout[:200])
        text = outcome.text
    if outcome.ended is Ended.OK:
        return End.PASSED, "", text
    if outcome.ended is Ended.ERROR:
        last = outcome.errors.strip().rpartition("\n")[2]
        is_syntax = last.startswith(("SyntaxError", "IndentationError", "TabError"))
        return End.SYNTAX if is_syntax else End.EXCEPTION, f"{outcome.reason}; {last}"[:300], text
    return FAILURES.get(outcome.ended, End.INCOMPLETE), outcome.reason, text
