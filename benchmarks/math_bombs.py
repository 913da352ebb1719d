"""Resource bombs against the math verifier: how long, how much memory, who else has to wait.

    python benchmarks/math_bombs.py [--gmpy2 PYTHON]

Each row of the table is a process of its own that judges the corpus of `rlvr.verifiers.bombs`
shuffled among honest cases, through one door: the main thread, 8 threads, or an event loop. Times
are from dispatch: what a call waited for a worker (a free one, or its start) is left out. "own"
also leaves out what the worker was starved of a processor, by other work or by the threads of the
same process, which does not count against an answer. The stall is how much later than asked for a
1 ms timer of the event loop fires; its control is the same loop with nothing else to do. `--gmpy2`
names an interpreter that has gmpy2 (and cloudpickle and sympy), with which all rows are repeated:
with it, big numbers are C code that no Python-level limit can stop.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

LIMIT = 1.05
HONEST = 1_000
"""Honest cases mixed in."""
DOORS = ("main thread", "8 threads", "asyncio")
ROOT = Path(__file__).parent.parent


def memory() -> float:
    """Return the resident memory of this process in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def ticks(until: "asyncio.Future[Any] | None", seconds: float = 0.0) -> list[float]:
    """Return how much later than asked for each 1 ms timer fired."""
    late = []
    end = time.monotonic() + seconds
    while (until is not None and not until.done()) or time.monotonic() < end:
        start = time.monotonic()
        await asyncio.sleep(0.001)
        late.append(time.monotonic() - start - 0.001)
    return late


def completion(row: dict[str, Any]) -> str:
    """Return a case as a policy would write it: bare answers in a box."""
    bare = row["kind"] in ("answer", "normalization")
    return rf"\boxed{{{row['completion']}}}" if bare else row["completion"]


def quantile(values: Sequence[float], share: float) -> float:
    """Return a quantile of the values."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


class Run:
    """One process's work: the honest cases on the idle machine, then everything mixed."""

    def __init__(self, cases: Path) -> None:
        """Make everything that takes memory before memory is measured."""
        from rlvr.verifiers import make
        from rlvr.verifiers.bombs import bombs

        self.math = make("math")
        rows = [json.loads(line) for line in cases.read_text().splitlines()]
        honest = [("", completion(row), row["truth"]) for row in rows]
        self.honest = (honest * (1 + HONEST // len(honest)))[:HONEST]
        self.work = [(bomb.name, bomb.completion, bomb.truth) for bomb in bombs()]
        self.bombs = len(self.work)
        self.work += [(str(n), *row[1:]) for n, row in enumerate(self.honest)]
        random.Random(0).shuffle(self.work)
        self.found: dict[str, tuple[float, Any, float]] = {}

    def judge(self, item: tuple[str, str, Any]) -> None:
        """Judge one row and note the time from dispatch."""
        name, text, truth = item
        start = time.monotonic()
        verdict = self.math(text, truth)
        seconds = time.monotonic() - start - verdict.cost.get("waited", 0.0)
        self.found[name] = seconds, verdict, seconds - verdict.cost.get("starved", 0.0)

    def through(self, door: str) -> dict[str, float]:
        """Judge all, and return the event loop's stalls in seconds, if there is one."""
        if door == "main thread":
            for item in self.work:
                self.judge(item)
        elif door == "8 threads":
            with ThreadPoolExecutor(8) as threads:
                list(threads.map(self.judge, self.work))
        else:
            return asyncio.run(self._loop())
        return {}

    async def _loop(self) -> dict[str, float]:
        idle = await ticks(None, 5.0)
        calls = asyncio.gather(*[asyncio.to_thread(self.judge, item) for item in self.work])
        late = await ticks(calls)
        await calls
        return {"idle": quantile(idle, 0.999), "stall": quantile(late, 0.999)}


def child(door: str, cases: Path) -> dict[str, Any]:
    """Do the work of one row of the table."""
    run = Run(cases)
    idle = []
    for _, text, truth in run.honest:
        idle.append(run.math(text, truth))
    before = memory()
    start = time.monotonic()
    stalls = run.through(door)
    seconds = time.monotonic() - start
    after = memory()
    bombs = {name: found for name, found in run.found.items() if not name.isdigit()}
    slow = sorted(((s, name) for name, (s, _, _) in bombs.items()), reverse=True)
    changed = [n for n, verdict in enumerate(idle) if run.found[str(n)][1] != verdict]
    return {
        "bombs": len(bombs),
        "statuses": Counter(str(verdict.status) for _, verdict, _ in bombs.values()),
        "paid": [name for name, (_, verdict, _) in bombs.items() if verdict.reward],
        "unscored": [
            f"{name}: {verdict.evidence.get('reason')}"
            for name, (_, verdict, _) in bombs.items()
            if verdict.reward is None
        ],
        "slowest": slow[:12],
        "late": sum(s > LIMIT for s, _ in slow),
        "own": max(own for _, _, own in bombs.values()),
        "own late": sum(own > LIMIT for _, _, own in bombs.values()),
        "honest slowest": max(run.found[str(n)][0] for n in range(len(idle))),
        "changed": [run.honest[n][1:] for n in changed][:10],
        "grown": after - before,
        "seconds": seconds,
        **stalls,
    }


def row(python: str, door: str, cases: Path) -> dict[str, Any]:
    """Run one row in a process of its own."""
    command = [python, "-P", __file__, "--child", door, "--cases", str(cases)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


HEADS = ("arithmetic", "door", "slowest s", "late", "own s", "own late", "honest slowest s",
         "changed", "paid", "unscored", "stall ms (idle)", "parent MB", "seconds")  # fmt: skip


def cells(name: str, door: str, found: dict[str, Any]) -> list[str]:
    """Return a row of the table."""
    stall = f"{found['stall'] * 1e3:.1f} ({found['idle'] * 1e3:.1f})" if "stall" in found else ""
    counts = [str(len(found[what])) for what in ("changed", "paid", "unscored")]
    times = [f"{found['slowest'][0][0]:.3f}", str(found["late"])]
    times += [f"{found['own']:.3f}", str(found["own late"]), f"{found['honest slowest']:.3f}"]
    return [name, door, *times, *counts, stall, f"{found['grown']:+.1f}", f"{found['seconds']:.0f}"]


def main() -> None:
    """Run every row and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gmpy2", metavar="PYTHON", help="an interpreter that has gmpy2")
    parser.add_argument("--cases", type=Path, default=ROOT / "tests" / "cases" / "math.jsonl")
    parser.add_argument("--door", choices=DOORS, help="this one only")
    parser.add_argument("--child", choices=DOORS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(given.child, given.cases)))
        return
    pythons = {"python": sys.executable} | ({"gmpy2": given.gmpy2} if given.gmpy2 else {})
    table, notes = [], []
    for name, python in pythons.items():
        for door in (given.door,) if given.door else DOORS:
            found = row(python, door, given.cases)
            table.append(cells(name, door, found))
            notes.append(f"{name}, {door}: {found['bombs']} bombs, {dict(found['statuses'])}")
            notes += [f"  {seconds:.3f} s  {bomb}" for seconds, bomb in found["slowest"]]
            notes += [f"  {what}: {case}" for what in ("paid", "unscored", "changed")
                      for case in found[what]]  # fmt: skip
    print("\n".join(f"| {' | '.join(line)} |" for line in (HEADS, ["---"] * len(HEADS), *table)))
    print("\n".join(notes))


if __name__ == "__main__":
    main()
