"""RLOO and GRPO against PPO: memory, seconds a step, and reward at equal samples.

The claim (Ahmadian et al., 2024, arXiv 2402.14740, and its authors' report of TRL's RLOO trainer):
RLOO needs 50 to 70 % less memory than PPO and is two to three times as fast, for no less reward.

**Memory and time** with a Llama of 27 million random weights, so that weights and what the
optimiser keeps of them outweigh everything else; every run is a process of its own. The peak is
that of the resident memory (Linux's `VmHWM`) less what the process held before it loaded the
model; what stands in tensors at the end of a step is counted beside it. Completions of 24 tokens
are paid by a hash, so that no group is without a gradient. PPO takes 4 passes over a batch, RLOO
and GRPO one, as in their rows; PPO with one pass shows which part of the time that is. There is no
reward model here: the verifier takes its place, for all.

**Reward** with the embedded default on the demo's task, at the same completions a step.

    python benchmarks/rloo_vs_ppo.py --out rloo_vs_ppo.json --plot rloo_vs_ppo.png
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import report
import studies
import torch

from rlvr.agents.embedded import EmbeddedConfig, build
from rlvr.rl_core import train
from rlvr.verifiers import verifier

SIZE = EmbeddedConfig(width=512, layers=8, heads=8, context=256)
"""The large model."""

ROWS: dict[str, dict[str, Any]] = {
    "rloo": {"algorithm": "rloo", "group_size": 4},
    "rloo, no reference": {"algorithm": "rloo", "group_size": 4, "beta": 0.0},
    "grpo": {"algorithm": "grpo", "group_size": 4},
    "ppo, value head": {"algorithm": "ppo", "critic": "head"},
    "ppo, separate critic": {"algorithm": "ppo", "critic": "model"},
    "ppo, separate critic, 1 pass": {"algorithm": "ppo", "critic": "model", "epochs": 1},
}
"""What is compared."""

PPO = "ppo, separate critic"
"""What the others are compared with."""

LEARNS = tuple(name for name in ROWS if name != "rloo, no reference")
"""Rows whose reward is compared."""

COLOURS = ("#1f77b4", "#9467bd", "#ff9f40", "#d62728", "#333333")

MEASURED = 3
"""Steps of the large model; the first one, in which the optimiser makes its state, is not timed."""

BATCH: dict[str, Any] = {"completions": 16, "max_tokens": 24, "micro_batch_tokens": 256}
"""A step of the large model."""

HELD = ("weights", "gradients", "optimiser", "critic", "reference")
"""What tensors are held for."""


def main() -> None:
    """Run what is missing, and print."""
    flags = studies.parser(__doc__, out="rloo_vs_ppo.json", steps=40)
    flags.add_argument("--child", nargs=2, help="(for the script itself) row and folder")
    flags.add_argument("--rounds", type=int, default=1, help="processes for memory and time")
    options = flags.parse_args()
    if options.child:
        name, folder = options.child
        torch.set_num_threads(options.threads)
        print(json.dumps(measure(ROWS[name], Path(folder))))
        return
    shared = {"steps": options.steps, "measured": MEASURED, **BATCH}
    figures = studies.Figures(options, shared)
    for number in range(options.rounds):
        for name in ROWS:
            figures.add(f"memory of {name} {number}", lambda n=name: apart(n, options.threads))
    for seed in range(options.seeds):
        for name in LEARNS:
            figures.add(f"{name} {seed}", lambda n=name, s=seed: learn(n, s, options.steps))
    print("\n" + figures.header() + "\n\n" + describe(figures))
    if options.plot:
        plot(figures, options.plot)


def apart(name: str, threads: int) -> dict[str, Any]:
    """Measure a row in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        for part in build(SIZE):
            part.save_pretrained(Path(folder) / "model")
        command = [sys.executable, __file__, "--child", name, folder, "--threads", str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the process that measured '{name}' failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


@verifier
def hashed(completion: str, truth: Any) -> float:
    """Pay a number in [0, 1) that follows from the completion."""
    return int.from_bytes(hashlib.sha256(completion.encode()).digest()[:4], "big") / 2**32


def learn(name: str, seed: int, steps: int) -> dict[str, Any]:
    """Train the embedded default with one row."""
    row = {"critic_lr": 3e-3, **ROWS[name]}
    row["prompts_per_step"] = studies.COMPLETIONS // row.get("group_size", 1)
    return studies.run(steps, seed, **row)


def measure(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Take some steps with the large model in this process; returns bytes and seconds."""
    given = {k: v for k, v in BATCH.items() if k != "completions"}
    given["prompts_per_step"] = BATCH["completions"] // row.get("group_size", 1)
    given |= {"model": str(folder / "model"), "out": str(folder / "run"), "lr": 1e-5}
    given |= {"steps": MEASURED, "eval_tasks": 0, "checkpoint_every": 0}
    given |= {"verifier_timeout": 0.0, "diagnostics_every": 0}
    found: dict[str, Any] = {}
    seconds: list[float] = []

    def look(trainer: Any, metrics: dict[str, float]) -> None:
        seconds.append(time.perf_counter() - began[-1])
        found.update(peak=memory("VmHWM") - before, held=held(trainer), length=metrics["length"])
        began.append(time.perf_counter())

    before = forget_the_peak()
    began = [time.perf_counter()]
    task = "rlvr/Arithmetic-v0 high=49 size=100"
    train(env=task, verifier=hashed, callbacks=[look], quiet=True, **row, **given)
    return found | {"baseline": before, "step_seconds": float(np.median(seconds[1:]))}


def memory(field: str) -> int:
    """Return a field of the process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field + ":")).split()[1])


