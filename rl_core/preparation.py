"""Everything that a step's updates share, computed before the first of them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..agents.types import Trajectory
from ..verifiers import UsageError
from .batch import Batch, part_weights_of, parts_of
from .choices import Algorithm
from .objective import advantages
from .process import process_rewards
from .work import Work


def prepare(
    learner: Any,
    batch: Batch,
    trajectories: Sequence[Trajectory],
    *,
    version: int | None,
    greedy: Sequence[float] | None,
    values: Sequence[Sequence[float]] | None,
) -> Work:
    """Compute old and reference log-probabilities, values and advantages.

    Args:
        learner: A `Learner`.
        batch: The episodes as tensors.
        trajectories: The episodes.
        version: As for `Learner.update`.
        greedy: Likewise.
        values: Likewise.

    Raises:
        UsageError: The row reads something that was not given.
    """
    row = learner.row
    if learner.beta is not None:
        row = dataclasses.replace(row, beta=learner.beta)
    several = learner.updates * row.epochs > 1 or row.optimizer == "natural"
    reference = learner.logprobs(batch, learner.reference) if row.needs_reference else None
    old = learner.logprobs(batch) if several or row.needs_proximal else None
    known = _known(learner, row, batch, trajectories, version, greedy, values)
    if row.needs_spans or row.needs_anchors:
        width = batch.mask.shape[1]
        known |= vars(process_rewards(trajectories, batch.starts, width, learner.decode))
    if row.reward == "parts":
        parts = parts_of(trajectories)
        known["parts"] = batch.rewards[:, None] if parts is None else parts
        known["part_weights"] = None if parts is None else part_weights_of(trajectories)
    scored = batch.scored & _complete(known, batch.mask)
    if known["values"] is not None:  # what is not known stands in rows that do not count
        known["values"] = known["values"].nan_to_num(nan=0.0)
    found = advantages(
        row,
        rewards=batch.rewards,
        scored=scored,
        groups=batch.groups,
        mask=batch.mask,
        logprobs=batch.logprobs if old is None else old,
        reference=reference,
        baseline=learner.baseline,
        truncated=batch.truncated,
        max_tokens=learner.max_tokens,
        **known,
    )
    return Work(
        batch=batch,
        row=row,
        found=found,
        old=old,
        reference=reference,
        values=known["values"],
        current=batch.logprobs.clone(),
        seen=torch.zeros_like(batch.scored),
    )


def _known(
    learner: Any,
    row: Algorithm,
    batch: Batch,
    trajectories: Sequence[Trajectory],
    version: int | None,
    greedy: Sequence[float] | None,
    values: Sequence[Sequence[float]] | None,
) -> dict[str, Any]:
    """Return what the row reads beside rewards and log-probabilities."""
    known: dict[str, Any] = {"values": None}
    if learner.critic is not None:
        known["values"] = learner.critic.values(batch, learner.config.micro_batch_tokens)
    elif row.needs_values:
        if values is None:
            raise UsageError(f"{row.name} reads V(s_t), and critic is 'rollouts': pass values=")
        width = batch.mask.shape[1]
        known["values"] = torch.tensor([[*one, *[0.0] * (width - len(one))] for one in values])
    if row.needs_greedy:
        if greedy is None:
            raise UsageError(
                f"{row.name} compares with the score of a greedy completion; pass greedy="
            )
        known["greedy"] = torch.tensor(list(greedy), dtype=torch.float32)
    if row.needs_lag:
        now = max(t.version for t in trajectories) if version is None else version
        known["lag"] = now - batch.versions
    if row.needs_entropy:
        known["entropy"] = learner.entropies(batch)
    return known


def _complete(known: dict[str, Any], mask: Tensor) -> Tensor:
    """Find the rows of which nothing is missing that was estimated by further episodes `[B]`."""
    rows = torch.ones(len(mask), dtype=torch.bool)
    if known.get("greedy") is not None:
        rows = rows & torch.isfinite(known["greedy"])
    if known["values"] is not None:
        rows = rows & (torch.isfinite(known["values"]) | ~mask).all(1)
    return rows
