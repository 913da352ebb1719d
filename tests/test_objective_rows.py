"""Golden losses and gradients of the rows beyond the first ones, worked by hand on one small batch.

Two completions of one prompt, of 2 and 1 tokens; garbage in the padding:

    scores  1, 0        l = [−1, −2], [−3]        x = l − l_ref = [0.5, −1], [0]
    ρ = exp(l − l_old) = [1.25, 0.88], [1.5]      ω = exp(l_old − l_rollout) = [0.5, 3], [1.2]
    V = [0.4, 0.6], [0.2]                         greedy completion 0.25
    turns [0, 1], [0] were paid 0.25, 0.75 and 0; the first turns began at one state

With group mean and spread A = ±a, a = 0.5/(√0.5 + ε).
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rlvr.rl_core.algorithms import algorithm
from rlvr.rl_core.choices import Algorithm
from rlvr.rl_core.objective import advantages, denominators, policy_loss, preference_loss

NAN, INF = float("nan"), float("inf")
MASK = torch.tensor([[True, True, False], [True, False, False]])


def padded(first: list[float], second: list[float]) -> Tensor:
    """Put garbage behind the tokens."""
    rows = [first + [INF] * (3 - len(first)), second + [NAN] * (3 - len(second))]
    return torch.tensor(rows, dtype=torch.float64)


LOGPROBS = padded([-1.0, -2.0], [-3.0])
OLD = LOGPROBS - padded([1.25, 0.88], [1.5]).log()
ROLLOUT = OLD - padded([0.5, 3.0], [1.2]).log()
REFERENCE = LOGPROBS - padded([0.5, -1.0], [0.0])
EPISODES: dict[str, Any] = {
    "rewards": torch.tensor([1.0, 0.0], dtype=torch.float64),
    "scored": torch.tensor([True, True]),
    "groups": torch.tensor([3, 3]),
    "mask": MASK,
    "logprobs": LOGPROBS,
    "reference": REFERENCE,
    "values": padded([0.4, 0.6], [0.2]),
    "greedy": torch.tensor([0.25, 0.25], dtype=torch.float64),
    "token_rewards": padded([0.25, 0.75], [0.0]),
    "spans": torch.tensor([[0, 1, -1], [0, -1, -1]]),
    "anchors": torch.tensor([[7, 8, 0], [7, 0, 0]]),
    "parts": torch.tensor([[1.0, 10.0], [0.0, 30.0]], dtype=torch.float64),
    "part_weights": torch.tensor([1.0, 0.5], dtype=torch.float64),
    "truncated": torch.tensor([False, False]),
    "lag": torch.tensor([0, 0]),
}


def loss_and_gradient(row: Algorithm, **changes: Any) -> tuple[float, list[list[float]]]:
    """Run both compositions on the batch; return the loss and the gradient where the mask is."""
    others = {"old": OLD, "rollout": ROLLOUT, "reference": REFERENCE}
    episodes = {k: changes.get(k, v) for k, v in EPISODES.items()}
    found = advantages(row, **episodes)
    logprobs = LOGPROBS.clone().requires_grad_()
    loss, _ = policy_loss(
        row,
        logprobs=logprobs,
        advantages=found.values,
        mask=found.mask,
        denominators=denominators(found.mask, found.rows, 4),
        **{k: changes.get(k, v) for k, v in others.items()},
    )
    gradient = torch.autograd.grad(loss, logprobs)[0]
    assert not gradient[~MASK].any()
    return loss.item(), [gradient[i][MASK[i]].tolist() for i in range(2)]


def check(found: tuple[float, list[list[float]]], loss: float, *rows: list[float]) -> None:
    """Compare loss and gradient with numbers worked by hand."""
    assert found[0] == pytest.approx(loss, abs=1e-10)
    for mine, expected in zip(found[1], rows, strict=True):
        assert mine == pytest.approx(expected, abs=1e-10)


def spread(eps: float = 1e-4) -> float:
    """a: half the difference of the scores over their spread, std = √(2·0.25/1)."""
    return 0.5 / (math.sqrt(0.5) + eps)


def whitened(*values: float, eps: float = 1e-8) -> list[float]:
    """(x − mean) / (std + ε), unbiased."""
    mean = sum(values) / len(values)
    std = math.sqrt(sum((x - mean) ** 2 for x in values) / (len(values) - 1))
    return [(x - mean) / (std + eps) for x in values]


def test_golden_reward_to_go_less_a_value() -> None:
    # A = [1−0.4, 1−0.6], [−0.2]: L = −½(−0.6 − 0.8 + 0.6); gradient −½ A.
    check(loss_and_gradient(algorithm("vpg-baseline")), 0.4, [-0.3, -0.2], [0.1])


def test_golden_reward_to_go_less_a_constant() -> None:
    # A = [0.75, 0.75], [−0.25]: L = −½(−2.25 + 0.75).
    row = algorithm("vpg-baseline", baseline="const", baseline_value=0.25)
    check(loss_and_gradient(row), 0.75, [-0.375, -0.375], [0.125])


def test_golden_action_value() -> None:
    # Q = [0 + 0.6, 1], [0]: L = −½(−0.6 − 2).
    check(loss_and_gradient(algorithm("vpg-q")), 1.3, [-0.3, -0.5], [0.0])


def test_golden_temporal_difference() -> None:
    # δ = [0.6 − 0.4, 1 − 0.6], [−0.2]: L = −½(−0.2 − 0.8 + 0.6).
    check(loss_and_gradient(algorithm("vpg-td")), 0.2, [-0.1, -0.2], [0.1])


def test_golden_generalised_advantage() -> None:
    # [0.2 + 0.95·0.4, 0.4], [−0.2]: L = −½(−0.58 − 0.8 + 0.6).
    check(loss_and_gradient(algorithm("vpg-advantage")), 0.39, [-0.29, -0.2], [0.1])


def test_golden_two_steps_and_a_value() -> None:
    # Two tokens ahead the episode is over: [0 + 1, 1], [0].
    row = algorithm("vpg-q", psi="nstep", n_steps=2)
    check(loss_and_gradient(row), 1.5, [-0.5, -0.5], [0.0])


def test_golden_remax() -> None:
    # A = 0.75, −0.25: L = −½(0.75·(−3) + 0.25·3); gradient −½ A.
    check(loss_and_gradient(algorithm("remax")), 0.75, [-0.375, -0.375], [0.125])


def test_golden_opo() -> None:
    # b = (2·1 + 1·0)/3, A = 1/3, −2/3: L = −⅓(−1 + 2); gradient −A/3.
    check(loss_and_gradient(algorithm("opo")), -1 / 3, [-1 / 9, -1 / 9], [2 / 9])


def test_golden_grpo_with_process_rewards() -> None:
    # Steps 0.25, 0.75, 0: mean 1/3; centred −1/12, 5/12, −4/12; std √((1+25+16)/144/2) = √21/12.
    # To go, with u = 1/(12 s): A = [4u, 5u], [−4u]. φ = [1.2·4u (cut), 4.4u], [−6u].
    # L = −½(½·9.2u − 6u) = 0.7u, plus the KL of grpo: 0.01(e^−0.5 + e − 2.5).
    u = 1 / (12 * (math.sqrt(21) / 12 + 1e-4))
    kl = 0.01 * (math.exp(-0.5) + math.e - 2.5)
    first = [0.01 * (1 - math.exp(-0.5)), -1.1 * u + 0.01 * (1 - math.e)]
    check(loss_and_gradient(algorithm("grpo-process")), 0.7 * u + kl, first, [3 * u])


def test_golden_process_rewards_spread_over_their_step() -> None:
    # One step over both tokens, paid 1: [0.5, 0.5] each; to go [1, 0.5], [0], b = mean of R = 0.5.
    # A = [0.5, 0], [−0.5]; φ = [0.6 (cut), 0], [−0.75] over 3.
    row = algorithm("dr-grpo", reward="process", booking="spread", psi="rtg", aggregate="token")
    changed = {
        "token_rewards": padded([0.0, 1.0], [0.0]),
        "spans": torch.tensor([[0, 0, -1], [0, -1, -1]]),
    }
    check(loss_and_gradient(row, **changed), 0.05, [0.0, 0.0], [0.25])


def test_golden_dapo() -> None:
    # 1.25 is inside 1.28: φ = [1.25a, 0.88a], [−1.5a] over 3.
    a = spread()
    check(loss_and_gradient(algorithm("dapo")), -0.21 * a, [-1.25 * a / 3, -0.88 * a / 3], [a / 2])


def test_golden_dapo_with_the_soft_penalty() -> None:
    # Limit 2, buffer 1: the completion of 2 tokens is at the limit: ((2−1)−2)/1 = −1, R = 0 and 0.
    row = algorithm("dapo", overlong_buffer=1)
    found = advantages(row, **EPISODES, max_tokens=2)
    assert found.rewards.tolist() == [0.0, 0.0]
    assert not found.rows.any()  # a group without an advantage leaves the loss


def test_golden_reinforce_plus_plus() -> None:
    # r = [−0.005, 1 + 0.01], [0]; to go [1.005, 1.01], [0], whitened over 3 tokens.
    p, q, n = whitened(1.005, 1.01, 0.0)
    loss = -(1.2 * p + 0.88 * q + 1.5 * n) / 3
    check(loss_and_gradient(algorithm("reinforce++")), loss, [0.0, -0.88 * q / 3], [-n / 2])


def test_golden_reinforce_plus_plus_baseline() -> None:
    # ±0.5 whitened over 3 tokens: std 1/√3, [√3/3, √3/3], [−2√3/3]; plus 0.01·k2 over 3.
    p, q, n = whitened(0.5, 0.5, -0.5)
    assert (p, n) == pytest.approx((math.sqrt(3) / 3, -2 * math.sqrt(3) / 3), abs=1e-7)
    loss = -(1.2 * p + 0.88 * q + 1.5 * n) / 3 + 0.01 * 0.625 / 3
    first = [0.01 * 0.5 / 3, -0.88 * q / 3 - 0.01 / 3]
    check(loss_and_gradient(algorithm("reinforce++-baseline")), loss, first, [-n / 2])


def test_golden_lite_ppo() -> None:
    # The batch is one group: φ = [1.2a (cut), 0.88a], [−1.5a] over 3.
    a = spread()
    check(loss_and_gradient(algorithm("lite-ppo")), -0.58 * a / 3, [0, -0.88 * a / 3], [a / 2])


def test_golden_maxrl() -> None:
    # Mean 0.5: A = ±1.
    check(loss_and_gradient(algorithm("maxrl")), -0.58 / 3, [0.0, -0.88 / 3], [0.5])


def test_golden_gdpo() -> None:
    # Parts (1, 10), (0, 30): c = 0.5/(√0.5 + ε) − 0.5·10/(10√2 + ε); R = ±c, spread c√2.
    c = spread() - 5 / (10 * math.sqrt(2) + 1e-4)
    a = c / (c * math.sqrt(2) + 1e-4)
    check(loss_and_gradient(algorithm("gdpo")), -0.58 * a / 3, [0, -0.88 * a / 3], [a / 2])


def test_golden_gigpo() -> None:
    # Turn returns: 0.25 + 0.95·0.75 = 0.9625 and 0 at one state: ±b; 0.75 alone at its own: 0.
    # A = [a + b, a], [−a − b]; φ = [1.2(a+b) (cut), 0.88a], [−1.5(a+b)] over 3.
    a, b = spread(), 0.48125 / (0.9625 / math.sqrt(2) + 1e-4)
    loss = -(0.88 * a - 0.3 * (a + b)) / 3
    check(loss_and_gradient(algorithm("gigpo")), loss, [0.0, -0.88 * a / 3], [(a + b) / 2])


def test_golden_gspo() -> None:
    # s = √1.1 and 1.5: φ = 1.0004a (cut), −1.5a; L = −½(1.0004 − 1.5)a.
    a = spread()
    check(loss_and_gradient(algorithm("gspo")), 0.2498 * a, [0.0, 0.0], [0.75 * a])
    # Not cut: gradient −½ √1.1 a/2 at each of two tokens.
    root = math.sqrt(1.1)
    free = loss_and_gradient(algorithm("gspo", clip_high=0.1))
    check(free, -(root - 1.5) * a / 2, [-root * a / 4] * 2, [0.75 * a])


def test_golden_gspo_token() -> None:
    # Equal advantages in a completion: gspo's own numbers.
    a, root = spread(), math.sqrt(1.1)
    check(loss_and_gradient(algorithm("gspo-token")), 0.2498 * a, [0.0, 0.0], [0.75 * a])
    free = loss_and_gradient(algorithm("gspo-token", clip_high=0.1))
    check(free, -(root - 1.5) * a / 2, [-root * a / 4] * 2, [0.75 * a])


def test_golden_cispo() -> None:
    # ρ A l: 1.25a·(−1) + 0.88a·(−2) + 1.5(−a)(−3) = 1.49a over 3; gradient −ρA/3.
    a = spread()
    row = [-1.25 * a / 3, -0.88 * a / 3]
    check(loss_and_gradient(algorithm("cispo")), -1.49 * a / 3, row, [a / 2])


def test_golden_gmpo() -> None:
    # No token has moved by 0.4 the way its advantage pushes: √1.1 a and −1.5a, over 2.
    a, root = spread(), math.sqrt(1.1)
    found = loss_and_gradient(algorithm("gmpo"))
    check(found, -(root - 1.5) * a / 2, [-root * a / 4] * 2, [0.75 * a])
    # With a bound of 0.1: log 1.25 → 0.1, log 0.88 stays: exp((0.1 + log 0.88)/2).
    mean = math.exp((0.1 + math.log(0.88)) / 2)
    found = loss_and_gradient(algorithm("gmpo", log_clip=0.1))
    check(found, -(mean - 1.5) * a / 2, [0.0, -mean * a / 4], [0.75 * a])


def test_golden_sapo() -> None:
    # f = (4/τ)σ(τ(ρ−1)), gradient 4σ(1−σ)ρ; mean over tokens, then over completions.
    a = spread()
    s = [1 / (1 + math.exp(-z)) for z in (0.25, -0.12, 1.05 * 0.5)]
    loss = -((4 * s[0] + 4 * s[1]) / 2 - 4 / 1.05 * s[2]) * a / 2
    c = [4 * v * (1 - v) * rho for v, rho in zip(s, (1.25, 0.88, 1.5), strict=True)]
    first = [-c[0] * a / 4, -c[1] * a / 4]
    check(loss_and_gradient(algorithm("sapo")), loss, first, [c[2] * a / 2])


@pytest.mark.parametrize("name", ["dppo", "prime-rl"])
def test_golden_dppo(name: str) -> None:
    # Ratio to the sampler, here [1.25, 0.88], [1.5]: probabilities moved by less than 0.2.
    # φ = [0.625, 0.44], [−0.75] over 3, plus 1e-3 (log ρ)² over 3.
    logs = [math.log(rho) for rho in (1.25, 0.88, 1.5)]
    loss = -0.315 / 3 + 1e-3 * sum(x * x for x in logs) / 3
    first = [(-0.625 + 2e-3 * logs[0]) / 3, (-0.44 + 2e-3 * logs[1]) / 3]
    found = loss_and_gradient(algorithm(name), rollout=OLD)
    check(found, loss, first, [(0.75 + 2e-3 * logs[2]) / 3])


def test_golden_ppo() -> None:
    # r = [−0.025, 1.05], [0]; δ = [−0.025 + 0.6 − 0.4, 1.05 − 0.6], [−0.2].
    # A = [0.175 + 0.95·0.45, 0.45], [−0.2], whitened; φ clipped, over 3.
    p, q, n = whitened(0.6025, 0.45, -0.2)
    loss = -(1.2 * p + 0.88 * q + 1.5 * n) / 3
    check(loss_and_gradient(algorithm("ppo")), loss, [0.0, -0.88 * q / 3], [-n / 2])
    found = advantages(algorithm("ppo"), **EPISODES)
    # What the critic is fitted to: A + V before whitening.
    assert found.returns[MASK].tolist() == pytest.approx([1.0025, 1.05, 0.0])


def test_golden_surrogate_of_trpo() -> None:
    # A = [0.58, 0.4], [−0.2], whitened; φ = ρ A, over 3.
    p, q, n = whitened(0.58, 0.4, -0.2)
    loss = -(1.25 * p + 0.88 * q + 1.5 * n) / 3
    first = [-1.25 * p / 3, -0.88 * q / 3]
    check(loss_and_gradient(algorithm("trpo")), loss, first, [-n / 2])


def test_golden_raft() -> None:
    # The right completion alone, N = 2: −½(−1 − 2).
    check(loss_and_gradient(algorithm("raft")), 1.5, [-0.5, -0.5], [0.0])
    check(loss_and_gradient(algorithm("raft", reward="best")), 1.5, [-0.5, -0.5], [0.0])


def test_golden_raft_plus_plus() -> None:
    # A = 1: φ = [1.2 (cut), 0.88] over 2.
    check(loss_and_gradient(algorithm("raft++")), -1.04, [0.0, -0.44], [0.0])


def pair_loss(row: Algorithm) -> tuple[float, Tensor, Tensor]:
    """Prefer the first completion to the second; return the loss and both gradients."""
    first, second = LOGPROBS[:1].clone().requires_grad_(), LOGPROBS[1:].clone().requires_grad_()
    loss, _ = preference_loss(
        row,
        chosen=first,
        rejected=second,
        chosen_reference=REFERENCE[:1],
        rejected_reference=REFERENCE[1:],
        chosen_mask=MASK[:1],
        rejected_mask=MASK[1:],
        pairs=1,
    )
    return loss.item(), *torch.autograd.grad(loss, (first, second))


def test_golden_dpo() -> None:
    # d = (0.5 − 1) − 0 = −0.5, h = −0.05: −log σ(h); gradient ∓β σ(−h).
    loss, better, worse = pair_loss(algorithm("dpo"))
    slope = 0.1 / (1 + math.exp(-0.05))
    assert loss == pytest.approx(math.log(1 + math.exp(0.05)))
    assert better[0].tolist() == pytest.approx([-slope, -slope, 0.0])
    assert worse[0].tolist() == pytest.approx([slope, 0.0, 0.0])


def test_golden_dpo_with_label_smoothing() -> None:
    # 0.9·log(1 + e^0.05) + 0.1·log(1 + e^−0.05); gradient of d: −0.9β σ(−h) + 0.1β σ(h).
    loss, better, _ = pair_loss(algorithm("dpo", label_smoothing=0.1))
    up, down = 1 / (1 + math.exp(-0.05)), 1 / (1 + math.exp(0.05))
    assert loss == pytest.approx(0.9 * math.log(1 + math.exp(0.05)) - 0.1 * math.log(up))
    assert better[0, 0].item() == pytest.approx(-0.09 * up + 0.01 * down)


def test_golden_ipo() -> None:
    # Means: d = −0.25 − 0, target 1/(2·0.1) = 5: 5.25²; gradient 2·(−5.25)/L.
    loss, better, worse = pair_loss(algorithm("ipo"))
    assert loss == pytest.approx(27.5625)
    assert better[0].tolist() == pytest.approx([-5.25, -5.25, 0.0])
    assert worse[0].tolist() == pytest.approx([10.5, 0.0, 0.0])
