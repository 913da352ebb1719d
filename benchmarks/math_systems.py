"""Math graders behind one door, each in a process of its own on one pinned core.

Run as a script with a system's name it reads pairs as JSON lines from its input and writes one line
a pair: verdict, CPU seconds of this process, seconds on the clock. The last line holds the CPU time
of everything, workers included, and the peak of memory. Standard library only: the peers'
environments need hold nothing of ours.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Grader = Callable[[str, str], "float | None"]
"""(truth, completion) → 1, 0, or `None` where the system gave no verdict."""

WARM_UP = (
    ("2", r"\boxed{3}"),
    (r"\sqrt{2}", r"\boxed{2^{1/2}}"),
    ("x+1", r"\boxed{1+x}"),
    (r"\sin^2 x", r"\boxed{1-\cos^2 x}"),
    (r"\arctan x", r"\boxed{\arcsin\frac{x}{\sqrt{1+x^2}}}"),
    (r"\frac{\pi}{4}", r"\boxed{\int_0^1 \frac{1}{1+x^2}\,dx}"),
    (r"x\ln x-x", r"\boxed{\int \ln x\,dx}"),
)
"""The last two are meant to start our worker: what is started once is not what is measured."""


def boxed(text: str) -> str:
    """Put a bare truth or answer into a box, without the dollar signs around it."""
    inside = text.strip()
    if "\\boxed" in inside:
        return text
    if inside.count("$") == 2 and inside[0] == inside[-1] == "$":
        inside = inside[1:-1]
    return f"\\boxed{{{inside}}}"


def load_rlvr() -> Grader:
    """Ours with its defaults; it gets the truth bare."""
    from rlvr.verifiers import make

    judge: Any = make("math")
    return lambda truth, completion: judge(completion, truth).reward


def load_math_verify() -> Grader:
    """math-verify with its defaults, its own timeouts included; it gets the truth in a box."""
    from math_verify import parse, verify  # pyright: ignore[reportMissingImports]

    def grade(truth: str, completion: str) -> float | None:
        gold = parse(boxed(truth))
        return float(verify(gold, parse(completion))) if gold else None

    return grade


LOADERS: dict[str, Callable[[], Grader]] = {"rlvr": load_rlvr, "math-verify": load_math_verify}
MODULES = {"rlvr": "rlvr.verifiers", "math-verify": "math_verify"}


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a system made of a workload."""

    verdicts: Sequence[float | None]
    cpu: Sequence[float]
    """CPU seconds of each check, workers left out."""
    wall: Sequence[float]
    """Seconds of each check on the clock."""
    cpu_total: float
    """CPU seconds of all checks, workers included."""
    cpu_again: float
    """The same when they are made a second time: every truth has been seen then."""
    peak_mb: float


def run(system: str, python: str, pairs: Sequence[tuple[str, str]], core: int) -> Answers:
    """Run a workload of (truth, completion) in a fresh process."""
    lines = "".join(json.dumps(pair) + "\n" for pair in pairs)
    command = [python, str(Path(__file__).resolve()), system, str(core)]
    done = subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, check=True)
    *rows, last = map(json.loads, done.stdout.splitlines())
    return Answers(
        verdicts=[row[0] for row in rows],
        cpu=[row[1] for row in rows],
        wall=[row[2] for row in rows],
        cpu_total=last["cpu_total"],
        cpu_again=last["cpu_again"],
        peak_mb=last["peak_mb"],
    )


def import_seconds(system: str, python: str, times: int = 5) -> float:
    """Return the median CPU time of importing a system in a fresh process."""
    code = f"import time; t = time.process_time(); import {MODULES[system]}; "
    code += "print(time.process_time() - t)"
    took = sorted(
        float(subprocess.run([python, "-c", code], stdout=subprocess.PIPE, check=True).stdout)
        for _ in range(times)
    )
    return took[times // 2]


def _descendants_cpu() -> float:
    """Return the CPU seconds of all descendants, dead ones included (Linux)."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1])
        ticks[int(folder.name)] = sum(map(int, fields[11:15]))
    found, frontier = 0, {os.getpid()}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier}
        found += sum(ticks[pid] for pid in frontier)
    dead = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found / os.sysconf("SC_CLK_TCK") + dead.ru_utime + dead.ru_stime


def _serve(system: str, core: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    out, sys.stdout = sys.stdout, sys.stderr  # a grader that prints must not garble the report
    grade = LOADERS[system]()
    for truth, completion in WARM_UP:
        grade(truth, completion)
    pairs = [json.loads(line) for line in sys.stdin]
    rows, total = _judged(grade, pairs)
    _, again = _judged(grade, pairs)
    for row in rows:
        print(json.dumps(row), file=out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu_total": total, "cpu_again": again, "peak_mb": peak}), file=out)


def _judged(grade: Grader, pairs: Sequence[Any]) -> tuple[list[list[Any]], float]:
    """Make every check; return verdicts with their times, and the CPU seconds of all."""
    rows: list[list[Any]] = []
    before = time.process_time() + _descendants_cpu()
    for truth, completion in pairs:
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            verdict = grade(truth, completion)
        except Exception:  # a crash is no verdict; it is counted
            verdict = None
        rows.append([verdict, time.process_time() - cpu, time.perf_counter() - wall])
    return rows, time.process_time() + _descendants_cpu() - before


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
