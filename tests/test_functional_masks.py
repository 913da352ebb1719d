"""Masks: nothing outside counts, nothing inside may be broken."""

import pytest
import torch
from torch import Tensor

from rlvr.rl_core import functional as F

NAN, INF = float("nan"), float("inf")
MASK = torch.tensor([[True, True, False], [True, False, False]])


@pytest.mark.parametrize("garbage", [NAN, INF, -INF, 1e38, -0.0])
def test_what_stands_outside_the_mask_neither_shows_nor_gets_a_gradient(garbage: float) -> None:
    values = torch.tensor([[1.0, 2.0, garbage], [3.0, garbage, garbage]], requires_grad=True)
    kept = F.select(values, MASK)
    kept.square().sum().backward()
    assert kept.tolist() == [[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]]
    assert values.grad is not None
    assert values.grad.tolist() == [[2.0, 4.0, 0.0], [6.0, 0.0, 0.0]]


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_broken_value_inside_the_mask_is_named_with_tensor_shape_and_place(bad: float) -> None:
    values = torch.tensor([[1.0, bad, 0.0], [3.0, 0.0, 0.0]])
    with pytest.raises(ValueError) as caught:
        F.select(values, MASK, "logprobs")
    for part in ("logprobs", "[2, 3]", "row 0", "token 1", str(bad)):
        assert part in str(caught.value)


def test_a_broken_row_value_is_named_by_its_row() -> None:
    with pytest.raises(ValueError, match=r"rewards of shape \[2\] holds nan in row 1, where"):
        F.select(torch.tensor([0.0, NAN]), torch.tensor([True, True]), "rewards")


def test_finite_values_whose_sum_overflows_are_accepted() -> None:
    values = torch.tensor([[3e38, 3e38, 0.0], [0.0, 0.0, 0.0]])
    assert torch.equal(F.select(values, MASK), values)


def test_a_difference_names_the_side_that_is_broken() -> None:
    good, bad = torch.zeros(2, 3), torch.tensor([[0.0, NAN, 0.0], [0.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match=r"^old of shape"):
        F.select_difference(good, bad, MASK, names="logprobs old")
    with pytest.raises(ValueError, match=r"^logprobs of shape"):
        F.select_difference(bad, good, MASK, names="logprobs old")


def test_a_difference_of_infinities_in_the_padding_is_zero() -> None:
    padded = torch.tensor([[0.0, 0.0, INF], [0.0, INF, INF]])
    assert not F.select_difference(padded, padded, MASK, names="a b").any()


@pytest.mark.parametrize(
    ("mask", "tensor", "text"),
    [
        (MASK.float(), torch.zeros(2, 3), "mask.bool()"),
        (MASK[0], torch.zeros(3), "mask is boolean [B, T]"),
        (MASK, torch.zeros(3, 2), "old has shape [3, 2], expected [2, 3]"),
        (MASK, torch.zeros(3), "old has shape [3], expected [2, 3]"),
    ],
)
def test_a_wrong_shape_or_mask_is_refused(mask: Tensor, tensor: Tensor, text: str) -> None:
    with pytest.raises(ValueError) as caught:
        F.check_tokens(mask, old=tensor)
    assert text in str(caught.value)


def test_a_row_tensor_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scored has shape \[2, 1\], expected \[2\]"):
        F.keep_scored(MASK, torch.ones(2, 1, dtype=torch.bool))


def test_unscored_rows_leave_the_mask() -> None:
    kept = F.keep_scored(MASK, torch.tensor([False, True]))
    assert kept.tolist() == [[False, False, False], [True, False, False]]


def test_a_row_value_is_read_where_the_mask_is_and_zero_for_an_empty_row() -> None:
    mask = torch.tensor([[False, True], [False, False]])
    values, some = F.row_values(torch.tensor([[NAN, 2.0], [7.0, 7.0]]), mask)
    assert values.tolist() == [[2.0], [0.0]]
    assert some.tolist() == [[True], [False]]


def test_row_values_that_differ_are_refused_with_the_row() -> None:
    values = torch.tensor([[1.0, 1.0, 0.0], [2.0, 0.0, 0.0]])
    values[0, 1] = 3.0
    with pytest.raises(ValueError, match="row 0 has values from 1 to 3"):
        F.row_values(values, MASK)


def test_a_batch_without_a_token_axis_has_zero_row_values() -> None:
    values, some = F.row_values(torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool))
    assert values.tolist() == [[0.0], [0.0]]
    assert not some.any()
