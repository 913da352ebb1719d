"""Does a verifier do what a reward must: pay for the solution, and for nothing else?

Run it on a verifier of your own before training on it: what it finds, a policy finds too.
"""

import json
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .exploits import EXPLOITS, Exploit
from .numerals import Unreadable, signed_numeral
from .protocol import Verifier, failure, verify
from .registry import make
from .task import Task
from .verdict import Verdict

LONG = 1 << 20
"""Characters of the longest garbage."""
LONG_TASKS = 3
"""Tasks on which the longest garbage is tried."""
SHOWN_FINDINGS = 40
"""Findings in the printed table."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a verifier.

    Example:
        `Finding("exploit", "sum-0", "'empty box' scores 1.0")`
    """

    check: str
    """Which check found it."""
    task: str
    """The task's id."""
    message: str
    """What was seen and what was expected."""


@dataclass(frozen=True)
class Report:
    """The outcome of `check_verifier`."""

    findings: tuple[Finding, ...]
    """What is wrong, in the order of the tasks."""
    tasks: int
    """Tasks that were tried."""
    calls: int
    """Calls of the verifier."""
    slowest: float
    """Seconds of the slowest call."""

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def __str__(self) -> str:
        """Return the findings as a table."""
        head = (
            f"{'ok' if self.ok else f'{len(self.findings)} findings'}: {self.tasks} tasks, "
            f"{self.calls} calls, slowest {self.slowest * 1e3:.1f} ms"
        )
        shown = self.findings[:SHOWN_FINDINGS]
        widths = [max((len(row) for row in column), default=0) for column in (
            [finding.check for finding in shown],
            [finding.task for finding in shown],
        )]  # fmt: skip
        lines = [f"  {f.check:{widths[0]}}  {f.task:{widths[1]}}  {f.message}" for f in shown]
        more = len(self.findings) - len(shown)
        return "\n".join([head, *lines, *([f"  … and {more} more"] if more else [])])


@dataclass
class _Run:
    """The state of one check: what to call, and what was seen."""

    verifier: Verifier
    budget: float
    bounds: tuple[float, float]
    findings: list[Finding] = field(default_factory=list)
    calls: int = 0
    slowest: float = 0.0

    def add(self, check: str, task: Task, message: str) -> None:
        """Note a finding."""
        self.findings.append(Finding(check, task.id, message))

    def judge(self, task: Task, completion: str, label: str, truth: Any = None) -> Verdict:
        """Call the verifier, and check what holds for every call."""
        start = time.perf_counter()
        given = task.truth if truth is None else truth
        verdict = verify(self.verifier, completion, given, task=task)
        seconds = time.perf_counter() - start
        self.calls += 1
        self.slowest = max(self.slowest, seconds)
        if seconds > self.budget:
            self.add("time", task, f"{label} took {seconds:.2f} s; the budget is {self.budget:g} s")
        if verdict.reward is None:
            reason = verdict.evidence.get("reason", "")
            self.add("unscored", task, f"{label} is {verdict.status}: {reason!s:.200}")
        elif not self.bounds[0] <= verdict.reward <= self.bounds[1]:
            self.add("range", task, f"{label} scores {verdict.reward:g}, outside {self.bounds}")
        self._round_trip(task, verdict, label)
        return verdict

    def _round_trip(self, task: Task, verdict: Verdict, label: str) -> None:
        try:
            again = Verdict.from_json(json.loads(json.dumps(verdict.to_json())))
        except (TypeError, ValueError, RecursionError) as error:
            self.add("json", task, f"the verdict on {label} is not JSON: {error}")
            return
        if again != verdict:
            self.add("json", task, f"the verdict on {label} changes on its way through JSON")

    def unpaid(self, check: str, task: Task, completion: str, label: str) -> Verdict:
        """Check that a completion earns nothing."""
        verdict = self.judge(task, completion, label)
        if verdict.reward is not None and verdict.reward > 0:
            self.add(check, task, f"{label} scores {verdict.reward:g}, expected 0")
        return verdict


