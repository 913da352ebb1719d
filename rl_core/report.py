"""What a run leaves to look at: the curve as PNG, and a page with figures and completions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .config import TrainConfig
from .progress import Display, shorten
from .records import Run
from .token_view import token_view

EXAMPLES = 12
"""Completions in the before/after table."""

SHOWN = 10
"""Held-out problems shown in the terminal at the end; the report has more."""


def conclude(run: Run, config: TrainConfig, display: Display, step: int, *, finished: bool) -> None:
    """Leave the report, and say what came of the run and where it lies.

    Args:
        run: The run, its final model written if it is finished.
        config: Its settings.
        display: Where it is said.
        step: Steps done.
        finished: Whether that is all of them; otherwise only the way on is said.

    Raises:
        TrainingStopped: The report could not be written.
    """
    say, folder = display.say, run.folder
    if not finished:
        say(f"stopped after step {step}, saved; continue with `rlvr train --resume --out {folder}`")
        return
    pairs = before_and_after(run)[:SHOWN]
    if pairs:
        rows = [
            (shorten(p["prompt"], 60), _outcome(p["before"]), _outcome(p["after"])) for p in pairs
        ]
        heads = ["prompt", "before", "after"]
        display.table("held-out problems before and after", heads, rows)
    say(f"model   {folder / 'model'}\nreport  {write_report(run, config)}")
    say(f"curve   {folder / 'curve.png'}")


def _outcome(row: Mapping[str, Any]) -> str:
    said = conversation(row)
    text = " → ".join(text for _, text in said) if len(said) > 1 else row["completion"]
    return f"{shorten(text, 40 * min(len(said), 2))}  {row['status'] or ''}"


def conversation(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return who said what from the first action of an episode on.

    Args:
        row: Of an evaluation.

    Example:
        >>> asked, hint = {"role": "user", "content": "1 to 9?"}, {"role": "user", "content": "up"}
        >>> guess = {"role": "assistant", "content": "5"}
        >>> conversation({"messages": [asked, guess, hint], "completion": "7", "turns": 2})
        [('assistant', '5'), ('user', 'up'), ('assistant', '7')]
    """
    before = row.get("messages") or []
    own = [i for i, message in enumerate(before) if message["role"] == "assistant"]
    earlier = max(0, row.get("turns", 1) - 1)
    start = own[-earlier] if 0 < earlier <= len(own) else len(before)
    told = [(message["role"], message["content"]) for message in before[start:]]
    return [*told, ("assistant", row["completion"])]


def write_report(run: Run, config: TrainConfig) -> Path:
    """Write `curve.png` and `report.html` from the run's files; returns the page's path.

    Raises:
        TrainingStopped: They could not be written.
    """
    import jinja2

    metrics = run.lines("metrics.jsonl")
    pairs = before_and_after(run)
    with run.guard("write the report"):
        figure = draw_curve(metrics, title=", ".join(config.tasks.env))
        figure.savefig(run.folder / "curve.png")
        folder = Path(__file__).parent
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folder),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
        )
        page = environment.get_template("report.html.jinja").render(
            title=str(run.folder),
            evaluations=[line for line in metrics if "eval/solved" in line],
            last=next((line for line in reversed(metrics) if "reward" in line), {}),
            pairs=pairs[:EXAMPLES],
            changed=sum(pair["after"]["solved"] != pair["before"]["solved"] for pair in pairs),
            count=len(pairs),
            steps=token_view(run),
            config=config.to_toml(),
        )
        path = run.folder / "report.html"
        path.write_text(page, encoding="utf-8", errors="replace")
    return path


def before_and_after(run: Run) -> list[dict[str, Any]]:
    """Return the held-out completions of the first and last evaluation side by side."""
    rows = run.lines("evaluations.jsonl")
    if not rows:
        return []
    first, last = rows[0]["step"], rows[-1]["step"]
    before = {_problem(row): row for row in rows if row["step"] == first}
    after = {_problem(row): row for row in rows if row["step"] == last}
    return [
        {
            "prompt": row["prompt"],
            "before": {**row, "chat": conversation(row)},
            "after": {**after[name], "chat": conversation(after[name])},
        }
        for name, row in before.items()
        if name in after
    ]


def _problem(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what tells problems apart: environments may share ids."""
    return row["env"], row["task_id"], row["prompt"]


def draw_curve(metrics: Sequence[Mapping[str, Any]], title: str = "") -> Any:
    """Draw solved shares, length, entropy and gradient norm over the steps.

    Args:
        metrics: The lines of `metrics.jsonl`.
        title: Stands above.

    Returns:
        A matplotlib figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [line for line in metrics if "reward" in line]
    evaluations = [line for line in metrics if "eval/solved" in line]
    figure = Figure(figsize=(9, 6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplot_mosaic([["top"] * 3, ["left", "middle", "right"]], height_ratios=(3, 2))
    top, *small = places.values()
    if steps:
        x = [line["step"] for line in steps]
        top.plot(
            x, [line["solved"] for line in steps], color="#9aa5b1", lw=1, label="training batch"
        )
    if evaluations:
        x = [line["step"] for line in evaluations]
        top.plot(
            x, [e["eval/solved"] for e in evaluations], "o-", color="#0b6e4f", label="held out"
        )
        low = [e["eval/solved_low"] for e in evaluations]
        high = [e["eval/solved_high"] for e in evaluations]
        top.fill_between(x, low, high, color="#0b6e4f", alpha=0.15, label="95 % interval")
    top.set(ylim=(-0.02, 1.02), ylabel="solved share", xlabel="step", title=title)
    if steps or evaluations:
        top.legend(loc="lower right")
    panels = (("length", "tokens"), ("entropy", "entropy (nats)"), ("grad_norm", "gradient norm"))
    for axes, (name, label) in zip(small, panels, strict=True):
        points = [(line["step"], line[name]) for line in steps if name in line]
        axes.plot([p[0] for p in points], [p[1] for p in points], color="#3e4c59", lw=1)
        axes.set(xlabel="step", ylabel=label)
    for axes in (top, *small):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
    return figure
