"""The report's token viewer: how strongly each token was moved, and why.

Episodes of the first, a middle and the last step, each token coloured by its gradient coefficient
∂L/∂log π(token): a step makes a token with a negative one more likely, one with a positive one less
likely. All else that is known of the token is shown beside it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .attribution import FIELDS
from .records import Run

EPISODES = 6
"""Episodes shown of each step."""

RECORD = '"token_records": {'
"""What a line with records of tokens holds; in a policy's text the quotes would be escaped."""

TOKENS = 1500
"""Tokens shown of each episode: a page of more is slow to open."""

MORE, LESS = (33, 102, 172), (214, 96, 16)
"""Colours of what is made more likely and less likely: blue and orange can be told apart by all."""


def token_view(run: Run) -> list[dict[str, Any]]:
    """Return the steps to show, each with its episodes and their tokens.

    Args:
        run: A run with `rollouts.jsonl`.

    Returns:
        For each step `step`, `scale` (the greatest |coefficient|) and `episodes`, each with
        `prompt`, `reward`, `status`, `cut` (tokens not shown) and `tokens`: `text`, `kind` (`clip`,
        `out` or empty), `style`, `title`, and `facts`, a JSON text of names and numbers.
    """
    path = run.folder / "rollouts.jsonl"
    if not path.exists():
        return []
    rows: dict[int, list[dict[str, Any]]] = {step: [] for step in _chosen(path)}
    for step, line in _recorded(path):
        if step in rows and len(rows[step]) < EPISODES:
            rows[step].append(json.loads(line))
    return [_step(step, some) for step, some in rows.items() if some]


def _chosen(path: Path) -> list[int]:
    """Return the first, a middle and the last step that has records of tokens."""
    steps = sorted({step for step, _ in _recorded(path)})
    return sorted({steps[0], steps[len(steps) // 2], steps[-1]}) if steps else []


def _recorded(path: Path) -> Iterator[tuple[int, str]]:
    """Go through the lines that have records of tokens, with their steps; reads no line's JSON."""
    with open(path, encoding="utf-8", errors="surrogatepass") as file:
        for line in file:
            head = line[: line.find(",")].removeprefix('{"step": ')
            if head.isdigit() and RECORD in line:
                yield int(head), line


def _step(step: int, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    columns = [_expanded(row["token_records"]) for row in rows]
    sizes = [abs(c) for record in columns for c in record["coefficient"] if c is not None]
    scale = max(sizes, default=0.0)
    return {
        "step": step,
        "scale": scale,
        "episodes": [
            {
                "prompt": row["prompt"],
                "reward": row["reward"],
                "status": row["status"] or "",
                "cut": max(0, len(record["text"]) - TOKENS),
                "tokens": [_token(record, i, scale) for i in range(len(record["text"]))[:TOKENS]],
            }
            for row, record in zip(rows, columns, strict=True)
        ],
    }


def _expanded(record: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return a record with a list in every column."""
    count = len(record["text"])
    return {
        name: column if isinstance(column, list) else [column] * count
        for name, column in record.items()
    }


def _token(record: Mapping[str, Sequence[Any]], place: int, scale: float) -> dict[str, str]:
    facts = {name: record[name][place] for name in FIELDS}
    text = record["text"][place]
    if not facts["mask"]:
        facts = {"mask": 0}
    kind = "clip" if facts.get("clipped") else "" if facts["mask"] else "out"
    return {
        "text": _visible(text),
        "kind": kind,
        "style": _style(facts.get("coefficient"), scale),
        "title": ", ".join(f"{name} {value}" for name, value in facts.items()),
        "facts": json.dumps(facts),
    }


def _visible(text: str) -> str:
    """Show line breaks as a sign and as what they are."""
    return text.replace("\n", "⏎\n") or "∅"


def _style(coefficient: float | None, scale: float) -> str:
    """Colour by sign; the opacity grows with the root of the size, so that small ones are seen."""
    if not coefficient or not scale:
        return ""
    red, green, blue = LESS if coefficient > 0 else MORE
    return f"background:rgba({red},{green},{blue},{(abs(coefficient) / scale) ** 0.5 * 0.75:.2f})"
