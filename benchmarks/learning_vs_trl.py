"""How long learning takes: steps and seconds to 0.9 solved, TRL's RLOO and GRPO against ours.

Same initial weights, same prompts in the same order, same hyper-parameters, same reward function.
For each seed every system runs in a process of its own; blocks of a few steps go round the
systems, and after each block the share solved of the held-out sums is measured outside the clock
by the same code with the same draws. Where the goal lies between two measurements, steps and
seconds are interpolated.

    python benchmarks/learning_vs_trl.py --out learning.json
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import report
import torch
from step_vs_trl import CHOSEN
from systems import RUNNERS, Job
from trl_trainers import Shape
from workers import Worker
from workloads import FIXED

from rlvr.envs import load_tasks
from rlvr.rl_core import TrainConfig
from rlvr.rl_core.records import save_model
from rlvr.rl_core.sources import EnvChoice
from rlvr.rl_core.warm_start import WarmStart, embedded_default
from rlvr.verifiers import Task

SYSTEMS = ("TRL RLOO", "ours rloo", "TRL GRPO", "ours grpo")

DEMO = Path(__file__).parents[1] / "examples" / "arithmetic.toml"
"""Says what is learned, from which weights, and with which settings."""

HELD_OUT = 400
"""Held-out tasks that are measured on; four samples each."""

KNOBS = CHOSEN[FIXED.name]
"""What `step_vs_trl.py --tune` found fastest on short completions, for TRL and for ours."""

PAIRS = (("ours rloo", "TRL RLOO"), ("ours grpo", "TRL GRPO"))
"""What is compared with what."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One measurement of a learning curve."""

    step: int
    seconds: float
    """Of training: what lies outside the clock is left out."""
    solved: float


Curve = list[Point]


def main() -> None:
    """Measure and print."""
    options = _options()
    torch.set_num_threads(options.threads)
    facts = report.circumstances(options.threads)
    print(report.described(facts), flush=True)
    curves: list[dict[str, Curve]] = []
    with tempfile.TemporaryDirectory() as folder:
        job = _job(options, Path(folder))
        for seed in range(options.seeds):
            curves.append(race(job, seed, options, Path(folder)))
            print("\n" + "\n".join(_line(seed, curves[-1], options.goal)), flush=True)
    print("\n" + describe(curves, options.goal), flush=True)
    if options.out:
        found = [{n: [vars(p) for p in curve] for n, curve in by.items()} for by in curves]
        report.save(options.out, {"circumstances": facts, "curves": found})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--env", default="", help="what is learned; by default the demo's")
    parser.add_argument("--warm", type=int, default=0, help="supervised steps; default the demo's")
    parser.add_argument("--goal", type=float, default=0.9)
    parser.add_argument("--every", type=int, default=5, help="steps between measurements")
    parser.add_argument("--steps", type=int, default=300, help="steps after which to give up")
    parser.add_argument("--out", default="", help="file for the curves as JSON")
    return parser.parse_args()


def _job(options: argparse.Namespace, folder: Path) -> Job:
    """Draw the tasks and make the initial weights."""
    demo = TrainConfig.from_toml(DEMO)
    choice = EnvChoice.parse(options.env or demo.tasks.env[0])
    tasks = list(load_tasks(choice.id, **choice.options, split="train"))
    side = {**choice.options, "split": "test", "size": HELD_OUT}
    held_out = list(load_tasks(choice.id, **side))
    warm = WarmStart(steps=options.warm) if options.warm else WarmStart()
    save_model(folder / "initial", *embedded_default(tasks, config=warm))
    shape = Shape(
        group_size=demo.group_size,
        prompts_per_step=demo.rollout.prompts_per_step,
        max_tokens=demo.rollout.max_tokens,
        lr=demo.optimizer.lr,
        beta2=demo.optimizer.beta2,
        max_grad_norm=demo.optimizer.max_grad_norm,
        steps=options.steps + options.every,
    )
    print(f"{choice}, {len(tasks)} training tasks, {len(held_out)} held out\n{shape}\n{warm}")
    return Job(
        tasks=_plain(tasks),
        reward=right,
        model=str(folder / "initial"),
        scratch="",
        shape=shape,
        planned=shape.steps,
        knobs=KNOBS,
        held_out=_plain(held_out),
    )


