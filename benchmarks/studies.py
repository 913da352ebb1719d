"""What the studies of learning share: one training, a file of figures, tables, plots.

A study trains the embedded default many times. Its figures go into one JSON file, a key for each
run; what stands there already is not run again, so that the work can be cut into pieces with
`--minutes`. The settings that all keys share stand beside them: a file made with others is refused.
"""

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import report
import torch

from rlvr.rl_core import TrainConfig, train

DEMO = Path(__file__).parents[1] / "examples" / "arithmetic.toml"
"""Says what is learned and from which weights."""

COMPLETIONS = 256
"""Completions per step that are learned from."""

HELD_OUT = 400
"""Held-out tasks, one sample each: a standard error of at most 0.025."""

COLOURS = 256
"""Colours kept of a plot: as many as its lines and their soft edges need."""


def parser(about: str | None, *, out: str, steps: int, seeds: int = 3) -> argparse.ArgumentParser:
    """Return the flags that every study has.

    Args:
        about: The script's docstring.
        out: File for the figures, by default.
        steps: Training steps, by default.
        seeds: Seeds, by default.
    """
    found = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawTextHelpFormatter
    )
    found.add_argument("--threads", type=int, default=1)
    found.add_argument("--seeds", type=int, default=seeds)
    found.add_argument("--steps", type=int, default=steps)
    found.add_argument("--minutes", type=float, default=0, help="start no run after; 0: no limit")
    found.add_argument("--out", default=out, help="file for the figures")
    found.add_argument("--plot", default="", help="PNG file for the plot")
    return found


class Figures:
    """Figures by key, in a file that grows with every run."""

    def __init__(self, options: argparse.Namespace, settings: Mapping[str, Any]) -> None:
        """Read what is there.

        Args:
            options: The flags of `parser`.
            settings: What all figures of the file must have been made with.
        """
        torch.set_num_threads(options.threads)
        self.path, self.minutes = Path(options.out), options.minutes
        self.began = time.perf_counter()
        done = json.loads(self.path.read_text()) if self.path.exists() else {}
        wanted = json.loads(json.dumps(dict(settings) | {"threads": options.threads}))
        if done.setdefault("settings", wanted) != wanted:
            raise SystemExit(
                f"{self.path} was made with {done['settings']}, wanted are {wanted}; "
                "choose another --out"
            )
        done.setdefault("circumstances", report.circumstances(options.threads))
        self.runs: dict[str, Any] = done.setdefault("runs", {})
        self._done = done

    def add(self, key: str, work: Callable[[], dict[str, Any]]) -> None:
        """Measure what stands under a key, unless it is known or the time is up."""
        late = self.minutes and time.perf_counter() - self.began > 60 * self.minutes
        if key in self.runs or late:
            return
        self.runs[key] = found = work()
        self.path.write_text(json.dumps(self._done))
        shown = {k: v for k, v in found.items() if isinstance(v, int | float)}
        print(f"{key}: " + ", ".join(f"{k} {v:.4g}" for k, v in shown.items()), flush=True)

    def of(self, name: str) -> list[dict[str, Any]]:
        """Return the runs of a name, one for each seed, seeds in order."""
        found = [(key, run) for key, run in self.runs.items() if key.rpartition(" ")[0] == name]
        return [run for _, run in sorted(found, key=lambda pair: int(pair[0].rpartition(" ")[2]))]

    @property
    def names(self) -> list[str]:
        """Everything before the seed, each once, in the order of the file."""
        return list(dict.fromkeys(key.rpartition(" ")[0] for key in self.runs))

    def header(self) -> str:
        """Return machine and versions as one paragraph."""
        return report.described(self._done["circumstances"])


def run(
    steps: int,
    seed: int,
    *,
    keep: Sequence[str] = (),
    callbacks: Sequence[Any] = (),
    ends: Callable[[Path], dict[str, Any]] | None = None,
    given: Mapping[str, Any] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train once on the demo's task, from the demo's weights; returns curve and figures.

    Args:
        steps: Training steps.
        seed: Of tasks and draws.
        keep: Metrics of which a list, a number for each step, is returned as well.
        callbacks: Called after every step.
        ends: Called with the run's folder at the end; returns more figures.
        given: Environments and verifier as `train` takes them.
        settings: What differs from the demo; the algorithm's own columns are the row's.
    """
    demo = TrainConfig.from_toml(DEMO).to_dict()
    plain = {k: v for section in demo.values() for k, v in section.items()}
    for column in ("group_size", "beta"):  # the demo's row is another one
        plain.pop(column, None)
    changes = {"eval_tasks": HELD_OUT, "eval_every": 0, "checkpoint_every": 0}
    changes |= {"max_solved_before": 1.0, "steps": steps, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        began = time.perf_counter()
        whole = {**plain, **changes, **settings, **(given or {}), "out": str(out)}
        result = train(**whole, callbacks=callbacks, quiet=True)
        seconds = time.perf_counter() - began
        if not result.finished:
            raise SystemExit(
                f"stopped after {result.steps} of {steps} steps; nothing of it is kept"
            )
        lines = list(map(json.loads, (out / "metrics.jsonl").read_text().splitlines()))
        more = ends(out) if ends else {}
    curve = [line for line in lines if "solved" in line]
    scores = [found.solved for _, found in result.evaluations]
    return {
        "before": scores[0] if scores else 0.0,
        "after": scores[-1] if scores else 0.0,
        "step_seconds": float(np.median([line["time/step"] for line in curve])),
        "seconds": seconds,
        "solved": [line["solved"] for line in curve],
        **{name: [line.get(name) for line in curve] for name in keep},
        **more,
    }


def mean_and_range(values: Sequence[float], digits: int = 3) -> str:
    """Return `mean (least–greatest)` over the seeds."""
    if not values:
        return "none"
    low, high = min(values), max(values)
    return f"{np.mean(values):.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def smooth(values: Sequence[float], width: int = 5) -> list[float]:
    """Return the mean of each value and up to `width` − 1 before it."""
    return [float(np.mean(values[max(0, i + 1 - width) : i + 1])) for i in range(len(values))]


def band(axes: Any, curves: Sequence[Sequence[float]], label: str, colour: str) -> None:
    """Draw the mean of the seeds' curves, smoothed, and from the least to the greatest of them."""
    table = np.array([smooth(curve) for curve in curves])
    places = np.arange(1, table.shape[1] + 1)
    axes.plot(places, table.mean(axis=0), color=colour, lw=1.4, label=label)
    axes.fill_between(places, table.min(axis=0), table.max(axis=0), color=colour, alpha=0.15, lw=0)


def panels(lines: int, columns: int, *, width: float = 3.4, height: float = 2.6) -> tuple[Any, Any]:
    """Return a figure and its axes, a flat array, each with a faint grid."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * lines), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for one in axes:
        one.grid(alpha=0.25)
        one.tick_params(labelsize=8)
        for axis in (one.xaxis, one.yaxis):
            axis.label.set_size(8)
    return figure, axes


def draw(figure: Any, path: str) -> None:
    """Write a figure as a PNG of few colours, a third of the usual size."""
    from PIL import Image

    full = io.BytesIO()
    figure.savefig(full, format="png")
    full.seek(0)
    picture = Image.open(full).convert("RGB").quantize(colors=COLOURS, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)
