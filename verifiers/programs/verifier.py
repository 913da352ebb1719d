"""The verifier of programs: from a completion and a truth to a verdict."""

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from ..errors import TaskError, UsageError, unknown
from ..sandbox import Pool, shared
from ..verdict import Status, Verdict
from .asserts import AssertTests, run_asserts
from .calls import CallTests, run_calls
from .extraction import MAX_SOURCE, completed, find_program
from .forms import Comparing
from .prints import run_prints
from .results import End, Results, TestResult
from .session import MIB, Bounds, Lost
from .truths import Tests, read_tests

Reward = Literal["all", "fraction", "gates"]
ATTEMPTS = 3
"""Times that a program is run before a failure of the sandbox stands."""
RAN = frozenset([End.PASSED, End.WRONG])
"""A test that ended so did run."""


class ProgramTests:
    """Judge a program by tests that it cannot see.

    The program is the completion's last fenced block of Python, or all of it where there is none.
    It runs in a sandbox and gets inputs; what it prints or returns is compared outside, so that
    nothing it does to its own process decides anything. Forms of the truth: `truths`.

    Reward: `all` gives 1 if every test passes; `fraction` the share that does; `gates` adds up the
    weights of what is reached in turn: it is Python and its top level runs, every test ends without
    an exception or a limit, every test passes.

    Programs run under the interpreter of this process (or `python`) with its standard library and
    the distributions named in `packages`; `environment` says so in words for a prompt.

    Example:
        >>> judge = ProgramTests()
        >>> truth = {"function": "square", "tests": [{"args": [3], "output": 9}]}
        >>> judge("def square(x): return x * x", truth).reward
        1.0
        >>> judge("def square(x): return 6", truth).evidence["failed"]["got"]
        '6'
    """

    def __init__(
        self,
        *,
        reward: Reward = "all",
        weights: tuple[float, float, float] = (0.1, 0.2, 0.7),
        timeout: float = 5.0,
        scale: float = 10.0,
        max_timeout: float = 60.0,
        memory: int = 1024 * MIB,
        tolerance: float = 0.0,
        whitespace: str = "lines",
        unordered: bool = False,
        types: str = "exact",
        whole: bool = True,
        python: str | None = None,
        packages: tuple[str, ...] = (),
        require: Literal["ns", "flat"] | None = None,
        tier: Literal["ns", "flat"] | None = None,
    ) -> None:
        """Check the options; no sandbox is started yet.

        Args:
            reward: What is paid for.
            weights: Of the three gates; each at least 0, their sum above 0.
            timeout: Seconds of CPU per test; sleeping may take twice as long and two seconds more.
            scale: Where the truth has a solution, a test may take this many times its CPU time, if
                that is more.
            max_timeout: Seconds of CPU per test that `scale` may lead to.
            memory: Bytes of address space.
            tolerance: Floats may differ by this much, absolutely or relatively.
            whitespace: What white space counts in printed output: `lines`, `tokens`, `exact`.
            unordered: Whether lines, or the items of a returned list, may come in any order.
            types: `exact`, or `json` for what JSON can tell apart.
            whole: Whether a completion without a fence is taken as the program.
            python: Interpreter that programs run under.
            packages: Distributions that programs may import.
            require: Refuse a sandbox weaker than this.
            tier: The sandbox to take; the strongest that works here if not given.

        Raises:
            UsageError: An option is out of range.
        """
        if reward not in ("all", "fraction", "gates"):
            raise unknown("reward", str(reward), ["all", "fraction", "gates"])
        if len(weights) != 3 or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
            raise UsageError(f"weights={weights!r}; expected three numbers from 0 up, not all 0")
        for name, seconds in (("timeout", timeout), ("max_timeout", max_timeout)):
            if not 0.05 <= seconds <= 3600:
                raise UsageError(f"{name}={seconds!r}; expected seconds from 0.05 to 3600")
        if not 0 <= scale < float("inf"):
            raise UsageError(f"scale={scale!r}; expected a number from 0 up")
        if not isinstance(memory, int) or memory < 64 * MIB:
            raise UsageError(f"memory={memory!r}; expected bytes, at least {64 * MIB}")
        self.reward: Reward = reward
        self.weights = tuple(map(float, weights))
        for name, walls in (("require", require), ("tier", tier)):
            if walls not in (None, "ns", "flat"):
                raise UsageError(f"{name}={walls!r:.50}; expected ns, flat or None")
        self.timeout, self.scale, self.max_timeout = timeout, scale, max_timeout
        self.memory = memory
        self.comparing = Comparing(
            tolerance=tolerance, whitespace=whitespace, unordered=unordered, types=types
        )
        self.whole = whole
        self.place = (python, tuple(packages), require, tier)

    name = "program"

    def __call__(self, completion: str, truth: Any, **context: Any) -> Verdict:
        """Judge one completion."""
        tests = self._tests(truth)
        source = find_program(completion, self.whole)
        if source is None:
            return Verdict.unparsed("no program was found")
        if len(source) > MAX_SOURCE:
            return Verdict.limit(f"a program of more than {MAX_SOURCE} characters")
        if "\0" in source or _has_halves(source):
            return Verdict.unparsed("the program has characters that Python does not read")
        bounds = self._bounds(truth)
        try:
            solution = truth.get("solution")
            if isinstance(solution, str):
                bounds = self._stretched(truth, tests, solution, bounds)
            source = _in_place(truth, source)
            results = self._run(tests, source, bounds, every=self.reward != "all")
        except Lost as error:
            return Verdict.error(f"the sandbox failed: {error}")
        return self._verdict(tests, results)

    def check_truth(self, truth: Any) -> None:
        """Refuse a truth that cannot be read.

        Raises:
            TaskError: It cannot.
        """
        self._tests(truth)
        self._bounds(truth)

    def environment(self) -> str:
        """Say what programs run under, in a sentence for a prompt."""
        version, packages = _version(self.place[0]), self.place[1]
        more = f" and {', '.join(packages)}" if packages else ""
        return f"Python {version} with its standard library{more}"

    def __repr__(self) -> str:
        """Show what is paid for."""
        return f"ProgramTests(reward={self.reward!r}, timeout={self.timeout:g})"

    def _tests(self, truth: Any) -> Tests:
        return _cached_tests(truth, self.comparing)

    def _bounds(self, truth: Mapping[str, Any]) -> Bounds:
        """Return the limits, the truth's own where it has some."""
        cpu, memory = truth.get("timeout", self.timeout), truth.get("memory", self.memory)
        if isinstance(cpu, bool) or not isinstance(cpu, int | float) or not 0.05 <= cpu <= 3600:
            raise TaskError(f"'timeout' is seconds from 0.05 to 3600, got {cpu!r:.50}")
        if isinstance(memory, bool) or not isinstance(memory, int) or memory < 64 * MIB:
            raise TaskError(f"'memory' is bytes, at least {64 * MIB}, got {memory!r:.50}")
        return Bounds(cpu=float(cpu), memory=memory)

    def _stretched(
        self, truth: Mapping[str, Any], tests: Tests, solution: str, bounds: Bounds
    ) -> Bounds:
        """Return limits that the truth's own solution keeps easily.

        Raises:
            TaskError: The solution does not pass.
        """
        key = (_digest(truth), self.comparing, self.place, bounds.cpu, bounds.memory)
        seconds = _solved.get(key)
        if seconds is None:
            generous = Bounds(cpu=max(bounds.cpu, self.max_timeout), memory=bounds.memory)
            results = self._run(tests, _in_place(truth, solution), generous, every=False)
            failed = [result for result in results.tests if not result.passed]
            if failed:
                raise TaskError(f"the truth's own solution fails: {failed[0].evidence()}")
            worst = max((test.cpu for test in results.tests), default=0.0)
            # calls are not measured one by one: the whole run is taken for the longest
            seconds = worst or results.cpu
            if len(_solved) >= MAX_KEPT:
                _solved.clear()
            _solved[key] = seconds
        cpu = min(max(bounds.cpu, self.scale * seconds), max(bounds.cpu, self.max_timeout))
        return Bounds(cpu=cpu, memory=bounds.memory)

    def _run(self, tests: Tests, source: str, bounds: Bounds, *, every: bool) -> Results:
        """Run the tests; what is the sandbox's fault is tried again.

        So is, once, what ran out of time without using it: a machine under load may have held it
        up where the kernel does not say so, and then it is in time at the second attempt.
        """
        pool = pool_for(*self.place)
        lost, slept = Lost(""), False
        for _ in range(ATTEMPTS):
            try:
                results = _once(tests, source, pool, bounds, every=every)
            except Lost as error:
                lost = error
                continue
            if slept or not results.slept:
                return results
            slept = True
        raise lost

    def _verdict(self, tests: Tests, results: Results) -> Verdict:
        """Make the verdict of what came of the tests."""
        count, passed = len(tests), results.passed
        failed = next((result for result in results.tests if not result.passed), None)
        evidence: dict[str, Any] = {"tests": count, "passed": passed, "tier": results.tier}
        if failed is not None:
            evidence["failed"] = shown = failed.evidence()
            evidence["reason"] = ": ".join(filter(None, [failed.end, shown.get("reason")]))
        cost = {"cpu": results.cpu, "memory": float(results.memory), "runs": float(results.runs)}
        reward = self._reward(count, results)
        return Verdict(
            reward=reward,
            status=_status(reward, failed),
            parts=self._parts(count, results),
            evidence=evidence,
            cost=cost,
        )

    def _parts(self, count: int, results: Results) -> dict[str, float]:
        if self.reward != "gates":
            return {"passed": results.passed / count} if self.reward == "fraction" else {}
        parses, runs, passes = _gates(count, results)
        return {"parses": float(parses), "runs": float(runs), "passes": float(passes)}

    def _reward(self, count: int, results: Results) -> float:
        if self.reward == "all":
            return float(results.passed == count)
        if self.reward == "fraction":
            shares = [1.0 if t.passed else (t.share or 0.0) for t in results.tests]
            return sum(shares) / count
        reached = _gates(count, results)
        total = sum(self.weights)
        if all(reached):
            return 1.0
        return sum(w for w, gate in zip(self.weights, reached, strict=True) if gate) / total


