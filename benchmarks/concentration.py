"""Does probability gather on few tokens after the first one?

The claim (Ahmadian et al., 2024, arXiv 2402.14740, section 3.1): with a policy that has been
trained before, most of the probability is on a handful of tokens at each step, the more so once
the first token has been chosen; so the space that is searched is far smaller than the vocabulary,
and the variance of the gradient is no reason for a critic.

The mass of the 1, 8 and 64 likeliest of 262 tokens, by position in the sampled completions, with
the weights before and after training, on the demo's sums and on lists of words to be sorted. The
figures are the training loop's own diagnostics (`diagnostics_every`), 64 completions a step.

    python benchmarks/concentration.py --out concentration.json --plot concentration.png
"""

import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import report
import studies

SIZES = (1, 8, 64)
"""How many tokens are counted."""

TASKS: dict[str, dict[str, Any]] = {
    "sums": {},
    "sorting": {
        "env": "rlvr/SortWords-v0 count=3 syllables=1 size=1600",
        "max_tokens": 24,
    },
}
"""What is learned."""

STILL = {"lr": 1e-30, "eval_tasks": 0}
"""Steps too small to change a weight."""

MEASURED = 10
"""Steps that a figure is the mean of."""

BEFORE, AFTER = "before training", "after training"


def main() -> None:
    """Run what is missing, and print."""
    options = studies.parser(__doc__, out="concentration.json", steps=40).parse_args()
    figures = studies.Figures(options, {"steps": options.steps, "tasks": TASKS})
    kept = Path(options.out).with_suffix(".weights")
    for seed in range(options.seeds):
        for task in TASKS:
            place = kept / f"{task}-{seed}"
            trained = f"{task}, {AFTER} {seed}"
            figures.add(f"{task}, {BEFORE} {seed}", lambda s=seed, t=task: measure(t, s, {}))
            figures.add(trained, lambda s=seed, t=task, p=place: after(t, s, options.steps, p))
    print("\n" + figures.header() + "\n\n" + describe(figures))
    if options.plot:
        plot(figures, options.plot)


def settings(task: str) -> dict[str, Any]:
    """Return the settings of a task's runs."""
    given = {"algorithm": "rloo", "beta": 0.0, "group_size": 8, "prompts_per_step": 32}
    return given | {"verifier_timeout": 0.0} | TASKS[task]


def measure(task: str, seed: int, model: dict[str, Any]) -> dict[str, Any]:
    """Look at a policy that stands still; returns masses by `top<k>/<positions>`."""
    seen: list[dict[str, float]] = []
    given = {**settings(task), **STILL, **model, "diagnostics_every": 1}
    curve = studies.run(
        MEASURED, seed, callbacks=[lambda trainer, metrics: seen.append(dict(metrics))], **given
    )
    names = list(dict.fromkeys(n for one in seen for n in one if n.startswith("top")))
    mass = {name: float(np.mean([one[name] for one in seen if name in one])) for name in names}
    entropy = float(np.mean([one["entropy"] for one in seen]))
    return {"mass": mass, "entropy": entropy, "share": float(np.mean(curve["solved"]))}


def after(task: str, seed: int, steps: int, place: Path) -> dict[str, Any]:
    """Train, and look at what came of it."""

    def keep(folder: Path) -> dict[str, Any]:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder / "model", place)
        return {}

    curve = studies.run(steps, seed, ends=keep, **settings(task))
    found = measure(task, seed, {"model": str(place)})
    shutil.rmtree(place)
    return found | {"before": curve["before"], "after": curve["after"]}


def bands(runs: list[dict[str, Any]]) -> list[str]:
    """Return the positions that every seed's completions reached, in their order."""
    names = [{name.partition("/")[2] for name in run["mass"]} for run in runs]
    return sorted(set.intersection(*names), key=lambda name: int(name.partition("-")[0]))


def mean_mass(runs: list[dict[str, Any]], size: int, band: str) -> float:
    """Return the mean mass over the seeds."""
    return float(np.mean([run["mass"][f"top{size}/{band}"] for run in runs]))


def describe(figures: studies.Figures) -> str:
    """Return the table: mass by position."""
    rows = []
    for name in figures.names:
        runs = figures.of(name)
        solved = np.mean([run["share"] for run in runs])
        for band in bands(runs):
            masses = [f"{mean_mass(runs, size, band):.3f}" for size in SIZES]
            rows.append([name, f"{solved:.2f}", band, *masses])
    return report.table(["policy", "solved", "token", *(f"top {k}" for k in SIZES)], rows)


def plot(figures: studies.Figures, path: str) -> None:
    """Draw the masses by position, a panel for each task."""
    figure, axes = studies.panels(1, len(TASKS), width=4.4, height=3.0)
    for panel, task in zip(axes, TASKS, strict=True):
        for when, line in ((BEFORE, "--"), (AFTER, "-")):
            runs = figures.of(f"{task}, {when}")
            if not runs:
                continue
            names = bands(runs)
            for size, colour in zip(SIZES, ("#d62728", "#1f77b4", "#2ca02c"), strict=True):
                values = [mean_mass(runs, size, band) for band in names]
                style = {"color": colour, "label": f"top {size}, {when}"}
                panel.plot(names, values, "o" + line, ms=3, lw=1.3, **style)
        panel.set(xlabel="position in the completion", ylabel="probability mass", ylim=(0, 1.02))
        panel.set_title(task, fontsize=9)
        panel.legend(fontsize=6)
    studies.draw(figure, path)


if __name__ == "__main__":
    main()
