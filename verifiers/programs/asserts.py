"""Tests that are code: run in a sandbox of their own, with the program behind a wall.

We stand between the two and pass lines on: questions of the tests to the program, its answers back,
each read strictly first. What comes of a test is heard from the tests' sandbox alone, in which
nothing of the program ever runs. A program that ends, hangs or talks nonsense in the middle of a
test fails it without the tests hearing of it: no `except` of theirs can take that for an answer.

Where all tests compare a call with a literal, we compare (`plain_asserts`); the tests' sandbox is
started only for an answer that is no plain data.
"""

import ast
import builtins
import functools
import hashlib
import sys
from dataclasses import dataclass
from typing import Any

from ..errors import TaskError
from ..sandbox import Pool, Slot
from .candidate import Answer, Asked, Candidate, ended
from .comparison import show
from .encoding import read
from .guest.codec import encode
from .guests import program
from .plain_asserts import PlainAssert, equal, plain_asserts
from .results import End, Results, TestResult
from .session import Bounds, Failed, Partner

MAX_REMOTE_CALLS = 100_000
"""Questions that the tests of one program may ask."""
MAX_ANSWERS = 64 << 20
"""Bytes of all answers to them: each costs us more to read than the program to write."""


@dataclass(frozen=True, kw_only=True)
class AssertTests:
    """Pieces of code, each of which must run without an exception.

    Example:
        `AssertTests(tests=("assert double(2) == 4",), names=("double",))`
    """

    tests: tuple[str, ...]
    names: tuple[str, ...]
    """What the tests call of the program."""
    setup: str = ""
    """Runs first, in the tests' sandbox."""
    aliases: tuple[tuple[str, str], ...] = ()
    """Further names for those, such as `candidate`."""
    classes: tuple[str, ...] = ()
    """Names that are classes: their instances' attributes and methods may be used by the tests."""
    mutation: bool = False
    """Whether changes that the program makes to its arguments are seen by the tests."""

    def __len__(self) -> int:
        """How many tests there are."""
        return len(self.tests)

    @functools.cached_property
    def plain(self) -> tuple[PlainAssert, ...]:
        """The tests as comparisons of calls with literals, where all are nothing else."""
        if self.setup.strip() or self.aliases or self.mutation:
            return ()
        return plain_asserts(self.tests, [n for n in self.names if n not in self.classes])


def free_names(sources: list[str], setup: str) -> tuple[tuple[str, ...], str]:
    """Find what tests use without defining it.

    Args:
        sources: The tests.
        setup: What runs before them.

    Returns:
        The names that the program must define, and imports for the modules of the standard
        library that the tests use without importing them.

    Raises:
        TaskError: A test is no Python.

    Example:
        >>> free_names(["assert math.isclose(area(1), 3.14)"], "")
        (('area',), 'import math\\n')
    """
    used: dict[str, None] = {}
    defined, modules = set(vars(builtins)), []
    for text in [setup, *sources]:
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise TaskError(f"a test is no Python: {error}: {text!r:.100}") from error
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                if isinstance(node.ctx, ast.Load):
                    used[node.id] = None
                else:
                    defined.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                modules.append(node.value.id)
            else:
                defined |= _bound(node)
    free = [name for name in used if name not in defined]
    if not free:
        # the program is to define a name that Python has already, such as `sum`
        free = _called_first(sources)
    known = {name for name in modules if name in sys.stdlib_module_names}
    wanted = "".join(f"import {name}\n" for name in free if name in known)
    return tuple(name for name in free if name not in known), wanted


def _called_first(sources: list[str]) -> list[str]:
    """Return the name that the first call of the tests calls."""
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                return [node.func.id]
    return []


