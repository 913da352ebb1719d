"""Ratios and surrogates: value and gradient coefficient."""

import math

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
    phi = F.clipped_ratio(x, torch.tensor([[advantage]]), low=0.2, high=0.2)
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
    x, a = tensor([math.log(rho)]), torch.tensor([[advantage]], dtype=torch.float64)
    phi = F.clipped_ratio(x, a, low=0.2, high=0.3)
    assert phi.item() == pytest.approx(value)
    assert gradient(phi, x)[0][0] == pytest.approx(coefficient)
    assert F.is_clipped(x, a, low=0.2, high=0.3).item() is clipped
    assert F.clip_coefficient(x, a, low=0.2, high=0.3).item() == pytest.approx(coefficient)


def test_nothing_without_an_advantage_is_clipped() -> None:
    x, a = torch.tensor([[5.0, -5.0]]), torch.tensor([[0.0, 0.0]])
    assert not F.is_clipped(x, a, low=0.2, high=0.2, dual=3.0).any()


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_at_ratio_one_every_surrogate_has_the_gradient_of_the_log_probability(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    mask = torch.rand(3, 4, generator=generator) > 0.3
    logprobs = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    x = F.token_log_ratio(logprobs, logprobs, mask)
    a = a * mask
    surrogates = [
        F.log_probability(logprobs, a),
        F.importance_ratio(x, a),
        F.clipped_ratio(x, a, low=0.2, high=0.2, dual=3.0),
        F.soft_gate(x, a, positive=1.0, negative=1.05),
        F.capped_weight(x, logprobs, a, low=0.0, high=5.0),
        F.tv_masked_ratio(x, -logprobs.abs(), a, limit=0.2),
    ]
    for phi in surrogates:
        found = torch.autograd.grad(phi.sum(), logprobs, retain_graph=True)[0]
        torch.testing.assert_close(found, a)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_the_clipped_surrogate_never_exceeds_the_unclipped_one(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, a = torch.randn(2, 8, generator=generator), torch.randn(2, 8, generator=generator)
    clipped = F.clipped_ratio(x, a, low=0.2, high=0.2)
    free = F.importance_ratio(x, a)
    assert (clipped <= free).all()
    assert torch.equal(clipped < free, F.is_clipped(x, a, low=0.2, high=0.2))


def test_the_dual_clip_bounds_what_a_negative_advantage_can_push() -> None:
    # A = −2, c = 3: ρ = 2.5 pays −5, ρ = 4 pays no less than 3·(−2); with A = 1 it changes nothing.
    x, a = tensor([math.log(2.5), math.log(4.0), math.log(4.0)]), torch.tensor([[-2.0, -2.0, 1.0]])
    phi = F.clipped_ratio(x, a.double(), low=0.2, high=0.2, dual=3.0)
    assert phi[0].tolist() == pytest.approx([-5.0, -6.0, 1.2])
    assert gradient(phi, x)[0] == pytest.approx([-5.0, 0.0, 0.0])
    cut = F.is_clipped(x, a.double(), low=0.2, high=0.2, dual=3.0)
    assert cut.tolist() == [[False, True, True]]


def test_a_capped_weight_never_cuts_a_gradient_off() -> None:
    # clip(ρ, 0, 5)·A·l: 5·0.5·(−2), 0.2·(−1)·(−3); gradient clip(ρ)·A.
    logp, x = tensor([-2.0, -3.0]), torch.tensor([[math.log(9.0), math.log(0.2)]]).double()
    a = torch.tensor([[0.5, -1.0]]).double()
    phi = F.capped_weight(x, logp, a, low=0.0, high=5.0)
    assert phi[0].tolist() == pytest.approx([-5.0, 0.6])
    assert gradient(phi, logp)[0] == pytest.approx([2.5, -0.2])


def test_the_geometric_clip_stops_tokens_that_have_moved_the_way_the_advantage_pushes() -> None:
    # A = 2: x = 1 → 0.4, x = −1 stays: exp((0.4 − 1)/2)·2; gradient φ/2 where x ≤ 0.4.
    x, a, mask = tensor([1.0, -1.0]), torch.tensor([[2.0]]).double(), torch.ones(1, 2).bool()
    phi = F.geometric_clip(x, a, mask, bound=0.4)
    assert phi.item() == pytest.approx(2 * math.exp(-0.3))
    assert gradient(phi, x)[0] == pytest.approx([0.0, math.exp(-0.3)])
    # A = −2: x = 1 stays, x = −1 → −0.4.
    phi = F.geometric_clip(x, -a, mask, bound=0.4)
    assert phi.item() == pytest.approx(-2 * math.exp(0.3))
    assert gradient(phi, x)[0] == pytest.approx([-math.exp(0.3), 0.0])


def test_the_soft_gate_fades_away_from_ratio_one() -> None:
    # ρ = 2, A = 1, τ = 1: 4σ(1); gradient 4σ(1)(1−σ(1))·2. A = −1, τ = 1.05: (4/1.05)σ(1.05).
    x, a = tensor([math.log(2.0), math.log(2.0)]), torch.tensor([[1.0, -1.0]]).double()
    phi = F.soft_gate(x, a, positive=1.0, negative=1.05)
    up, down = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-1.05))
    assert phi[0].tolist() == pytest.approx([4 * up, -4 / 1.05 * down])
    assert gradient(phi, x)[0] == pytest.approx([8 * up * (1 - up), -8 * down * (1 - down)])


