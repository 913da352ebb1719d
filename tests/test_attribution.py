"""Why a token moved: every number against the stages, every coefficient against autograd."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlvr.rl_core import functional as F
from rlvr.rl_core.algorithms import TABLE, algorithm
from rlvr.rl_core.attribution import FIELDS, explain_tokens
from rlvr.rl_core.choices import Algorithm
from rlvr.rl_core.objective import advantages, denominators, policy_loss, tokens_per_prompt
from rlvr.verifiers.errors import UsageError

NAN = float("nan")
ROWS: list[Algorithm] = [
    *(row for row in TABLE.values() if not row.on_pairs),
    algorithm("grpo", kl_estimator="rho_k3", aggregate="prompt", mismatch="icepop"),
    algorithm("grpo", kl_estimator="st_k2", opsm_delta=0.05, anchor="proximal"),
    algorithm("rloo", kl="loss", kl_estimator="k2", trust="gate"),
    algorithm("verl-grpo", dual_clip=1.3, entropy_quantile=0.3, mismatch="tis_token"),
    algorithm("gspo", clip_high=0.2, clip_low=0.2, mismatch="tis_seq"),
    algorithm("dr-grpo", mismatch="mask_geo", mismatch_low=0.9, mismatch_high=1.1),
]


def batch(seed: int) -> dict[str, Tensor]:
    """Draw seven completions of three prompts with everything that any row reads."""
    generator = torch.Generator().manual_seed(seed)

    def normal(scale: float = 1.0) -> Tensor:
        return scale * torch.randn(7, 5, generator=generator, dtype=torch.float64)

    mask = torch.rand(7, 5, generator=generator) > 0.3
    scored = torch.rand(7, generator=generator) > 0.15
    spans = (torch.rand(7, 5, generator=generator) > 0.5).cumsum(1) - 1
    logprobs = -normal().abs()
    found = {
        "old": logprobs + normal(0.3),
        "reference": logprobs + normal(0.5),
        "proximal": logprobs + normal(0.3),
        "values": normal(),
        "entropy": normal().abs(),
        "token_rewards": normal() * F.span_ends(spans, mask),
    }
    found["rollout"] = found["old"] + normal(0.1)
    hidden = {name: torch.where(mask, tensor, NAN) for name, tensor in found.items()}
    return hidden | {
        "logprobs": torch.where(mask, logprobs, NAN),
        "mask": mask,
        "scored": scored,
        "rewards": torch.randint(3, (7,), generator=generator).double() / 2,
        "groups": torch.tensor([0, 1, 0, 2, 1, 0, 2]),
        "spans": spans,
        "anchors": spans % 2,
        "greedy": torch.full((7,), 0.5).double(),
        "truncated": torch.rand(7, generator=generator) > 0.8,
        "lag": torch.zeros(7).long(),
    }


def told(row: Algorithm, given: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """Return the explanation of a step, and the gradient by autograd."""
    unread = ("old", "rollout", "proximal", "logprobs")
    episodes: dict[str, Any] = {k: v for k, v in given.items() if k not in unread}
    found = advantages(row, logprobs=given["old"], **episodes)
    over = denominators(found.mask, found.rows, 9, given["groups"])
    per_prompt = tokens_per_prompt(found.mask, found.rows, given["groups"])
    others = {k: given[k] for k in ("old", "rollout", "proximal", "reference")}
    logprobs = given["logprobs"].clone().requires_grad_()
    loss, _ = policy_loss(
        row,
        logprobs=logprobs,
        advantages=found.values,
        mask=found.mask,
        denominators=over,
        prompt_tokens=per_prompt,
        **others,
    )
    explained = explain_tokens(
        row,
        found,
        logprobs=given["logprobs"],
        denominators=over,
        prompt_tokens=per_prompt,
        values=given["values"],
        **others,
    )
    return explained, torch.autograd.grad(loss, logprobs)[0]


@pytest.mark.parametrize("row", ROWS, ids=[f"{i}-{row.name}" for i, row in enumerate(ROWS)])
def test_the_coefficient_of_every_token_is_the_gradient_of_the_loss(row: Algorithm) -> None:
    moved = 0
    for seed in range(6):
        explained, gradient = told(row, batch(seed))
        torch.testing.assert_close(explained["coefficient"], gradient)
        assert tuple(sorted(explained)) == tuple(sorted(FIELDS))
        assert all(tensor.shape == (7, 5) for tensor in explained.values())
        moved += int(gradient.count_nonzero())
    assert moved > 0


@pytest.mark.parametrize("row", ROWS[:12], ids=[row.name for row in ROWS[:12]])
def test_at_the_first_update_the_coefficient_is_the_gradient_too(row: Algorithm) -> None:
    given = batch(3)
    given["old"] = given["logprobs"]
    explained, gradient = told(row, given)
    torch.testing.assert_close(explained["coefficient"], gradient)
    if row.ratio != "none":
        inside = explained["ratio"][explained["mask"]]
        torch.testing.assert_close(inside, torch.ones_like(inside))


def test_a_story_of_one_token_is_told_in_full() -> None:
    # Critic: r = [0, 1], V = [0.4, 0.6]: A = [0.58, 0.4], returns A + V; ρ = [1.25, 0.88].
    row = algorithm("ppo", scale="none", kl="none", beta=0, mismatch="tis_token", mismatch_high=2)
    logprobs = torch.tensor([[-1.0, -2.0]], dtype=torch.float64)
    old = logprobs - torch.tensor([[1.25, 0.88]]).double().log()
    rollout = old - torch.tensor([[0.5, 3.0]]).double().log()
    one, mask = torch.tensor([True]), torch.ones(1, 2).bool()
    values = torch.tensor([[0.4, 0.6]], dtype=torch.float64)
    found = advantages(
        row,
        rewards=torch.ones(1).double(),
        scored=one,
        groups=torch.tensor([0]),
        mask=mask,
        values=values,
    )
    explained = explain_tokens(
        row,
        found,
        logprobs=logprobs,
        old=old,
        rollout=rollout,
        reference=logprobs - 0.5,
        values=values,
        denominators=denominators(mask, one, 4),
    )
    expected = {
        "reward": [0.0, 1.0],
        "return": [0.98, 1.0],
        "value": [0.4, 0.6],
        "baseline": [0.0, 0.0],  # V is inside
        "advantage": [0.58, 0.4],
        "ratio": [1.25, 0.88],
        "clipped": [True, False],
        "weight": [0.5, 2.0],
        "kl": [0.5, 0.5],
        "coefficient": [0.0, -0.88 * 0.4 * 2 / 2],
        "mask": [True, True],
    }
    assert {name: tensor[0].tolist() for name, tensor in explained.items()} == {
        name: pytest.approx(values) for name, values in expected.items()
    }


def test_what_is_not_known_is_nan_and_what_is_not_trained_is_zero() -> None:
    mask, scored = torch.tensor([[True, False]]).expand(2, 2), torch.ones(2).bool()
    row = TABLE["dr-grpo"]
    found = advantages(
        row,
        rewards=torch.tensor([1.0, 0.0]),
        scored=scored,
        groups=torch.tensor([0, 0]),
        mask=mask,
    )
    explained = explain_tokens(
        row,
        found,
        logprobs=torch.full((2, 2), -1.0),
        denominators=denominators(mask, scored, 4),
    )
    assert explained["value"][0, 0].isnan()
    assert explained["kl"][0, 0].isnan()
    assert all(not tensor[:, 1].any() for tensor in explained.values())


def test_pairs_have_no_advantages_to_explain() -> None:
    row = replace(TABLE["dpo"], name="mine")
    with pytest.raises(UsageError, match="call preference_loss"):
        explain_tokens(row, None, logprobs=torch.zeros(1, 1), denominators=None)  # pyright: ignore
