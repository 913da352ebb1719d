"""Spans and levels: rewards of turns and steps at the places where they belong."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.rl_core import functional as F

NAN = float("nan")


def test_a_span_ends_at_its_last_trained_token() -> None:
    # The second span is interrupted by environment text, the third has no trained token.
    spans = torch.tensor([[0, 0, 1, 1, 1, 2, -1]])
    mask = torch.tensor([[True, True, True, False, True, False, True]])
    found = F.span_ends(spans, mask)
    assert found.tolist() == [[False, True, False, False, True, False, False]]


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_each_span_with_a_trained_token_has_exactly_one_end(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    spans = (torch.rand(4, 9, generator=generator) > 0.6).cumsum(1) - 1
    mask = torch.rand(4, 9, generator=generator) > 0.4
    ends = F.span_ends(spans, mask)
    for row in range(4):
        inside = spans[row][mask[row] & (spans[row] >= 0)]
        assert sorted(spans[row][ends[row]].tolist()) == inside.unique().tolist()


def test_a_span_that_comes_back_is_refused() -> None:
    with pytest.raises(ValueError, match="row 1 of spans goes back to an earlier span"):
        F.span_ends(torch.tensor([[0, 1, 2], [0, 1, 0]]), torch.ones(2, 3).bool())


def test_spans_of_another_type_are_refused() -> None:
    with pytest.raises(ValueError, match=r"spans is a tensor of torch.int64, got torch.float32"):
        F.span_ends(torch.zeros(1, 2), torch.ones(1, 2).bool())


def test_a_reward_outside_every_span_is_refused() -> None:
    mask, spans = torch.ones(1, 2).bool(), torch.tensor([[0, -1]])
    with pytest.raises(ValueError, match="at token 1, which is in no span"):
        F.check_booking(torch.tensor([[0.0, 1.0]]), spans, mask)


def test_what_stands_outside_the_mask_is_no_booking() -> None:
    mask, spans = torch.tensor([[True, False]]), torch.tensor([[0, 0]])
    assert F.check_booking(torch.tensor([[1.0, NAN]]), spans, mask).tolist() == [[1.0, 0.0]]


def test_span_rewards_are_booked_at_the_ends_and_spread_without_changing_their_sum() -> None:
    spans = torch.tensor([[0, 0, 1, 1], [0, -1, 1, 1]])
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]])
    booked = F.at_span_ends(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), spans, mask)
    assert booked.tolist() == [[0.0, 1.0, 2.0, 0.0], [3.0, 0.0, 0.0, 4.0]]
    spread = F.over_spans(booked, spans, mask)
    assert spread.tolist() == [[0.5, 0.5, 2.0, 0.0], [3.0, 0.0, 2.0, 2.0]]
    assert torch.equal(spread.sum(1), booked.sum(1))


def test_more_spans_than_rewards_are_refused() -> None:
    with pytest.raises(ValueError, match="spans counts up to 2, but each row has 2 rewards"):
        F.at_span_ends(torch.zeros(1, 2), torch.tensor([[0, 1, 2]]), torch.ones(1, 3).bool())


def test_steps_are_normalised_among_all_steps_of_the_group() -> None:
    # Group 5: steps 1, 0, 2 (mean 1, std 1); group 9: one step alone, centred to 0.
    spans = torch.tensor([[0, 1], [0, 0], [0, 0]])
    rewards = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 7.0]])
    found = F.normalise_steps(
        rewards, spans, torch.ones(3, 2).bool(), torch.tensor([5, 5, 9]), divide=True, eps=0.0
    )
    assert found.tolist() == [[0.0, -1.0], [0.0, 1.0], [0.0, 0.0]]


def test_turns_are_compared_with_turns_at_the_same_state_across_completions() -> None:
    # Returns at γ = 0.5: row 0: 1 + 0.5·2 = 2, 2; row 1: 4, alone at state 3 → 0; 0.
    spans = torch.tensor([[0, 1, 1], [0, 1, -1]])
    anchors = torch.tensor([[8, 9, 9], [3, 9, 0]])
    rewards = torch.tensor([[1.0, 0.0, 2.0], [4.0, 0.0, 0.0]])
    found = F.turn_advantage(
        rewards, spans, anchors, torch.ones(2, 3).bool(), gamma=0.5, divide=False, eps=0.0
    )
    # State 9: 2 and 0, mean 1. State 8 is alone, too.
    assert found.tolist() == [[0.0, 1.0, 1.0], [0.0, -1.0, 0.0]]


def test_a_state_that_changes_within_a_turn_is_refused() -> None:
    spans, anchors = torch.tensor([[0, 0]]), torch.tensor([[1, 2]])
    with pytest.raises(ValueError, match="anchors changes within span 0 of row 0, at token 0"):
        F.turn_advantage(
            torch.zeros(1, 2),
            spans,
            anchors,
            torch.ones(1, 2).bool(),
            gamma=1.0,
            divide=True,
            eps=0.0,
        )


@pytest.mark.parametrize("width", [0, 2])
def test_a_batch_without_spans_has_no_turn_advantage(width: int) -> None:
    nothing = torch.full((2, width), -1)
    mask = torch.ones(2, width).bool()
    found = F.turn_advantage(
        torch.zeros(2, width), nothing, nothing, mask, gamma=1.0, divide=True, eps=0.0
    )
    assert found.shape == (2, width)
    assert not found.any()


def test_values_are_carried_across_environment_text() -> None:
    # The token in the middle is text: from token 0 one gets to token 2.
    r, v = torch.tensor([[0.0, NAN, 1.0]]), torch.tensor([[0.25, NAN, 0.75]])
    mask = torch.tensor([[True, False, True]])
    assert F.next_values(v, mask).tolist() == [[0.75, 0.0, 0.0]]
    assert F.temporal_difference(r, v, mask).tolist() == [[0.5, 0.0, 0.25]]
    # 0.5 + 0.5·0.25
    assert F.generalised_advantage(r, v, mask, lam=0.5).tolist() == [[0.625, 0.0, 0.25]]
    # Cut off with 2 to come: 1 + 2 − 0.75
    cut = F.temporal_difference(r, v, mask, bootstrap=torch.tensor([2.0]))
    assert cut.tolist() == [[0.5, 0.0, 2.25]]


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), gamma=st.sampled_from([1.0, 0.9, 0.5]))
def test_credits_with_a_value_reduce_to_one_another(seed: int, gamma: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    r = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    v = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    mask = torch.rand(3, 6, generator=generator) > 0.3
    to_go = F.reward_to_go(r, mask, gamma=gamma)
    inside = v * mask

    def gae(values: torch.Tensor, lam: float) -> torch.Tensor:
        return F.generalised_advantage(r, values, mask, gamma=gamma, lam=lam)

    torch.testing.assert_close(gae(v, 1.0), to_go - inside)
    torch.testing.assert_close(gae(v, 0.0), F.temporal_difference(r, v, mask, gamma=gamma))
    torch.testing.assert_close(gae(torch.zeros_like(v), 1.0), to_go)
    one = F.n_step_return(r, v, mask, steps=1, gamma=gamma)
    torch.testing.assert_close(one, F.action_value(r, v, mask, gamma=gamma))
    many = F.n_step_return(r, v, mask, steps=9, gamma=gamma)
    torch.testing.assert_close(many, to_go)


def test_no_gradient_flows_into_values() -> None:
    v = torch.zeros(1, 2, requires_grad=True)
    found = F.generalised_advantage(torch.ones(1, 2), v, torch.ones(1, 2).bool())
    assert not found.requires_grad
