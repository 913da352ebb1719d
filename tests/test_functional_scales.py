"""Divisors, selections and masks of rows: who counts, and how much."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlvr.rl_core import functional as F

NAN = float("nan")


def floats(*values: float) -> Tensor:
    """Make a float64 tensor."""
    return torch.tensor(values, dtype=torch.float64)


def together(count: int) -> tuple[Tensor, Tensor]:
    """Put all rows into one group, and score them."""
    return torch.zeros(count, dtype=torch.int64), torch.ones(count, dtype=torch.bool)


def test_spreads_of_one_group() -> None:
    # [1, 0, 0, 1]: squares 4·0.25; the others of the first: 0, 0, 1 with mean 1/3.
    rewards = floats(1, 0, 0, 1)
    groups, scored = together(4)
    third = (1 / 3) ** 0.5
    assert F.group_std(rewards, groups, scored, eps=0)[0].item() == pytest.approx(third)
    assert F.group_std(rewards, groups, scored, eps=0, ddof=0)[0].item() == pytest.approx(0.5)
    assert F.leave_one_out_std(rewards, groups, scored, eps=0)[0].item() == pytest.approx(third)
    alone = F.leave_one_out_std(rewards, groups, scored, eps=0, ddof=0)[0].item()
    assert alone == pytest.approx((2 / 9) ** 0.5)
    assert F.batch_std(rewards, scored, eps=0.5)[0].item() == pytest.approx(third + 0.5)
    assert F.group_level(rewards, groups, scored).tolist() == [0.5] * 4


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), size=st.integers(3, 7))
def test_the_leave_one_out_spread_is_that_of_the_others(seed: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(size, generator=generator, dtype=torch.float64)
    found = F.leave_one_out_std(rewards, *together(size), eps=0.0)
    for i in range(size):
        others = torch.cat([rewards[:i], rewards[i + 1 :]])
        assert found[i].item() == pytest.approx(others.std().item())


def test_the_only_one_that_differs_has_the_divisor_one() -> None:
    # The others of the last are equal: no spread to divide by. Even where rounding leaves crumbs.
    rewards = torch.tensor([0.1, 0.1, 0.1, 0.7])
    assert F.leave_one_out_std(rewards, *together(4), eps=1e-6)[3] == 1.0


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_others_have_no_spread(count: int) -> None:
    found = F.leave_one_out_std(floats(*range(count)), *together(count), eps=0.0)
    assert found.tolist() == [1.0] * count


def test_a_group_paid_nothing_has_the_level_one() -> None:
    assert F.group_level(floats(0, 0), *together(2)).tolist() == [1.0, 1.0]


def test_a_level_of_both_signs_is_refused() -> None:
    groups, _ = together(3)
    scored = torch.tensor([True, True, False])
    assert F.group_level(floats(1, 3, -5), groups, scored)[0] == 2.0  # unscored: not looked at
    with pytest.raises(ValueError, match=r"holds -5 in row 2.*scale='group_std'"):
        F.group_level(floats(1, 3, -5), *together(3))


def test_whitening_leaves_what_is_outside_alone() -> None:
    # 1, 3: mean 2, std √2 (unbiased) or 1.
    values, mask = floats(1, 3, NAN)[None], torch.tensor([[True, True, False]])
    root = 0.5**0.5
    assert F.whiten(values, mask, eps=0)[0].tolist() == pytest.approx([-root, root, 0])
    assert F.whiten(values, mask, eps=0, ddof=0)[0].tolist() == pytest.approx([-1, 1, 0])


@pytest.mark.parametrize("value", [0.1, 1 / 3, -7.3])
def test_whitening_equal_values_gives_exactly_zero(value: float) -> None:
    mask = torch.ones(3, 3, dtype=torch.bool)
    assert not F.whiten(torch.full((3, 3), value), mask, eps=1e-8).any()
    assert not F.whiten(torch.full((3, 3), value), ~mask, eps=1e-8).any()
    one = torch.zeros(3, 3, dtype=torch.bool)
    one[1, 1] = True
    assert not F.whiten(torch.full((3, 3), value), one, eps=0).any()


def test_the_length_weighted_mean() -> None:
    # (1·1 + 3·0)/4; without tokens the plain mean.
    groups, scored = together(2)
    rewards, lengths = floats(1, 0), torch.tensor([1, 3])
    assert F.length_weighted(rewards, lengths, groups, scored).tolist() == [0.25, 0.25]
    nothing = torch.zeros(2, dtype=torch.int64)
    assert F.length_weighted(rewards, nothing, groups, scored).tolist() == [0.5, 0.5]


def test_selections_look_at_scored_rows_alone() -> None:
    rewards, groups = floats(0.4, 0.9, NAN, 0.9, 0.2), torch.tensor([0, 0, 0, 1, 1])
    scored = ~rewards.isnan()
    assert F.best_of_group(rewards, groups, scored).tolist() == [0, 1, 0, 1, 0]
    assert F.above(rewards, scored, threshold=0.4).tolist() == [0, 1, 0, 1, 0]
    assert F.group_max(rewards, groups, scored).tolist() == pytest.approx([0.9] * 5)


def test_normalised_parts_weigh_the_same_whatever_their_size() -> None:
    # Each part alone is ±√0.5; the second, a thousand times as large, weighs half.
    parts = torch.tensor([[1.0, 1000.0], [0.0, 0.0]], dtype=torch.float64)
    found = F.normalised_sum(parts, floats(1, 0.5), *together(2), eps=0)
    assert found.tolist() == pytest.approx([1.5 * 0.5**0.5, -1.5 * 0.5**0.5])
    small = F.normalised_sum(parts * floats(1, 1e-3), floats(1, 0.5), *together(2), eps=0)
    torch.testing.assert_close(small, found)


def test_a_broken_part_is_refused_and_an_unscored_one_is_not() -> None:
    parts = torch.tensor([[1.0, NAN], [0.0, 0.0]])
    with pytest.raises(ValueError, match=r"parts of shape \[2, 2\] holds nan in row 0"):
        F.normalised_sum(parts, torch.ones(2), *together(2), eps=0)
    groups, _ = together(2)
    found = F.normalised_sum(parts, torch.ones(2), groups, torch.tensor([False, True]), eps=0)
    assert found.tolist() == [0.0, 0.0]


def test_gates_pay_only_in_their_order() -> None:
    # Format 0.1, runs 0.2, correct 0.7.
    gates = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 0]]).bool()
    found = F.gated_reward(gates, torch.tensor([0.1, 0.2, 0.7]))
    assert found.tolist() == pytest.approx([1.0, 0.1, 0.0, 0.3])


def test_the_overlong_penalty_grows_over_its_buffer() -> None:
    # Limit 10, buffer 4: free up to 6, then −1/4 a token.
    lengths = torch.tensor([6, 7, 9, 10, 12])
    found = F.overlong_penalty(lengths, longest=10, buffer=4)
    assert found.tolist() == [0.0, -0.25, -0.75, -1.0, -1.0]
    with pytest.raises(ValueError, match="the buffer is 1 to 10 tokens"):
        F.overlong_penalty(lengths, longest=10, buffer=11)


def test_the_price_of_the_divergence_follows_it_slowly() -> None:
    # Error 0.1, half a horizon: 0.2·(1 + 0.1/2); far off, the error counts 0.2 at most.
    def price(kl: float) -> float:
        return F.adapt_beta(0.2, kl, target=0.1, horizon=100, samples=50)

    assert price(0.11) == pytest.approx(0.21)
    assert price(5.0) == pytest.approx(0.22)
    assert price(0.0) == pytest.approx(0.18)
    assert price(0.1) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="above 0"):
        F.adapt_beta(0.2, 0.1, target=0, horizon=1, samples=1)


def test_rows_that_are_kept() -> None:
    mask = torch.ones(3, 2).bool()
    assert F.finished(mask, torch.tensor([True, False, True])).tolist() == [False, True, False]
    assert F.fresh(mask, torch.tensor([0, 1, 2]), most=1).tolist() == [True, True, False]
    alive = torch.tensor([False, True, False])
    assert F.informative(alive, torch.tensor([4, 4, 9])).tolist() == [True, True, False]
    assert F.informative(alive, None).tolist() == [False, True, False]


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.8])
def test_about_the_asked_share_of_tokens_is_the_most_uncertain(quantile: float) -> None:
    generator = torch.Generator().manual_seed(0)
    entropy, mask = torch.rand(20, 50, generator=generator), torch.ones(20, 50).bool()
    mask[:, 30:] = False
    kept = F.most_uncertain(torch.where(mask, entropy, NAN), mask, quantile=quantile)
    assert kept.sum().item() == pytest.approx((1 - quantile) * 600, abs=1)
    assert entropy[kept].min() >= entropy[mask & ~kept].max()


def test_a_broken_entropy_is_refused() -> None:
    with pytest.raises(ValueError, match=r"entropy of shape \[1, 2\] holds nan in row 0, token 1"):
        F.most_uncertain(torch.tensor([[0.1, NAN]]), torch.ones(1, 2).bool(), quantile=0.5)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (lambda x, m: F.truncated_token_weight(x, m, high=2.0), [[0.5, 2.0], [1.2, 0.0]]),
        (lambda x, m: F.truncated_sequence_weight(x, high=1.4), [[1.4], [1.2]]),
        (lambda x, m: F.two_sided_token_weight(x, m, low=0.6, high=2.9), [[0, 0], [1.2, 0]]),
        (lambda x, m: F.two_sided_sequence_weight(x, low=0, high=1.4), [[0], [1.2]]),
        (lambda x, m: F.product_mask(x, low=0.5, high=1.4), [[0], [1]]),
        # √1.5 = 1.2247, 1.2
        (lambda x, m: F.geometric_mask(x, m, low=0.9, high=1.21), [[0], [1]]),
    ],
)
def test_mismatch_weights_of_a_hand_worked_batch(
    weights: Callable[[Tensor, Tensor], Tensor], expected: list[list[float]]
) -> None:
    # ω = [0.5, 3], [1.2]: products 1.5 and 1.2.
    mask = torch.tensor([[True, True], [True, False]])
    x = torch.tensor([[0.5, 3.0], [1.2, 1.0]]).double().log().requires_grad_()
    found = weights(x, mask)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert not found.requires_grad


def test_only_wrong_completions_that_are_left_behind_are_masked() -> None:
    # Mean log-ratios −0.3 for all: beyond 0.2 where A < 0.
    x = torch.tensor([[-0.4, -0.2], [-0.4, -0.2], [-0.1, -0.1]])
    a, mask = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]]), torch.ones(3, 2).bool()
    assert F.off_policy_mask(x, a, mask, delta=0.2).tolist() == [[0.0], [1.0], [1.0]]
