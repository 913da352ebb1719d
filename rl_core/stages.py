"""Stages 1 to 4 and 9: which pure function a row's choice stands for, one dispatch per stage.

A new choice is a line in `options.OPTIONS`, a function in `functional/` and a case here. Stages 5
to 8 and 10 are in `loss_stages`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..verifiers.errors import UsageError
from . import functional as F
from .choices import Algorithm


@dataclass(frozen=True, kw_only=True, eq=False)
class Episodes:
    """What is known of a batch of episodes; each row reads what its choices need.

    Example:
        `Episodes(rewards=…, scored=…, groups=…, mask=…, values=critic(batch))`
    """

    rewards: Tensor
    """Score of each episode `[B]`; anything in unscored rows."""
    scored: Tensor
    """Rows that have a reward `[B]`, boolean."""
    groups: Tensor
    """The group of each row `[B]`, int64."""
    mask: Tensor
    """Trained tokens `[B, T]`, boolean."""
    logprobs: Tensor | None = None
    """Of the policy that sampled, in nats `[B, T]`."""
    reference: Tensor | None = None
    """Of the reference model, in nats `[B, T]`."""
    reference_mask: Tensor | None = None
    """Where the reference was computed `[B, T]`; none: at every trained token."""
    baseline: float | None = None
    """The moving average so far."""
    token_rewards: Tensor | None = None
    """All that was paid, each booked at the last token of its span `[B, T]`."""
    spans: Tensor | None = None
    """Number of each token's turn or step in its row `[B, T]`, int64, −1 for none."""
    anchors: Tensor | None = None
    """Name of the state in which each token's turn began `[B, T]`, int64."""
    parts: Tensor | None = None
    """The parts of each score `[B, K]`; none: the score is its only part."""
    part_weights: Tensor | None = None
    """The weight of each part `[K]`; none: 1 each."""
    values: Tensor | None = None
    """V(s_t), the value before each token `[B, T]`."""
    bootstrap: Tensor | None = None
    """Value of what follows the last token of each row `[B]`; none: 0."""
    greedy: Tensor | None = None
    """Score of the greedy completion of each row's prompt `[B]`."""
    truncated: Tensor | None = None
    """Rows that ran out of length `[B]`, boolean."""
    lag: Tensor | None = None
    """Weight updates since each row was sampled `[B]`, int64."""
    entropy: Tensor | None = None
    """Entropy of the policy that sampled, in nats `[B, T]`."""
    max_tokens: int | None = None
    """Tokens that a completion may have."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Paid:
    """Stage 1: what the tokens of a batch are paid.

    Example:
        `Paid(scores=tensor([1.0]), inside=None, totals=tensor([1.0]))`
    """

    scores: Tensor
    """What is booked at the last trained token of each row `[B]`."""
    inside: Tensor | None
    """What is booked at other tokens, too `[B, T]`: process rewards, the KL penalty."""
    totals: Tensor
    """R, the sum of both `[B]`."""

    def tokens(self, mask: Tensor) -> Tensor:
        """Return the rewards at each token `[B, T]`."""
        last = F.at_last_token(self.scores, mask)
        return last if self.inside is None else last + self.inside


def needed(row: Algorithm, tensor: Tensor | None, name: str, because: str) -> Tensor:
    """Return a tensor that the row reads, or refuse to go on without it.

    Raises:
        UsageError: It is none.
    """
    if tensor is None:
        raise UsageError(f"{row.name} has {because} and needs `{name}`, got None; pass it")
    return full(tensor)


@contextmanager
def callers_fault() -> Iterator[None]:
    """Turn a ValueError of the stages, which know no errors of the project, into a UsageError."""
    try:
        yield
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error


def refuse_pairs(row: Algorithm) -> None:
    """Refuse a row that is trained on pairs, where advantages are expected."""
    if row.on_pairs:
        raise UsageError(
            f"{row.name} is trained on preference pairs and has no advantages; make pairs with "
            "functional.pairs_of_groups and call preference_loss"
        )


def reference_of(row: Algorithm, tensor: Tensor | None, name: str) -> Tensor:
    """Return log-probabilities that the KL term reads, or refuse to go on without them."""
    if tensor is None:
        raise UsageError(
            f"{row.name} has kl='{row.kl}' with beta={row.beta:g} and needs `{name}` "
            "log-probabilities, got None; pass them, or set beta=0"
        )
    return full(tensor)


def full(tensor: Tensor) -> Tensor:
    """Widen half precision: differences of log-probabilities need the digits."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def paid(row: Algorithm, given: Episodes, mask: Tensor, penalty: Tensor | None) -> Paid:
    """Stage 1: scores, process rewards and KL penalty, each at its place."""
    scores, inside = _scores(row, given, mask)
    if row.overlong_buffer:
        if given.max_tokens is None:
            raise UsageError(
                f"{row.name} has overlong_buffer={row.overlong_buffer} and needs `max_tokens`, the "
                "length limit, got None; pass it"
            )
        extra = F.overlong_penalty(
            F.lengths(given.mask), longest=given.max_tokens, buffer=row.overlong_buffer
        )
        scores = scores + torch.where(given.scored, extra.to(scores), 0.0)
    if penalty is not None:
        inside = penalty if inside is None else inside + penalty
    totals = scores if inside is None else scores + inside.sum(dim=1)
    return Paid(scores=scores, inside=inside, totals=totals)


