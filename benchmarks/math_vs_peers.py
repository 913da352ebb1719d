r"""The math verifier side by side with math-verify: who is right how often, and how fast.

Both get the same pairs in one run, each in a process of its own on the same pinned core, with their
own timeouts. math-verify is used the friendliest way: truths and bare answers stand in `\boxed{}`.

    python benchmarks/math_vs_peers.py --exam CASES.jsonl --gsm8k gsm8k_test.jsonl \
        --data FOLDER --peer-python .venv-mv/bin/python --out peers.json
"""

import argparse
import json
import os
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from math_golds import load
from math_rewrites import pairs
from math_systems import Answers, import_seconds, run


@dataclass(frozen=True)
class Case:
    """One check and what it should say."""

    truth: str
    completion: str
    equal: bool


@dataclass(frozen=True, kw_only=True)
class Score:
    """How a system did on a workload."""

    checks: int
    accuracy: float
    false_positives: int
    false_negatives: int
    no_verdict: int
    per_second: float
    """Checks a second of CPU time, workers included."""
    again_per_second: float
    """The same where every truth has been seen, as in training with groups and epochs."""
    p50_ms: float
    """CPU milliseconds of the calling process, as the next two."""
    p99_ms: float
    max_ms: float
    slowest_ms: float
    """On the clock: with the wait for a worker."""
    peak_mb: float


def score(cases: Sequence[Case], answers: Answers) -> Score:
    """Count and time."""
    paid = [verdict == 1 for verdict in answers.verdicts]
    wrong = [(case, got) for case, got in zip(cases, paid, strict=True) if case.equal != got]
    cpu = sorted(seconds * 1000 for seconds in answers.cpu)
    return Score(
        checks=len(cases),
        accuracy=1 - len(wrong) / len(cases),
        false_positives=sum(got for _, got in wrong),
        false_negatives=sum(not got for _, got in wrong),
        no_verdict=sum(verdict is None for verdict in answers.verdicts),
        per_second=len(cases) / answers.cpu_total,
        again_per_second=len(cases) / answers.cpu_again,
        p50_ms=statistics.median(cpu),
        p99_ms=cpu[int(0.99 * (len(cpu) - 1))],
        max_ms=cpu[-1],
        slowest_ms=max(answers.wall) * 1000,
        peak_mb=answers.peak_mb,
    )


# --- workloads ------------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def exam(path: Path) -> list[Case]:
    """Read rows of `truth`, `completion`, `equal` and `kind`; bare answers go into a box.

    Rows with `options` are left out: both systems run with their defaults.
    """
    cases = []
    for row in _lines(path):
        bare = row["kind"] in ("answer", "normalization")
        completion = rf"\boxed{{{row['completion']}}}" if bare else row["completion"]
        if not row.get("options"):
            cases.append(Case(str(row["truth"]), completion, row["equal"]))
    return cases


def gsm8k(path: Path) -> list[Case]:
    """Use the gold solutions as completions, for their own truth and for the next row's."""
    solutions = [row["answer"].rpartition("####") for row in _lines(path)]
    truths = [truth.strip() for _, _, truth in solutions]
    cases = []
    for at, (solution, _, _) in enumerate(solutions):
        completion = rf"{solution}The answer is $\boxed{{{truths[at]}}}$."
        for truth in (truths[at], truths[(at + 1) % len(truths)]):
            cases.append(Case(truth, completion, truth == truths[at]))
    return cases


def rewritten(folder: Path, seed: int, limit: int) -> list[Case]:
    """Draw rewrites and mutations of real golds."""
    drawn = list(pairs(load(folder), seed, 2))
    rng = random.Random(seed)
    return [
        Case(pair.truth, pair.completion, pair.equal)
        for pair in rng.sample(drawn, min(limit, len(drawn)))
    ]


# --- the report -----------------------------------------------------------------------------------

