"""Aggregation: the weights of tokens and completions."""

import pytest
import torch
from torch import Tensor

from rlvr.rl_core import functional as F

NAN = float("nan")
# Losses [1, 2], [3, 4, 5, 6], [7]: sums 3, 18, 7; means 1.5, 4.5, 7; 7 tokens in 3 completions.
VALUES = torch.tensor([[1.0, 2.0, NAN, NAN], [3.0, 4.0, 5.0, 6.0], [NAN, NAN, 7.0, NAN]])
MASK = ~VALUES.isnan()


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (F.token_mean(VALUES, MASK, tokens=7), 4.0),  # 28/7
        (F.sequence_token_mean(VALUES, MASK, sequences=3), 13 / 3),  # (1.5+4.5+7)/3
        (F.sequence_sum(VALUES, MASK, sequences=3), 28 / 3),
        (F.constant_length_mean(VALUES, MASK, sequences=3, length=8), 28 / 24),
    ],
    ids=["token", "seq_token", "seq_sum", "const"],
)
def test_golden_means_of_ragged_losses(found: Tensor, expected: float) -> None:
    assert found.item() == pytest.approx(expected)


def test_a_completion_without_tokens_adds_nothing_and_still_counts() -> None:
    values, mask = torch.tensor([[4.0], [NAN]]), torch.tensor([[True], [False]])
    assert F.sequence_token_mean(values, mask, sequences=2).item() == 2.0
    assert F.sequence_sum(values, mask, sequences=2).item() == 2.0


def test_a_step_in_which_nothing_counts_has_the_loss_zero() -> None:
    values = torch.full((2, 3), NAN, requires_grad=True)
    mask = torch.zeros(2, 3, dtype=torch.bool)
    losses = [
        F.token_mean(values, mask, tokens=0),
        F.sequence_token_mean(values, mask, sequences=0),
        F.sequence_sum(values, mask, sequences=0),
        F.constant_length_mean(values, mask, sequences=0, length=8),
    ]
    torch.stack(losses).sum().backward()
    assert [loss.item() for loss in losses] == [0.0] * 4
    assert values.grad is not None
    assert not values.grad.any()


def test_a_negative_denominator_is_refused() -> None:
    with pytest.raises(ValueError, match="counts tokens or sequences, got -1"):
        F.token_mean(VALUES, MASK, tokens=-1)
