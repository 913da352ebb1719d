"""How much does the group size G matter when the completions of a step are as many?

Trust in G: more completions of a prompt make a better baseline and fewer groups without gradient;
fewer make room for more prompts. With RLOO (Ahmadian et al., 2024, arXiv 2402.14740) the gradient
is unbiased for every G, so that its noise can be compared at the same weights: with gradients g_r
of R batches of the same number of completions,

    signal ‖g‖² = mean_{r≠s} g_r·g_s,   noise = mean ‖g_r‖² − ‖g‖²

and the cosine of each g_r with the mean gradient of other batches, forty-eight times as large. This
is done with the weights before training and with those after some steps of it, where most prompts
are solved. Then RLOO and GRPO (arXiv 2402.03300, G 64 there) are trained with each G.

    python benchmarks/group_size.py --out group_size.json --plot group_size.png
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import report
import studies
import torch

SIZES = (2, 4, 8, 16, 32)
"""The group sizes G."""

BATCHES = 12
"""Gradients of each G at the same weights, and for each seed."""

REFERENCE = 48
"""Batches of the gradient that others are compared with, of G 8 and of other prompts."""

STILL = {"lr": 1e-30, "warmup_steps": 0, "max_grad_norm": 1e30, "eval_tasks": 0}
"""Steps too small to change a weight, and gradients as they are."""

LATER = "after training"
FIRST = "before training"


def main() -> None:
    """Run what is missing, and print."""
    options = studies.parser(__doc__, out="group_size.json", steps=30).parse_args()
    shared = {"steps": options.steps, "batches": BATCHES, "reference": REFERENCE}
    figures = studies.Figures(options, shared)
    kept = Path(options.out).with_suffix(".weights")
    for seed in range(options.seeds):
        for name in ("rloo", "grpo"):
            for size in SIZES:
                figures.add(f"{name} {size} {seed}", training(name, size, seed, options.steps))
    figures.add("weights 0", lambda: trained(kept, options.steps))
    for when, model in ((FIRST, {}), (LATER, {"model": str(kept)})):
        for seed in range(options.seeds):
            figures.add(f"gradients {when} {seed}", lambda s=seed, m=model: gradients(s, m))
    print("\n" + figures.header() + "\n\n" + describe(figures))
    if options.plot:
        plot(figures, options.plot)


def _sizes(size: int) -> dict[str, Any]:
    return {"group_size": size, "prompts_per_step": studies.COMPLETIONS // size}


def training(name: str, size: int, seed: int, steps: int) -> Callable[[], dict[str, Any]]:
    """Return a training run with one G that is still to be done."""
    settings = {"algorithm": name, "beta": 0.0, **_sizes(size)}
    return lambda: studies.run(steps, seed, keep=("dead_groups", "grad_norm"), **settings)


def trained(place: Path, steps: int) -> dict[str, Any]:
    """Train once, and keep the weights."""

    def keep(folder: Path) -> dict[str, Any]:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder / "model", place)
        return {}

    return studies.run(steps, 100, algorithm="rloo", beta=0.0, ends=keep, **_sizes(8))


def gradients(seed: int, model: dict[str, Any]) -> dict[str, Any]:
    """Compare gradients of every G at the same weights; returns figures by G."""
    whole = torch.stack(collect(8, REFERENCE, 1000 + seed, model)[0]).mean(0)
    found: dict[str, Any] = {}
    for size in SIZES:
        drawn, dead = collect(size, BATCHES, seed, model)
        table = torch.stack(drawn)
        squares = table.square().sum(1)
        pairs = (table.sum(0).square().sum() - squares.sum()) / (BATCHES * (BATCHES - 1))
        noise = float(squares.mean() - pairs)
        cosines = torch.nn.functional.cosine_similarity(table, whole[None], dim=1)
        found[str(size)] = {
            "noise": noise,
            "ratio": noise / float(pairs),
            "cosine": float(cosines.mean()),
            "dead": float(np.mean(dead)),
        }
    return found


def collect(
    size: int, batches: int, seed: int, model: dict[str, Any]
) -> tuple[list[torch.Tensor], list[float]]:
    """Return the gradients of RLOO on some batches, and the shares of groups without any."""
    drawn: list[torch.Tensor] = []
    dead: list[float] = []

    def look(trainer: Any, metrics: dict[str, float]) -> None:
        found = [
            torch.zeros_like(p) if p.grad is None else p.grad for p in trainer.learner.parameters
        ]
        drawn.append(torch.cat([one.flatten() for one in found]).double())
        dead.append(metrics["dead_groups"])

    settings = {"algorithm": "rloo", "beta": 0.0, **STILL, **_sizes(size), **model}
    studies.run(batches, seed, callbacks=[look], **settings)
    return drawn, dead


def describe(figures: studies.Figures) -> str:
    """Return the tables: gradients at the same weights, and training."""
    rows = []
    for when in (FIRST, LATER):
        for size in map(str, SIZES):
            some = [run[size] for run in figures.of(f"gradients {when}")]
            if not some:
                continue
            rows.append(
                [
                    when,
                    size,
                    studies.COMPLETIONS // int(size),
                    studies.mean_and_range([one["noise"] for one in some], 2),
                    studies.mean_and_range([one["ratio"] for one in some], 2),
                    studies.mean_and_range([one["cosine"] for one in some]),
                    f"{np.mean([one['dead'] for one in some]):.2f}",
                ]
            )
    head = ["weights", "G", "prompts", "noise", "noise / signal", "cosine", "dead groups"]
    trained = []
    for size in SIZES:
        line: list[Any] = [size]
        for name in ("rloo", "grpo"):
            runs = figures.of(f"{name} {size}")
            dead = [np.mean(curve["dead_groups"]) for curve in runs]
            line += [studies.mean_and_range([curve["after"] for curve in runs])]
            line += [f"{np.mean(dead):.2f}" if dead else ""]
        trained.append(line)
    columns = ["G", "rloo: solved at the end", "dead groups", "grpo: solved at the end", "dead"]
    return report.table(head, rows) + "\n\n" + report.table(columns, trained)


def plot(figures: studies.Figures, path: str) -> None:
    """Draw the cosine, the dead groups and the ends by G."""
    figure, (cosine, dead, ends) = studies.panels(1, 3)
    places = range(len(SIZES))
    for when, colour in ((FIRST, "#1f77b4"), (LATER, "#d62728")):
        runs = figures.of(f"gradients {when}")
        for axes, what in ((cosine, "cosine"), (dead, "dead")):
            table = np.array([[run[str(size)][what] for size in SIZES] for run in runs])
            if len(table):
                axes.plot(places, table.mean(0), "o-", color=colour, ms=3, lw=1.2, label=when)
    for name, colour in (("rloo", "#2ca02c"), ("grpo", "#9467bd")):
        table = [[curve["after"] for curve in figures.of(f"{name} {size}")] for size in SIZES]
        for place, values in enumerate(table):
            ends.plot([place] * len(values), values, "o", color=colour, ms=3)
        if all(table):
            ends.plot(places, [np.mean(v) for v in table], color=colour, lw=1.2, label=name)
    for axes, label in (
        (cosine, "cosine with a large sample's gradient"),
        (dead, "share of groups without gradient"),
        (ends, "solved, held out, at the end"),
    ):
        axes.set(xlabel="G, at 256 completions a step", ylabel=label, ylim=(0, 1))
        axes.set_xticks(list(places), [str(size) for size in SIZES])
        axes.legend(fontsize=7)
    studies.draw(figure, path)


if __name__ == "__main__":
    main()
