"""Ratios and surrogates: value and gradient coefficient."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlvr.rl_core import functional as F

INF = float("inf")


def tensor(*rows: list[float]) -> Tensor:
    """Make a float64 tensor with gradient."""
    return torch.tensor(rows, dtype=torch.float64, requires_grad=True)


def gradient(value: Tensor, of: Tensor) -> list[list[float]]:
    """Differentiate the sum of a tensor."""
    return torch.autograd.grad(value.sum(), of, retain_graph=True)[0].tolist()


def test_the_sequence_log_ratio_is_the_sum_over_trained_tokens() -> None:
    logprobs = tensor([-1.0, -2.0, INF], [-3.0, INF, INF])
    old = torch.tensor([[-1.5, -1.75, INF], [-3.25, INF, INF]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    found = F.sequence_log_ratio(F.token_log_ratio(logprobs, old, mask), mask)
    assert found.tolist() == [[0.25], [0.25]]  # 0.5 − 0.25; 0.25
    assert gradient(found, logprobs) == [[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]


def test_with_one_token_the_sequence_ratio_is_the_token_ratio() -> None:
    logprobs, old = tensor([-1.0], [-2.0]), torch.tensor([[-1.5], [-1.0]], dtype=torch.float64)
    mask = torch.ones(2, 1, dtype=torch.bool)
    of_tokens = F.token_log_ratio(logprobs, old, mask)
    assert torch.equal(F.sequence_log_ratio(of_tokens, mask), of_tokens)


def test_no_gradient_flows_into_the_old_policy() -> None:
    logprobs, old = tensor([-1.0]), tensor([-1.5])
    F.token_log_ratio(logprobs, old, torch.tensor([[True]])).sum().backward()
    assert old.grad is None


@pytest.mark.parametrize("advantage", [1.0, -1.0, 0.0])
@pytest.mark.parametrize("extreme", [1000.0, -1000.0])
def test_an_extreme_ratio_gives_finite_value_and_gradient(advantage: float, extreme: float) -> None:
    x = torch.tensor([[extreme]], requires_grad=True)  # float32: e^1000 would be infinite
    phi = F.clipped_ratio(x, torch.tensor([[advantage]]), torch.tensor([[True]]), low=0.2, high=0.2)
    phi.sum().backward()
    assert torch.isfinite(phi).all()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize(
    ("rho", "advantage", "value", "coefficient", "clipped"),
    [
        (1.0, 2.0, 2.0, 2.0, False),
        (1.1, 2.0, 2.2, 2.2, False),
        (1.5, 2.0, 2.6, 0.0, True),  # 1.3·2
        (0.5, 2.0, 1.0, 1.0, False),  # coming back is always paid
        (0.5, -2.0, -1.6, 0.0, True),  # 0.8·(−2)
        (1.5, -2.0, -3.0, -3.0, False),
        (1.5, 0.0, 0.0, 0.0, False),
    ],
)
def test_the_clip_stops_paying_beyond_its_range(
    rho: float, advantage: float, value: float, coefficient: float, clipped: bool
) -> None:
    x, a, mask = tensor([math.log(rho)]), torch.tensor([[advantage]]), torch.tensor([[True]])
    phi = F.clipped_ratio(x, a, mask, low=0.2, high=0.3)
    assert phi.item() == pytest.approx(value)
    assert gradient(phi, x)[0][0] == pytest.approx(coefficient)
    assert F.is_clipped(x, a, mask, low=0.2, high=0.3).item() is clipped


def test_nothing_outside_the_mask_is_clipped() -> None:
    x, a = torch.tensor([[5.0, INF]]), torch.tensor([[1.0, 1.0]])
    mask = torch.tensor([[False, False]])
    assert not F.is_clipped(x, a, mask, low=0.2, high=0.2).any()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_at_ratio_one_every_surrogate_has_the_gradient_of_the_log_probability(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    mask = torch.rand(3, 4, generator=generator) > 0.3
    logprobs = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    x = F.token_log_ratio(logprobs, logprobs, mask)
    plain = gradient(F.log_probability(logprobs, a, mask), logprobs)
    assert gradient(F.importance_ratio(x, a, mask), logprobs) == plain
    assert gradient(F.clipped_ratio(x, a, mask, low=0.2, high=0.2), logprobs) == plain
    assert plain == (a * mask).tolist()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_clipped_surrogate_never_exceeds_the_unclipped_one(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, a = torch.randn(2, 8, generator=generator), torch.randn(2, 8, generator=generator)
    mask = torch.ones(2, 8, dtype=torch.bool)
    clipped = F.clipped_ratio(x, a, mask, low=0.2, high=0.2)
    free = F.importance_ratio(x, a, mask)
    assert (clipped <= free).all()
    assert torch.equal(clipped < free, F.is_clipped(x, a, mask, low=0.2, high=0.2))


@pytest.mark.parametrize("surrogate", [F.log_probability, F.importance_ratio])
def test_padding_changes_no_surrogate(surrogate: Callable[..., Tensor]) -> None:
    mask = torch.tensor([[True, False]])
    phi = surrogate(torch.tensor([[0.0, -INF]]), torch.tensor([[2.0, INF]]), mask)
    assert phi[0, 1] == 0
    assert torch.isfinite(phi).all()