@pytest.mark.parametrize(
    ("now", "before", "advantage", "kept"),
    [
        (0.9, 0.6, 1.0, False),  # up by 0.3, and pushed up
        (0.9, 0.6, -1.0, True),  # pushed back
        (0.6, 0.9, -1.0, False),
        (0.6, 0.9, 1.0, True),
        (1e-5, 1e-6, 1.0, True),  # a ratio of 10, and nothing has happened
        (0.7, 0.6, 1.0, True),
    ],
)
def test_the_probability_mask_drops_tokens_that_moved_too_far(
    now: float, before: float, advantage: float, kept: bool
) -> None:
    logp, a = tensor([math.log(now)]), torch.tensor([[advantage]]).double()
    x = logp - math.log(before)
    phi = F.tv_masked_ratio(x, logp, a, limit=0.2)
    assert phi.item() == pytest.approx(kept * now / before * advantage)
    assert gradient(phi, logp)[0][0] == pytest.approx(kept * now / before * advantage)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_every_closed_coefficient_is_the_gradient(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    a = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    logp = -torch.rand(3, 5, generator=generator, dtype=torch.float64)
    mask, rows = torch.ones(3, 5, dtype=torch.bool), a[:, :1]
    clip, gate = {"low": 0.2, "high": 0.3, "dual": 1.5}, {"positive": 1.0, "negative": 1.3}
    phi = F.geometric_clip(x, rows, mask, bound=0.4)
    pairs = [
        (F.importance_ratio(x, a), F.ratio_coefficient(x, a)),
        (F.clipped_ratio(x, a, **clip), F.clip_coefficient(x, a, **clip)),
        (F.soft_gate(x, a, **gate), F.gate_coefficient(x, a, **gate)),
        (F.tv_masked_ratio(x, logp, a, limit=0.2), F.tv_coefficient(x, logp, a, limit=0.2)),
        (phi, F.geometric_coefficient(x, rows, phi, mask, bound=0.4)),
    ]
    for value, coefficient in pairs:
        found = torch.autograd.grad(value.sum(), x, retain_graph=True)[0]
        torch.testing.assert_close(found, coefficient.detach())


def test_beyond_the_cap_of_the_exponential_no_coefficient_pretends_a_gradient() -> None:
    x, a = tensor([25.0, -25.0]), torch.ones(1, 2, dtype=torch.float64)
    found = gradient(F.importance_ratio(x, a), x)
    assert found == F.ratio_coefficient(x, a).tolist()
    assert found[0][0] == 0.0


def test_the_geometric_ratio_is_the_mean_over_trained_tokens() -> None:
    # (0.5 − 0.25)/2 and 0.25/1; each token carries 1/L of the gradient.
    logprobs = tensor([-1.0, -2.0, INF], [-3.0, INF, INF])
    old = torch.tensor([[-1.5, -1.75, INF], [-3.25, INF, INF]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    moved = F.token_log_ratio(logprobs, old, mask)
    assert F.geometric_log_ratio(moved, mask).tolist() == [[0.125], [0.25]]
    assert gradient(F.geometric_log_ratio(moved, mask), logprobs) == [[0.5, 0.5, 0], [1, 0, 0]]
    tokens = F.geometric_token_log_ratio(moved, mask)
    assert tokens.tolist() == [[0.125, 0.125, 0.0], [0.25, 0.0, 0.0]]
    assert gradient(tokens, logprobs) == [[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