def _scores(row: Algorithm, given: Episodes, mask: Tensor) -> tuple[Tensor, Tensor | None]:
    if row.reward == "process":
        booked = _process(row, given, mask)
        return booked.new_zeros(len(booked)), booked
    if row.reward == "parts":
        parts = given.rewards[:, None] if given.parts is None else given.parts
        parts = full(parts)
        weights = given.part_weights
        weights = parts.new_ones(parts.shape[-1]) if weights is None else weights
        return F.normalised_sum(
            parts, weights, given.groups, given.scored, eps=row.std_eps, ddof=row.std_ddof
        ), None
    rewards = F.select(full(given.rewards), given.scored, "rewards")
    if row.reward == "best":
        return F.best_of_group(rewards, given.groups, given.scored), None
    if row.reward == "positive":
        return F.above(rewards, given.scored, threshold=row.reward_threshold), None
    return rewards, None


def _process(row: Algorithm, given: Episodes, mask: Tensor) -> Tensor:
    because = "reward='process'"
    rewards = needed(row, given.token_rewards, "token_rewards", because)
    spans = needed(row, given.spans, "spans", because)
    booked = F.check_booking(rewards, spans, mask)
    if row.baseline == "step_mean":
        booked = F.normalise_steps(
            booked,
            spans,
            mask,
            given.groups,
            divide=row.scale == "step_std",
            eps=row.std_eps,
            ddof=row.std_ddof,
        )
    return F.over_spans(booked, spans, mask) if row.booking == "spread" else booked


