"""Every named algorithm as one row of one table: one choice per stage of the loss.

A row says everything in which implementations of "the same" algorithm differ, and `explain` prints
it. What may be chosen stands in `choices`, the stages themselves in `functional/`, and `objective`
puts them together. No torch: a row can be printed where none is installed.
"""

import dataclasses
from typing import Any

from ..verifiers.errors import UsageError, unknown
from .choices import OPTIONS, READ_WITH, Algorithm

__all__ = ["COLUMNS", "TABLE", "Algorithm", "algorithm", "describe", "explain"]

_WILLIAMS = "Williams, 1992, Simple statistical gradient-following algorithms, Machine Learning 8"

_ROWS = [
    Algorithm(
        name="vpg",
        title="Vanilla policy gradient, total reward",
        paper="Schulman et al., 2015, arXiv 1506.02438, eq. 1, case 1",
        defaults_from="the formula",
    ),
    Algorithm(
        name="vpg-rtg",
        title="Vanilla policy gradient, reward-to-go",
        paper="Schulman et al., 2015, arXiv 1506.02438, eq. 1, case 2",
        defaults_from="the formula; gamma 1 as usual for language models",
        psi="rtg",
    ),
    Algorithm(
        name="reinforce",
        title="REINFORCE with the batch mean as baseline",
        paper=_WILLIAMS,
        defaults_from="the formula",
        baseline="batch_mean",
    ),
    Algorithm(
        name="reinforce-ema",
        title="REINFORCE with a moving average as baseline",
        paper=f"{_WILLIAMS}; Liu et al., 2025, arXiv 2506.24119",
        defaults_from="arXiv 2506.24119 (decay 0.95)",
        baseline="ema",
    ),
    Algorithm(
        name="rloo",
        title="REINFORCE leave-one-out",
        paper="Ahmadian et al., 2024, arXiv 2402.14740",
        defaults_from="G 4 from the paper (2 or 4); beta and clip range as TRL ships them",
        baseline="loo",
        ratio="seq_prod",
        trust="clip",
        kl="reward",
        kl_estimator="k1",
        beta=0.05,
        aggregate="seq",
        group_size=4,
    ),
    Algorithm(
        name="grpo",
        title="Group relative policy optimisation",
        paper="Shao et al., 2024, arXiv 2402.03300, eq. 3",
        defaults_from="beta and aggregation from the paper (its G is 64; it names no clip "
        "range); clip 0.2 and eps 1e-4 as TRL ships them",
        baseline="group_mean",
        scale="group_std",
        ratio="token",
        trust="clip",
        kl="loss",
        kl_estimator="k3",
        beta=0.04,
        aggregate="seq_token",
        group_size=8,
    ),
    Algorithm(
        name="dr-grpo",
        title="Dr. GRPO: GRPO without the division by length and by spread",
        paper="Liu et al., 2025, arXiv 2503.20783",
        defaults_from="the paper (G 8, clip 0.2, beta 0)",
        baseline="group_mean",
        ratio="token",
        trust="clip",
        aggregate="const",
        group_size=8,
    ),
]

TABLE: dict[str, Algorithm] = {row.name: row for row in _ROWS}
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
        other, readers = READ_WITH.get(column, (column, (getattr(row, column),)))
        off = column == "beta" and value == 0
        if getattr(row, other) not in readers and value != getattr(TABLE[name], column) and not off:
            choices = " or ".join(f"{other}='{reader}'" for reader in readers)
            raise UsageError(
                f"{name}: {column}={value!r} would change nothing, because {other} is "
                f"'{getattr(row, other)}'; set {choices} too, or leave {column} out"
            )
    return row


def _cells(row: Algorithm) -> dict[str, str]:
    """Return what each column says: the choice with its formula, a number, or "" if unread."""
    cells = {}
    for column in COLUMNS:
        other, readers = READ_WITH.get(column, ("", ()))
        value = getattr(row, column)
        if other and getattr(row, other) not in readers:
            cells[column] = ""
        elif column in OPTIONS:
            cells[column] = f"{value:<11} {OPTIONS[column][value]}"
        else:
            cells[column] = f"{value:g}"
    return cells


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
        vpg-rtg: Vanilla policy gradient, reward-to-go
          L = −(1/B) Σ_i Σ_t A_i,t l_i,t
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
    lines = [line for row in rows for line in (f"{row.name}: {row.title}", f"  {row.formula}")]
    pair = [_cells(row) for row in rows]
    for column in COLUMNS:
        if pair[0][column] != pair[1][column]:
            lines.append(column)
            lines += [
                f"  {row.name:<13} {cells[column] or '-'}"
                for row, cells in zip(rows, pair, strict=True)
            ]
    return "\n".join(lines)