def forget_the_peak() -> int:
    """Let the peak begin anew from what the process holds now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def held(trainer: Any) -> dict[str, int]:
    """Count the bytes of the tensors that stand between two steps."""
    learner, critic = trainer.learner, trainer.learner.critic
    own: list[Any] = []
    if critic is not None:
        trained = critic.weights.parameters
        own = [*trained, *(p.grad for p in trained if p.grad is not None)]
        own += _state(critic.weights.optimizer)
    reference = [] if learner.reference is None else list(learner.reference.parameters())
    parts = {
        "weights": list(learner.parameters),
        "gradients": [p.grad for p in learner.parameters if p.grad is not None],
        "optimiser": _state(learner.optimizer),
        "critic": own,
        "reference": reference,
    }
    return {name: sum(t.nbytes for t in tensors) for name, tensors in parts.items()}


def _state(optimizer: Any) -> list[torch.Tensor]:
    return [t for one in optimizer.state.values() for t in one.values() if torch.is_tensor(t)]


def describe(figures: studies.Figures) -> str:
    """Return the tables: memory and time of the large model, reward of the small one."""
    against = _medians(figures, PPO)
    rows = []
    for name in ROWS:
        found = _medians(figures, name)
        if not found or not against:
            continue
        tensors = sum(found[part] for part in HELD)
        rows.append(
            [
                name,
                *(f"{found[part] / 1e6:.0f}" for part in HELD),
                f"{found['rest'] / 1e6:.0f}",
                f"{found['peak'] / 1e6:.0f}",
                f"{1 - found['peak'] / against['peak']:.0%}",
                f"{1 - tensors / sum(against[part] for part in HELD):.0%}",
                f"{found['step_seconds']:.2f}",
                f"{against['step_seconds'] / found['step_seconds']:.2f}",
            ]
        )
    head = ["row", *(f"{part}, MB" for part in HELD), "activations and the rest", "peak"]
    head += ["peak saved", "tensors saved", "s a step", "times as fast"]
    learned = [
        [name, studies.mean_and_range([curve["after"] for curve in runs])]
        for name in LEARNS
        if (runs := figures.of(name))
    ]
    ends = report.table(["row", "solved of the held-out tasks at the end"], learned)
    return report.table(head, rows) + "\n\n" + ends


def _medians(figures: studies.Figures, name: str) -> dict[str, float]:
    """Return the medians of what was measured of a row; nothing if it was not."""
    runs = figures.of(f"memory of {name}")
    if not runs:
        return {}
    flat = [{**run["held"], "peak": run["peak"], "seconds": run["step_seconds"]} for run in runs]
    found = {key: float(np.median([one[key] for one in flat])) for key in flat[0]}
    found["step_seconds"] = found.pop("seconds")
    return found | {"rest": found["peak"] - sum(found[part] for part in HELD)}


def plot(figures: studies.Figures, path: str) -> None:
    """Draw the parts of the peak, the seconds, and the curves."""
    figure, (bytes_, seconds, curves) = studies.panels(1, 3, width=3.6)
    names = [name for name in ROWS if figures.of(f"memory of {name}")]
    found = [_medians(figures, name) for name in names]
    left = np.zeros(len(names))
    for part in (*HELD, "rest"):
        widths = np.array([one[part] / 1e6 for one in found])
        bytes_.barh(names, widths, left=left, label=part if part != "rest" else "activations, …")
        left += widths
    bytes_.set(xlabel="peak of the resident memory, MB")
    bytes_.legend(fontsize=6)
    seconds.barh(names, [one["step_seconds"] for one in found], color="#888888")
    seconds.set(xlabel="seconds a step")
    seconds.set_yticklabels([])
    for axes in (bytes_, seconds):
        axes.invert_yaxis()
    for name, colour in zip(LEARNS, COLOURS, strict=True):
        runs = figures.of(name)
        if runs:
            studies.band(curves, [curve["solved"] for curve in runs], name, colour)
    curves.set(xlabel="step", ylabel="solved share of the batch", ylim=(0, 1))
    if curves.lines:
        curves.legend(fontsize=7)
    studies.draw(figure, path)


if __name__ == "__main__":
    main()
