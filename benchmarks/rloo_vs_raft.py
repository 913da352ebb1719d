"""RLOO against RAFT at equal samples, then with wrong verdicts and with a price on divergence.

The claims (Ahmadian et al., 2024, arXiv 2402.14740, sections 5.1 and 5.3; RAFT: Dong et al., 2023,
arXiv 2304.06767): RLOO, which learns from all K completions of a prompt, reaches more reward than
RAFT, which imitates the best of them and throws the others away, at the same K; and RAFT suffers
more from noise in the reward and from a rising KL coefficient β.

Three rows with K = 4: `rloo`; `raft best`, which imitates the greatest reward of each group, all
that tie included, so all of them where none is right; and `raft right`, which imitates what is
right and nothing else (Xiong et al., 2025, arXiv 2504.11343). Noise turns each verdict of training
round with a probability, independently for each completion; held-out tasks are judged without it.
β is paid in the reward; RAFT ranks by the verdict and weighs what it keeps with 1 − β KL.

    python benchmarks/rloo_vs_raft.py --out rloo_vs_raft.json --plot rloo_vs_raft.png
"""

import hashlib
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import report
import studies

from rlvr.envs import make
from rlvr.verifiers import Verdict, Verifier, verify
from rlvr.verifiers import make as make_verifier

K = 4
"""Completions per prompt."""

NOISES = (0.0, 0.1, 0.2, 0.3)
"""Shares of verdicts that are turned round, of right and of wrong ones alike."""

BETAS = (0.0, 0.01, 0.1, 0.5)
"""Prices of a nat of KL to the reference."""

ROWS: dict[str, dict[str, Any]] = {
    "rloo": {"algorithm": "rloo"},
    "raft best": {"algorithm": "raft", "reward": "best", "kl": "reward"},
    "raft right": {"algorithm": "raft", "kl": "reward"},
}
"""Name → settings."""

COLOURS = {"rloo": "#1f77b4", "raft best": "#d62728", "raft right": "#ff9f40"}

TASK = {"high": 49, "size": 1600, "split": "train"}
"""The demo's task."""

TESTS = f"rlvr/Arithmetic-v0 high=49 size={studies.HELD_OUT} split=test"


class Noisy:
    """Turns a verifier's verdict round now and then.

    The n-th verdict on a completion follows from seed, completion, truth and n, so that a run can
    be repeated and the members of a group are independent.
    """

    def __init__(
        self, inner: Verifier, *, false_positive: float, false_negative: float, seed: int
    ) -> None:
        """Set the probabilities with which a wrong answer is paid, and a right one not."""
        self.inner, self.seed = inner, seed
        self.false_positive, self.false_negative = false_positive, false_negative
        self._seen: Counter[tuple[str, str]] = Counter()

    def __call__(self, completion: str, truth: Any, **context: Any) -> Verdict:
        """Judge, and perhaps say the opposite; what is unscored stays so."""
        found = verify(self.inner, completion, truth, **context)
        if found.reward is None:
            return found
        key = completion, repr(truth)
        self._seen[key] += 1
        text = f"{self.seed} {key} {self._seen[key]}".encode()
        draw = int.from_bytes(hashlib.sha256(text).digest()[:8], "big") / 2**64
        right = found.reward > 0
        if draw >= (self.false_negative if right else self.false_positive):
            return found
        return Verdict.wrong() if right else Verdict.correct()


def main() -> None:
    """Run what is missing, and print."""
    options = studies.parser(__doc__, out="rloo_vs_raft.json", steps=30).parse_args()
    shared = {"steps": options.steps, "K": K, "completions": studies.COMPLETIONS}
    figures = studies.Figures(options, shared)
    for seed in range(options.seeds):
        for row in ROWS:
            for noise, beta in [*((n, 0.0) for n in NOISES), *((0.0, b) for b in BETAS[1:])]:
                key = f"{row}, noise {noise:g}, β {beta:g} {seed}"
                figures.add(key, work(row, noise, beta, seed, options.steps))
    print("\n" + figures.header() + "\n\n" + describe(figures))
    if options.plot:
        plot(figures, options.plot)


def work(
    row: str, noise: float, beta: float, seed: int, steps: int
) -> Callable[[], dict[str, Any]]:
    """Return a training run that is still to be done."""
    settings = ROWS[row] | {"beta": beta, "group_size": K, "verifier_timeout": 0.0}
    settings["prompts_per_step"] = studies.COMPLETIONS // K
    rates = {"false_positive": noise, "false_negative": noise}
    judge = Noisy(make_verifier("math"), **rates, seed=seed)
    given = {
        "env": lambda: make("rlvr/Arithmetic-v0", verifier=judge, **TASK),
        "eval_env": TESTS,
    }
    return lambda: studies.run(steps, seed, keep=("kl",), given=given, **settings)


def describe(figures: studies.Figures) -> str:
    """Return both tables: solved at the end by noise and by β."""
    by_noise = [[row, *(_ends(figures, row, noise, 0.0) for noise in NOISES)] for row in ROWS]
    by_beta = [[row, *(_ends(figures, row, 0.0, beta) for beta in BETAS)] for row in ROWS]
    whole = [[row, *(_ends(figures, row, noise, 0.0, "whole") for noise in NOISES)] for row in ROWS]
    noises = [f"noise {noise:g}" for noise in NOISES]
    betas = [f"β {beta:g}" for beta in BETAS]
    return (
        "Solved of the held-out tasks at the end:\n\n"
        + report.table(["row", *noises], by_noise)
        + "\n\nPaid share of the training batches, mean over the steps:\n\n"
        + report.table(["row", *noises], whole)
        + "\n\nSolved of the held-out tasks at the end, without noise:\n\n"
        + report.table(["row", *betas], by_beta)
    )


def _runs(figures: studies.Figures, row: str, noise: float, beta: float) -> list[dict[str, Any]]:
    return figures.of(f"{row}, noise {noise:g}, β {beta:g}")


def _ends(
    figures: studies.Figures, row: str, noise: float, beta: float, what: str = "after"
) -> str:
    runs = _runs(figures, row, noise, beta)
    if what == "whole":
        return studies.mean_and_range([sum(c["solved"]) / len(c["solved"]) for c in runs])
    return studies.mean_and_range([curve["after"] for curve in runs])


def plot(figures: studies.Figures, path: str) -> None:
    """Draw curves at equal samples, and the ends by noise and by β."""
    figure, (curves, noises, betas) = studies.panels(1, 3)
    for row, colour in COLOURS.items():
        runs = _runs(figures, row, 0.0, 0.0)
        if runs:
            studies.band(curves, [curve["solved"] for curve in runs], row, colour)
        for axes, pairs in (
            (noises, [(noise, 0.0) for noise in NOISES]),
            (betas, [(0.0, beta) for beta in BETAS]),
        ):
            ends = [[c["after"] for c in _runs(figures, row, *pair)] for pair in pairs]
            places = [place for place, some in enumerate(ends) if some]
            axes.plot(places, [sum(ends[i]) / len(ends[i]) for i in places], color=colour, lw=1.2)
            for place in places:
                axes.plot([place] * len(ends[place]), ends[place], "o", color=colour, ms=3)
    curves.set(xlabel="step", ylabel="solved share of the batch", ylim=(0, 1))
    curves.legend(fontsize=7)
    for axes, label, values in ((noises, "share of wrong verdicts", NOISES), (betas, "β", BETAS)):
        axes.set(xlabel=label, ylabel="solved, held out, at the end", ylim=(0, 1))
        axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
    studies.draw(figure, path)


if __name__ == "__main__":
    main()
