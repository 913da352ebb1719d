"""KL estimators: value, gradient per sample, and what both are in expectation."""

import math

import pytest
import torch
from torch import Tensor

from rlvr.rl_core import functional as F

LOGITS = torch.tensor([0.3, -0.5, 1.1], dtype=torch.float64)
REFERENCE = torch.log_softmax(torch.tensor([-0.2, 0.4, 0.6], dtype=torch.float64), 0)
OLD = torch.log_softmax(torch.tensor([0.5, 0.1, 0.2], dtype=torch.float64), 0)
MASK = torch.ones(3, 1, dtype=torch.bool)


def expected_gradient(name: str, sampled_from: Tensor | None = None) -> Tensor:
    """Weight each token's gradient of an estimator by its probability: the exact expectation."""
    logits = LOGITS.clone().requires_grad_()
    logprobs = torch.log_softmax(logits, 0)[:, None]
    reference = REFERENCE[:, None]
    if name == "ratio_k3":
        assert sampled_from is not None
        terms = F.ratio_k3(logprobs, reference, MASK, old=sampled_from[:, None])
    else:
        terms = getattr(F, name)(logprobs, reference, MASK)
    weights = (logprobs[:, 0].detach() if sampled_from is None else sampled_from).exp()
    return torch.autograd.grad((weights * terms[:, 0]).sum(), logits)[0]


def divergence_gradient(*, forward: bool) -> Tensor:
    """Differentiate KL(ref‖π) (forward) or KL(π‖ref) in closed form."""
    logits = LOGITS.clone().requires_grad_()
    logprobs = torch.log_softmax(logits, 0)
    if forward:
        value = (REFERENCE.exp() * (REFERENCE - logprobs)).sum()
    else:
        value = (logprobs.exp() * (logprobs - REFERENCE)).sum()
    return torch.autograd.grad(value, logits)[0]


def test_values_and_gradients_of_a_hand_worked_token() -> None:
    x = math.log(2.0)  # l = ln 0.5, l_ref = ln 0.25
    for name, value, slope in [
        ("k1", x, 1.0),
        ("k2", x * x / 2, x),
        ("k3", 0.5 - 1 + x, 0.5),  # e^(−x) = 0.5; 1 − 0.5
    ]:
        logprobs = torch.tensor([[math.log(0.5)]], dtype=torch.float64, requires_grad=True)
        reference = torch.tensor([[math.log(0.25)]], dtype=torch.float64)
        found = getattr(F, name)(logprobs, reference, torch.tensor([[True]]))
        found.backward()
        assert found.item() == pytest.approx(value), name
        assert logprobs.grad is not None
        assert logprobs.grad.item() == pytest.approx(slope), name


def test_the_ratio_makes_the_slope_of_k3_the_weighted_log_ratio() -> None:
    logprobs = torch.tensor([[math.log(0.5)]], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([[math.log(0.25)]], dtype=torch.float64)
    old = torch.tensor([[math.log(0.4)]], dtype=torch.float64)
    found = F.ratio_k3(logprobs, reference, torch.tensor([[True]]), old=old)
    found.backward()
    # ρ = 0.5/0.4 = 1.25, x = ln 2: value ρ (x − 0.5), slope ρ x
    assert found.item() == pytest.approx(1.25 * (math.log(2) - 0.5))
    assert logprobs.grad is not None
    assert logprobs.grad.item() == pytest.approx(1.25 * math.log(2))


def test_k1_and_k3_are_unbiased_in_value_and_k2_is_not() -> None:
    logprobs = torch.log_softmax(LOGITS, 0)
    exact = (logprobs.exp() * (logprobs - REFERENCE)).sum().item()
    mean = {
        name: (logprobs.exp() * getattr(F, name)(logprobs[:, None], REFERENCE[:, None], MASK)[:, 0])
        for name in ("k1", "k2", "k3")
    }
    assert mean["k1"].sum().item() == pytest.approx(exact)
    assert mean["k3"].sum().item() == pytest.approx(exact)
    assert mean["k2"].sum().item() != pytest.approx(exact, rel=1e-3)


def test_k1_as_a_loss_does_nothing_in_expectation() -> None:
    torch.testing.assert_close(expected_gradient("k1"), torch.zeros(3, dtype=torch.float64))


def test_k2_as_a_loss_has_the_gradient_of_the_reverse_divergence() -> None:
    torch.testing.assert_close(expected_gradient("k2"), divergence_gradient(forward=False))


def test_k3_as_a_loss_has_the_gradient_of_the_forward_divergence() -> None:
    torch.testing.assert_close(expected_gradient("k3"), divergence_gradient(forward=True))
    assert not torch.allclose(
        expected_gradient("k3"), divergence_gradient(forward=False), atol=1e-3
    )


def test_ratio_k3_has_the_gradient_of_the_reverse_divergence_off_policy_too() -> None:
    torch.testing.assert_close(
        expected_gradient("ratio_k3", sampled_from=OLD), divergence_gradient(forward=False)
    )


@pytest.mark.parametrize("name", ["k1", "k2", "k3"])
def test_padding_changes_no_estimate(name: str) -> None:
    logprobs = torch.tensor([[-1.0, float("nan")]], requires_grad=True)
    reference = torch.tensor([[-1.5, float("inf")]])
    found = getattr(F, name)(logprobs, reference, torch.tensor([[True, False]]))
    found.sum().backward()
    assert found[0, 1] == 0
    assert logprobs.grad is not None
    assert torch.isfinite(logprobs.grad).all()


@pytest.mark.parametrize("name", ["k1", "k2", "k3"])
def test_no_gradient_flows_into_the_reference(name: str) -> None:
    logprobs = torch.tensor([[-1.0]], requires_grad=True)
    reference = torch.tensor([[-1.5]], requires_grad=True)
    getattr(F, name)(logprobs, reference, torch.tensor([[True]])).sum().backward()
    assert logprobs.grad is not None
    assert reference.grad is None


def test_k3_of_a_token_that_the_policy_has_all_but_forgotten_stays_finite() -> None:
    logprobs = torch.tensor([[-500.0]], requires_grad=True)
    found = F.k3(logprobs, torch.tensor([[-1.0]]), torch.tensor([[True]]))
    found.backward()
    assert logprobs.grad is not None
    assert torch.isfinite(found).all()
    assert torch.isfinite(logprobs.grad).all()


def test_k3_keeps_its_digits_when_the_policies_nearly_agree() -> None:
    x = torch.tensor([[1e-3]])  # float32; e^(−x) − 1 + x ≈ x²/2 = 5·10⁻⁷ would drown in rounding
    found = F.k3(x, torch.zeros(1, 1), torch.tensor([[True]])).item()
    assert found == pytest.approx(5e-7, rel=1e-2)
