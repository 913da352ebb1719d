"""Does every algorithm learn? Solved share over the steps, for every row that trains online.

Each row trains the embedded default on the demo's task with its own defaults and the same number
of completions a step (`COMPLETIONS`; what a row samples beside them is its own affair), the same
learning rate and the same held-out tasks. A row passes if it gains at least `GOAL` on every seed
within the stated steps.

    python benchmarks/algorithms.py --out algorithms.json --plot algorithms.png

Runs that are in the file already are not run again, so that the work can be cut into pieces with
`--minutes`.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import report
import torch

from rlvr.rl_core import TrainConfig, train
from rlvr.rl_core.algorithms import PRESETS, TABLE, algorithm

DEMO = Path(__file__).parents[1] / "examples" / "arithmetic.toml"
"""Says what is learned and from which weights."""

COMPLETIONS = 256
"""Completions per step that are learned from."""

GOAL = 0.2
"""Gain in solved share that every seed must reach."""

HELD_OUT = 400
"""Held-out tasks, one sample each: a standard error of at most 0.025."""

_ROLLED_OUT: dict[str, Any] = {"critic": "rollouts", "value_rollouts": 4}

SETTINGS: dict[str, dict[str, Any]] = {
    "vpg": {"lr": 3e-4},
    "vpg-q": _ROLLED_OUT,
    "vpg-td": _ROLLED_OUT,
}
"""What single rows are given beside the common settings."""

NOTES = {
    "vpg": "no baseline: half the learning rate",
    "vpg-q": "credit is the value alone: by rollouts, a learned one is wrong at first",
    "vpg-td": "as vpg-q",
    "trpo": "its step has no learning rate",
}
"""Why a row has settings of its own."""


def main() -> None:
    """Run what is missing, and print."""
    options = _options()
    torch.set_num_threads(options.threads)
    done = json.loads(Path(options.out).read_text()) if Path(options.out).exists() else {}
    facts = done.setdefault("circumstances", report.circumstances(options.threads))
    runs = done.setdefault("runs", {})
    began = time.perf_counter()
    for seed in range(options.seeds):
        for name in options.rows or _rows():
            key = f"{name} {seed}"
            late = options.minutes and time.perf_counter() - began > 60 * options.minutes
            if key in runs or late:
                continue
            runs[key] = run(name, seed, options.steps)
            Path(options.out).write_text(json.dumps(done))
            curve = runs[key]
            print(
                f"{key}: {curve['before']:.3f} -> {curve['after']:.3f} in {options.steps} steps, "
                f"{curve['seconds']:.0f} s",
                flush=True,
            )
    print("\n" + report.described(facts) + "\n\n" + describe(runs))
    if options.plot:
        draw(runs, options.plot)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--rows", nargs="*", default=[], help="names; default all but presets")
    parser.add_argument("--minutes", type=float, default=0, help="start no run after; 0: no limit")
    parser.add_argument("--out", default="algorithms.json", help="file for the curves")
    parser.add_argument("--plot", default="", help="PNG file for the plot")
    return parser.parse_args()


def _rows() -> list[str]:
    return [name for name in TABLE if name not in PRESETS]


def settings(name: str) -> dict[str, Any]:
    """Return the settings of a row's run beside the demo's."""
    row = algorithm(name)
    found: dict[str, Any] = {"algorithm": name, "group_size": row.group_size}
    if row.on_pairs or row.group_size > 1:
        found["group_size"] = max(row.group_size, 4)
    found["prompts_per_step"] = COMPLETIONS // found["group_size"]
    return found | {"critic_lr": 3e-3} | SETTINGS.get(name, {})


def run(name: str, seed: int, steps: int) -> dict[str, Any]:
    """Train one row with one seed; returns its curve and its figures."""
    demo = TrainConfig.from_toml(DEMO).to_dict()
    plain = {k: v for section in demo.values() for k, v in section.items()}
    for column in ("group_size", "beta"):  # the demo's row is another one
        plain.pop(column, None)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        changes = {"eval_tasks": HELD_OUT, "eval_every": steps, "checkpoint_every": 0}
        changes |= {"steps": steps, "seed": seed, "out": folder, "overwrite": False, "quiet": True}
        changes["out"] = str(Path(folder) / "run")
        result = train(**{**plain, **changes, **settings(name)})
        lines = (Path(changes["out"]) / "metrics.jsonl").read_text().splitlines()
        seconds = time.perf_counter() - began
    curve = [line for line in map(json.loads, lines) if "solved" in line]
    return {
        "before": result.evaluations[0][1].solved,
        "after": result.evaluations[-1][1].solved,
        "solved": [line["solved"] for line in curve],
        "step_seconds": float(np.median([line["time/step"] for line in curve])),
        "seconds": seconds,
    }


def _by_row(runs: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for key, curve in runs.items():
        found.setdefault(key.rpartition(" ")[0], []).append(curve)
    return found


def describe(runs: dict[str, Any]) -> str:
    """Return the table: each row's gain on every seed."""
    rows = []
    for name, curves in _by_row(runs).items():
        gains = [curve["after"] - curve["before"] for curve in curves]
        size = settings(name)["group_size"]
        rows.append(
            [
                name,
                size,
                f"{np.mean([c['before'] for c in curves]):.3f}",
                ", ".join(f"{c['after']:.3f}" for c in curves),
                f"{min(gains):+.3f}",
                "yes" if min(gains) >= GOAL else "**no**",
                f"{1000 * np.median([c['step_seconds'] for c in curves]):.0f}",
                NOTES.get(name, ""),
            ]
        )
    steps = sorted({len(curve["solved"]) for curve in runs.values()})
    head = [
        "row",
        "G",
        "before",
        "after, by seed",
        "least gain",
        f"≥ {GOAL:g}",
        "ms a step",
        "note",
    ]
    return f"{COMPLETIONS} completions a step, {steps} steps.\n\n" + report.table(head, rows)


def draw(runs: dict[str, Any], path: str) -> None:
    """Draw the solved share of the training batches, a panel for each row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = _by_row(runs)
    columns = 6
    lines = -(-len(found) // columns)
    figure = Figure(figsize=(2.2 * columns, 1.8 * lines), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, (name, curves) in zip(panels, found.items(), strict=False):
        for curve in curves:
            axes.plot(smooth(curve["solved"]), lw=1)
        axes.set_title(name, fontsize=8)
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.2)
    for axes in panels[len(found) :]:
        axes.set_visible(False)
    figure.supxlabel("step")
    figure.supylabel("solved share of the training batch, mean of 5 steps")
    figure.savefig(path)


def smooth(values: Sequence[float], width: int = 5) -> list[float]:
    """Return the mean of each value and up to `width` − 1 before it."""
    return [float(np.mean(values[max(0, i + 1 - width) : i + 1])) for i in range(len(values))]


if __name__ == "__main__":
    main()
