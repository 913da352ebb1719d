"""How algorithms reduce to one another, and two worked examples against plain autograd."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlvr.rl_core.algorithms import TABLE, algorithm
from rlvr.rl_core.choices import Algorithm
from rlvr.rl_core.objective import advantages, denominators, policy_loss


def step(row: Algorithm, given: dict[str, Tensor], **options: Any) -> tuple[Tensor, Tensor]:
    """Run both compositions; return loss and gradient."""
    episodes = {k: v for k, v in given.items() if k not in ("logprobs", "old")}
    found = advantages(row, logprobs=given["old"], **episodes, **options)
    logprobs = given["logprobs"].clone().requires_grad_()
    loss, _ = policy_loss(
        row,
        logprobs=logprobs,
        old=given["old"],
        advantages=found.values,
        mask=found.mask,
        reference=given["reference"],
        denominators=denominators(found.mask, found.rows, 9),
    )
    return loss.detach(), torch.autograd.grad(loss, logprobs)[0]


def batch(seed: int, tokens: int = 5, spread: float = 0.3) -> dict[str, Tensor]:
    """Draw eight completions of two prompts."""
    generator = torch.Generator().manual_seed(seed)

    def normal(scale: float) -> Tensor:
        return scale * torch.randn(8, tokens, generator=generator, dtype=torch.float64)

    logprobs = -normal(1.0).abs()
    mask = torch.rand(8, tokens, generator=generator) > 0.3
    mask[:, 0] = True
    return {
        "logprobs": logprobs,
        "old": logprobs + normal(spread),
        "reference": logprobs + normal(0.5),
        "values": torch.zeros(8, tokens, dtype=torch.float64),
        "mask": mask,
        "scored": torch.ones(8, dtype=torch.bool),
        "groups": torch.arange(2).repeat(4),
        "rewards": torch.rand(8, generator=generator, dtype=torch.float64),
        "truncated": torch.zeros(8, dtype=torch.bool),
    }


def same(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> None:
    """Compare losses and gradients; they must not be nothing."""
    torch.testing.assert_close(first, second)
    assert first[1].any()


@pytest.mark.parametrize("seed", range(5))
def test_dapo_with_one_bound_is_grpo_with_the_token_mean(seed: int) -> None:
    given = batch(seed)
    grpo = algorithm("grpo", kl="none", beta=0, aggregate="token")
    same(step(algorithm("dapo", clip_high=0.2), given), step(grpo, given))


@pytest.mark.parametrize("seed", range(5))
def test_ppo_without_values_is_reward_to_go(seed: int) -> None:
    given = batch(seed)
    plain = {"scale": "none", "beta": 0.1}
    ppo = algorithm("ppo", lam=1.0, ratio="none", trust="logp", aggregate="seq_sum", **plain)
    same(step(ppo, given), step(algorithm("vpg-rtg", kl="reward", beta=0.1), given))


@pytest.mark.parametrize("seed", range(5))
def test_gspo_of_single_tokens_is_the_token_clip(seed: int) -> None:
    given = batch(seed, tokens=1)
    token = algorithm("gspo", ratio="token", aggregate="seq_token")
    same(step(TABLE["gspo"], given), step(token, given))
    same(step(TABLE["gspo-token"], given), step(token, given))


@pytest.mark.parametrize("seed", range(5))
def test_gspo_token_with_equal_advantages_is_gspo(seed: int) -> None:
    given, wide = batch(seed), {"clip_low": 0.2, "clip_high": 0.2}
    same(step(algorithm("gspo", **wide), given), step(algorithm("gspo-token", **wide), given))


@pytest.mark.parametrize("seed", range(5))
def test_cispo_inside_its_bounds_has_the_gradient_of_the_ratio(seed: int) -> None:
    given = batch(seed)
    free = algorithm("cispo", trust="ratio")
    capped = algorithm("cispo", cap_high=50.0)
    torch.testing.assert_close(step(capped, given)[1], step(free, given)[1])


@pytest.mark.parametrize("seed", range(5))
def test_gmpo_of_single_tokens_far_inside_its_bound_is_the_ratio(seed: int) -> None:
    given = batch(seed, tokens=1, spread=0.05)
    free = algorithm("gmpo", trust="ratio", aggregate="seq_token")
    same(step(TABLE["gmpo"], given), step(free, given))


@pytest.mark.parametrize("name", ["grpo", "gspo", "gspo-token", "cispo", "gmpo", "sapo", "rloo"])
def test_at_ratio_one_every_surrogate_has_the_plain_gradient(name: str) -> None:
    row = algorithm(name, beta=0)
    given = batch(3, spread=0.0)
    sums = {"seq": "seq_sum"}.get(row.aggregate, row.aggregate)
    plain = replace(row, ratio="none", trust="logp", aggregate=sums)
    gradient = step(plain, given)[1]
    if name in ("gspo", "gmpo"):  # the mean over tokens is in the ratio
        gradient = gradient / given["mask"].sum(1, keepdim=True)
    torch.testing.assert_close(step(row, given)[1], gradient)
    assert gradient.any()


def test_at_the_first_update_grpo_moves_each_token_by_its_share_of_the_advantage() -> None:
    # −A/(B·L_i)
    row, given = algorithm("grpo", beta=0), batch(5, spread=0.0)
    episodes = {k: v for k, v in given.items() if k not in ("logprobs", "old")}
    values = advantages(row, logprobs=given["old"], **episodes).values
    lengths = given["mask"].sum(1, keepdim=True)
    torch.testing.assert_close(step(row, given)[1], -values / (8 * lengths))


@pytest.mark.parametrize("seed", range(5))
def test_openrlhf_without_its_penalty_is_grpo_with_the_token_mean(seed: int) -> None:
    given = batch(seed)
    grpo = algorithm("grpo", kl="none", beta=0, aggregate="token", std_eps=1e-9)
    same(step(algorithm("openrlhf-grpo", beta=0), given), step(grpo, given))


@pytest.mark.parametrize("seed", range(5))
def test_process_rewards_of_whole_completions_are_grpo_for_groups_of_one_size(seed: int) -> None:
    given = batch(seed)
    given["spans"] = torch.zeros(8, 5, dtype=torch.int64)
    last = given["mask"].int().cumsum(1) == given["mask"].sum(1, keepdim=True)
    given["token_rewards"] = given["rewards"][:, None] * (last & given["mask"])
    process = algorithm("grpo-process", beta=0)
    same(step(process, given), step(algorithm("grpo", beta=0), given))


def autograd_of(logprobs: Tensor, weights: Tensor) -> Tensor:
    """Differentiate the mean over completions of −(Σ log-prob)·advantage."""
    leaf = logprobs.clone().requires_grad_()
    loss = -(leaf.sum(dim=1) * weights).mean()
    return torch.autograd.grad(loss, leaf)[0]


def test_the_worked_example_of_reinforce_has_autograds_gradient() -> None:
    logprobs = torch.tensor([[-12.3, -8.3, -2.3], [-10, -7, -3]], dtype=torch.float64)
    reference = torch.tensor([[-11.3, -8.4, -2.0], [-9.5, -7.2, -2.8]], dtype=torch.float64)
    given = {
        "logprobs": logprobs,
        "old": logprobs,
        "reference": reference,
        "mask": torch.ones(2, 3, dtype=torch.bool),
        "scored": torch.ones(2, dtype=torch.bool),
        "groups": torch.tensor([0, 1]),
        "rewards": torch.tensor([1.0, 0.5], dtype=torch.float64),
    }
    loss, gradient = step(algorithm("reinforce", kl="reward", beta=0.1), given)
    # Rewards 1 + 0.12 and 0.5 + 0.05, advantages ±0.285.
    expected = autograd_of(logprobs, torch.tensor([0.285, -0.285]).double())
    assert loss.item() == pytest.approx(0.41325, abs=1e-6)
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("form", ["plain", "one ratio"])
def test_the_worked_example_of_rloo_has_autograds_gradient(form: str) -> None:
    logprobs = [
        *([-12.3, -8.3, -2.3], [-10, -7, -3], [-10.5, -12.2, -9.1]),
        *([-11, -10.3, -1.3], [-11.1, -11.1, -0.8], [-8.2, -11.9, -0.1]),
        *([-1.8, -2.1, -0.2], [-0.7, -3.5, -0.1], [-1, -2.2, -1.1]),
    ]
    reference = [
        *([-11.8, -8.4, -2.3], [-10.1, -7.2, -3.1], [-10.3, -12.9, -9.1]),
        *([-11.8, -9.7, -1.3], [-12.3, -11.9, -0.2], [-8.1, -12, -0.5]),
        *([-2.7, -2, -1.2], [-0.7, -3.6, -0.2], [-0.7, -1.2, -0.9]),
    ]
    current = torch.tensor(logprobs, dtype=torch.float64)
    given = {
        "logprobs": current,
        "old": current,
        "reference": torch.tensor(reference, dtype=torch.float64),
        "mask": torch.ones(9, 3, dtype=torch.bool),
        "scored": torch.ones(9, dtype=torch.bool),
        "groups": torch.arange(3).repeat_interleave(3),
        "rewards": torch.tensor([1, 2, 3, 2, 3, 4, 3, 4, 5], dtype=torch.float64),
    }
    plain = algorithm("rloo", ratio="none", trust="logp", aggregate="seq_sum", beta=0.1)
    row = plain if form == "plain" else algorithm("rloo", beta=0.1)
    loss, gradient = step(row, given)
    weights = [-1.415, -0.035, 1.45, -1.43, -0.11, 1.54, -1.745, -0.005, 1.75]
    expected = autograd_of(current, torch.tensor(weights, dtype=torch.float64))
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=0)
    if form == "plain":
        assert loss.item() == pytest.approx(1.0683889, abs=1e-6)
