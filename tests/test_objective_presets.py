"""What other systems compute by default, worked from their formulas on one small batch.

Two completions of one prompt, of 2 and 1 tokens:

    scores  1, 0        l = [−1, −2], [−3]        x = l − l_ref = [0.5, −1], [0]
    ρ = exp(l − l_old) = [1.25, 0.88], [1.5]      ω = exp(l_old − l_rollout) = [0.5, 3], [1.2]
"""

import math
from typing import Any

import pytest
import torch

from rlvr.rl_core.algorithms import PRESETS, TABLE, algorithm
from rlvr.rl_core.objective import advantages, denominators, policy_loss

MASK = torch.tensor([[True, True], [True, False]])
LOGPROBS = torch.tensor([[-1.0, -2.0], [-3.0, 0.0]], dtype=torch.float64)
OLD = LOGPROBS - torch.tensor([[1.25, 0.88], [1.5, 1.0]], dtype=torch.float64).log()
ROLLOUT = OLD - torch.tensor([[0.5, 3.0], [1.2, 1.0]], dtype=torch.float64).log()
REFERENCE = LOGPROBS - torch.tensor([[0.5, -1.0], [0.0, 0.0]], dtype=torch.float64)
K3 = math.exp(-0.5) - 0.5 + math.e - 2
"""Sum of k3 over the three tokens: x = 0.5 gives e^−0.5 − 1 + 0.5, x = −1 gives e − 1 − 1."""


def outcome(
    name: str, options: dict[str, Any] | None = None, **changes: Any
) -> tuple[float, list[float]]:
    """Return the loss, and the gradient at the three tokens."""
    row, scored = algorithm(name, **(options or {})), torch.tensor([True, True])
    found = advantages(
        row,
        rewards=torch.tensor([1.0, 0.0], dtype=torch.float64),
        scored=scored,
        groups=torch.tensor([0, 0]),
        mask=MASK,
        logprobs=LOGPROBS,
        reference=REFERENCE,
    )
    logprobs = LOGPROBS.clone().requires_grad_()
    others = {"old": OLD, "rollout": ROLLOUT, "reference": REFERENCE}
    loss, _ = policy_loss(
        row,
        logprobs=logprobs,
        advantages=found.values,
        mask=found.mask,
        denominators=denominators(found.mask, found.rows, 4),
        **(others | changes),
    )
    return loss.item(), torch.autograd.grad(loss, logprobs)[0][MASK].tolist()


def check(found: tuple[float, list[float]], loss: float, gradient: list[float]) -> None:
    """Compare with numbers worked by hand."""
    assert found[0] == pytest.approx(loss, abs=1e-12)
    assert found[1] == pytest.approx(gradient, abs=1e-12)


def spread(eps: float) -> float:
    """a: A = ±0.5/(std + ε), std = √0.5."""
    return 0.5 / (math.sqrt(0.5) + eps)


def test_every_preset_is_in_the_table() -> None:
    assert set(PRESETS) == {
        *("trl-grpo", "trl-rloo", "verl-grpo", "openrlhf-grpo", "prime-rl", "skyrl-grpo"),
        *("open-instruct-grpo", "slime-grpo", "nemo-grpo"),
    }


def test_trl_grpo() -> None:
    # Products of ω 1.5 and 1.2, both below 3, weigh [1.2a, 0.88a] and [−1.5a]: 3.12a − 1.8a over 3.
    a = spread(1e-4)
    check(outcome("trl-grpo"), -0.44 * a, [0.0, -0.44 * a, 0.6 * a])
    # A product of 4.5 drops the first completion; its tokens stay in the denominator.
    far = ROLLOUT - torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]], dtype=torch.float64)
    check(outcome("trl-grpo", rollout=far), 0.6 * a, [0.0, 0.0, 0.6 * a])


def test_trl_rloo() -> None:
    # R = 1 − 0.05·(−0.5) = 1.025 and 0, A = ±1.025; products 1.1 (inside) and 1.5 (A < 0: not cut).
    # L = −½(1.1275 − 1.5375); gradient −½ ρ A at every token.
    check(outcome("trl-rloo"), 0.205, [-0.56375, -0.56375, 0.76875])


def test_verl_grpo() -> None:
    # φ = [1.2a (cut), 0.88a], [−1.5a] over 3.
    a = spread(1e-6)
    check(outcome("verl-grpo"), -0.58 * a / 3, [0.0, -0.88 * a / 3, 0.5 * a])
    # With ρ = 4 at the last token the dual clip bounds −4a by −3a, and its gradient ends.
    far = OLD.clone()
    far[1, 0] = -3.0 - math.log(4.0)
    check(outcome("verl-grpo", old=far), 0.92 * a / 3, [0.0, -0.88 * a / 3, 0.0])


def test_openrlhf_grpo() -> None:
    # z = ±0.5/(√0.5 + 1e-9) at the last token, −0.01·[0.5, −1] before it is summed up:
    # A = [z + 0.005, z + 0.01], [−z].
    z = spread(1e-9)
    loss = -(1.2 * (z + 0.005) + 0.88 * (z + 0.01) - 1.5 * z) / 3
    check(outcome("openrlhf-grpo"), loss, [0.0, -0.88 * (z + 0.01) / 3, 0.5 * z])


