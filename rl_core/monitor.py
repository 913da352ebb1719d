"""What a step tells about itself: metrics of the updates, and a record for every token."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import functional as F
from .attribution import FIELDS, explain_tokens
from .passes import run
from .work import Work, minibatches, picked

RECORDED = 8192
"""Tokens recorded per step at most: a record takes about 70 bytes and 30 microseconds a token."""

DIGITS = 4
"""Significant digits of a token's record."""


def mean(values: Tensor, mask: Tensor) -> float:
    """Return the mean over a mask; 0 over nothing."""
    return float(values[mask].mean()) if bool(mask.any()) else 0.0


def merged(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """Turn the sums of the updates of one step into its metrics."""
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + value
    updates = max(1.0, total.get("updates", 0.0) - total.get("skipped", 0.0))
    metrics = {name: total.get(name, 0.0) / updates for name in ("loss", "grad_norm")}
    tokens, terms = total.get("tokens", 0.0), total.get("terms", 0.0)
    metrics["mismatch"] = total.get("gap", 0.0) / max(1.0, tokens)
    for name in ("value_loss", "entropy_loss"):
        if name in total:
            metrics[name] = total[name] / updates
    metrics |= {name: value for name, value in total.items() if name.startswith("natural/")}
    for name in ("ratio", "clipped", "mismatch_weight"):
        if terms and name in total:
            metrics[name] = total[name] / terms
    if tokens:
        metrics["approx_kl"] = total["approx_kl"] / tokens
        if "kl" in total:
            metrics["kl"] = total["kl"] / tokens
    return metrics


def of_batch(work: Work) -> dict[str, float]:
    """Return the metrics of a batch: what was credited, and how far the three policies differ."""
    batch, found = work.batch, work.found
    trained = batch.mask & batch.scored[:, None]
    metrics = {
        "entropy": mean(-batch.logprobs, trained),
        "advantage_std": float(found.values[trained].std(correction=0)) if trained.any() else 0.0,
        "dead_groups": found.dead_groups,
        "trained": float(found.rows.float().mean()),
    }
    if found.kl is not None:
        metrics["kl"] = found.kl
    if work.reference is not None:
        assert batch.logprobs is not None
        now = batch.logprobs if work.old is None else work.old
        metrics["kl3"] = mean(F.k3(now, work.reference, found.mask), found.mask)
    if found.baseline is not None:
        metrics["baseline"] = found.baseline
    ran = found.mask & work.seen[:, None]
    if ran.any():
        apart = work.current - batch.logprobs
        metrics |= {f"rollout_{k}": v for k, v in F.divergences(apart, ran).items()}
        tails = F.weight_tails(apart, ran)
        metrics |= {f"weight_{k}": tails[k] for k in ("p99", "max", "effective")}
    return metrics


@torch.no_grad()
def action_space(learner: Any, count: int) -> dict[str, float]:
    """Measure how much probability the likeliest tokens hold, by position in the completion.

    Args:
        learner: A learner that has taken a step.
        count: Rows of its last batch to look at.

    Returns:
        `top1/<positions>`, `top8/…`, `top64/…`.
    """
    work = learner.last
    if work is None:
        return {}
    batch, sizes = work.batch, (1, 8, 64)
    rows = range(min(count, len(batch.prompts)))
    mass = torch.zeros(len(rows), batch.mask.shape[1], len(sizes))
    for part in batch.micro_batches(rows, learner.config.micro_batch_tokens):
        rectangle = batch.rectangle(part, learner.model.device)
        ran = run(learner.model, rectangle, learner.vocabulary, learner.temperature)
        found = F.top_mass(ran.logits / learner.temperature, sizes)
        mass[torch.tensor(part), : rectangle.width] = found.to(mass)
    bands = F.action_space(mass, batch.mask[: len(rows)])
    return {
        f"top{size}/{band}": values[i] for band, values in bands for i, size in enumerate(sizes)
    }


def token_records(
    learner: Any, count: int, spell: Callable[[int], str], step: int
) -> list[dict[str, Any]]:
    """Say of each token of the last step's first episodes why it moved, and how strongly.

    The numbers are those of the first update that a row was part of. Episodes beyond `RECORDED`
    tokens in all have no record.

    Args:
        learner: A learner that has taken a step.
        count: Episodes.
        spell: A token id to its text.
        step: Number of that step, as it was given to `update`.

    Returns:
        Per episode, by name, a list with a number for each token after the prompt, or one number
        where all are the same; `None` where nothing is known. `text` holds the tokens.
    """
    work = learner.last
    if work is None:
        return []
    lengths = [len(tokens) for tokens in work.batch.continuations[:count]]
    wanted = {row for row in range(len(lengths)) if row == 0 or sum(lengths[: row + 1]) <= RECORDED}
    records: dict[int, dict[str, Any]] = {}
    for rows in minibatches(work.batch.groups, learner.updates, 0, step):
        some = [row for row in rows if row in wanted]
        if some:
            told = _explained(learner, work, rows, some)
            for place, row in enumerate(some):
                ids = work.batch.continuations[row]
                record: dict[str, Any] = {"text": [spell(token) for token in ids]}
                for name in FIELDS:
                    record[name] = _column(told[name][place, : len(ids)])
                records[row] = record
    return [records[row] for row in sorted(records)]


def _explained(
    learner: Any, work: Work, rows: Sequence[int], some: Sequence[int]
) -> dict[str, Tensor]:
    """Explain some rows of an optimiser step."""
    index, size = torch.tensor(some), len(work.batch.prompts)

    def cut(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[index]

    return explain_tokens(
        work.row,
        picked(work.found, index, size),
        logprobs=work.current[index],
        denominators=work.count(rows, learner.max_tokens),
        old=cut(work.old),
        proximal=cut(work.old),
        reference=cut(work.reference),
        rollout=cut(work.batch.logprobs),
        values=cut(work.values),
        prompt_tokens=cut(work.per_prompt(rows)),
    )


def _column(values: Tensor) -> Any:
    """Return a column for JSON, as one number where all tokens have the same."""
    plain = values.tolist()
    if len({repr(value) for value in plain}) == 1:  # as texts, in which nan equals nan
        return _rounded(plain[0])
    return [_rounded(value) for value in plain]


def _rounded(value: float | bool) -> float | int | None:
    if isinstance(value, bool):
        return int(value)
    if not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")
