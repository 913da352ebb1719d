"""`rlvr explain`: an algorithm as a card, two side by side, or the whole table as a page."""

from collections.abc import Sequence

from ..verifiers.errors import UsageError
from .algorithms import COLUMNS, PRESETS, TABLE, explain, is_read
from .choices import Algorithm
from .options import OFF, OPTIONS

SHOWN = ("reward", "psi", "baseline", "scale", "ratio", "trust", "kl", "aggregate")
"""Columns of the summary table."""


def page() -> str:
    """Return the table of algorithms as Markdown: what `docs/algorithms.md` holds."""
    presets = [TABLE[name] for name in PRESETS]
    own = [row for row in TABLE.values() if row.name not in PRESETS]
    parts = [
        _HEAD,
        "## Algorithms\n",
        _summary(own),
        "\n## What other systems ship\n",
        _summary(presets),
        "\n## The rows in full\n",
        *(_card(row) for row in TABLE.values()),
        "## Options by stage\n",
        *(_options(column) for column in OPTIONS),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _summary(rows: Sequence[Algorithm]) -> str:
    lines = ["| algorithm | " + " | ".join(SHOWN) + " |", "|---" * (len(SHOWN) + 1) + "|"]
    for row in rows:
        cells = [f"[`{row.name}`](#{_anchor(row.name)})"]
        cells += [_cell(row, column) for column in SHOWN]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(row: Algorithm, column: str) -> str:
    value = getattr(row, column)
    if not is_read(row, column) or value == "none":
        return row.loss if row.on_pairs and column == "trust" else "–"
    if column == "ratio":
        return f"{value} @ {row.anchor}"
    if column == "kl":
        return f"{row.kl_estimator} in {value}, {row.beta:g}"
    if column == "trust" and value == "clip":
        dual = f", dual {row.dual_clip:g}" if row.dual_clip else ""
        return f"clip {row.clip_low:g}/{row.clip_high:g}{dual}"
    return str(value)


def _card(row: Algorithm) -> str:
    lines = [f"### {row.name}\n", f"{row.title}.\n", f"`{row.formula}`\n"]
    lines += [f"- paper: {row.paper}", f"- defaults: {row.defaults_from}"]
    chosen = []
    for column in COLUMNS:
        value = getattr(row, column)
        unset = value in (OFF.get(column), "none") or value == _default(column)
        if is_read(row, column) and not unset:
            shown = value if isinstance(value, str) else f"{value:g}"
            chosen.append(f"`{column}={shown}`")
    return "\n".join([*lines, f"- choices: {', '.join(chosen) or 'every default'}", ""])


def _options(column: str) -> str:
    lines = [f"**{column}**\n", *(f"- `{k}`: {v}" for k, v in OPTIONS[column].items()), ""]
    return "\n".join(lines)


def _default(column: str) -> object:
    return Algorithm.__dataclass_fields__[column].default


def _anchor(name: str) -> str:
    """Name a heading as GitHub does: a plus is dropped, and what then is taken gets a number."""
    bare = name.replace("+", "")
    return f"{bare}-1" if bare != name and bare in TABLE else bare


_HEAD = """# Algorithms

Every algorithm is one row of one table: a choice for each stage of the loss. `rlvr explain NAME`
prints a row, `rlvr explain NAME OTHER` what differs. This page is generated: `rlvr explain --page
> docs/algorithms.md`.

## Which KL term is right

With x = log π − log π_ref at a sampled token, a divergence can be paid for in the reward or in the
loss, and what is right in one place is wrong in the other.

- **In the reward** (`kl=reward`) the estimate is a number without a gradient, and `k1` = x is
  right: the policy gradient of E[R] − β KL(π‖π_ref), with the divergence of everything that follows
  a token credited to it. Other estimators would lose their own expected gradient there: refused.
- **In the loss** (`kl=loss`) the estimate is differentiated with the sampled tokens held fixed.
  `k1` then has the expected gradient 0 and does nothing but add noise: refused. `k2` = x²/2 has
  the gradient x ∇log π, that of KL(π‖π_ref) at each token; so have `rho_k3` (off-policy, too) and
  `st_k2`. `k3` = e^(−x) − 1 + x has the gradient (1 − e^(−x)) ∇log π, which is that of the *other*
  divergence, KL(π_ref‖π); it is here because most systems use it.
- **Kept in the graph or detached.** Advantages carry no gradient here, so a penalty in the reward
  is detached. Left in the graph, the loss −A·log π has the same value and another gradient:
  differentiating A = R − βx − b adds β·log π·∇log π (times 1 − 1/n under a mean over n rows). Its
  expectation is −β∇H: an entropy bonus of β that nobody asked for, and noise as large as log π.
  Detached is right.

## Credit by a learned value

With the true V every Ψ has the same expected gradient. With another V̂, `psi=q` and `psi=td` are
biased by Σ_t E[(V̂ − V)(s_t+1) ∇log π(a_t|s_t)]: what the critic has wrong about the next state is
learned as if it were paid. The policy moves to where the critic is too hopeful, and the critic,
fitted to the episodes before, comes after it. `psi=gae` has the share 1 − λ of that bias at the
next token, (1 − λ)λ at the one after, and none with λ = 1; `baseline=value` has none at all. So the
rows `vpg-q` and `vpg-td` with a critic (`critic=head`, `model`) are for study, and a run of them
says so; with values from rollouts (`critic=rollouts`) they train like the others.

A critic is fitted to Ψ + V̂ under `psi=gae` (the λ-return), and to the reward-to-go elsewhere: its
own r + γV̂ would teach it one token further back at every step of training.
"""


def run_explain(name: str, other: str, as_page: bool) -> None:
    """Print an algorithm, what two do differently, or the page of all of them.

    Raises:
        UsageError: A name is unknown, or none was given.
    """
    if as_page:
        print(page(), end="")
    elif not name:
        raise UsageError(
            "explain needs a NAME, and OTHER to compare it with; 'rlvr list algorithms' names them"
        )
    else:
        print(explain(name, other or None))
