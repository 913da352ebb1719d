"""Training on preference pairs, made of verdicts or read from a file: DPO and IPO.

The completions of a prompt are sampled and judged as for every other algorithm; of each group whose
scores differ, a best and a worst completion make a pair. Pairs of a file come as groups of two
(`pair_batches`). What is learned is which of the two is the better one; how much better is not
asked.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import functional as F
from .batch import OFFLINE, Batch
from .monitor import mean
from .objective import preference_loss
from .passes import run
from .work import minibatches

Pair = tuple[int, int]
"""Row numbers: the better completion, the worse one."""


def update(learner: Any, batch: Batch) -> dict[str, float]:
    """Take the steps of one batch.

    Args:
        learner: A `Learner` whose row is trained on pairs.
        batch: The episodes, in groups.

    Returns:
        Metrics: `loss`, `pairs`, `margin` (β d, mean), `preferred` (share of pairs with d > 0,
        before the first step), `mismatch`, `dead_groups`, `grad_norm`, and `entropy` where the
        episodes were sampled: of those from a file, no sampler's log-probabilities are known, and
        `mismatch` is 0.
    """
    trainable = batch.scored & batch.mask.any(1)
    found = F.pairs_of_groups(batch.rewards, batch.groups, trainable)
    pairs = [(int(better), int(worse)) for better, worse in found]
    reference = learner.logprobs(batch, learner.reference)
    updates: list[dict[str, float]] = []
    for epoch in range(learner.row.epochs):
        order = torch.arange(len(pairs))
        for some in minibatches(order, min(learner.updates, max(1, len(pairs))), epoch, 0):
            if some:
                chosen = [pairs[i] for i in some]
                updates.append(_optimise(learner, batch, chosen, reference))
    groups = max(1, batch.groups.unique().numel())
    metrics = {
        "loss": 0.0,
        "grad_norm": 0.0,
        "mismatch": 0.0,
        "pairs": float(len(pairs)),
        "dead_groups": 1 - len(pairs) / groups,
    }
    sampled = batch.versions != OFFLINE
    if sampled.all():
        metrics["entropy"] = mean(-batch.logprobs, batch.mask & batch.scored[:, None])
    if updates:
        metrics |= {name: sum(u[name] for u in updates) / len(updates) for name in updates[0]}
        metrics |= {name: updates[0][name] for name in ("mismatch", "margin", "preferred")}
    return metrics


def _optimise(
    learner: Any, batch: Batch, pairs: Sequence[Pair], reference: Tensor
) -> dict[str, float]:
    """Take one optimiser step on some pairs."""
    learner.optimizer.zero_grad()
    sums: dict[str, float] = {}
    for part in divided(batch, pairs, learner.config.micro_batch_tokens):
        rows = [better for better, _ in part] + [worse for _, worse in part]
        rectangle = batch.rectangle(rows, learner.model.device)
        ran = run(learner.model, rectangle, learner.vocabulary, learner.temperature)
        place, width, n = torch.tensor(rows), rectangle.width, len(part)
        mask = batch.mask[place, :width].to(ran.logprobs.device)
        theirs = reference[place, :width].to(ran.logprobs.device)
        loss, found = preference_loss(
            learner.row,
            chosen=ran.logprobs[:n],
            rejected=ran.logprobs[n:],
            chosen_reference=theirs[:n],
            rejected_reference=theirs[n:],
            chosen_mask=mask[:n],
            rejected_mask=mask[n:],
            pairs=float(len(pairs)),
        )
        loss.backward()
        sampled = batch.logprobs[place, :width].to(ran.logprobs.device)
        drawn = mask & (batch.versions[place] != OFFLINE).to(mask.device)[:, None]
        found["gap"] = ((ran.logprobs.detach() - sampled).abs() * drawn).sum()
        found |= {"loss": loss.detach(), "tokens": mask.sum()}
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    norm = learner.step()
    return {
        "loss": sums["loss"],
        "grad_norm": norm,
        "mismatch": sums["gap"] / max(1.0, sums["tokens"]),
        "margin": sums["margin"] / len(pairs),
        "preferred": sums["preferred"] / len(pairs),
    }


def divided(batch: Batch, pairs: Sequence[Pair], tokens: int) -> list[list[Pair]]:
    """Divide pairs, longest first, so that a rectangle of both halves has at most `tokens` places.

    A pair that is longer by itself stands alone.

    Args:
        batch: The episodes.
        pairs: Row numbers.
        tokens: Places of a rectangle.
    """

    def wide(pair: Pair) -> tuple[int, int]:
        prompt = max(len(batch.prompts[row]) for row in pair)
        return max(len(batch.continuations[row]) for row in pair), prompt

    parts: list[list[Pair]] = []
    after = before = 0
    for pair in sorted(pairs, key=lambda pair: (*(-size for size in wide(pair)), pair)):
        longest, prompt = wide(pair)
        grown = max(after, longest), max(before, prompt)
        if not parts or 2 * (len(parts[-1]) + 1) * sum(grown) > tokens:
            parts.append([])
            grown = longest, prompt
        after, before = grown
        parts[-1].append(pair)
    return parts
