"""How long a training step takes: a bare loop, TRL's RLOO and GRPO trainers, and ours.

Same tiny model, same prompts in the same order, 256 episodes a step (32 groups of 8), CPU, float32.
Each system runs in a warm process of its own; blocks of a few steps go round the systems, so that
one runs at a time and all share whatever the machine does.

    python benchmarks/step_vs_trl.py --out steps.json

`--tune` compares settings of TRL instead, which is how those used here were chosen (and with
`--kind ours` one of ours).
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import report
import torch
from stopwatch import PARTS
from systems import RUNNERS, Job, run_ours, run_trl
from trl_trainers import Knobs, Shape
from workers import Step, Worker
from workloads import FIXED, RAGGED, Workload, paid, writer

Runner = Callable[..., None]
Results = dict[str, list[list[Step]]]
"""Per system its blocks of steps."""

STATIC = {"cache_implementation": "static"}
SMALL = {"micro_batch_tokens": 2048}

CHOSEN = {
    FIXED.name: Knobs(accumulation=4, more=STATIC, ours=SMALL),
    RAGGED.name: Knobs(accumulation=4, more=STATIC, ours=SMALL),
}
"""The settings that `--tune` found fastest, TRL's and ours."""

TASKS = 1024
"""Different prompts of a workload."""

PAIRS = (
    ("ours rloo", "bare loop"),
    ("ours grpo", "bare loop"),
    ("TRL RLOO", "bare loop"),
    ("TRL RLOO", "ours rloo"),
    ("TRL GRPO", "ours grpo"),
    ("TRL GRPO", "ours rloo"),
)
"""The ratios that are printed, where both systems ran."""

MICRO_BATCHES = (16384, 8192, 4096, 2048, 1024)
"""Of ours, compared by `--tune --kind ours`."""

VARIANTS: dict[str, Knobs] = {
    "one backward pass": Knobs(),
    "2 backward passes": Knobs(accumulation=2),
    "4 backward passes": Knobs(accumulation=4),
    "8 backward passes": Knobs(accumulation=8),
    "4 backward passes, static cache": Knobs(accumulation=4, more=STATIC),
    "8 backward passes, static cache": Knobs(accumulation=8, more=STATIC),
    "static cache": Knobs(more=STATIC),
    "eager attention": Knobs(attention="eager"),
    "AdamW not fused": Knobs(more={"optim": "adamw_torch"}),
    "gradient checkpointing": Knobs(more={"gradient_checkpointing": True}),
    "bfloat16 (TRL's default)": Knobs(more={"bf16": True}),
}


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """How the systems take turns."""

    rounds: int
    """Blocks per system."""
    steps: int
    """Counted steps per block."""
    uncounted: int
    """Steps at the beginning of a block that pay for caches which the other systems emptied."""


def main() -> None:
    """Measure and print."""
    options = _options()
    torch.set_num_threads(options.threads)
    facts = report.circumstances(options.threads)
    print(report.described(facts), flush=True)
    cache = Path(tempfile.gettempdir()) / "rlvr-benchmarks"
    model = writer(cache, steps=options.teach)
    result: dict[str, Any] = {"circumstances": facts, "workloads": {}}
    for workload, blocks in (
        (FIXED, Blocks(rounds=options.rounds, steps=options.steps, uncounted=1)),
        (RAGGED, Blocks(rounds=options.ragged_rounds, steps=1, uncounted=0)),
    ):
        if options.workload in workload.name:
            chosen = _systems(workload) if not options.tune else _variants(options.kind)
            parts = options.only.split(",")
            chosen = {n: c for n, c in chosen.items() if any(part in n for part in parts)}
            with tempfile.TemporaryDirectory() as folder:
                found = measure(workload, chosen, str(model), Path(folder), options.threads, blocks)
            print("\n" + describe(workload, found), flush=True)
            result["workloads"][workload.name] = as_json(found)
    if options.out:
        report.save(options.out, result)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10, help="blocks per system, eight tokens")
    parser.add_argument(
        "--steps", type=int, default=5, help="counted steps per block, eight tokens"
    )
    parser.add_argument("--ragged-rounds", type=int, default=4, help="steps per system, ragged")
    parser.add_argument("--teach", type=int, default=600, help="supervised steps of the model")
    parser.add_argument("--workload", default="", help="part of a workload's name; all if empty")
    parser.add_argument("--tune", action="store_true", help="compare settings of TRL")
    parser.add_argument(
        "--kind", default="grpo", choices=["rloo", "grpo", "ours"], help="for --tune"
    )
    parser.add_argument("--only", default="", help="parts of systems' names, separated by commas")
    parser.add_argument("--out", default="", help="file for the figures as JSON")
    return parser.parse_args()


def _systems(workload: Workload) -> dict[str, tuple[Runner, Knobs]]:
    return {name: (runner, CHOSEN[workload.name]) for name, runner in RUNNERS.items()}