def _once(tests: Tests, source: str, pool: Pool, bounds: Bounds, *, every: bool) -> Results:
    if isinstance(tests, CallTests):
        return run_calls(tests, source, pool, bounds, every=every)
    if isinstance(tests, AssertTests):
        return run_asserts(tests, source, pool, bounds, every=every)
    return run_prints(tests, source, pool, bounds, every=every)


def _gates(count: int, results: Results) -> tuple[bool, bool, bool]:
    """Return whether it parses, runs, passes; each only after the one before."""
    parses = results.loaded
    ran = all(result.end in RAN for result in results.tests)
    return parses, parses and ran, parses and ran and results.passed == count


def _status(reward: float, failed: TestResult | None) -> Status:
    if failed is None:
        return Status.CORRECT
    if reward > 0:
        return Status.PARTIAL
    return Status.TIMEOUT if failed.end is End.TIMEOUT else Status.WRONG


def _in_place(truth: Mapping[str, Any], source: str) -> str:
    """Join a program with the prompt that it continues, in HumanEval's form."""
    if truth.get("entry_point") and "tests" not in truth:
        return completed(truth["prompt"], source, truth["entry_point"])
    return source


def _has_halves(source: str) -> bool:
    """Return whether a text holds half characters, which no file can."""
    return not source.isascii() and any("\ud800" <= mark <= "\udfff" for mark in source)


