"""Golden losses and gradients of every row, worked by hand on one small batch.

Two completions of one prompt, of 2 and 1 tokens; garbage in the padding:

    scores  1, 0        l = [−1, −2], [−3]        x = l − l_ref = [0.5, −1], [0]
    ρ = exp(l − l_old) = [1.25, 0.88], [1.5]      products 1.1 and 1.5
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rlvr.rl_core.algorithms import algorithm
from rlvr.rl_core.choices import Algorithm
from rlvr.rl_core.objective import Denominators, advantages, denominators, policy_loss
from rlvr.verifiers.errors import UsageError

NAN, INF = float("nan"), float("inf")
MASK = torch.tensor([[True, True, False], [True, False, False]])
SCORES = torch.tensor([1.0, 0.0], dtype=torch.float64)
SCORED = torch.tensor([True, True])
GROUPS = torch.tensor([3, 3])
LOGPROBS = torch.tensor([[-1.0, -2.0, NAN], [-3.0, INF, NAN]], dtype=torch.float64)
REFERENCE = torch.tensor([[-1.5, -1.0, INF], [-3.0, NAN, NAN]], dtype=torch.float64)
OLD = LOGPROBS - torch.tensor([[1.25, 0.88, 1.0], [1.5, 1.0, 1.0]], dtype=torch.float64).log()
STEP = Denominators(tokens=3, sequences=2, constant=4)


def loss_and_gradient(
    row: Algorithm, *, old: Tensor | None = None, baseline: float | None = None
) -> tuple[float, list[list[float]]]:
    """Run both compositions on the batch; return the loss and the gradient where the mask is."""
    found = advantages(
        row,
        rewards=SCORES,
        scored=SCORED,
        groups=GROUPS,
        mask=MASK,
        logprobs=LOGPROBS,
        reference=REFERENCE,
        baseline=baseline,
    )
    logprobs = LOGPROBS.clone().requires_grad_()
    loss, _ = policy_loss(
        row,
        logprobs=logprobs,
        old=old,
        advantages=found.values,
        mask=MASK,
        reference=REFERENCE,
        denominators=STEP,
    )
    gradient = torch.autograd.grad(loss, logprobs)[0]
    assert not gradient[~MASK].any()
    return loss.item(), [gradient[i][MASK[i]].tolist() for i in range(2)]


def check(found: tuple[float, list[list[float]]], loss: float, *rows: list[float]) -> None:
    """Compare loss and gradient with numbers worked by hand."""
    assert found[0] == pytest.approx(loss, abs=1e-12)
    for mine, expected in zip(found[1], rows, strict=True):
        assert mine == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["vpg", "vpg-rtg"])
def test_golden_vanilla_policy_gradient(name: str) -> None:
    # A = 1, 0. L = −½ (1·(−1−2) + 0) = 1.5; gradient −½ A.
    check(loss_and_gradient(algorithm(name)), 1.5, [-0.5, -0.5], [0.0])


def test_golden_reward_to_go_with_kl_in_the_reward() -> None:
    # r = [−0.1·0.5, 1 + 0.1·1], [0]; to go [1.05, 1.1], [0].
    # L = −½ (1.05·(−1) + 1.1·(−2)) = 1.625; gradient −½ A.
    row = algorithm("vpg-rtg", kl="reward", beta=0.1)
    check(loss_and_gradient(row), 1.625, [-0.525, -0.55], [0.0])


def test_golden_discounted_reward_to_go() -> None:
    # To go [0.5, 1], [0]: L = −½ (0.5·(−1) + 1·(−2)) = 1.25.
    check(loss_and_gradient(algorithm("vpg-rtg", gamma=0.5)), 1.25, [-0.25, -0.5], [0.0])


def test_golden_reinforce() -> None:
    # b = 0.5, A = ±0.5. L = −½ (0.5·(−3) − 0.5·(−3)) = 0; gradient −½ A.
    check(loss_and_gradient(algorithm("reinforce")), 0.0, [-0.25, -0.25], [0.25])


def test_golden_reinforce_with_a_moving_average() -> None:
    # b = 0.25, A = 0.75, −0.25. L = −½ (0.75·(−3) − 0.25·(−3)) = 0.75; gradient −½ A.
    found = loss_and_gradient(algorithm("reinforce-ema"), baseline=0.25)
    check(found, 0.75, [-0.375, -0.375], [0.125])


def test_golden_rloo() -> None:
    # R = 1 − 0.05·(0.5−1) = 1.025 and 0; A = ±1.025 (the other one is the baseline).
    # ρ = 1.1 is inside; ρ = 1.5 with A < 0 is not cut: φ = 1.1275, −1.5375.
    # L = −½ (1.1275 − 1.5375) = 0.205; gradient −½ ρ A at every token.
    found = loss_and_gradient(algorithm("rloo"), old=OLD)
    check(found, 0.205, [-0.56375, -0.56375], [0.76875])


def test_golden_grpo() -> None:
    # std = √(2·0.25/1) = √0.5, A = ±a with a = 0.5/(√0.5 + 1e-4).
    # φ = [1.2a (cut), 0.88a], [−1.5a]; −½ (½·2.08a − 1.5a) = 0.23a.
    # k3 = [e^−0.5 − 0.5, e − 2], [0]; + 0.04·½·½·(e^−0.5 + e − 2.5).
    a = 0.5 / (math.sqrt(0.5) + 1e-4)
    kl = 0.01 * (math.exp(-0.5) + math.e - 2.5)
    # Gradient: [0, −¼·0.88a], [+½·1.5a], plus 0.01·(1 − e^−x) in the first row.
    first = [0.01 * (1 - math.exp(-0.5)), -0.22 * a + 0.01 * (1 - math.e)]
    found = loss_and_gradient(algorithm("grpo"), old=OLD)
    check(found, 0.23 * a + kl, first, [0.75 * a])
    assert found[0] == pytest.approx(0.17085968, abs=1e-7)


def test_golden_dr_grpo() -> None:
    # A = ±0.5: φ = [0.6 (cut), 0.44], [−0.75]; L = −(0.29)/(2·4) = −0.03625.
    # Gradient −ρA/8 where not cut.
    found = loss_and_gradient(algorithm("dr-grpo"), old=OLD)
    check(found, -0.03625, [0.0, -0.055], [0.09375])


def test_golden_token_mean() -> None:
    # The φ of Dr. GRPO over N = 3: −0.29/3.
    found = loss_and_gradient(algorithm("dr-grpo", aggregate="token"), old=OLD)
    check(found, -0.29 / 3, [0.0, -0.44 / 3], [0.75 / 3])


def test_golden_ratio_without_a_bound() -> None:
    # φ = [0.625, 0.44], [−0.75] over 8.
    found = loss_and_gradient(algorithm("dr-grpo", trust="ratio"), old=OLD)
    check(found, -0.315 / 8, [-0.625 / 8, -0.055], [0.09375])


def test_golden_kl_estimators_in_the_loss() -> None:
    # A = 0 nowhere, so the policy term is vpg's: 1.5. KL summed over a completion, over 2.
    # k2 = [0.125, 0.5], [0]: + 0.1·0.625/2; gradient + 0.1·x/2.
    found = loss_and_gradient(algorithm("vpg", kl="loss", kl_estimator="k2", beta=0.1))
    check(found, 1.5 + 0.03125, [-0.5 + 0.025, -0.5 - 0.05], [0.0])
    # ρ k3 with ρ = [1.25, 0.88]: gradient + 0.1·ρx/2.
    row = algorithm("vpg", kl="loss", kl_estimator="rho_k3", beta=0.1)
    k = 1.25 * (math.exp(-0.5) - 0.5) + 0.88 * (math.e - 2)
    check(
        loss_and_gradient(row, old=OLD),
        1.5 + 0.05 * k,
        [-0.5 + 0.05 * 1.25 * 0.5, -0.5 - 0.05 * 0.88],
        [0.0],
    )


def test_golden_kl_in_the_loss_of_a_sequence_ratio() -> None:
    # On-policy: φ = A = ±1, they cancel. KL of a completion is the sum over its tokens.
    row = algorithm("rloo", kl="loss", kl_estimator="k2", beta=0.1)
    check(loss_and_gradient(row), 0.03125, [-0.5 + 0.025, -0.5 - 0.05], [0.5])


def test_the_worked_example_of_reinforce() -> None:
    row = algorithm("reinforce", kl="reward", beta=0.1)
    logprobs = torch.tensor([[-12.3, -8.3, -2.3], [-10, -7, -3]], dtype=torch.float64)
    reference = torch.tensor([[-11.3, -8.4, -2.0], [-9.5, -7.2, -2.8]], dtype=torch.float64)
    mask = torch.ones(2, 3, dtype=torch.bool)
    found = advantages(
        row,
        rewards=torch.tensor([1.0, 0.5], dtype=torch.float64),
        scored=SCORED,
        groups=torch.tensor([0, 1]),
        mask=mask,
        logprobs=logprobs,
        reference=reference,
    )
    # x sums: −1.2 and −0.5, so R = 1.12 and 0.55; mean 0.835.
    assert found.rewards.tolist() == pytest.approx([1.12, 0.55])
    assert found.values[:, 0].tolist() == pytest.approx([0.285, -0.285])
    assert found.kl == pytest.approx(-1.7 / 6)
    loss, _ = policy_loss(
        row,
        logprobs=logprobs,
        advantages=found.values,
        mask=mask,
        denominators=denominators(mask, SCORED, 3),
    )
    # −½ (−22.9·0.285 + 20·0.285) = 0.5·2.9·0.285
    assert loss.item() == pytest.approx(0.41325)


def test_the_worked_example_of_rloo() -> None:
    row = algorithm("rloo", ratio="none", trust="logp", aggregate="seq_sum", beta=0.1)
    logprobs = torch.tensor(
        [
            [[-12.3, -8.3, -2.3], [-10, -7, -3], [-10.5, -12.2, -9.1]],
            [[-11, -10.3, -1.3], [-11.1, -11.1, -0.8], [-8.2, -11.9, -0.1]],
            [[-1.8, -2.1, -0.2], [-0.7, -3.5, -0.1], [-1, -2.2, -1.1]],
        ],
        dtype=torch.float64,
    ).reshape(9, 3)
    reference = torch.tensor(
        [
            [[-11.8, -8.4, -2.3], [-10.1, -7.2, -3.1], [-10.3, -12.9, -9.1]],
            [[-11.8, -9.7, -1.3], [-12.3, -11.9, -0.2], [-8.1, -12, -0.5]],
            [[-2.7, -2, -1.2], [-0.7, -3.6, -0.2], [-0.7, -1.2, -0.9]],
        ],
        dtype=torch.float64,
    ).reshape(9, 3)
    scored, mask = torch.ones(9, dtype=torch.bool), torch.ones(9, 3, dtype=torch.bool)
    found = advantages(
        row,
        rewards=torch.tensor([1, 2, 3, 2, 3, 4, 3, 4, 5], dtype=torch.float64),
        scored=scored,
        groups=torch.arange(3).repeat_interleave(3),
        mask=mask,
        logprobs=logprobs,
        reference=reference,
    )
    # First group: x sums −0.4, 0.4, 0.5, so R = 1.04, 1.96, 2.95; 1.04 − (1.96+2.95)/2 = −1.415.
    assert found.values[:, 0].tolist() == pytest.approx(
        [-1.415, -0.035, 1.45, -1.43, -0.11, 1.54, -1.745, -0.005, 1.75]
    )
    counts = denominators(mask, scored, 3)
    loss, _ = policy_loss(
        row, logprobs=logprobs, advantages=found.values, mask=mask, denominators=counts
    )
    assert loss.item() == pytest.approx(1.0683889, abs=1e-7)


def test_diagnostics_are_the_sums_of_what_happened() -> None:
    row = algorithm("dr-grpo")
    _, sums = policy_loss(
        row,
        logprobs=LOGPROBS.clone().requires_grad_(),
        old=OLD,
        advantages=torch.tensor([[0.5, 0.5, NAN], [-0.5, NAN, NAN]], dtype=torch.float64),
        mask=MASK,
        reference=REFERENCE,
        denominators=STEP,
    )
    rho = [1.25, 0.88, 1.5]
    expected: dict[str, Any] = {
        "policy_loss": -0.03625,
        "kl_loss": 0.0,
        "tokens": 3,
        "terms": 3,
        "ratio": sum(rho),
        "clipped": 1,  # 1.25 with A > 0
        "approx_kl": sum(r - 1 - math.log(r) for r in rho),
        "kl": -0.5,  # 0.5 − 1 + 0
    }
    assert {key: value.item() for key, value in sums.items()} == pytest.approx(expected)
    assert not any(value.requires_grad for value in sums.values())


def test_diagnostics_of_a_sequence_ratio_count_completions() -> None:
    values = torch.tensor([[0.5, 0.5, NAN], [-0.5, NAN, NAN]], dtype=torch.float64)
    _, sums = policy_loss(
        algorithm("rloo", beta=0),
        logprobs=LOGPROBS,
        old=OLD,
        advantages=values,
        mask=MASK,
        denominators=STEP,
    )
    assert sums["terms"].item() == 2
    assert sums["tokens"].item() == 3
    assert sums["ratio"].item() == pytest.approx(1.1 + 1.5)
    assert "kl" not in sums


def test_the_moving_average_is_handed_on() -> None:
    found = advantages(
        algorithm("reinforce-ema"),
        rewards=SCORES,
        scored=SCORED,
        groups=GROUPS,
        mask=MASK,
        baseline=0.25,
    )
    assert found.baseline == pytest.approx(0.95 * 0.25 + 0.05 * 0.5)


def test_denominators_count_scored_completions_with_and_without_tokens() -> None:
    mask = torch.tensor([[True, True], [False, False], [True, False]])
    found = denominators(mask, torch.tensor([True, True, False]), 192)
    assert found == Denominators(tokens=2.0, sequences=2.0, constant=192.0)


@pytest.mark.parametrize("bad", [-1.0, NAN, INF])
def test_a_denominator_that_is_no_count_is_refused(bad: float) -> None:
    with pytest.raises(UsageError, match="tokens is a count of 0 or more"):
        Denominators(tokens=bad, sequences=1.0, constant=1.0)


def test_a_limit_of_no_tokens_is_refused() -> None:
    with pytest.raises(UsageError, match="max_tokens is a number of tokens from 1, got 0"):
        denominators(MASK, SCORED, 0)


def test_half_precision_is_widened_before_subtraction() -> None:
    loss, _ = policy_loss(
        algorithm("dr-grpo"),
        logprobs=torch.tensor([[-1.0]], dtype=torch.bfloat16),
        old=torch.tensor([[-1.0078125]], dtype=torch.bfloat16),
        advantages=torch.tensor([[1.0]]),
        mask=torch.tensor([[True]]),
        denominators=Denominators(tokens=1, sequences=1, constant=1),
    )
    # −e^(1/128); bfloat16 would round it to −1.0078125
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(-1.0078431, abs=1e-6)


def test_no_gradient_flows_into_the_advantages() -> None:
    values = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    logprobs = LOGPROBS.clone().requires_grad_()
    row = algorithm("dr-grpo")
    loss, _ = policy_loss(row, logprobs=logprobs, advantages=values, mask=MASK, denominators=STEP)
    loss.backward()
    assert values.grad is None
