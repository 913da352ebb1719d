"""Is λ = 1 the best of GAE for a policy that has been trained before?

The claim (Ahmadian et al., 2024, arXiv 2402.14740, section 3.1): a language model that begins from
supervised training has gradients of little variance, so that the bias which λ < 1 takes on to lower
it is paid for nothing; the closer λ is to 1, where the advantage is the whole return less V, the
better PPO learns.

PPO with a critic of its own, γ = 1, everything but λ the same, on the demo's sums, whose answers
have up to three tokens, and on pairs of words to be put in order, which have seven: the reward at
the end has the weight λ² and λ⁶ in the first token's advantage.

    python benchmarks/gae_lambda.py --out gae_lambda.json --plot gae_lambda.png
"""

import functools
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import report
import studies

LAMBDAS = (0.0, 0.5, 0.9, 0.95, 0.99, 1.0)
"""The values of λ."""

PPO: dict[str, Any] = {
    "algorithm": "ppo",
    "critic": "model",
    "critic_lr": 1e-3,
    "group_size": 1,
    "prompts_per_step": studies.COMPLETIONS,
}
"""What all runs share beside the demo's settings."""

TASKS: dict[str, dict[str, Any]] = {
    "sums": {},
    "words": {
        "env": "rlvr/SortWords-v0 count=2 syllables=1 size=600",
        "max_tokens": 12,
        "verifier_timeout": 0.0,
    },
}
"""What is learned, beside the demo's settings."""

COLOURS = ("#d62728", "#ff7f0e", "#bcbd22", "#2ca02c", "#17becf", "#1f3b99")


def main() -> None:
    """Run what is missing, and print."""
    options = studies.parser(__doc__, out="gae_lambda.json", steps=20).parse_args()
    figures = studies.Figures(options, {"steps": options.steps, "tasks": TASKS, **PPO})
    for task in TASKS:
        for seed in range(options.seeds):
            for lam in LAMBDAS:
                work = functools.partial(run, task, seed, lam, options.steps)
                figures.add(f"{task}, λ {lam:g} {seed}", work)
    print("\n" + figures.header() + "\n\n" + describe(figures))
    if options.plot:
        plot(figures, options.plot)


def run(task: str, seed: int, lam: float, steps: int) -> dict[str, Any]:
    """Train with one λ."""
    given = {**PPO, **TASKS[task]}
    return studies.run(steps, seed, keep=("explained_variance", "length"), lam=lam, **given)


def _end(curve: dict[str, Any]) -> float:
    return curve["after"]


def whole(curve: dict[str, Any]) -> float:
    """Return the mean solved share over all steps: how early it was learned."""
    return sum(curve["solved"]) / len(curve["solved"])


def describe(figures: studies.Figures) -> str:
    """Return the table: solved at the end and on the way, by λ."""
    rows = []
    for name in figures.names:
        runs = figures.of(name)
        explained = [curve["explained_variance"][-1] for curve in runs]
        rows.append(
            [
                name,
                f"{sum(c['before'] for c in runs) / len(runs):.3f}",
                studies.mean_and_range([curve["after"] for curve in runs]),
                studies.mean_and_range([whole(curve) for curve in runs]),
                studies.mean_and_range(explained, 2),
            ]
        )
    head = ["task", "before", "after", "mean over the steps", "variance that V explains"]
    return report.table(head, rows)


def plot(figures: studies.Figures, path: str) -> None:
    """Draw the curves, and the end by λ, for each task."""
    figure, axes = studies.panels(len(TASKS), 2, width=4.2, height=2.7)
    for number, task in enumerate(TASKS):
        curves, ends = axes[2 * number : 2 * number + 2]
        found = {lam: figures.of(f"{task}, λ {lam:g}") for lam in LAMBDAS}
        known = {lam: runs for lam, runs in found.items() if runs}
        for colour, lam in zip(COLOURS, LAMBDAS, strict=True):
            if lam in known:
                solved = [curve["solved"] for curve in known[lam]]
                studies.band(curves, solved, f"λ = {lam:g}", colour)
        curves.set(xlabel="step", ylabel=f"{task}: solved share of the batch", ylim=(0, 1))
        _ends(ends, [(LAMBDAS.index(lam), runs) for lam, runs in known.items()])
        for panel in (curves, ends):
            if panel.lines:
                panel.legend(fontsize=7)
    studies.draw(figure, path)


def _ends(axes: Any, known: list[tuple[int, list[dict[str, Any]]]]) -> None:
    """Draw what was reached, a point for each seed and a line of their means."""
    for label, measure, colour in (
        ("held out, at the end", _end, "#333333"),
        ("mean over the steps", whole, "#e377c2"),
    ):
        means = [sum(map(measure, runs)) / len(runs) for _, runs in known]
        axes.plot([place for place, _ in known], means, color=colour, lw=1.2, label=label)
        for place, runs in known:
            axes.plot([place] * len(runs), list(map(measure, runs)), "o", color=colour, ms=3)
    axes.set(xlabel="λ", ylim=(0, 1))
    axes.set_xticks(range(len(LAMBDAS)), [f"{lam:g}" for lam in LAMBDAS])


if __name__ == "__main__":
    main()
