"""The loss of one micro-batch: everything that is known of its rows, cut out and put in one place.

What a step knows lies on the CPU; what a micro-batch needs of it is moved to the model's device
here, and nowhere else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import functional as F
from .critic import Critic
from .loss_stages import Denominators
from .objective import policy_loss
from .passes import Pass, run
from .work import Work


@dataclass(frozen=True, kw_only=True, eq=False)
class PartLoss:
    """What a micro-batch adds to an optimiser step."""

    loss: Tensor
    """Its part of the step's loss, with gradient."""
    ran: Pass
    """What the model says of its rows, with gradient."""
    mask: Tensor
    """Tokens that count `[B, T]`."""
    sums: dict[str, Tensor]
    """What the metrics are made of."""


def part_loss(
    learner: Any,
    work: Work,
    part: Sequence[int],
    over: Denominators,
    per_prompt: Tensor | None,
) -> PartLoss:
    """Run the model over some rows and take their part of the loss.

    Args:
        learner: A `Learner`.
        work: The step's batch.
        part: Row numbers.
        over: Counts of the whole optimiser step.
        per_prompt: Trained tokens of each row's prompt `[B]`, if the row's aggregate asks.
    """
    row, critic = work.row, learner.critic if learner.joint else None
    rectangle = work.batch.rectangle(part, learner.model.device)
    place, width, device = torch.tensor(part), rectangle.width, learner.model.device
    ran = run(
        learner.model, rectangle, learner.vocabulary, learner.temperature, hidden=learner.joint
    )

    def cut(tensor: Tensor) -> Tensor:
        return tensor[place, :width].to(device)

    mask, sampled = cut(work.found.mask), cut(work.batch.logprobs)
    old = None if work.old is None else cut(work.old)
    spread = ran.entropy() if row.entropy_bonus else None
    loss, sums = policy_loss(
        row,
        logprobs=ran.logprobs,
        advantages=cut(work.found.values),
        mask=mask,
        denominators=over,
        old=old,
        proximal=old,
        rollout=sampled,
        reference=None if work.reference is None else cut(work.reference),
        divergence=_divergence(learner, rectangle, ran, mask) if row.needs_full_kl else None,
        entropy=spread,
        prompt_tokens=None if per_prompt is None else per_prompt[place].to(device),
    )
    sums["loss"] = loss.detach()
    sums["gap"] = ((ran.logprobs.detach() - sampled).abs() * mask).sum()
    if critic is not None:
        assert work.values is not None
        cuts = cut(work.found.returns), cut(work.values)
        valued = _value_loss(critic, ran, *cuts, mask, over)
        sums["value_loss"] = valued.detach()
        loss = loss + row.value_coef * valued
    work.note(place, torch.where(mask, ran.logprobs.detach(), sampled))
    return PartLoss(loss=loss, ran=ran, mask=mask, sums=sums)


def _value_loss(
    critic: Critic, ran: Pass, returns: Tensor, before: Tensor, mask: Tensor, over: Denominators
) -> Tensor:
    """Return the critic's loss, whose gradient goes on into the shared trunk."""
    assert ran.hidden is not None
    return critic.loss(critic.from_states(ran.hidden), returns, before, mask, tokens=over.tokens)


def _divergence(learner: Any, rectangle: Any, ran: Pass, mask: Tensor) -> Tensor:
    """Return KL(π‖ref) over all ids that could be drawn `[B, T]`."""
    with torch.no_grad(), learner.opened(learner.reference) as model:
        other = run(model, rectangle, learner.vocabulary, learner.temperature).scaled
    return F.full_kl(ran.scaled, other, mask)
