"""What is seen of a run in the terminal: live lines where there is one, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

COLUMNS: dict[str, tuple[str, str]] = {
    "reward": ("reward", "{:.3f}"),
    "solved": ("solved", "{:.1%}"),
    "length": ("tokens", "{:.1f}"),
    "kl": ("KL", "{:.4f}"),
    "entropy": ("entropy", "{:.3f}"),
    "grad_norm": ("gradient", "{:.3f}"),
    "dead_groups": ("no gradient", "{:.0%}"),
    "time/tokens_per_second": ("tokens/s", "{:.0f}"),
}
"""Metric → (heading, format)."""

SHORT = 24
"""Characters of a cell that is not broken into lines."""

PLAIN_EVERY = 10
"""Steps between plain lines."""


class Display:
    """Shows a run while it goes on."""

    def __init__(self, steps: int, *, quiet: bool = False, console: Console | None = None) -> None:
        """Prepare for `steps` steps."""
        self.console = console or Console(quiet=quiet, highlight=False)
        self.steps = steps
        self.live: Live | None = None
        self._started = time.monotonic()
        self._first = 0

    def start(self, step: int) -> None:
        """Begin at `step`."""
        self._first, self._started = step, time.monotonic()
        if self.console.is_terminal and not self.console.quiet:
            self.live = Live(console=self.console, refresh_per_second=4)
            self.live.start()

    def stop(self) -> None:
        """End the live lines."""
        if self.live is not None:
            self.live.stop()
            self.live = None

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def table(self, title: str, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Print a table that stays."""
        print_table(title, heads, rows, self.console)

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show a finished step, counted from 1."""
        left = self._left(step)
        if self.live is not None:
            self.live.update(self._table(step, metrics, left))
        elif step % PLAIN_EVERY == 0 or step in (1, self.steps):
            cells = [f"{head} {text}" for head, text in _cells(metrics)]
            self.say(f"step {step}/{self.steps}  " + "  ".join(cells) + f"  left {left}")

    def _left(self, step: int) -> str:
        done = step - self._first
        seconds = (time.monotonic() - self._started) / max(1, done) * (self.steps - step)
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"

    def _table(self, step: int, metrics: Mapping[str, float], left: str) -> Group:
        """Return how far the run is above its figures: side by side, 80 columns would cut them."""
        place = Table.grid(padding=(0, 2, 0, 0))
        bar = ProgressBar(total=self.steps, completed=step, width=40)
        place.add_row(f"step {step}/{self.steps}", bar, f"left {left}")
        figures = Table(box=None, padding=(0, 2, 0, 0))
        cells = _cells(metrics)
        for head, _ in cells:
            figures.add_column(head, justify="right", no_wrap=True)
        figures.add_row(*[text for _, text in cells])
        return Group(place, figures)


def _cells(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    return [
        (head, form.format(metrics[name]))
        for name, (head, form) in COLUMNS.items()
        if name in metrics
    ]


def shorten(text: str, width: int) -> str:
    """Return a text on one line, cut to `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def print_table(
    title: str, heads: Sequence[str], rows: Sequence[Sequence[Any]], console: Console | None = None
) -> None:
    """Print a table; columns of short texts keep to one line, the others take what they need."""
    table = Table(title=title, title_justify="left")
    for at, head in enumerate(heads):
        short = all(len(str(row[at])) <= SHORT for row in rows)
        table.add_column(head, no_wrap=short, overflow="fold")
    for row in rows:
        table.add_row(*[escape(str(cell)) for cell in row])
    (console or Console(file=sys.stdout, highlight=False)).print(table)
