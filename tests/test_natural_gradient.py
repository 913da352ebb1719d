"""The natural step: conjugate gradients, products by differences, limits, and what it refuses."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlvr.agents import Trajectory
from rlvr.rl_core import functional as F
from rlvr.rl_core.algorithms import algorithm
from rlvr.rl_core.config import OptimizerConfig, TrainConfig
from rlvr.rl_core.functional.natural_gradient import (
    backtrack,
    conjugate_gradient,
    difference_product,
    trust_region_step,
)
from rlvr.rl_core.learner import Learner
from rlvr.rl_core.natural_step import NaturalStep, Region
from rlvr.verifiers import TrainingStopped, UsageError

Sample = Callable[..., list[Trajectory]]


@settings(max_examples=30)
@given(size=st.integers(1, 8), seed=st.integers(0, 1000))
def test_conjugate_gradients_solve_every_positive_system(size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    half = torch.randn(size, size, generator=generator, dtype=torch.float64)
    matrix = half @ half.T + torch.eye(size)
    target = torch.randn(size, generator=generator, dtype=torch.float64)
    x, error = conjugate_gradient(lambda v: matrix @ v, target, steps=4 * size, tolerance=1e-24)
    assert torch.allclose(x, torch.linalg.solve(matrix, target), atol=1e-8)
    assert error < 1e-8


def test_a_direction_of_no_curvature_ends_the_search() -> None:
    x, error = conjugate_gradient(lambda v: -v, torch.ones(3), steps=5)
    assert torch.equal(x, torch.zeros(3))
    assert error == 1.0
    assert conjugate_gradient(lambda v: v, torch.zeros(3), steps=5)[1] == 0.0


def test_a_difference_of_gradients_is_the_hessian_times_a_vector() -> None:
    # f = Σ θ⁴/12 + θ₀θ₁ at θ = (1, 2): H = diag(θ²) + [[0, 1], [1, 0]] = [[1, 1], [1, 4]]
    theta = torch.tensor([1.0, 2.0], dtype=torch.float64)

    def gradient(move: Tensor) -> Tensor:
        at = theta + move
        return at**3 / 3 + at.flip(0)

    found = difference_product(gradient, torch.tensor([3.0, -1.0]).double(), damping=0.5)
    assert torch.allclose(found, torch.tensor([3.0 - 1.0 + 1.5, 3.0 - 4.0 - 0.5]).double())


def test_the_step_reaches_the_limit_of_the_quadratic_model() -> None:
    matrix = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    x = torch.tensor([0.3, -0.7])
    step = trust_region_step(x, matrix @ x, limit=0.01)
    assert float(step @ matrix @ step) / 2 == pytest.approx(0.01)
    assert torch.equal(trust_region_step(x, -x, limit=0.01), torch.zeros(2))


@pytest.mark.parametrize(
    ("measure", "found"),
    [
        (lambda s: (1.0, 0.0), (1.0, 1.0, 0.0)),
        (lambda s: (s, 0.02 * s * s), (0.5, 0.5, 0.005)),  # too far at first
        (lambda s: (0.0, 0.0), (0.0, 0.0, 0.0)),  # never better than before
        (lambda s: (math.nan, 0.0), (0.0, 0.0, 0.0)),
        (lambda s: (1.0, math.nan), (0.0, 0.0, 0.0)),
        (lambda s: (1.0, math.inf), (0.0, 0.0, 0.0)),
    ],
)
def test_a_step_is_shortened_until_both_conditions_hold_or_refused(
    measure: Callable[[float], tuple[float, float]], found: tuple[float, float, float]
) -> None:
    assert backtrack(measure, before=0.0, limit=0.01, shrink=0.5, steps=10) == found


class _Softmax:
    """A policy of two parameters' worth of tokens: logits = states · W, for a dense Fisher."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.states = torch.randn(6, 3, generator=generator, dtype=torch.float64)
        self.weights = torch.randn(3, 4, generator=generator, dtype=torch.float64)
        self.weights.requires_grad_(True)
        self.actions = torch.randint(4, (6,), generator=generator)
        self.credit = torch.randn(6, generator=generator, dtype=torch.float64)
        self.mask = torch.ones(1, 1, dtype=torch.bool)
        with torch.no_grad():
            self.old = torch.log_softmax(self.states @ self.weights, -1)

    def evaluate(self, part: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.tensor(part)
        logits = self.states[rows] @ self.weights
        logp = torch.log_softmax(logits, -1)
        chosen = logp.gather(1, self.actions[rows, None])[:, 0]
        before = self.old[rows].gather(1, self.actions[rows, None])[:, 0]
        loss = -((chosen - before).exp() * self.credit[rows]).sum() / 6
        return loss, logits[None], torch.ones(1, len(part), dtype=torch.bool)

    def fisher(self) -> Tensor:
        """F = mean over states of (diag(p) − ppᵀ) ⊗ ssᵀ, by hand."""
        total = torch.zeros(12, 12, dtype=torch.float64)
        for state, logp in zip(self.states, self.old, strict=True):
            p = logp.exp()
            inner = torch.diag(p) - p[:, None] * p[None]
            total += torch.einsum("i,j,ab->iajb", state, state, inner).reshape(12, 12) / 6
        return total

    def gradient(self) -> Tensor:
        (loss, _, _) = self.evaluate(range(6))
        return -torch.autograd.grad(loss, self.weights)[0].flatten()


@pytest.mark.parametrize("parts", [[range(6)], [range(2), range(2, 3), range(3, 6)]])
@pytest.mark.parametrize("seed", range(3))
def test_the_step_is_that_of_the_dense_fisher_matrix(seed: int, parts: list[range]) -> None:
    policy = _Softmax(seed)
    row = algorithm("trpo", kl_limit=1e-8, cg_steps=40, cg_damping=1e-3)
    damped = policy.fisher() + 1e-3 * torch.eye(12)
    direction = torch.linalg.solve(damped, policy.gradient())
    wanted = direction * math.sqrt(2e-8 / float(direction @ damped @ direction))
    start = policy.weights.detach().clone()
    region = Region(parts=parts, evaluate=policy.evaluate, tokens=6.0)
    step = NaturalStep([policy.weights], region, row)
    vector = torch.randn(12, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    assert torch.allclose(step.product(vector), damped @ vector, atol=1e-8)
    found = step.take()
    moved = (policy.weights.detach() - start).flatten()
    assert found["natural/share"] == 1.0
    assert (moved - wanted).norm() < 1e-4 * wanted.norm()
    assert 0 < found["natural/kl"] <= 1e-8


def test_a_step_beyond_the_limit_is_shortened_until_it_is_within() -> None:
    policy = _Softmax(0)
    region = Region(parts=[range(6)], evaluate=policy.evaluate, tokens=6.0)
    found = NaturalStep([policy.weights], region, algorithm("trpo", kl_limit=2.0)).take()
    with torch.no_grad():
        now = policy.states @ policy.weights
        kl = F.full_kl(policy.old[None], now[None], torch.ones(1, 6).bool()).mean()
    assert float(kl) == pytest.approx(found["natural/kl"])
    assert found["natural/kl"] <= 2.0
    assert found["natural/gain"] > 0


def test_a_step_that_breaks_the_limit_leaves_the_weights_bit_for_bit() -> None:
    policy = _Softmax(1)
    start = policy.weights.detach().clone()

    def scrambled(part: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        loss, logits, mask = policy.evaluate(part)
        moved = (policy.weights.detach() - start).norm()
        return loss, logits + 1e3 * moved * torch.arange(4), mask

    region = Region(parts=[range(6)], evaluate=scrambled, tokens=6.0)
    row = algorithm("trpo", kl_limit=1e-3, search_steps=3)
    found = NaturalStep([policy.weights], region, row).take()
    assert found["natural/share"] == 0.0
    assert torch.equal(policy.weights.detach(), start)


def test_a_gradient_that_is_not_finite_stops_training_with_the_weights_in_place() -> None:
    policy = _Softmax(2)
    policy.credit[0] = math.nan
    start = policy.weights.detach().clone()
    region = Region(parts=[range(6)], evaluate=policy.evaluate, tokens=6.0)
    with pytest.raises(TrainingStopped, match="norm is nan"):
        NaturalStep([policy.weights], region, algorithm("trpo")).take()
    assert torch.equal(policy.weights.detach(), start)


def test_half_precision_is_refused() -> None:
    region = Region(parts=[], evaluate=_Softmax(0).evaluate, tokens=1.0)
    with pytest.raises(UsageError, match="dtype=float32"):
        NaturalStep([torch.ones(2, dtype=torch.bfloat16)], region, algorithm("trpo"))
    with pytest.raises(UsageError, match="float32"):
        TrainConfig.of(algorithm="trpo", dtype="bfloat16")
    with pytest.raises(UsageError, match="one natural step"):
        TrainConfig.of(algorithm="trpo", updates_per_step=2)


class _Adapter(torch.nn.Module):
    """W x + B A x with W frozen: the usual low-rank adapter."""

    def __init__(self, inner: torch.nn.Linear) -> None:
        super().__init__()
        self.inner = inner
        generator = torch.Generator().manual_seed(0)
        down = torch.randn(2, inner.in_features, generator=generator) / 4
        self.down = torch.nn.Parameter(down)
        self.up = torch.nn.Parameter(torch.zeros(inner.out_features, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + x @ self.down.T @ self.up.T


def _trpo(model: Any, vocabulary: int, **changes: Any) -> Learner:
    return Learner(
        model,
        algorithm("trpo", **changes),
        OptimizerConfig(lr=1e-3),
        vocabulary=vocabulary,
        temperature=0.7,
        max_tokens=8,
    )


def test_low_rank_adapters_move_and_the_frozen_weights_stay(
    tiny: tuple[Any, Any], sample: Sample
) -> None:
    model = copy.deepcopy(tiny[0]).requires_grad_(False)
    for layer in model.model.layers:
        layer.self_attn.v_proj = _Adapter(layer.self_attn.v_proj)
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    learner = _trpo(model, len(tiny[1]))
    assert sum(p.numel() for p in learner.parameters) == 2 * 2 * (32 + 64)
    metrics = learner.update(sample(groups=8, size=2), 0)
    assert metrics["natural/share"] > 0
    assert 0 < metrics["natural/kl"] <= 0.01
    assert any(p.abs().sum() > 0 for n, p in model.named_parameters() if n.endswith("up"))
    for name, parameter in model.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name])


@pytest.mark.parametrize("limit", [1e-4, 1e-2])
def test_a_full_small_model_keeps_to_the_limit(
    tiny: tuple[Any, Any], sample: Sample, limit: float
) -> None:
    learner = _trpo(copy.deepcopy(tiny[0]), len(tiny[1]), kl_limit=limit)
    metrics = learner.update(sample(groups=8, size=2), 0)
    assert metrics["natural/gain"] > 0
    assert limit / 10 < metrics["natural/kl"] <= limit


def test_old_logits_that_are_not_kept_change_nothing(
    tiny: tuple[Any, Any], sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    episodes, weights = sample(groups=4, size=2), []
    for size in (2**27, 0):
        monkeypatch.setattr("rlvr.rl_core.natural_step.REMEMBERED", size)
        learner = _trpo(copy.deepcopy(tiny[0]), len(tiny[1]), cg_steps=3)
        learner.update(episodes, 0)
        weights.append(torch.cat([p.detach().flatten() for p in learner.parameters]))
    assert torch.equal(*weights)
