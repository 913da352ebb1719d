"""What a step tells about itself: the metrics of its updates and of its batch."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import functional as F
from .passes import run
from .work import Work


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
        gaps = apart[ran].abs()
        metrics["mismatch_p99"] = float(gaps.kthvalue(math.ceil(0.99 * len(gaps))).values)
        metrics["mismatch_max"] = float(gaps.max())
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
