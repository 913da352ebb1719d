"""What is refused or warned about once the run is known: the reason and the way out."""

from typing import Any

import pytest
import torch

from rlvr.agents import Sampling
from rlvr.rl_core.algorithms import TABLE, algorithm
from rlvr.rl_core.cautions import refuse_truncated, run_warnings
from rlvr.rl_core.objective import (
    Advantages,
    Denominators,
    advantages,
    denominators,
    policy_loss,
)
from rlvr.verifiers.errors import UsageError

NAN = float("nan")


def estimate(name: str, rewards: list[float], **options: Any) -> Advantages:
    """Run the first composition on completions of two tokens of one prompt."""
    paid = torch.tensor(rewards)
    count = len(rewards)
    return advantages(
        TABLE[name],
        rewards=paid,
        scored=~paid.isnan(),
        groups=torch.zeros(count).long(),
        mask=torch.ones(count, 2).bool(),
        **options,
    )


@pytest.mark.parametrize("name", TABLE)
def test_no_row_of_the_table_is_warned_about_on_short_completions(name: str) -> None:
    found = run_warnings(TABLE[name], max_tokens=256, prompts_per_step=16, updates=4)
    assert found == []


def test_a_product_mask_is_warned_about_where_completions_are_long() -> None:
    # P(N(0, T·0.02²) > ln 3): T 512 0.8 %, T 4096 20 %, T 16384 33 %.
    row = TABLE["trl-grpo"]
    assert run_warnings(row, max_tokens=512) == []
    (text,) = run_warnings(row, max_tokens=4096)
    assert "20% of the completions of 4096 tokens are dropped for being long" in text
    assert "mismatch='tis_token'" in text
    assert "33%" in run_warnings(row, max_tokens=16384)[0]


def test_a_geometric_mask_is_warned_about_for_dropping_short_completions() -> None:
    row = algorithm("gspo", mismatch="mask_geo", mismatch_low=0.99, mismatch_high=1.01)
    (text,) = run_warnings(row, max_tokens=64)
    assert "short completions are dropped more often" in text


class _Mute:
    """A policy that does not say what could be drawn."""

    def mask_problem(self, sampling: Sampling) -> str:
        """Say why."""
        return f"it cannot show {sampling.top_k} tokens"


@pytest.mark.parametrize("name", ["grpo", "vpg", "dpo"])
def test_a_cut_off_sampler_that_does_not_say_what_is_left_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot show 5 tokens; sample with top_p=1, top_k=0"):
        refuse_truncated(TABLE[name], _Mute(), Sampling(top_k=5))
    with pytest.raises(UsageError, match="object does not say which tokens could be drawn"):
        refuse_truncated(TABLE[name], object(), Sampling(top_p=0.9))
    for whole in (Sampling(temperature=0.5), Sampling(top_k=5, temperature=0.0)):
        assert refuse_truncated(TABLE[name], _Mute(), whole) is None


def test_groups_are_not_torn_apart() -> None:
    with pytest.raises(UsageError, match="mini_batch=12 is not divisible by group_size=8"):
        run_warnings(TABLE["grpo"], max_tokens=64, mini_batch=12)
    with pytest.raises(UsageError, match="prompts_per_step=6 is not divisible by updates=4"):
        run_warnings(TABLE["gspo"], max_tokens=64, prompts_per_step=6, updates=4)


def test_a_length_penalty_longer_than_a_completion_is_refused() -> None:
    with pytest.raises(UsageError, match="overlong_buffer=100 is longer"):
        run_warnings(algorithm("dapo", overlong_buffer=100), max_tokens=64)


def test_dynamic_sampling_without_a_baseline_is_warned_about() -> None:
    row = algorithm("vpg", zero_groups="resample")
    assert "samples only failures anew" in run_warnings(row, max_tokens=64)[0]


@pytest.mark.parametrize("psi", ["q", "td", "nstep"])
def test_credit_by_a_learned_value_alone_is_warned_about(psi: str) -> None:
    row = algorithm("vpg-q", psi=psi)
    (text,) = run_warnings(row, max_tokens=64, learned_values=True)
    assert "errors of a learned V are learned as if they were rewards" in text
    assert "critic='rollouts'" in text
    assert run_warnings(row, max_tokens=64) == []
    assert run_warnings(TABLE["ppo"], max_tokens=64, learned_values=True) == []


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("reinforce", {}),
        ("vpg", {"scale": "whiten"}),
        ("vpg", {"scale": "batch_std"}),
    ],
)
def test_a_batch_of_one_is_not_compared_with_itself(name: str, changes: dict[str, Any]) -> None:
    row = algorithm(name, **changes)
    with pytest.raises(UsageError, match="prompts_per_step=1 with group_size=1 leaves none"):
        run_warnings(row, max_tokens=64, prompts_per_step=1)
    assert run_warnings(row, max_tokens=64, prompts_per_step=2) == []
    alone = algorithm("vpg-rtg", scale="whiten")  # the tokens of one completion differ
    assert run_warnings(alone, max_tokens=64, prompts_per_step=1) == []


def test_a_batch_paid_the_same_everywhere_is_warned_about() -> None:
    (text,) = estimate("dr-grpo", [0.5, 0.5, 0.5]).warnings
    assert "all 3 scored completions were paid 0.5" in text
    assert estimate("dr-grpo", [0.5, 0.5, 0.0]).warnings == ()
    assert estimate("vpg", [1.0, 1.0]).warnings == ()  # without a baseline they still teach


