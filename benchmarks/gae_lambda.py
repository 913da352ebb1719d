"""Is λ = 1 the best of GAE for a policy that has been trained before?

The claim (Ahmadian et al., 2024, arXiv 2402.14740, section 3.1): a language model that begins from
supervised training has gradients of little variance, so that the bias which λ < 1 takes on to lower
it is paid for nothing; the closer λ is to 1, where the advantage is the whole return less V, the
better PPO learns.

PPO with a critic of its own, γ = 1, everything but λ the same, on the demo's sums: completions of
one to three tokens, each digit a token.

    python benchmarks/gae_lambda.py --out gae_lambda.json --plot gae_lambda.png
"""

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

COLOURS = ("#d62728", "#ff7f0e", "#bcbd22", "#2ca02c", "#17becf", "#1f3b99")


def main() -> None:
    """Run what is missing, and print."""
    options = studies.parser(__doc__, out="gae_lambda.json", steps=20).parse_args()
    figures = studies.Figures(options, {"steps": options.steps, **PPO})
    for seed in range(options.seeds):
        for lam in LAMBDAS:
            figures.add(f"{lam:g} {seed}", lambda s=seed, lam=lam: run(s, lam, options.steps))
    print("\n" + figures.header() + "\n\n" + describe(figures))
    if options.plot:
        plot(figures, options.plot)


def run(seed: int, lam: float, steps: int) -> dict[str, Any]:
    """Train with one λ."""
    return studies.run(steps, seed, keep=("explained_variance",), lam=lam, **PPO)


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
    head = ["λ", "before", "after", "mean over the steps", "variance that V explains"]
    return report.table(head, rows)


def plot(figures: studies.Figures, path: str) -> None:
    """Draw the curves, and the end by λ."""
    figure, (curves, ends) = studies.panels(1, 2, width=4.2, height=3.0)
    for name, colour in zip(figures.names, COLOURS, strict=False):
        runs = figures.of(name)
        studies.band(curves, [curve["solved"] for curve in runs], f"λ = {name}", colour)
    curves.set(xlabel="step", ylabel="solved share of the batch", ylim=(0, 1))
    curves.legend(fontsize=7)
    places = range(len(figures.names))
    measures = {"held out, at the end": _end, "mean over the steps": whole}
    for (label, measure), (colour, mark) in zip(
        measures.items(), (("#333333", "o"), ("#e377c2", "s")), strict=True
    ):
        values = [[measure(curve) for curve in figures.of(name)] for name in figures.names]
        means = [sum(some) / len(some) for some in values]
        ends.plot(places, means, color=colour, lw=1.2, label=label)
        for place, some in zip(places, values, strict=True):
            ends.plot([place] * len(some), some, mark, color=colour, ms=3)
    ends.set(xlabel="λ", ylim=(0, 1))
    ends.set_xticks(list(places), figures.names)
    ends.legend(fontsize=7)
    studies.draw(figure, path)


if __name__ == "__main__":
    main()