def _bound(node: ast.AST) -> set[str]:
    """Return the names that a node defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.arg):
        return {node.arg}
    if isinstance(node, ast.alias):
        return {node.asname or node.name.partition(".")[0]}
    if isinstance(node, ast.ExceptHandler):
        return {node.name or ""}
    return set()


def run_asserts(
    tests: AssertTests, source: str, pool: Pool, bounds: Bounds, *, every: bool
) -> Results:
    """Run all tests on a program.

    Args:
        tests: The tests.
        source: The program.
        pool: Where.
        bounds: What the program may use for one test.
        every: Run the tests after one that failed too.

    Raises:
        TaskError: What the tests need before the first of them does not run.
        Lost: The sandbox failed.
    """
    results = Results(tier=pool.tier)
    todo = list(enumerate(tests.tests))
    late = 0
    with pool.slot() as slot:
        while todo:
            done = _Round(tests, source, pool, bounds, slot, results).run(todo, every)
            todo = todo[done:]
            last = results.tests[-1]
            late += last.end is End.TIMEOUT
            if not last.passed and (not every or not results.loaded or late >= MAX_LATE):
                break
    return results


MAX_LATE = 2
"""Tests over the time limit after which the others are not run."""


class _Round:
    """One pair of sandboxes, from the start until a test breaks one of them."""

    def __init__(
        self, tests: AssertTests, source: str, pool: Pool, bounds: Bounds, slot: Slot,
        results: Results,
    ) -> None:  # fmt: skip
        self.tests, self.source, self.pool = tests, source, pool
        self.bounds, self.slot, self.results = bounds, slot, results
        self.candidate: Candidate | None = None
        self.partner: Partner | None = None
        self.known: Answer | None = None
        """An answer that the next question of the tests gets."""
        self.last = ""
        self.got = ""
        self.asked = 0
        self.taken = 0

    def run(self, todo: list[tuple[int, str]], every: bool) -> int:
        """Run tests until one breaks something; returns how many are done."""
        try:
            self.candidate = Candidate(self.slot, self.pool, self.source, self.bounds, len(todo))
        except Failed as failure:
            self.results.loaded = bool(self.results.tests)
            self._add(todo[0][0], failure)
            return 1
        finally:
            self.results.runs += 1
        done = 0
        try:
            for at, (place, test) in enumerate(todo):
                done += 1
                self.last = self.got = ""
                passed = self._decided(place, test)
                if passed is None:
                    passed = self._test(place, test, todo[at:])
                if not passed and not every:
                    break
        except Failed as failure:
            self._add(todo[done - 1][0], failure)
        finally:
            self._account()
        return done

    def _account(self) -> None:
        for party in (self.candidate, self.partner):
            outcome = party.close() if party is not None else None
            if outcome is not None:
                self.results.cpu += outcome.cost.cpu
                self.results.memory = max(self.results.memory, outcome.cost.memory)
                if party is self.candidate:
                    self.results.attach(outcome.errors)

    def _decided(self, place: int, test: str) -> bool | None:
        """Compare a call with a literal; `None` if that is not all, or decides nothing."""
        if not self.tests.plain or self.partner is not None:
            return None
        plain = self.tests.plain[place]
        self.last = plain.shown
        self.asked += 1
        answer = self._answered(f"[{self.asked},{plain.question}]", Asked(self.asked))
        match answer.what:
            case "value":
                passed, message = equal(answer.given[0], plain.expected), ""
            case "raised":
                passed, message = False, answer.given[1]
            case _:
                passed, message = None, ""
        if passed is None:
            self.known = answer
            return None
        self._note(answer)
        failure = [self.raised or "AssertionError", message, "", False]
        self._result(place, test.strip(), [] if passed else failure)
        return passed

    def _answered(self, line: str | bytes, asked: Asked) -> Answer:
        """Ask the program."""
        if self.asked > MAX_REMOTE_CALLS:
            raise Failed(End.TIMEOUT, f"more than {MAX_REMOTE_CALLS} calls")
        assert self.candidate is not None
        answer = self.candidate.ask(line, asked)
        self.taken += len(answer.line)
        if self.taken > MAX_ANSWERS:
            raise Failed(End.OUTPUT, f"answers of more than {MAX_ANSWERS} bytes")
        return answer

    def _start(self, todo: list[tuple[int, str]]) -> str:
        seed = hashlib.sha256(
            "\0".join([self.source, *self.tests.tests]).encode("utf-8", "replace")
        )
        return encode(
            {
                "setup": self.tests.setup,
                "names": list(self.tests.names),
                "aliases": dict(self.tests.aliases),
                "classes": list(self.tests.classes),
                "after": self.tests.mutation,
                "tests": [list(test) for test in todo],
                "seed": int.from_bytes(seed.digest()[:4]),
            },
            str,
        )

    def _test(self, place: int, test: str, todo: list[tuple[int, str]]) -> bool:
        """Pass lines on until the test has ended."""
        line: str | bytes = b""
        if self.partner is None:
            text = program("trusted", self.pool.python, self.tests.setup)
            self.partner = Partner(self.slot, text, self.bounds, len(todo))
            self.results.runs += 1
            line = self._start(todo)
        said = self._tests_say(line)
        pending: list[Asked] = []
        while said[0] != "result":
            self.asked += 1
            if said[1] not in ("answer", "refused"):
                after = said[1] == "call" and said[-1] is True
                pending.append(Asked(said[0], 1 + after, said[1] == "next"))
                self.last = self._shown(said)
            answer, self.known = self.known or self._answered(self.heard, pending[-1]), None
            if answer.what != "callback":
                pending.pop()
                self._note(answer)
            said = self._tests_say(answer.line)
        failure = said[2]
        if failure and failure[3] and not self.asked:
            raise TaskError(f"what comes before the tests fails: {failure[0]}: {failure[1]}")
        self._result(place, test, failure)
        return not failure

    def _tests_say(self, line: str | bytes) -> list[Any]:
        """Hear the next line of the tests; they are ours, what breaks them is the program's."""
        assert self.partner is not None
        self.heard = self.partner.ask(line) if line else self.partner.hear()
        return read(self.heard)

    def _shown(self, said: list[Any]) -> str:
        if said[1] != "call":
            return ""
        target = said[2] if type(said[2]) is str else show(said[2])
        return f"{target}({show(said[3], 280)[1:-1]})"

    def _note(self, answer: Answer) -> None:
        if answer.what == "raised":
            self.got = f"{answer.given[0]}: {answer.given[1]}"
            self.raised = answer.given[0]
        elif answer.what == "value":
            self.got, self.raised = show(answer.given[0], 300), ""

    raised = ""

    def _result(self, place: int, test: str, failure: list[Any]) -> None:
        """Note how a test ended by itself."""
        if not failure:
            self.results.tests.append(TestResult(end=End.PASSED, test=place))
            return
        kind, message, where, _ = failure
        own = self.raised and kind in (self.raised, "CandidateError")
        end = ended(self.raised) if own else End.WRONG
        reason = f"{kind}: {message}".rstrip(": ")
        self.results.tests.append(
            TestResult(
                end=end,
                test=place,
                reason=reason,
                input=self.last,
                expected=where or test,
                got=self.got,
            )
        )

    def _add(self, place: int, failure: Failed) -> None:
        """Note that a test was broken off."""
        outcome = failure.outcome
        self.results.tests.append(
            TestResult(
                end=failure.end,
                test=place,
                reason=failure.reason,
                input=self.last,
                expected=self.tests.tests[place] if self.last else "",
                stderr=outcome.errors if outcome is not None else "",
                slept=failure.slept,
            )
        )
