"""Baselines and spreads: who is compared with whom."""

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


def everyone(count: int) -> Tensor:
    """Score every row."""
    return torch.ones(count, dtype=torch.bool)


def test_group_functions_take_any_names_order_and_sizes() -> None:
    values, groups = floats(1.0, 10.0, 2.0, 4.0), torch.tensor([-5, 900, -5, -5])
    # group −5 holds 1, 2, 4; group 900 holds 10
    assert F.group_sum(values, groups, everyone(4)).tolist() == [7.0, 10.0, 7.0, 7.0]
    assert F.group_sizes(groups, everyone(4)).tolist() == [3, 1, 3, 3]
    assert F.group_min(values, groups, everyone(4)).tolist() == [1.0, 10.0, 1.0, 1.0]


def test_an_unscored_member_changes_neither_sum_nor_size_nor_minimum() -> None:
    values, groups = floats(1.0, NAN, 3.0), torch.tensor([0, 0, 0])
    scored = torch.tensor([True, False, True])
    assert F.group_sum(values, groups, scored)[0] == 4.0
    assert F.group_sizes(groups, scored).tolist() == [2, 2, 2]
    assert F.group_min(values, groups, scored)[0] == 1.0


def test_a_group_without_scored_members_has_the_minimum_zero() -> None:
    assert F.group_min(floats(NAN), torch.tensor([0]), torch.tensor([False])).tolist() == [0.0]


def test_means_of_a_hand_worked_batch() -> None:
    returns, groups = floats(1.0, 0.0, 0.0, 1.0, 6.0, 3.0), torch.tensor([0, 0, 0, 0, 1, 1])
    scored = everyone(6)
    # (1+0+0+1)/4; (6+3)/2
    assert F.group_mean(returns, groups, scored).tolist() == [0.5] * 4 + [4.5] * 2
    # (0+0+1)/3, (1+0+1)/3; the other one
    expected = [1 / 3, 2 / 3, 2 / 3, 1 / 3, 3.0, 6.0]
    assert F.leave_one_out(returns, groups, scored).tolist() == pytest.approx(expected)
    # 11/6
    assert F.batch_mean(returns, scored).tolist() == pytest.approx([11 / 6] * 6)


def test_unscored_rows_leave_every_mean() -> None:
    returns, groups = floats(2.0, NAN, 4.0), torch.tensor([0, 0, 0])
    scored = torch.tensor([True, False, True])
    assert F.batch_mean(returns, scored)[0] == 3.0
    assert F.group_mean(returns, groups, scored)[[0, 2]].tolist() == [3.0, 3.0]
    assert F.leave_one_out(returns, groups, scored)[[0, 2]].tolist() == [4.0, 2.0]


def test_the_only_scored_member_of_a_group_is_its_own_baseline() -> None:
    returns, groups = floats(0.7, NAN), torch.tensor([0, 0])
    scored = torch.tensor([True, False])
    assert F.group_mean(returns, groups, scored)[0] == returns[0]
    assert F.leave_one_out(returns, groups, scored)[0] == returns[0]


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e9 + 0.1, -0.7])
@pytest.mark.parametrize("count", [3, 7, 10])
def test_a_group_of_equal_rewards_is_centred_to_exactly_zero(value: float, count: int) -> None:
    returns = torch.full((count,), value)  # float32: the plain mean is off by a rounding error
    groups, scored = torch.zeros(count, dtype=torch.int64), everyone(count)
    for baseline in (
        F.group_mean(returns, groups, scored),
        F.leave_one_out(returns, groups, scored),
        F.batch_mean(returns, scored),
    ):
        assert not (returns - baseline).any()


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), size=st.integers(2, 6))
def test_leave_one_out_is_the_group_mean_stretched(seed: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    groups = torch.arange(3).repeat(size)[torch.randperm(3 * size, generator=generator)]
    returns = torch.randn(3 * size, generator=generator, dtype=torch.float64)
    scored = everyone(3 * size)
    centred = returns - F.group_mean(returns, groups, scored)
    alone = returns - F.leave_one_out(returns, groups, scored)
    torch.testing.assert_close(alone, size / (size - 1) * centred)


def test_the_moving_average_compares_with_what_was_before() -> None:
    returns, scored = floats(1.0, NAN, 3.0), torch.tensor([True, False, True])
    baseline, state = F.moving_average(returns, scored, 4.0, decay=0.75)
    assert baseline.tolist() == [4.0, 4.0, 4.0]
    assert state == 3.5  # 0.75·4 + 0.25·(1+3)/2


def test_the_moving_average_starts_from_the_first_mean() -> None:
    baseline, state = F.moving_average(floats(1.0, 3.0), everyone(2), None, decay=0.95)
    assert baseline.tolist() == [0.0, 0.0]
    assert state == 2.0


@pytest.mark.parametrize("state", [None, 0.25])
def test_a_batch_without_scores_leaves_the_moving_average(state: float | None) -> None:
    scored = torch.tensor([False])
    assert F.moving_average(floats(NAN), scored, state, decay=0.95)[1] == state


def test_the_spread_of_a_hand_worked_group() -> None:
    returns, groups = floats(1.0, 0.0, 0.0, 1.0), torch.tensor([0, 0, 0, 0])
    # √(4·0.25/3) = √(1/3)
    found = F.group_std(returns, groups, everyone(4), eps=1e-4)
    assert found.tolist() == pytest.approx([(1 / 3) ** 0.5 + 1e-4] * 4)


@pytest.mark.parametrize("eps", [0.0, 1e-4])
def test_a_group_without_spread_is_divided_by_one(eps: float) -> None:
    returns, groups = torch.tensor([0.1, 0.1, 0.1, 5.0]), torch.tensor([0, 0, 0, 1])
    assert F.group_std(returns, groups, everyone(4), eps=eps).tolist() == [1.0] * 4


def test_an_unscored_member_leaves_the_spread() -> None:
    returns, groups = floats(1.0, NAN, 0.0), torch.tensor([0, 0, 0])
    scored = torch.tensor([True, False, True])
    # √((0.25+0.25)/1)
    assert F.group_std(returns, groups, scored, eps=0.0)[0].item() == pytest.approx(0.5**0.5)