def test_many_unscored_completions_are_warned_about() -> None:
    (text,) = estimate("dr-grpo", [1.0, 0.0, NAN]).warnings
    assert "1 of 3 completions are unscored" in text
    assert estimate("dr-grpo", [1.0, *[0.0] * 9, NAN]).warnings == ()  # 1 of 11


def test_a_batch_of_which_nothing_is_left_is_warned_about() -> None:
    found = estimate("raft", [0.0, 0.5])
    assert "none of 2 scored completions stays in the loss (reward='positive')" in found.warnings[0]
    assert not found.rows.any()


def test_a_reward_booked_before_its_span_ends_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        estimate(
            "grpo-process",
            [1.0, 0.0],
            token_rewards=torch.tensor([[0.0, 0.0], [1.0, 0.0]]),
            spans=torch.zeros(2, 2).long(),
        )
    text = str(caught.value)
    assert "books 1 in row 1 at token 0, before span 0 ends at token 1" in text
    assert "book it at token 1" in text


def test_a_reference_computed_under_another_mask_is_refused() -> None:
    own = torch.tensor([[True, True], [True, False]])
    zeros = torch.zeros(2, 2)
    with pytest.raises(UsageError) as caught:
        estimate("rloo", [1.0, 0.0], logprobs=zeros, reference=zeros, reference_mask=own)
    assert "reference was not computed at token 1 of row 1" in str(caught.value)
    found = estimate("rloo", [1.0, 0.0], logprobs=zeros, reference=zeros)
    with pytest.raises(UsageError, match="1 of 4 trained tokens are missing"):
        policy_loss(
            TABLE["grpo"],
            logprobs=zeros,
            advantages=found.values,
            mask=found.mask,
            reference=zeros,
            reference_mask=own,
            denominators=Denominators(tokens=4, sequences=2, constant=4),
        )


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("vpg-q", "values"),
        ("vpg-baseline", "values"),
        ("remax", "greedy"),
        ("grpo-process", "token_rewards"),
        ("gigpo", "token_rewards"),
        ("dapo", "truncated"),
        ("ppo", "logprobs"),
    ],
)
def test_what_a_row_reads_and_was_not_given_is_asked_for_by_name(name: str, missing: str) -> None:
    with pytest.raises(UsageError) as caught:
        estimate(name, [1.0, 0.0])
    assert str(caught.value).startswith(f"{name} has ")
    assert f"needs `{missing}`" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "missing"),
    [
        ("dppo", {}, "rollout"),
        ("trl-grpo", {}, "rollout"),
        ("dr-grpo", {"opsm_delta": 0.1}, "rollout"),
        ("dr-grpo", {"anchor": "proximal"}, "proximal"),
        ("dr-grpo", {"aggregate": "prompt"}, "prompt_tokens"),
        ("dr-grpo", {"entropy_bonus": 0.1}, "entropy"),
        ("grpo", {"kl_estimator": "full"}, "divergence"),
    ],
)
def test_what_the_loss_reads_and_was_not_given_is_asked_for_by_name(
    name: str, options: dict[str, Any], missing: str
) -> None:
    mask = torch.ones(1, 2).bool()
    with pytest.raises(UsageError, match=f"needs `{missing}`"):
        policy_loss(
            algorithm(name, **options),
            logprobs=torch.zeros(1, 2),
            advantages=torch.ones(1, 2),
            mask=mask,
            reference=torch.zeros(1, 2),
            denominators=denominators(mask, torch.tensor([True]), 4),
        )


@pytest.mark.parametrize(
    ("name", "tensor", "part"),
    [
        ("vpg-q", {"values": torch.full((2, 2), NAN)}, "values of shape [2, 2] holds nan in row 0"),
        ("vpg-q", {"values": torch.zeros(2, 1)}, "values has shape [2, 1], expected [2, 2]"),
        (
            "vpg-td",
            {"values": torch.zeros(2, 2), "bootstrap": torch.tensor([0.0, NAN])},
            "bootstrap of shape [2] holds nan in row 1",
        ),
        ("remax", {"greedy": torch.tensor([0.0, NAN])}, "greedy of shape [2] holds nan in row 1"),
        ("remax", {"greedy": torch.zeros(3)}, "greedy has shape [3], expected [2]"),
        ("dapo", {"truncated": torch.zeros(2)}, "truncated is a tensor of torch.bool"),
        ("gdpo", {"parts": torch.zeros(3, 2)}, "parts has shape [3, 2]"),
        ("maxrl", {"rewards": [1.0, -1.0]}, "holds -1 in row 1"),
    ],
)
def test_a_bad_further_tensor_is_refused_by_name_shape_and_row(
    name: str, tensor: dict[str, Any], part: str
) -> None:
    rewards = tensor.pop("rewards", [1.0, 0.0]) if "rewards" in tensor else [1.0, 0.0]
    with pytest.raises(UsageError) as caught:
        estimate(name, rewards, **tensor)
    assert part in str(caught.value)


def test_a_completion_from_the_future_is_refused() -> None:
    with pytest.raises(UsageError, match="lag of shape \\[1\\] holds -1 in row 0"):
        advantages(
            algorithm("vpg", max_staleness=1),
            rewards=torch.ones(1),
            scored=torch.tensor([True]),
            groups=torch.tensor([0]),
            mask=torch.ones(1, 1).bool(),
            lag=torch.tensor([-1]),
        )


def test_pairs_and_advantages_are_not_mixed_up() -> None:
    with pytest.raises(UsageError, match="call preference_loss"):
        estimate("dpo", [1.0, 0.0])