def _plain(tasks: Sequence[Task]) -> list[Task]:
    """Return tasks with the truth as text."""
    return [replace(task, truth=str(task.truth)) for task in tasks]


def right(completion: str, truth: str) -> float:
    """The reward of every system: 1 for the number and nothing else."""
    return float(completion.strip() == truth)


def race(job: Job, seed: int, options: argparse.Namespace, folder: Path) -> dict[str, Curve]:
    """Let all systems learn with one seed, a block each in turn, until each has the goal."""
    shape = replace(job.shape, seed=seed)
    workers = [
        Worker(
            name,
            options.threads,
            RUNNERS[name],
            replace(job, shape=shape, scratch=str(folder / f"{seed}-{number}")),
        )
        for number, name in enumerate(SYSTEMS)
    ]
    try:
        for worker in workers:
            worker.wait_ready()
        curves = {w.name: [Point(step=0, seconds=0.0, solved=w.evaluate())] for w in workers}
        while running := [w for w in workers if _runs(curves[w.name], options)]:
            for worker in running:
                last = curves[worker.name][-1]
                taken = worker.steps(options.every)
                point = Point(
                    step=last.step + len(taken),
                    seconds=last.seconds + sum(step.seconds for step in taken),
                    solved=worker.evaluate(),
                )
                curves[worker.name].append(point)
            workers.reverse()
    finally:
        for worker in workers:
            worker.close()
    return curves


def _runs(curve: Curve, options: argparse.Namespace) -> bool:
    return curve[-1].solved < options.goal and curve[-1].step < options.steps


def reached(curve: Curve, goal: float) -> tuple[float, float] | None:
    """Return steps and seconds to the goal, or `None` if it was not reached."""
    if curve[-1].solved < goal:
        return None
    if len(curve) == 1:
        return 0.0, 0.0
    before, after = curve[-2], curve[-1]
    share = (goal - before.solved) / (after.solved - before.solved)
    return (
        before.step + share * (after.step - before.step),
        before.seconds + share * (after.seconds - before.seconds),
    )


def _line(seed: int, curves: Mapping[str, Curve], goal: float) -> list[str]:
    return [
        f"seed {seed}  {name:<10} {curve[0].solved:.3f} -> {curve[-1].solved:.3f}  "
        f"{curve[-1].step} steps, {curve[-1].seconds:.1f} s; goal at {reached(curve, goal)}"
        for name, curve in curves.items()
    ]


def describe(curves: Sequence[Mapping[str, Curve]], goal: float) -> str:
    """Return the tables: steps and seconds of every system, and the ratios of pairs."""
    found = {name: [reached(by[name], goal) for by in curves] for name in SYSTEMS}
    rows = [
        [
            name,
            f"{sum(end is not None for end in ends)} of {len(ends)}",
            report.spread([end[0] for end in ends if end], 0),
            report.spread([end[1] for end in ends if end], 1),
            f"{1000 * np.median([_per_step(by[name]) for by in curves]):.0f}",
        ]
        for name, ends in found.items()
    ]
    ratios = [[f"{a} / {b}", *_ratios(found[a], found[b])] for a, b in PAIRS]
    head = ["system", f"reached {goal:g}", "steps", "seconds", "ms per step"]
    return "\n\n".join(
        [
            f"Solved at the start: {curves[0][SYSTEMS[0]][0].solved:.3f}. "
            "Medians (quartiles) over the seeds.",
            report.table(head, rows),
            report.table(["ratio, seed by seed", "seeds", "of steps", "of seconds"], ratios),
        ]
    )


def _per_step(curve: Curve) -> float:
    return curve[-1].seconds / max(1, curve[-1].step)


def _ratios(mine: Sequence[Any], theirs: Sequence[Any]) -> list[str]:
    """Compare the seeds in which both reached the goal."""
    pairs = [(a, b) for a, b in zip(mine, theirs, strict=True) if a and b and min(b) > 0]
    return [str(len(pairs)), *(report.spread([a[i] / b[i] for a, b in pairs]) for i in (0, 1))]


if __name__ == "__main__":
    main()
