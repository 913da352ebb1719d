"""Tokens a second of whole rollouts: the embedded default, transformers, vLLM by us and by hand.

    python benchmarks/rollout.py --out rollout.json

The same weights, prompts, length law and turns for all (`rollout_work.py`), float32, one thread.
Each system has a process of its own; each round every system draws one batch of each kind, one
system at a time, forwards and then backwards, so that those that are compared stand side by side.
Where ours and a bare engine are compared they draw the same tokens (same seeds), which is checked.

Ours is `rollout` as a trainer calls it: prompts rendered, environments stepped, answers verified,
trajectories made. By hand is the engine alone: token ids in, token ids and log-probabilities out.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import report
import torch
from rollout_systems import SYSTEMS, Job
from rollout_work import WORKS, Work
from workers import Step, Worker
from workloads import writer

PAIRS = (
    ("ours, vllm", "bare engine"),
    ("ours, vllm", "LLM.generate"),
    ("ours, vllm-async", "bare AsyncLLM"),
    ("ours, vllm-server", "bare server"),
    ("ours, transformers", "model.generate"),
    ("ours, transformers", "generate_batch"),
    ("ours, vllm", "ours, transformers"),
)
"""Whose tokens a second are divided by whose."""
WITHIN = 0.90
"""What share of a bare engine's tokens a second ours must reach."""

FEW = {"generate_batch": 3}
"""Rounds of a system that takes minutes for one."""
PAUSE = 1.2
"""Seconds between two systems: for one second after its last step an engine's worker process still
looks for the next one in a busy loop."""

Results = dict[str, list[list[Step]]]
"""Per system its rounds: a step for each kind of batch."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9, help="counted rounds")
    parser.add_argument("--only", default="", help="systems, separated by semicolons; all if empty")
    parser.add_argument("--teach", type=int, default=600, help="supervised steps of the model")
    parser.add_argument("--out", default="", help="file for the figures as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    facts = report.circumstances(1)
    print(report.described(facts), flush=True)
    chosen = [n for n in SYSTEMS if not options.only or n in options.only.split(";")]
    model = writer(Path(tempfile.gettempdir()) / "rlvr-benchmarks", steps=options.teach)
    found = measure(chosen, Job(model=str(model)), options.rounds)
    for at, work in enumerate(WORKS):
        print("\n" + describe(work, {name: [r[at] for r in all] for name, all in found.items()}))
    if options.out:
        report.save(options.out, {"circumstances": facts, "systems": as_json(found)})


def measure(chosen: Sequence[str], job: Job, rounds: int) -> Results:
    """Let the systems take turns; the first round warms up and is not counted."""
    found: Results = defaultdict(list)
    running: list[Worker] = []
    try:
        for name in chosen:
            worker = Worker(name, 1, SYSTEMS[name], job)
            running.append(worker)
            if _taken(worker) is None:
                running.remove(worker)
                _close(worker)
        for _ in range(rounds):
            for worker in [*running]:
                if len(found[worker.name]) >= FEW.get(worker.name, rounds):
                    continue
                steps = _taken(worker)
                if steps is None:
                    running.remove(worker)
                    _close(worker)
                    del found[worker.name]
                else:
                    found[worker.name].append(steps)
            running.reverse()
    finally:
        for worker in running:
            _close(worker)
    return {name: found[name] for name in chosen if name in found}


def _taken(worker: Worker) -> list[Step] | None:
    """Let a worker draw one batch of each kind; says so where a system cannot run."""
    try:
        worker.wait_ready()
        found = worker.steps(len(WORKS))
        time.sleep(PAUSE)
        return found
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        print(f"{worker.name}: left out, it does not run here: {reason}", flush=True)
        return None


def _close(worker: Worker) -> None:
    """Have a worker close its engine, then end it."""
    with suppress(RuntimeError, OSError):
        worker.evaluate()
    worker.close()


def describe(work: Work, found: Mapping[str, Sequence[Step]]) -> str:
    """Return the tables of one kind of batch."""
    rows = []
    for name, steps in found.items():
        tokens = [sum(step.lengths) for step in steps]
        each = [1000 * step.seconds / work.episodes for step in steps]
        rows.append([
            name,
            report.spread(_speeds(steps), 0),
            report.spread(each, 2),
            f"{np.mean(tokens) / work.episodes:.1f}",
            max(length for step in steps for length in step.lengths),
        ])  # fmt: skip
    heads = ["system", "tokens/s", "ms per episode", "tokens per episode", "longest"]
    pairs = [pair for pair in PAIRS if set(pair) <= set(found)]
    ratios = [_compared(work, found[mine], found[theirs]) for mine, theirs in pairs]
    names = [f"{mine} / {theirs}" for mine, theirs in pairs]
    more = [[name, *ratio] for name, ratio in zip(names, ratios, strict=True)]
    compared = ["tokens/s", "median (quartiles) over the rounds", "ms per episode more"]
    compared += ["the same tokens"]
    return "\n\n".join([
        f"### {work.name}",
        "Medians (quartiles) over the rounds.",
        report.table(heads, rows),
        f"Target: ours at least {WITHIN:.2f} of a bare engine.",
        report.table(compared, more),
    ])  # fmt: skip


def _speeds(steps: Sequence[Step]) -> list[float]:
    return [sum(step.lengths) / step.seconds for step in steps]


def _compared(work: Work, mine: Sequence[Step], theirs: Sequence[Step]) -> list[str]:
    """Compare batches of the same round."""
    count = min(len(mine), len(theirs))
    mine, theirs = mine[:count], theirs[:count]
    ratios = [a / b for a, b in zip(_speeds(mine), _speeds(theirs), strict=True)]
    more = [
        1000 * (a.seconds - b.seconds) / work.episodes for a, b in zip(mine, theirs, strict=True)
    ]
    same = [[*a.lengths] == [*b.lengths] for a, b in zip(mine, theirs, strict=True)]
    return [report.spread(ratios), report.spread(more, 3), f"{sum(same)} of {len(same)} batches"]


def as_json(found: Results) -> dict[str, Any]:
    """Return seconds and lengths of every batch."""
    return {
        name: {
            work.name: [
                {"seconds": steps[at].seconds, "lengths": [*steps[at].lengths]} for steps in rounds
            ]
            for at, work in enumerate(WORKS)
        }
        for name, rounds in found.items()
    }


if __name__ == "__main__":
    main()
