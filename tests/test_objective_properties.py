"""What must not change the loss, what is refused, and how algorithms reduce to one another."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlvr.rl_core import functional as F
from rlvr.rl_core.algorithms import TABLE, algorithm
from rlvr.rl_core.choices import Algorithm
from rlvr.rl_core.objective import (
    Advantages,
    Denominators,
    advantages,
    denominators,
    policy_loss,
    tokens_per_prompt,
)

NAN, INF = float("nan"), float("inf")
MAX_TOKENS = 9

ROWS: list[Algorithm] = [
    *(row for row in TABLE.values() if not row.on_pairs),
    algorithm("grpo", aggregate="prompt", mismatch="icepop", mismatch_low=0.5),
    algorithm("grpo", kl_estimator="st_k2", opsm_delta=0.1, anchor="proximal"),
    algorithm("dapo", max_staleness=1, overlong_buffer=3, entropy_quantile=0.4),
    algorithm("dr-grpo", entropy_bonus=0.1, mismatch="tis_token", centred_clip=0.3),
    algorithm("gspo", mismatch="mask_geo", mismatch_low=0.8, mismatch_high=1.2),
    algorithm("vpg-q", psi="nstep", n_steps=2, baseline="value"),
    algorithm("grpo-process", booking="spread", baseline="group_mean", scale="group_std"),
    algorithm("raft", reward="best", scale="none", baseline="const", baseline_value=0.2),
    algorithm("trpo", trust="ratio", kl="loss", kl_estimator="full", beta=0.1),
    algorithm("vpg-rtg", kl="reward", beta=0.1, gamma=0.9, baseline="batch_mean"),
    algorithm("dr-grpo", aggregate="token", kl="loss", kl_estimator="rho_k3", beta=0.1),
    algorithm("rloo", kl="loss", kl_estimator="k2", trust="ratio"),
    algorithm("grpo", aggregate="seq_sum", kl="reward", kl_estimator="k1"),
    algorithm("grpo", psi="rtg", kl="reward", kl_estimator="k1"),
]
IDS = [f"{i}-{row.name}" for i, row in enumerate(ROWS)]
SEEDS = st.integers(0, 100_000)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A random batch with unscored rows, empty completions, gaps and garbage in the padding."""

    rewards: Tensor
    scored: Tensor
    groups: Tensor
    mask: Tensor
    logprobs: Tensor
    old: Tensor
    reference: Tensor
    rollout: Tensor
    proximal: Tensor
    values: Tensor
    entropy: Tensor
    divergence: Tensor
    token_rewards: Tensor
    spans: Tensor
    anchors: Tensor
    greedy: Tensor
    truncated: Tensor
    lag: Tensor

    def rows(self, index: Tensor) -> "Batch":
        """Take some rows, in some order."""
        return Batch(**{name: tensor[index] for name, tensor in vars(self).items()})


def random_batch(seed: int, rows: int = 7, tokens: int = 5) -> Batch:
    """Draw a batch; every fifth row is unscored, some completions are empty."""
    generator = torch.Generator().manual_seed(seed)

    def normal() -> Tensor:
        return torch.randn(rows, tokens, generator=generator, dtype=torch.float64)

    mask = torch.rand(rows, tokens, generator=generator) > 0.4
    scored = torch.rand(rows, generator=generator) > 0.2
    logprobs = -normal().abs()
    old, reference = logprobs + 0.3 * normal(), logprobs + 0.5 * normal()
    garbage = torch.tensor([NAN, INF, -INF, 7.0], dtype=torch.float64)
    filler = garbage[torch.randint(4, (rows, tokens), generator=generator)]
    rewards = torch.randint(3, (rows,), generator=generator).double() / 2
    groups = torch.randint(3, (rows,), generator=generator)
    spans = (torch.rand(rows, tokens, generator=generator) > 0.5).cumsum(1) - 1
    ends = F.span_ends(spans, mask)
    paid = torch.randint(3, (rows, tokens), generator=generator).double() * ends

    def outside(values: Tensor) -> Tensor:
        return torch.where(mask, values, filler)

    return Batch(
        rewards=torch.where(scored, rewards, NAN),
        scored=scored,
        groups=groups,
        mask=mask,
        logprobs=outside(logprobs),
        old=outside(old),
        reference=outside(reference),
        rollout=outside(old + 0.1 * normal()),
        proximal=outside(logprobs + 0.2 * normal()),
        values=outside(normal()),
        entropy=outside(normal().abs()),
        divergence=outside(normal().abs()),
        token_rewards=outside(paid),
        spans=torch.where(mask, spans, -7),
        anchors=spans % 2 + 10 * groups[:, None],
        greedy=torch.full((rows,), 0.5).double(),
        truncated=torch.rand(rows, generator=generator) > 0.7,
        lag=torch.randint(3, (rows,), generator=generator),
    )