def test_prime_rl() -> None:
    # Ratios to the sampler: ρω = [0.625, 2.64], [1.8]; π = e^−1, e^−2, e^−3, moved by
    # e^−1(1 − 1/0.625) = −0.22 (down, while A > 0 pushes up: kept), 0.08, 0.02.
    # φ = [0.3125, 1.32], [−0.9] over 3, plus 1e-3 (log)² over 3.
    logs = [math.log(v) for v in (0.625, 2.64, 1.8)]
    loss = -(0.3125 + 1.32 - 0.9) / 3 + 1e-3 * sum(v * v for v in logs) / 3
    slope = [(c + 2e-3 * v) / 3 for c, v in zip((-0.3125, -1.32, 0.9), logs, strict=True)]
    check(outcome("prime-rl"), loss, slope)


def test_skyrl_grpo() -> None:
    # φ as verl's over 3, plus 0.001·k3 averaged over completions, ½(½ K3 + 0); its gradient
    # 0.001(1 − e^−x)/4.
    a = spread(1e-6)
    slope = [
        0.001 * (1 - math.exp(-0.5)) / 4,
        -0.88 * a / 3 + 0.001 * (1 - math.e) / 4,
        0.5 * a,
    ]
    check(outcome("skyrl-grpo"), -0.58 * a / 3 + 0.001 * K3 / 4, slope)


def test_a_divergence_averaged_in_another_way_than_the_surrogate() -> None:
    # grpo averages over completions, 0.04·(½ K3)/2, and with `token` over the three tokens.
    (usual, slope), (other, turned) = outcome("grpo"), outcome("grpo", {"kl_aggregate": "token"})
    assert other - usual == pytest.approx(0.04 * K3 * (1 / 3 - 1 / 4), abs=1e-12)
    pull = [0.04 * (1 - math.exp(-0.5)), 0.04 * (1 - math.e), 0.0]
    gained = [a - b for a, b in zip(turned, slope, strict=True)]
    assert gained == pytest.approx([c * (1 / 3 - 1 / 4) for c in pull], abs=1e-12)


def test_open_instruct_grpo() -> None:
    # A = ±0.5; 1.25 is inside 1.272: 0.625·0.5, 0.44·min(3, 2) and −0.75·1.2.
    # (0.3125 + 0.88 − 0.9)/3, plus 0.05·k3 over 3.
    slope = [
        (-0.3125 + 0.05 * (1 - math.exp(-0.5))) / 3,
        (-0.88 + 0.05 * (1 - math.e)) / 3,
        0.3,
    ]
    check(outcome("open-instruct-grpo"), (-0.2925 + 0.05 * K3) / 3, slope)


def test_slime_grpo() -> None:
    # −½(½·2.08a − 1.5a) = 0.23a.
    a = spread(1e-6)
    check(outcome("slime-grpo"), 0.23 * a, [0.0, -0.22 * a, 0.75 * a])


def test_nemo_grpo() -> None:
    # Of two, the other one is the baseline and has no spread: A = ±1. Plus 0.01·k3 over 3, whose
    # gradient is that of k2: 0.01·x/3.
    slope = [0.01 * 0.5 / 3, (-0.88 - 0.01) / 3, 0.5]
    check(outcome("nemo-grpo"), (-0.58 + 0.01 * K3) / 3, slope)


def test_two_systems_leave_out_groups_of_equal_scores() -> None:
    def trained(name: str) -> bool:
        found = advantages(
            TABLE[name],
            rewards=torch.ones(2, dtype=torch.float64),
            scored=torch.tensor([True, True]),
            groups=torch.tensor([0, 0]),
            mask=MASK,
            logprobs=LOGPROBS,
            reference=LOGPROBS,
        )
        return bool(found.mask.any())

    assert {name for name in PRESETS if not trained(name)} == {"prime-rl", "open-instruct-grpo"}


def test_the_advantages_of_one_group_in_every_system() -> None:
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    everyone, mask = torch.ones(4, dtype=torch.bool), torch.ones(4, 1, dtype=torch.bool)

    def first(name: str, **options: Any) -> float:
        row = algorithm(name, **options)
        found = advantages(
            row, rewards=rewards, scored=everyone, groups=torch.zeros(4).long(), mask=mask
        )
        return found.values[0, 0].item()

    # std √(4·0.25/3) = 0.57735 (unbiased) or 0.5; the others 0, 0, 1: mean 1/3, std 0.57735.
    assert first("trl-grpo") == pytest.approx(0.5 / 0.57745, abs=1e-4)
    assert first("verl-grpo", std_ddof=0) == pytest.approx(1.0, abs=1e-5)
    assert first("trl-rloo", beta=0) == pytest.approx(2 / 3)
    assert first("open-instruct-grpo", beta=0) == pytest.approx(0.5)
    assert first("nemo-grpo", beta=0) == pytest.approx(2 / 3 / 0.57735, abs=1e-4)