COLUMNS: dict[str, Callable[[Score], str]] = {
    "accuracy": lambda s: f"{s.accuracy:.3f}",
    "false +": lambda s: str(s.false_positives),
    "false −": lambda s: str(s.false_negatives),
    "no verdict": lambda s: str(s.no_verdict),
    "checks/s": lambda s: f"{s.per_second:,.0f}",
    "again/s": lambda s: f"{s.again_per_second:,.0f}",
    "p50 ms": lambda s: f"{s.p50_ms:.3f}",
    "p99 ms": lambda s: f"{s.p99_ms:.2f}",
    "max ms": lambda s: f"{s.max_ms:.1f}",
    "slowest ms": lambda s: f"{s.slowest_ms:.0f}",
    "peak MB": lambda s: f"{s.peak_mb:.0f}",
}


def print_workload(name: str, scores: dict[str, Score]) -> None:
    """Print a Markdown table of the systems, and the ratio of throughputs."""
    checks = next(iter(scores.values())).checks
    print(f"\n{name}, {checks:,} checks\n")
    print("| system | " + " | ".join(COLUMNS) + " |")
    print("| --- |" + " ---: |" * len(COLUMNS))
    for system, result in scores.items():
        print(f"| {system} | " + " | ".join(show(result) for show in COLUMNS.values()) + " |")
    if len(scores) == 2:
        ours, theirs = scores["rlvr"], scores["math-verify"]
        first = ours.per_second / theirs.per_second
        again = ours.again_per_second / theirs.again_per_second
        print(f"\nthroughput: {first:.1f} times math-verify's, {again:.1f} times when made again")


def disagreements(cases: Sequence[Case], answers: Answers, show: int) -> None:
    """List our wrong verdicts, false positives first."""
    wrong = [
        (case, verdict)
        for case, verdict in zip(cases, answers.verdicts, strict=True)
        if (verdict == 1) != case.equal
    ]
    for case, verdict in sorted(wrong, key=lambda pair: pair[0].equal)[:show]:
        kind = "false negative" if case.equal else "FALSE POSITIVE"
        print(f"  {kind} ({verdict}): {case.truth!r} | {case.completion[-120:]!r}")


def main() -> None:
    """Run every workload that was asked for."""
    options = _arguments()
    pythons = {"rlvr": sys.executable}
    if options.peer_python:
        pythons["math-verify"] = options.peer_python
    workloads: dict[str, list[Case]] = {}
    for path in options.exam:
        workloads[f"exam {path.stem}"] = exam(path)
    if options.gsm8k:
        workloads["GSM8K completions"] = gsm8k(options.gsm8k)
    if options.data:
        workloads["rewritten golds"] = rewritten(options.data, options.seed, options.limit)
    imports = {name: import_seconds(name, python) for name, python in pythons.items()}
    for system, seconds in imports.items():
        print(f"import of {system}: {seconds * 1000:.0f} ms of CPU time")
    result: dict[str, Any] = {"import_seconds": imports, "workloads": {}}
    core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    for name, cases in workloads.items():
        texts = [(case.truth, case.completion) for case in cases]
        answers = {system: run(system, python, texts, core) for system, python in pythons.items()}
        scores = {system: score(cases, given) for system, given in answers.items()}
        print_workload(name, scores)
        disagreements(cases, answers["rlvr"], options.show)
        result["workloads"][name] = {system: asdict(each) for system, each in scores.items()}
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The math verifier against math-verify.")
    parser.add_argument("--exam", type=Path, action="append", default=[], help="JSONL of cases")
    parser.add_argument("--gsm8k", type=Path, help="JSONL whose answers end in '#### N'")
    parser.add_argument("--data", type=Path, help="folder of data sets, for rewritten golds")
    parser.add_argument("--peer-python", help="the Python of math-verify's environment")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=1500, help="rewritten golds drawn")
    parser.add_argument("--show", type=int, default=0, help="our wrong verdicts listed")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
