"""The main job through vLLM: does it learn what the embedded default learns?

    python benchmarks/vllm_main_job.py --out vllm_main_job.json

The demo's job (`examples/arithmetic.toml`: 400 steps of 256 completions, from the same warm start)
on three seeds, with the engine in this process, with a server on loopback that each run starts for
itself, and with the embedded default; judged on 400 held-out tasks, one sample each, drawn by the
policy that was trained. It runs in an environment that has vLLM.

What the seam costs and how far it drifts stands beside it: seconds of a step, of handing over the
weights and of the canary, the largest gap that the canary found after a sync, and the largest mean
difference between the engine's log-probabilities and the learner's on a step's own completions.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import report
import studies
from transformers.utils import logging

from rlvr.rl_core import TrainConfig

REFERENCE = "transformers"
POLICIES = (REFERENCE, "vllm", "vllm-server")
TARGET = 0.03
"""How far below the embedded default's mean the others may end."""

MEDIANS = ("time/sampling", "sync/seconds", "sync/canary_seconds")
"""Metrics of which the median over the steps is kept."""
GREATEST = ("sync/gap", "sync/cached_gap", "mismatch")
"""And of which the greatest."""


def measure(policy: str, steps: int, seed: int) -> dict[str, Any]:
    """Train once."""
    found = studies.run(steps, seed, keep=(*MEDIANS, *GREATEST), policy=policy)
    for names, summary in ((MEDIANS, np.median), (GREATEST, np.max)):
        for name in names:
            values = [value for value in found.pop(name) if value is not None]
            if values:
                found[name] = float(summary(values))
    return found


def describe(figures: studies.Figures) -> str:
    """Return the tables."""
    rows, means = [], {}
    for name in figures.names:
        runs = figures.of(name)
        shares = [run["after"] for run in runs]
        means[name] = float(np.mean(shares))
        shown = [f"{share:.3f}" for share in shares]
        before = studies.mean_and_range([run["before"] for run in runs])
        gap = f"{means[name] - means[REFERENCE]:+.3f}" if REFERENCE in means else ""
        rows.append([name, before, ", ".join(shown), f"{means[name]:.3f}", gap])
    heads = ["policy", "solved before", "after, seed by seed", "mean", f"less {REFERENCE}'s"]
    costs = [[name, *_costs(figures.of(name))] for name in figures.names]
    paid = ["policy", "step", "sampling", "weights", "canary", "all of a run, s"]
    paid += ["greatest gap after a sync", "greatest mean mismatch"]
    return "\n\n".join(
        [
            figures.header(),
            report.table(heads, rows),
            f"Target: no mean more than {TARGET} below {REFERENCE}'s.",
            "Milliseconds, medians over steps and seeds; gaps in nats.",
            report.table(paid, costs),
        ]
    )


def _costs(runs: list[dict[str, Any]]) -> list[str]:
    times = [
        [1000 * run[name] for run in runs if name in run] for name in ("step_seconds", *MEDIANS)
    ]
    gaps = [[run[name] for run in runs if name in run] for name in ("sync/gap", "mismatch")]
    return [
        *(f"{np.median(values):.1f}" if values else "" for values in times),
        f"{np.median([run['seconds'] for run in runs]):.0f}",
        *(f"{max(values):.1e}" if values else "" for values in gaps),
    ]


def main() -> None:
    """Train what is missing and print the tables."""
    logging.disable_progress_bar()
    demo = TrainConfig.from_toml(studies.DEMO)
    flags = studies.parser(__doc__, out="vllm_main_job.json", steps=demo.run.steps)
    flags.add_argument("--policies", default=",".join(POLICIES), help="separated by commas")
    options = flags.parse_args()
    settings = {"steps": options.steps, "held_out": studies.HELD_OUT}
    figures = studies.Figures(options, settings)
    for seed in range(options.seeds):
        for policy in options.policies.split(","):
            figures.add(f"{policy} {seed}", partial(measure, policy, options.steps, seed))
    print("\n" + describe(figures))


if __name__ == "__main__":
    main()
