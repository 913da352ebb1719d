"""Rewards on the token axis, and the returns made of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.rl_core import functional as F

NAN = float("nan")


def test_a_score_is_booked_at_the_last_trained_token() -> None:
    mask = torch.tensor([[True, False, True, False], [False, True, False, False]])
    booked = F.at_last_token(torch.tensor([5.0, 7.0]), mask)
    assert booked.tolist() == [[0.0, 0.0, 5.0, 0.0], [0.0, 7.0, 0.0, 0.0]]


def test_the_score_of_a_row_without_trained_tokens_is_booked_nowhere() -> None:
    assert not F.at_last_token(torch.tensor([NAN]), torch.zeros(1, 3, dtype=torch.bool)).any()
    assert F.at_last_token(torch.tensor([5.0]), torch.zeros(1, 0, dtype=torch.bool)).shape == (1, 0)


def test_the_kl_penalty_is_detached_and_zero_outside_the_mask() -> None:
    logprobs = torch.tensor([[-1.0, -2.0, NAN]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    penalty = F.kl_penalty(logprobs, torch.tensor([[-2.0, -1.5, NAN]]), mask, beta=0.5)
    # −0.5·(−1+2) = −0.5; −0.5·(−2+1.5) = 0.25
    assert penalty.tolist() == [[-0.5, 0.25, 0.0]]
    assert not penalty.requires_grad


def test_the_total_counts_trained_tokens_only() -> None:
    mask = torch.tensor([[True, False, True], [False, False, False]])
    total = F.total_reward(torch.tensor([[1.0, NAN, 4.0], [9.0, 9.0, 9.0]]), mask)
    assert total.tolist() == [[5.0, 0.0, 5.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        (1.0, [7.0, 0.0, 6.0, 4.0]),  # 1+2+4, environment text, 2+4, 4
        (0.5, [3.0, 0.0, 4.0, 4.0]),  # 1+0.5·(2+0.5·4), -, 2+0.5·4, 4: the gap costs no γ
        (0.0, [1.0, 0.0, 2.0, 4.0]),
    ],
)
def test_reward_to_go_passes_over_environment_text_without_discount(
    gamma: float, expected: list[float]
) -> None:
    rewards = torch.tensor([[1.0, NAN, 2.0, 4.0]])
    mask = torch.tensor([[True, False, True, True]])
    assert F.reward_to_go(rewards, mask, gamma=gamma).tolist() == [expected]


def test_reward_to_go_is_the_total_when_all_reward_is_at_the_end() -> None:
    mask = torch.tensor([[True, True, True], [True, True, False]])
    rewards = F.at_last_token(torch.tensor([2.0, -1.0]), mask)
    assert torch.equal(F.reward_to_go(rewards, mask), F.total_reward(rewards, mask))


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_returns_of_a_batch_without_a_token_axis_are_empty(gamma: float) -> None:
    rewards, mask = torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool)
    assert F.reward_to_go(rewards, mask, gamma=gamma).shape == (2, 0)
    assert F.total_reward(rewards, mask).shape == (2, 0)


def test_a_long_completion_does_not_underflow() -> None:
    rewards, mask = torch.ones(1, 3000), torch.ones(1, 3000, dtype=torch.bool)
    # Σ 0.9^k → 10; the powers of 0.9 themselves are 0 in float32 from 0.9^983 on
    first = F.reward_to_go(rewards, mask, gamma=0.9)[0, 0].item()
    assert first == pytest.approx(10.0, rel=1e-5)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), gamma=st.sampled_from([1.0, 0.9, 0.3]))
def test_reward_to_go_is_the_sum_of_its_definition(seed: int, gamma: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    mask = torch.rand(2, 6, generator=generator) > 0.4
    found = F.reward_to_go(rewards, mask, gamma=gamma)
    for i in range(2):
        positions = [t for t in range(6) if mask[i, t]]
        for rank, t in enumerate(positions):
            later = enumerate(positions[rank:])
            expected = sum(gamma**n * rewards[i, k].item() for n, k in later)
            assert found[i, t].item() == pytest.approx(expected, abs=1e-12)
    assert not found[~mask].any()