def _variants(kind: str) -> dict[str, tuple[Runner, Knobs]]:
    """Return the settings to compare."""
    if kind == "ours":
        knobs = {f"{n} tokens": Knobs(ours={"micro_batch_tokens": n}) for n in MICRO_BATCHES}
        return {name: (partial(run_ours, algorithm="grpo"), k) for name, k in knobs.items()}
    return {name: (partial(run_trl, kind=kind), knobs) for name, knobs in VARIANTS.items()}


def measure(
    workload: Workload,
    chosen: Mapping[str, tuple[Runner, Knobs]],
    model: str,
    folder: Path,
    threads: int,
    blocks: Blocks,
) -> Results:
    """Run blocks of steps of every system in turn; the order alternates between rounds."""
    shape = Shape(max_tokens=workload.max_tokens)
    job = Job(tasks=workload.tasks(TASKS), reward=paid, model=model, scratch="", shape=shape)
    workers = []
    for number, (name, (runner, knobs)) in enumerate(chosen.items()):
        own = replace(job, scratch=str(folder / str(number)), knobs=knobs)
        workers.append(Worker(name, threads, runner, own))
    found: Results = defaultdict(list)
    try:
        running = [w for w in workers if _taken(w, 1) is not None]
        for _ in range(blocks.rounds):
            for worker in running:
                taken = _taken(worker, blocks.uncounted + blocks.steps)
                found[worker.name].append((taken or [])[blocks.uncounted :])
            running = [worker for worker in running[::-1] if found[worker.name][-1]]
    finally:
        for worker in workers:
            worker.close()
    return {w.name: found[w.name] for w in workers if w in running}


def _taken(worker: Worker, steps: int) -> list[Step] | None:
    """Let a worker take steps; says so where a system cannot run."""
    try:
        worker.wait_ready()
        return worker.steps(steps)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        print(f"{worker.name}: left out, it does not run here: {reason}", flush=True)
        return None


def describe(workload: Workload, found: Results) -> str:
    """Return the tables: times and split, ratios of pairs, lengths."""
    times = [_times(name, blocks) for name, blocks in found.items()]
    pairs = [pair for pair in PAIRS if set(pair) <= set(found)]
    pairs = pairs or [(name, next(iter(found))) for name in found]
    ratios = [[f"{mine} / {theirs}", _ratio(mine, theirs, found)] for mine, theirs in pairs]
    lengths = [_lengths(name, blocks) for name, blocks in found.items()]
    head = ["system", "episodes", "mean", "5 %", "median", "95 %", "most", "over 150", "reward"]
    parts = [
        f"### {workload.name}",
        "Milliseconds per step: median (quartiles), and medians of the parts.",
        report.table(["system", "step", *PARTS], times),
        report.table(["ratio of step times", "median (quartiles) over the rounds"], ratios),
        "Completion lengths in characters, over all steps.",
        report.table(head, lengths),
    ]
    return "\n\n".join(parts)


def _all(blocks: Sequence[Sequence[Step]]) -> list[Step]:
    return [step for block in blocks for step in block]


def _times(name: str, blocks: Sequence[Sequence[Step]]) -> list[str]:
    steps = _all(blocks)
    parts = [np.median([step.parts[part] for step in steps]) for part in PARTS]
    whole = report.spread([1000 * step.seconds for step in steps], 0)
    return [name, whole, *(f"{1000 * seconds:.1f}" for seconds in parts)]


def _ratio(mine: str, theirs: str, found: Results) -> str:
    """Compare the medians of blocks of the same round."""
    ratios = [
        float(np.median([s.seconds for s in one]) / np.median([s.seconds for s in other]))
        for one, other in zip(found[mine], found[theirs], strict=True)
    ]
    return report.spread(ratios)


def _lengths(name: str, blocks: Sequence[Sequence[Step]]) -> list[str]:
    lengths = np.array([n for step in _all(blocks) for n in step.lengths])
    rewards = [r for step in _all(blocks) for r in step.rewards]
    marks = np.percentile(lengths, [5, 50, 95])
    return [
        name,
        str(len(lengths)),
        f"{lengths.mean():.2f}",
        *(f"{mark:.0f}" for mark in marks),
        str(lengths.max()),
        f"{100 * (lengths > 150).mean():.1f} %",
        f"{np.mean(rewards):.3f}",
    ]


def as_json(found: Results) -> dict[str, Any]:
    """Return every step's parts, and the histogram of lengths."""
    return {
        name: {
            "blocks": [[dict(step.parts) for step in block] for block in blocks],
            "lengths": np.bincount([n for s in _all(blocks) for n in s.lengths]).tolist(),
        }
        for name, blocks in found.items()
    }


if __name__ == "__main__":
    main()