MAX_KEPT = 4096
"""Truths whose reading, or whose solution's time, is remembered."""
_solved: dict[tuple[Any, ...], float] = {}
_read: dict[tuple[str, Comparing], Tests] = {}


def _digest(truth: Any) -> str:
    """Return a name for a truth."""
    try:
        text = json.dumps(truth, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        text = repr(truth)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _cached_tests(truth: Any, comparing: Comparing) -> Tests:
    """Read a truth, or remember what it said: a group asks about the same one many times."""
    key = (_digest(truth), comparing)
    tests = _read.get(key)
    if tests is None:
        tests = read_tests(truth, comparing)
        if len(_read) >= MAX_KEPT:
            _read.clear()
        _read[key] = tests
    return tests


@functools.lru_cache(maxsize=8)
def _own_pool(python: str | None, packages: tuple[str, ...], require: Any, tier: Any) -> Pool:
    return Pool(python=python, packages=packages, require=require, tier=tier)


def pool_for(
    python: str | None,
    packages: tuple[str, ...] = (),
    require: Literal["ns", "flat"] | None = None,
    tier: Literal["ns", "flat"] | None = None,
) -> Pool:
    """Return the pool of this process for programs of one kind."""
    if python is None and not packages and require is None and tier is None:
        return shared()
    return _own_pool(python, packages, require, tier)


def _version(python: str | None) -> str:
    from ..sandbox.places import default_python, interpreter

    return interpreter(python or default_python()).version