def check_verifier(
    verifier: Verifier | str,
    tasks: Iterable[Task],
    *,
    exploits: Sequence[Exploit | str] = EXPLOITS,
    budget: float = 2.0,
    bounds: tuple[float, float] = (-1.0, 1.0),
    seed: int = 0,
) -> Report:
    """Try a verifier on tasks whose truth is known.

    For every task: the truth is accepted and survives JSON; the solution (`task.solution`, else
    the truth as text) scores 1; nothing, garbage, all truths at once and known exploits score at
    most 0; the same verdict comes out twice; every call is scored, in range, JSON, and in time.

    Args:
        verifier: A verifier, or the name of one.
        tasks: A sample of tasks; a few dozen are enough.
        exploits: Attacks; texts of your own, or added to `EXPLOITS`.
        budget: Seconds that a call may take.
        bounds: Least and greatest reward that are legal.
        seed: Of the garbage.

    Returns:
        The report; `report.ok` says whether nothing was found, `print(report)` shows all.

    Example:
        >>> report = check_verifier("exact", [Task(id="a", prompt="2+2", truth="4")])
        >>> report.ok
        True
    """
    sample = list(tasks)
    run = _Run(make(verifier), budget, bounds)
    attacks = [Exploit(f"{e:.40}", e) if isinstance(e, str) else e for e in exploits]
    truths = list(dict.fromkeys(_text(task.truth) for task in sample))
    for place, task in enumerate(sample):
        if not _check_truth(run, task):
            continue
        _check_solution(run, task)
        for label, text in _garbage(seed + place, long=place < LONG_TASKS):
            run.unpaid("garbage", task, text, label)
        if len(truths) > 1:
            for text in (" ".join(truths), "\n".join(truths), ", ".join(truths)):
                run.unpaid("dump", task, text, "all truths at once")
        for attack in attacks:
            if not _is_truth(attack.claims, task):
                run.unpaid("exploit", task, attack.text, f"'{attack.name}'")
    return Report(tuple(run.findings), len(sample), run.calls, run.slowest)


def _text(truth: Any) -> str:
    return json.dumps(truth, default=str) if isinstance(truth, dict | list) else str(truth)


def _check_truth(run: _Run, task: Task) -> bool:
    """Check that the truth is accepted; return whether going on makes sense."""
    check = getattr(run.verifier, "check_truth", None)
    try:
        if check is not None:
            check(task.truth)
    except BaseException as error:
        run.add("truth", task, f"refused: {failure(error).evidence['reason']!s:.200}")
        return False
    return True


def _check_solution(run: _Run, task: Task) -> None:
    """Check that the solution is paid, twice the same, and with the truth as JSON gives it back."""
    solution = task.solution if task.solution is not None else _text(task.truth)
    first = run.judge(task, solution, "the solution")
    if first.reward is not None and first.reward < 1:
        hint = "" if task.solution is not None else "; give the task a solution= if that is none"
        given = f"{solution!r:.60}"
        run.add(
            "solution", task, f"{given} scores {first.reward:g} ({first.status}), expected 1{hint}"
        )
    if run.judge(task, solution, "the solution") != first:
        run.add("deterministic", task, "the solution gets another verdict the second time")
    try:
        truth = json.loads(json.dumps(task.truth))
    except (TypeError, ValueError, RecursionError) as error:
        run.add("json", task, f"the truth is not JSON: {error}")
        return
    if truth is not None and run.judge(task, solution, "the solution", truth) != first:
        run.add("json", task, "the verdict changes when the truth has been through JSON")


def _garbage(seed: int, *, long: bool) -> list[tuple[str, str]]:
    """Return labelled texts that answer nothing."""
    generator = random.Random(f"rlvr-garbage-{seed}")
    points = [generator.randrange(0x110000) for _ in range(200)]
    rows = [
        ("an empty text", ""),
        ("white space", " \n\t "),
        ("random Unicode", "".join(map(chr, points))),
        ("lone surrogates", "\ud800 \udfff\ud800"),
        ("NUL characters", "\x00\x00"),
    ]
    if long:
        rows.append(("a megabyte of noise", "".join(map(chr, points)) * (LONG // 200)))
    return rows


def _is_truth(claims: str | None, task: Task) -> bool:
    """Return whether the answer that an exploit gives is this task's truth."""
    if claims is None:
        return False
    truth = _text(task.truth)
    try:
        return claims == truth or signed_numeral(claims) == signed_numeral(truth)
    except Unreadable:
        return False
