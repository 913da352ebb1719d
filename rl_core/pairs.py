"""Preference pairs as files: read in the usual forms, and written out of a run's verdicts.

A pair is a prompt with a better and a worse completion. In a row of a JSONL file they stand as
`prompt`, `chosen` and `rejected`, each a text or a list of chat messages; a prompt that is missing
or repeated is found as what both conversations begin with. Nothing is skipped: a row that is no
pair is an error that names its line.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..envs.sources import read_rows
from ..verifiers import Message, TaskError, UsageError

ROLES = ("system", "user", "assistant", "tool")
"""Who may speak in a prompt."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A prompt with a better and a worse completion.

    Example:
        `Pair(prompt=({"role": "user", "content": "2 + 2?"},), chosen="4", rejected="5")`
    """

    prompt: tuple[Message, ...]
    """The conversation before them."""
    chosen: str
    """The better one."""
    rejected: str
    """The worse one."""
    where: str = ""
    """Where it stands, for errors."""


def read_pairs(path: str | Path) -> list[Pair]:
    """Read the pairs of a file.

    Args:
        path: As for `read_rows`. Rows like `{"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}`,
            or with lists of messages; `chosen` and `rejected` may be whole conversations, which
            then begin with the prompt and end with the answer.

    Raises:
        UsageError: There is no such file, or its kind is unknown.
        TaskError: A row is no pair, or there is none; names the file, the line and why.
    """
    pairs = [pair_of(row, where) for where, row in read_rows(path)]
    if not pairs:
        raise TaskError(f"{path} has no pairs; expected rows with prompt, chosen and rejected")
    return pairs


def pair_of(row: Mapping[str, Any], where: str) -> Pair:
    """Read one row.

    Args:
        row: The row.
        where: What errors name.

    Raises:
        TaskError: It is no pair.

    Example:
        >>> asked = {"role": "user", "content": "2 + 2?"}
        >>> said = [{"role": "assistant", "content": text} for text in ("4", "5")]
        >>> pair_of({"chosen": [asked, said[0]], "rejected": [asked, said[1]]}, "here").rejected
        '5'
    """
    for name in ("chosen", "rejected"):
        if row.get(name) is None:
            raise TaskError(
                f"{where}: no '{name}'; a pair has prompt, chosen and rejected, and the row has: "
                f"{', '.join(map(str, row)) or 'nothing'}"
            )
    given = row.get("prompt")
    prompt = None if given is None else _messages(given, "prompt", where)
    sides = [_side(row[name], name, where, prompt) for name in ("chosen", "rejected")]
    (before, chosen), (other, rejected) = sides
    if prompt is None:
        if before != other:
            raise TaskError(
                f"{where}: no 'prompt', and the conversations of chosen and rejected differ before "
                "the last message; give the prompt that both answer"
            )
        prompt = before
    if not prompt:
        raise TaskError(
            f"{where}: no 'prompt', and chosen and rejected are answers alone; give the prompt"
        )
    if prompt[-1]["role"] == "assistant":
        raise TaskError(f"{where}: the prompt ends with the assistant; expected a question to it")
    if chosen == rejected:
        raise TaskError(
            f"{where}: chosen and rejected are the same text, so that nothing can be learned of "
            "them; leave the row out"
        )
    return Pair(prompt=tuple(prompt), chosen=chosen, rejected=rejected, where=where)


def _side(
    given: Any, name: str, where: str, prompt: Sequence[Message] | None
) -> tuple[list[Message], str]:
    """Return what stands before an answer, none if it is the prompt, and the answer."""
    if isinstance(given, str):
        if not given.strip():
            raise TaskError(f"{where}: '{name}' is empty")
        return [], given
    messages = _messages(given, name, where)
    *before, last = messages
    if last["role"] != "assistant" or not last["content"].strip():
        raise TaskError(
            f"{where}: '{name}' ends with {json.dumps(last)[:100]}, expected the assistant's answer"
        )
    if prompt is not None and before and before != list(prompt):
        raise TaskError(
            f"{where}: '{name}' is a conversation that does not begin with the prompt; expected "
            f"{len(prompt)} messages of the prompt and the answer"
        )
    return before, last["content"]


def _messages(given: Any, name: str, where: str) -> list[Message]:
    if isinstance(given, str):
        if not given.strip():
            raise TaskError(f"{where}: '{name}' is empty")
        return [Message(role="user", content=given)]
    if not isinstance(given, list) or not given:
        raise TaskError(
            f"{where}: '{name}' is a text or a list of messages, got {json.dumps(given)[:100]}"
        )
    for message in given:
        good = isinstance(message, Mapping) and message.get("role") in ROLES
        if not good or not isinstance(message.get("content"), str):
            raise TaskError(
                f"{where}: a message of '{name}' has a role ({', '.join(ROLES)}) and a text as "
                f"content, got {json.dumps(message, default=str)[:100]}"
            )
    return [Message(role=message["role"], content=message["content"]) for message in given]


def pairs_of_rollouts(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Make a pair of every group whose rewards differ: a best completion with a worst one.

    A group is what one step sampled of one prompt. Of equal rewards the first is taken. Left out
    are unscored episodes, those that ran out of length (as texts they would seem to have ended),
    and empty ones.

    Args:
        rows: Rows of a run's `rollouts.jsonl`.

    Yields:
        `prompt`, `chosen` and `rejected` as chat messages; `chosen_reward` and `rejected_reward`,
        `env`, `task_id` and `step`.

    Example:
        >>> row = {"step": 1, "env": "e", "task_id": "a", "prompt": "2 + 2?", "truncated": False}
        >>> rows = [row | {"completion": str(n), "reward": float(n == 4)} for n in (5, 4)]
        >>> next(pairs_of_rollouts(rows))["chosen"]
        [{'role': 'assistant', 'content': '4'}]
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row.get("reward") is None or row.get("truncated") or not row["completion"].strip():
            continue
        key = json.dumps([row.get("step"), row.get("env"), row.get("task_id"), _prompt(row)])
        groups.setdefault(key, []).append(row)
    for group in groups.values():
        best = max(group, key=lambda row: row["reward"])
        worst = min(group, key=lambda row: row["reward"])
        if best["reward"] == worst["reward"]:
            continue
        yield {
            "prompt": _prompt(best),
            "chosen": [{"role": "assistant", "content": best["completion"]}],
            "rejected": [{"role": "assistant", "content": worst["completion"]}],
            "chosen_reward": best["reward"],
            "rejected_reward": worst["reward"],
            **{name: best.get(name) for name in ("env", "task_id", "step")},
        }


def _prompt(row: Mapping[str, Any]) -> list[dict[str, str]]:
    return row.get("messages") or [{"role": "user", "content": row["prompt"]}]


def write_pairs(run: str | Path, out: str | Path) -> int:
    """Write the pairs of a run's verdicts as JSONL.

    Args:
        run: The run's folder.
        out: The file; it appears when it is whole.

    Returns:
        How many there are.

    Raises:
        UsageError: The folder has no `rollouts.jsonl`, no pair comes of it, or the file exists or
            cannot be written.
        TaskError: A line of it cannot be read.
    """
    source, place = Path(run) / "rollouts.jsonl", Path(out)
    if not source.is_file():
        raise UsageError(f"no 'rollouts.jsonl' in '{run}'; give the folder of a run")
    if place.exists():
        raise UsageError(f"'{place}' exists already; choose another --out")
    rows = [_checked(row, where) for where, row in read_rows(source)]
    lines = [json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs_of_rollouts(rows)]
    if not lines:
        raise UsageError(
            f"the {len(rows)} episodes in '{source}' make no pair: in no group do the rewards "
            "differ among completions that ended; keep more with --rollouts-per-step"
        )
    part = place.with_name(f".{place.name}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        part.write_text("".join(lines), encoding="utf-8", errors="surrogatepass")
        os.replace(part, place)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UsageError(
            f"cannot write '{place}': {error.strerror}; choose another --out"
        ) from error
    return len(lines)


def _checked(row: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    for name in ("prompt", "completion"):
        if not isinstance(row.get(name), str):
            raise TaskError(
                f"{where}: an episode has a '{name}', a text; got {row.get(name)!r:.100}"
            )
    reward = row.get("reward")
    if isinstance(reward, bool) or not (reward is None or isinstance(reward, int | float)):
        raise TaskError(f"{where}: an episode's reward is a number or null, got {reward!r:.100}")
    return row