EPISODE = (
    *("token_rewards", "spans", "anchors", "values", "greedy", "truncated", "lag", "entropy"),
    *("rewards", "scored", "groups", "mask", "reference"),
)
"""What `advantages` is given, by the names of both."""
UPDATE = ("old", "reference", "rollout", "proximal", "divergence", "entropy")
"""What `policy_loss` is given, by the names of both."""


def estimate(row: Algorithm, batch: Batch, **options: Any) -> Advantages:
    """Run the first composition."""
    given = {name: getattr(batch, name) for name in EPISODE}
    return advantages(row, logprobs=batch.old, max_tokens=MAX_TOKENS, **given, **options)


def counts_of(found: Advantages, batch: Batch) -> tuple[Denominators, Tensor]:
    """Count one optimiser step."""
    over = denominators(found.mask, found.rows, MAX_TOKENS, batch.groups)
    return over, tokens_per_prompt(found.mask, found.rows, batch.groups)


def learn(
    row: Algorithm,
    batch: Batch,
    values: Tensor,
    counts: Denominators,
    *,
    mask: Tensor | None = None,
    per_prompt: Tensor | None = None,
    fresh: bool = False,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Run the second composition; return loss, gradient and diagnostics."""
    logprobs = batch.logprobs.clone().requires_grad_()
    given = {name: getattr(batch, name) for name in UPDATE}
    loss, sums = policy_loss(
        row,
        logprobs=logprobs,
        advantages=values,
        mask=batch.mask & batch.scored[:, None] if mask is None else mask,
        denominators=counts,
        prompt_tokens=per_prompt,
        **(given | {"old": None} if fresh else given),
    )
    return loss.detach(), torch.autograd.grad(loss, logprobs)[0], sums


def whole(row: Algorithm, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Run both compositions on a batch as one optimiser step."""
    found = estimate(row, batch, baseline=0.25)
    counts, per_prompt = counts_of(found, batch)
    return learn(row, batch, found.values, counts, mask=found.mask, per_prompt=per_prompt)


@pytest.mark.parametrize("row", ROWS, ids=IDS)
@settings(max_examples=4)
@given(seed=SEEDS, cut=st.integers(0, 7), shuffle=SEEDS)
def test_micro_batches_add_up_to_the_whole(
    row: Algorithm, seed: int, cut: int, shuffle: int
) -> None:
    batch = random_batch(seed)
    found = estimate(row, batch, baseline=0.25)
    counts, per_prompt = counts_of(found, batch)
    loss, gradient, sums = learn(
        row, batch, found.values, counts, mask=found.mask, per_prompt=per_prompt
    )
    order = torch.randperm(7, generator=torch.Generator().manual_seed(shuffle))
    parts = [
        learn(
            row,
            batch.rows(i),
            found.values[i],
            counts,
            mask=found.mask[i],
            per_prompt=per_prompt[i],
        )
        for i in (order[:cut], order[cut:])
    ]
    torch.testing.assert_close(parts[0][0] + parts[1][0], loss)
    pieces = torch.cat([part[1] for part in parts])
    torch.testing.assert_close(pieces, gradient[order])
    for name, total in sums.items():
        torch.testing.assert_close(parts[0][2][name] + parts[1][2][name], total, msg=name)


@pytest.mark.parametrize("row", ROWS, ids=IDS)
@settings(max_examples=4)
@given(seed=SEEDS, width=st.integers(0, 4), garbage=st.sampled_from([NAN, INF, -INF, 0.0]))
def test_padding_does_not_change_the_loss(
    row: Algorithm, seed: int, width: int, garbage: float
) -> None:
    batch = random_batch(seed)
    extra = torch.full((7, width), garbage, dtype=torch.float64)
    wider = {
        name: torch.cat([tensor, extra.nan_to_num(3, 4, -5).to(tensor.dtype)], dim=1)
        if tensor.dtype == torch.int64
        else torch.cat([tensor, extra], dim=1)
        for name, tensor in vars(batch).items()
        if tensor.shape == batch.mask.shape and name != "mask"
    }
    mask = torch.cat([batch.mask, torch.zeros(7, width, dtype=torch.bool)], dim=1)
    loss, gradient, _ = whole(row, batch)
    wide_loss, wide_gradient, _ = whole(row, replace(batch, mask=mask, **wider))
    torch.testing.assert_close(wide_loss, loss)
    torch.testing.assert_close(wide_gradient[:, :5], gradient)
    assert not wide_gradient[:, 5:].any()


@pytest.mark.parametrize("row", ROWS, ids=IDS)
@settings(max_examples=4)
@given(seed=SEEDS, shuffle=SEEDS)
def test_neither_the_order_of_rows_nor_the_names_of_groups_matter(
    row: Algorithm, seed: int, shuffle: int
) -> None:
    batch = random_batch(seed)
    generator = torch.Generator().manual_seed(shuffle)
    order = torch.randperm(7, generator=generator)
    names = torch.randperm(1000, generator=generator)[:3] - 500
    anchors = 1000 * batch.anchors
    moved = replace(batch, groups=names[batch.groups], anchors=anchors).rows(order)
    loss, gradient, _ = whole(row, batch)
    moved_loss, moved_gradient, _ = whole(row, moved)
    torch.testing.assert_close(moved_loss, loss)
    torch.testing.assert_close(moved_gradient, gradient[order])


@pytest.mark.parametrize("row", ROWS, ids=IDS)
@settings(max_examples=4)
@given(seed=SEEDS)
def test_unscored_rows_might_as_well_not_be_there(row: Algorithm, seed: int) -> None:
    batch = random_batch(seed)
    batch.scored[0] = True  # a batch needs a row
    kept = batch.scored.nonzero()[:, 0]
    clean = replace(batch, rewards=torch.where(batch.scored, batch.rewards.nan_to_num(1.0), NAN))
    loss, gradient, _ = whole(row, clean)
    fewer_loss, fewer_gradient, _ = whole(row, clean.rows(kept))
    torch.testing.assert_close(fewer_loss, loss)
    torch.testing.assert_close(fewer_gradient, gradient[kept])
    assert not gradient[~batch.scored].any()


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_loss_and_gradient_are_finite_whatever_the_padding_holds(row: Algorithm) -> None:
    for seed in range(10):
        loss, gradient, sums = whole(row, random_batch(seed))
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()
        assert all(torch.isfinite(value) for value in sums.values())


@pytest.mark.parametrize("name", ["reinforce", "rloo", "grpo", "dr-grpo"])
@settings(max_examples=4)
@given(seed=SEEDS, shift=st.floats(-5, 5))
def test_a_constant_added_to_every_reward_changes_no_advantage(
    name: str, seed: int, shift: float
) -> None:
    batch = random_batch(seed)
    shifted = replace(batch, rewards=batch.rewards + shift)
    row = TABLE[name]
    torch.testing.assert_close(estimate(row, shifted).values, estimate(row, batch).values)


@settings(max_examples=4)
@given(seed=SEEDS, scale=st.floats(0.1, 10))
def test_grpo_without_epsilon_forgets_the_scale_of_rewards(seed: int, scale: float) -> None:
    row, batch = algorithm("grpo", std_eps=0), random_batch(seed)
    scaled = replace(batch, rewards=batch.rewards * scale)
    torch.testing.assert_close(estimate(row, scaled).values, estimate(row, batch).values)


@settings(max_examples=4)
@given(seed=SEEDS, size=st.integers(2, 5))
def test_rloo_advantages_are_those_of_dr_grpo_stretched(seed: int, size: int) -> None:
    batch = replace(random_batch(seed, rows=2 * size), scored=torch.ones(2 * size).bool())
    rewards = torch.rand(2 * size, generator=torch.Generator().manual_seed(seed)).double()
    batch = replace(batch, rewards=rewards, groups=torch.arange(2).repeat(size))
    rloo = estimate(algorithm("rloo", beta=0), batch).values
    torch.testing.assert_close(rloo, size / (size - 1) * estimate(TABLE["dr-grpo"], batch).values)


def test_for_single_tokens_k2_in_the_loss_is_k1_in_the_reward() -> None:
    batch = replace(random_batch(1, tokens=1), scored=torch.ones(7).bool())
    batch = replace(batch, rewards=torch.arange(7).double(), old=batch.logprobs)
    in_reward = algorithm("vpg", kl="reward", beta=0.3)
    in_loss = algorithm("vpg", kl="loss", kl_estimator="k2", beta=0.3)
    torch.testing.assert_close(whole(in_reward, batch)[1], whole(in_loss, batch)[1])


def test_dr_grpo_is_a_sum_over_sequences_divided_by_a_constant() -> None:
    batch, row = random_batch(2), TABLE["dr-grpo"]
    longer = whole(replace(row, aggregate="seq_sum"), batch)[0]
    torch.testing.assert_close(whole(row, batch)[0], longer / MAX_TOKENS)


@pytest.mark.parametrize("name", ["rloo", "grpo", "dr-grpo"])
def test_a_group_with_one_scored_member_carries_no_gradient(name: str) -> None:
    batch = random_batch(4, rows=4)
    batch = replace(
        batch,
        mask=torch.ones(4, 5).bool(),
        groups=torch.tensor([0, 0, 1, 1]),
        scored=torch.tensor([True, False, True, True]),
        rewards=torch.tensor([1.0, NAN, 1.0, 0.0]).double(),
    )
    batch = replace(
        batch,
        old=torch.full((4, 5), -1.0).double(),
        reference=torch.full((4, 5), -1.5).double(),
    )
    found = estimate(TABLE[name], batch)
    assert not found.values[:2].any()
    assert found.values[2:].all()
    assert found.dead_groups == 0.5


@pytest.mark.parametrize("name", ["reinforce", "rloo", "grpo", "dr-grpo"])
def test_a_batch_of_equal_rewards_is_dead(name: str) -> None:
    row = algorithm(name, beta=0) if TABLE[name].needs_reference else TABLE[name]
    batch = replace(random_batch(6), rewards=torch.full((7,), 0.1).double())
    found = estimate(row, batch)
    assert not found.values.any()
    assert found.dead_groups == 1.0


def test_kl_in_the_reward_keeps_equal_scores_alive() -> None:
    batch = replace(random_batch(6), rewards=torch.full((7,), 0.1).double())
    assert estimate(TABLE["rloo"], batch).dead_groups < 1.0


def test_an_empty_completion_counts_in_the_baseline_of_its_siblings() -> None:
    batch = replace(
        random_batch(0, rows=3, tokens=2),
        mask=torch.tensor([[True, True], [False, False], [True, False]]),
        scored=torch.ones(3).bool(),
        groups=torch.zeros(3, dtype=torch.int64),
        rewards=torch.tensor([1.0, 0.0, 0.5]).double(),
        old=torch.zeros(3, 2).double(),
        reference=torch.zeros(3, 2).double(),
    )
    found = estimate(TABLE["dr-grpo"], batch)
    assert found.values.tolist() == [[0.5, 0.5], [0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_a_batch_without_any_trained_token_has_the_loss_zero(row: Algorithm) -> None:
    for width in (0, 3):
        batch = random_batch(8, tokens=width)
        loss, gradient, _ = whole(row, replace(batch, mask=torch.zeros(7, width).bool()))
        assert loss == 0
        assert not gradient.any()


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_a_batch_without_any_score_has_the_loss_zero(row: Algorithm) -> None:
    batch = replace(random_batch(8), scored=torch.zeros(7).bool())
    found = estimate(row, batch, baseline=0.25)
    assert found.dead_groups == 1.0
    assert found.baseline == (0.25 if row.baseline == "ema" else None)
    assert whole(row, batch)[0] == 0


def test_a_lone_completion_gets_no_advantage_from_its_own_kl_penalty() -> None:
    # To go, the penalty differs from token to token, so the group's baseline does not cancel it.
    row = algorithm("grpo", psi="rtg", kl="reward", kl_estimator="k1")
    assert not estimate(row, replace(random_batch(11), groups=torch.arange(7))).values.any()


def test_a_group_is_alive_if_one_of_its_members_is() -> None:
    batch = replace(
        random_batch(0, rows=3, tokens=1),
        mask=torch.ones(3, 1).bool(),
        scored=torch.ones(3).bool(),
        groups=torch.zeros(3, dtype=torch.int64),
        rewards=torch.tensor([0.0, 0.5, 1.0]).double(),
        old=torch.zeros(3, 1).double(),
        reference=torch.zeros(3, 1).double(),
    )
    assert estimate(TABLE["dr-grpo"], batch).dead_groups == 0.0
    # Without groups rows are counted: the middle one equals the batch mean.
    assert estimate(TABLE["reinforce"], batch).dead_groups == pytest.approx(1 / 3)
