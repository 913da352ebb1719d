"""Why did this token move? For each token everything that went into its gradient.

The coefficient ∂L/∂log π(token) is computed in closed form, stage by stage: nothing is
differentiated, so that it can be computed for a finished step and saved with the rollouts. A token
with a positive coefficient is made less likely by a step of gradient descent, one with a negative
coefficient more likely. What reaches the logits directly is not in it: a KL over the whole
vocabulary and the entropy bonus move tokens that were not sampled, too.
"""

import torch
from torch import Tensor

from . import functional as F
from . import loss_stages
from .choices import Algorithm
from .estimation import Advantages
from .loss_stages import Denominators
from .stages import callers_fault, full, refuse_pairs
from .terms import Others, Prepared, prepare, target_of

FIELDS = (
    "mask",
    "reward",
    "return",
    "value",
    "baseline",
    "advantage",
    "ratio",
    "clipped",
    "weight",
    "kl",
    "coefficient",
)
"""What `explain_tokens` returns, in the order in which it comes about."""


@torch.no_grad()
def explain_tokens(
    row: Algorithm,
    found: Advantages,
    *,
    logprobs: Tensor,
    denominators: Denominators,
    old: Tensor | None = None,
    reference: Tensor | None = None,
    rollout: Tensor | None = None,
    proximal: Tensor | None = None,
    values: Tensor | None = None,
    prompt_tokens: Tensor | None = None,
) -> dict[str, Tensor]:
    """Take a batch's update apart, token by token.

        ∂L/∂l_{i,t} = s_i (−c_{i,t} + β κ_{i,t}),   s the share of a term in the loss, c = ∂φ/∂l
        with the mismatch weight in it, κ = ∂k/∂l

    Args:
        row: The algorithm.
        found: What `advantages` made of the batch.
        logprobs: Of the policy that the gradient was taken at, in nats `[B, T]`.
        denominators: Counts of the optimiser step.
        old: As given to `policy_loss` `[B, T]`.
        reference: Likewise.
        rollout: Likewise.
        proximal: Likewise.
        values: V(s_t), to be shown `[B, T]`; none: not known.
        prompt_tokens: As given to `policy_loss` `[B]`.

    Returns:
        By name, each `[B, T]` and 0 outside the mask of trained and scored tokens: `mask` (tokens
        that stayed in the loss, boolean), `reward`, `return` (what a critic is fitted to: the
        reward-to-go, or Ψ + V under psi `gae`), `value` (nan where not known), `baseline`,
        `advantage`, `ratio` (the completion's, where it is one action), `clipped` (boolean),
        `weight` (mismatch), `kl` (k1 to what the KL term is against, nan without one),
        `coefficient` (∂L/∂l).

    Raises:
        UsageError: As `policy_loss`.

    Example:
        >>> from rlvr.rl_core.algorithms import TABLE
        >>> from rlvr.rl_core.objective import advantages, denominators
        >>> mask, scored = torch.ones(2, 1).bool(), torch.ones(2).bool()
        >>> found = advantages(
        ...     TABLE["dr-grpo"], rewards=torch.tensor([1.0, 0.0]), scored=scored, mask=mask,
        ...     groups=torch.tensor([0, 0]),
        ... )
        >>> counts = denominators(mask, scored, 10)
        >>> l = torch.tensor([[-1.0], [-2.0]])
        >>> told = explain_tokens(TABLE["dr-grpo"], found, logprobs=l, denominators=counts)
        >>> told["coefficient"]  # −0.5/(2·10) and the reverse
        tensor([[-0.0250],
                [ 0.0250]])
    """
    refuse_pairs(row)
    with callers_fault():
        mask, current = found.mask, full(logprobs)
        others = Others(old=old, rollout=rollout, proximal=proximal, reference=reference)
        steps = prepare(row, current, found.values, mask, others)
        term = torch.where(mask, F.select(current, mask, "logprobs"), 0.0)
        slope = loss_stages.coefficient(row, term, steps.log_ratio, steps.weights, mask)
        kl, pull = _divergence(row, current, others, mask, steps)
        share = loss_stages.share(row, mask, denominators, prompt_tokens)
        of_kl = loss_stages.share(row, mask, denominators, prompt_tokens, kl=True)
        change = (of_kl * pull.double() - share * slope.double()).to(current.dtype)
        cut = loss_stages.cut(row, term, steps.log_ratio, steps.weights)
        one = torch.ones_like(term)
        weight = one if steps.mismatch is None else steps.mismatch
        told = _credit(found, values, mask) | {
            "advantage": found.values,
            "ratio": F.ratio(steps.log_ratio) * one,
            "clipped": cut & mask,
            "weight": weight * one,
            "kl": kl,
            "coefficient": change,
        }
        clean = {name: _inside(tensor, mask) for name, tensor in told.items()}
    return {name: clean[name] for name in FIELDS if name != "mask"} | {"mask": mask}


def _credit(found: Advantages, values: Tensor | None, mask: Tensor) -> dict[str, Tensor]:
    """Stages 1 to 3, as they were."""
    rewards = found.paid.tokens(mask)
    return {
        "reward": rewards,
        "return": found.returns.expand(mask.shape),
        "value": torch.full_like(rewards, torch.nan) if values is None else full(values),
        "baseline": found.expected.expand(mask.shape),
    }


def _divergence(
    row: Algorithm, logprobs: Tensor, others: Others, mask: Tensor, steps: Prepared
) -> tuple[Tensor, Tensor]:
    """Return k1 at each token, nan where there is nothing to compare with, and the pull of β k."""
    none = torch.zeros_like(logprobs)
    in_loss = row.kl == "loss" and row.beta > 0
    if in_loss or others.reference is not None:
        target = target_of(row, others, mask, None)
        k1 = F.k1(logprobs, target, mask)
        if not in_loss:
            return k1, none
        return k1, row.beta * loss_stages.kl_coefficient(row, k1, steps.moved)
    return torch.full_like(logprobs, torch.nan), none


def _inside(tensor: Tensor, mask: Tensor) -> Tensor:
    return tensor & mask if tensor.dtype == torch.bool else torch.where(mask, tensor, 0.0)
