"""Does every algorithm learn? Solved share over the steps, for every row that trains online.

Each row trains the embedded default on the demo's task with its own defaults and the same number
of completions a step (what a row samples beside them is its own affair), the same learning rate
and the same held-out tasks. A row passes if it gains at least `GOAL` on every seed within the
stated steps.

    python benchmarks/algorithms.py --out algorithms.json --plot algorithms.png

Runs that are in the file already are not run again, so that the work can be cut into pieces with
`--minutes`.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import report
import studies

from rlvr.rl_core.algorithms import PRESETS, TABLE, algorithm

GOAL = 0.2
"""Gain in solved share that every seed must reach."""

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
    flags = studies.parser(__doc__, out="algorithms.json", steps=60)
    flags.add_argument("--rows", nargs="*", default=[], help="names; default all but presets")
    options = flags.parse_args()
    figures = studies.Figures(options, {"steps": options.steps})
    for seed in range(options.seeds):
        for name in options.rows or _rows():
            figures.add(f"{name} {seed}", lambda n=name, s=seed: run(n, s, options.steps))
    print("\n" + figures.header() + "\n\n" + describe(figures, options.steps))
    if options.plot:
        plot(figures, options.plot)


def _rows() -> list[str]:
    return [name for name in TABLE if name not in PRESETS]


def settings(name: str) -> dict[str, Any]:
    """Return the settings of a row's run beside the demo's."""
    row = algorithm(name)
    found: dict[str, Any] = {"algorithm": name, "group_size": row.group_size}
    if row.on_pairs or row.group_size > 1:
        found["group_size"] = max(row.group_size, 4)
    found["prompts_per_step"] = studies.COMPLETIONS // found["group_size"]
    return found | {"critic_lr": 3e-3} | SETTINGS.get(name, {})


def run(name: str, seed: int, steps: int) -> dict[str, Any]:
    """Train one row with one seed; returns its curve and its figures."""
    return studies.run(steps, seed, **settings(name))


def describe(figures: studies.Figures, steps: int) -> str:
    """Return the table: each row's gain on every seed."""
    rows = []
    for name in figures.names:
        runs = figures.of(name)
        gains = [curve["after"] - curve["before"] for curve in runs]
        rows.append(
            [
                name,
                settings(name)["group_size"],
                f"{np.mean([curve['before'] for curve in runs]):.3f}",
                ", ".join(f"{curve['after']:.3f}" for curve in runs),
                f"{min(gains):+.3f}",
                "yes" if min(gains) >= GOAL else "**no**",
                f"{1000 * np.median([curve['step_seconds'] for curve in runs]):.0f}",
                NOTES.get(name, ""),
            ]
        )
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
    return f"{studies.COMPLETIONS} completions a step, {steps} steps.\n\n" + report.table(
        head, rows
    )


def plot(figures: studies.Figures, path: str) -> None:
    """Draw the solved share of the training batches, a panel for each row."""
    columns = 6
    lines = -(-len(figures.names) // columns)
    figure, axes = studies.panels(lines, columns, width=1.8, height=1.4)
    for panel, name in zip(axes, figures.names, strict=False):
        for curve in figures.of(name):
            panel.plot(studies.smooth(curve["solved"]), lw=1)
        panel.set_title(name, fontsize=8)
        panel.set_ylim(0, 1)
    for panel in axes[len(figures.names) :]:
        panel.set_visible(False)
    figure.supxlabel("step")
    figure.supylabel("solved share of the training batch, mean of 5 steps")
    studies.draw(figure, path)


if __name__ == "__main__":
    main()
