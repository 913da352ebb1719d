"""Every named algorithm as one row of one table: one choice per stage of the loss.

A row says everything in which implementations of "the same" algorithm differ, and `explain` prints
it. What may be chosen stands in `choices`, the stages themselves in `functional/`, and `objective`
puts them together. No torch: a row can be printed where none is installed.
"""

import dataclasses
from typing import Any

from ..verifiers.errors import UsageError, unknown
from .choices import Algorithm
from .options import OFF, OPTIONS, PAIR_COLUMNS, READ_WITH
from .rows import PRESETS, ROWS

__all__ = [
    "COLUMNS",
    "PRESETS",
    "TABLE",
    "Algorithm",
    "algorithm",
    "describe",
    "explain",
    "is_read",
]

TABLE: dict[str, Algorithm] = {row.name: row for row in ROWS}
"""Every algorithm by name."""

_IDENTITY = ("name", "title", "paper", "defaults_from")

COLUMNS = tuple(f.name for f in dataclasses.fields(Algorithm) if f.name not in _IDENTITY)
"""What may be chosen in a row, in the order of the stages."""


def algorithm(name: str, /, **overrides: Any) -> Algorithm:
    """Look an algorithm up, with some of its choices changed.

    Args:
        name: A name in `TABLE`.
        overrides: Columns of the row, by name.

    Returns:
        The row.

    Raises:
        UsageError: The name or a column is unknown, a value is out of range, the combination is
            refused, or nothing in the row would read an option that was changed.

    Example:
        >>> algorithm("grpo", beta=0).needs_reference
        False
    """
    if name not in TABLE:
        raise unknown("algorithm", name, TABLE)
    for column in overrides:
        if column not in COLUMNS:
            raise unknown(f"option of algorithm '{name}'", column, COLUMNS)
    row = dataclasses.replace(TABLE[name], **overrides)
    for column, value in overrides.items():
        default = getattr(TABLE[name], column)
        if value == default or value == OFF.get(column) or is_read(row, column):
            continue
        if column == "beta" and value == 0:
            continue
        raise UsageError(f"{name}: {column}={value!r} would change nothing, {_unread(row, column)}")
    return row


def is_read(row: Algorithm, column: str) -> bool:
    """Say whether anything in a row reads a column.

    Args:
        row: The row.
        column: A name in `COLUMNS`.

    Returns:
        Whether another value of the column could change what is computed.

    Example:
        >>> is_read(TABLE["vpg"], "clip_low"), is_read(TABLE["grpo"], "clip_low")
        (False, True)
    """
    if row.on_pairs:
        return column in PAIR_COLUMNS and (column != "label_smoothing" or row.loss == "dpo")
    if row.reward == "parts" and column in ("std_eps", "std_ddof"):
        return True
    if row.needs_values and column in ("value_clip", "value_coef"):
        return True
    other, readers = READ_WITH.get(column, (column, (getattr(row, column),)))
    return getattr(row, other) in readers


def _unread(row: Algorithm, column: str) -> str:
    """Name what would have to be chosen for a column to be read."""
    if row.on_pairs:
        return f"because loss is '{row.loss}', which compares pairs; set loss='policy'"
    other, readers = READ_WITH[column]
    choices = " or ".join(f"{other}='{reader}'" for reader in readers)
    return f"because {other} is '{getattr(row, other)}'; set {choices}, or leave {column} out"


def _cells(row: Algorithm) -> dict[str, str]:
    """Return what each column says: the choice with its formula, a number, or "" if unread."""
    cells = {}
    for column in COLUMNS:
        value = getattr(row, column)
        if not is_read(row, column) or value == OFF.get(column) or column in _plain(row):
            cells[column] = ""
        elif column in OPTIONS:
            cells[column] = f"{value:<11} {OPTIONS[column][value]}"
        else:
            cells[column] = f"{value:g}"
    return cells


def _plain(row: Algorithm) -> set[str]:
    """Return the columns that say what goes without saying, and are left out of a card."""
    usual = {
        "loss": "policy",
        "reward": "terminal",
        "overlong": "train",
        "zero_groups": "keep",
        "anchor": "old",
        "mismatch": "none",
        "kl_to": "reference",
        "kl_aggregate": "same",
        "optimizer": "adam",
        "epochs": 1,
        "updates": 1,
        "std_ddof": 1,
    }
    return {column for column, value in usual.items() if getattr(row, column) == value}


def describe(row: Algorithm) -> str:
    """Print a row: title, formula, paper, and every choice with its formula.

    Columns that nothing in the row reads are left out; choices that differ from the table's row of
    that name are marked.

    Args:
        row: The row, from the table or changed.

    Returns:
        Text of several lines.

    Example:
        >>> print(describe(algorithm("vpg", group_size=2)))
        vpg: Vanilla policy gradient, total reward
          L = −(1/B) Σ_i Σ_t A_i,t l_i,t
          paper         Schulman et al., 2015, arXiv 1506.02438, eq. 1, case 1
          defaults      the formula
          psi           total       Ψ_t = R = Σ_k r_k
          baseline      none        b = 0
          scale         none        A = Ψ − b
          ratio         none        no ratio (as if sampled from the current policy)
          trust         logp        φ = A l
          kl            none        no reference
          aggregate     seq_sum     (1/B) Σ_i Σ_t, B scored completions
          group_size    2  (changed)
    """
    home = TABLE.get(row.name, row)
    lines = [f"{row.name}: {row.title}", f"  {row.formula}"]
    lines += [f"  {'paper':<13} {row.paper}", f"  {'defaults':<13} {row.defaults_from}"]
    for column, cell in _cells(row).items():
        changed = getattr(row, column) != getattr(home, column)
        if cell:
            lines.append(f"  {column:<13} {cell}{'  (changed)' if changed else ''}")
    return "\n".join(lines)


def explain(name: str, other: str | None = None) -> str:
    """Print an algorithm, or what two algorithms do differently.

    Args:
        name: A name in `TABLE`.
        other: A second name; with it, only the columns that differ are printed.

    Returns:
        Text of several lines.

    Raises:
        UsageError: A name is unknown.

    Example:
        >>> print(explain("vpg", "vpg-rtg"))
        vpg: Vanilla policy gradient, total reward
          L = −(1/B) Σ_i Σ_t A_i,t l_i,t
          source: Schulman et al., 2015, arXiv 1506.02438, eq. 1, case 1
        vpg-rtg: Vanilla policy gradient, reward-to-go
          L = −(1/B) Σ_i Σ_t A_i,t l_i,t
          source: Schulman et al., 2015, arXiv 1506.02438, eq. 1, case 2
        psi
          vpg           total       Ψ_t = R = Σ_k r_k
          vpg-rtg       rtg         Ψ_t = Σ_{k≥t} γ^{n(k)−n(t)} r_k
        gamma
          vpg           -
          vpg-rtg       1
    """
    if other is None:
        return describe(algorithm(name))
    rows = [algorithm(name), algorithm(other)]
    lines = []
    for row in rows:
        lines += [f"{row.name}: {row.title}", f"  {row.formula}", f"  source: {row.paper}"]
    pair = [_cells(row) for row in rows]
    for column in COLUMNS:
        if pair[0][column] != pair[1][column]:
            lines.append(column)
            lines += [
                f"  {row.name:<13} {cells[column] or '-'}"
                for row, cells in zip(rows, pair, strict=True)
            ]
    return "\n".join(lines)