def returns(row: Algorithm, given: Episodes, found: Paid, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Stage 2: Ψ, and what a critic would be fitted to: `[B, T]`, or `[B, 1]` if one a row.

    A critic is fitted to Ψ + V under psi `gae`, and to the reward-to-go under the others: r + γ V'
    is its own guess, from which it would learn one token further at every step of training.
    """
    if row.psi in ("total", "segment"):
        return found.totals[:, None], found.totals[:, None]
    rewards = found.tokens(mask)
    if row.psi == "rtg":
        ahead = F.reward_to_go(rewards, mask, gamma=row.gamma)
        return ahead, ahead
    values = needed(row, given.values, "values", f"psi='{row.psi}'")
    with_values = (rewards, values, mask)
    further = {"gamma": row.gamma, "bootstrap": given.bootstrap}
    match row.psi:
        case "q":
            psi = F.action_value(*with_values, **further)
        case "nstep":
            psi = F.n_step_return(*with_values, steps=row.n_steps, **further)
        case "td":
            psi = F.temporal_difference(*with_values, **further)
        case "gae":
            psi = F.generalised_advantage(*with_values, lam=row.lam, **further)
    if row.psi == "gae":
        return psi, psi + F.select(values, mask, "values")
    if given.bootstrap is not None:
        rewards = rewards + row.gamma * F.at_last_token(given.bootstrap.to(rewards), mask)
    return psi, F.reward_to_go(rewards, mask, gamma=row.gamma)


def baseline(
    row: Algorithm, given: Episodes, totals: Tensor, mask: Tensor
) -> tuple[Tensor, float | None]:
    """Stage 3: what is compared with, `[B, 1]` or `[B, T]`, and the moving average afterwards."""
    groups, scored, state = given.groups, given.scored, None
    match row.baseline:
        case "none" | "step_mean":
            level = torch.zeros_like(totals)
        case "const":
            level = torch.full_like(totals, row.baseline_value)
        case "batch_mean":
            level = F.batch_mean(totals, scored)
        case "ema":
            level, state = F.moving_average(totals, scored, given.baseline, decay=row.ema_decay)
        case "loo":
            level = F.leave_one_out(totals, groups, scored)
        case "group_mean":
            level = F.group_mean(totals, groups, scored)
        case "length_weighted":
            level = F.length_weighted(totals, F.lengths(mask), groups, scored)
        case "greedy":
            greedy = needed(row, given.greedy, "greedy", "baseline='greedy'")
            F.check_rows(mask, greedy=greedy)
            level = F.select(greedy.to(totals), scored, "greedy")
        case "value":
            values = needed(row, given.values, "values", "baseline='value'")
            F.check_tokens(mask, values=values)
            return F.select(values.detach(), mask, "values"), None
    return level[:, None], state


def scaled(
    row: Algorithm, given: Episodes, totals: Tensor, centred: Tensor, mask: Tensor
) -> Tensor:
    """Stage 4: advantages of centred returns, `[B, T]`, or `[B, 1]` if one a row."""
    if row.centred_clip:
        centred = centred.clamp(-row.centred_clip, row.centred_clip)
    groups, scored = given.groups, given.scored
    spread = {"eps": row.std_eps, "ddof": row.std_ddof}
    match row.scale:
        case "none" | "step_std":
            found = centred
        case "group_std":
            found = centred / F.group_std(totals, groups, scored, **spread)[:, None]
        case "loo_std":
            found = centred / F.leave_one_out_std(totals, groups, scored, **spread)[:, None]
        case "batch_std":
            found = centred / F.batch_std(totals, scored, **spread)[:, None]
        case "group_mean":
            found = centred / F.group_level(totals, groups, scored)[:, None]
        case "whiten":
            found = F.whiten(centred.expand(mask.shape), mask, **spread)
    if row.psi == "segment":
        found = found + row.level_weight * _turns(row, given, mask)
    return found


def _turns(row: Algorithm, given: Episodes, mask: Tensor) -> Tensor:
    because = "psi='segment'"
    return F.turn_advantage(
        F.check_booking(
            needed(row, given.token_rewards, "token_rewards", because),
            needed(row, given.spans, "spans", because),
            mask,
        ),
        needed(row, given.spans, "spans", because),
        needed(row, given.anchors, "anchors", because),
        mask,
        gamma=row.gamma,
        divide=row.scale == "group_std",
        eps=row.std_eps,
        ddof=row.std_ddof,
    )


def kept(row: Algorithm, given: Episodes, scores: Tensor, alive: Tensor) -> Tensor:
    """Stage 9: the scored rows that stay in the loss `[B]`; `alive` have an advantage."""
    rows = given.scored
    if row.reward in ("best", "positive"):
        rows = rows & (scores > 0)
    if row.overlong == "filter":
        truncated = needed(row, given.truncated, "truncated", "overlong='filter'")
        rows = rows & F.finished(given.mask, truncated)
    if row.max_staleness >= 0:
        lag = needed(row, given.lag, "lag", f"max_staleness={row.max_staleness}")
        rows = rows & F.fresh(given.mask, lag, most=row.max_staleness)
    if row.zero_groups != "keep":
        rows = rows & F.informative(alive, given.groups if row.needs_group else None)
    return rows
