"""Bad input to the two compositions: refused with the tensor, its shape and the row."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rlvr.rl_core.algorithms import TABLE
from rlvr.rl_core.objective import Advantages, Denominators, advantages, policy_loss
from rlvr.verifiers.errors import UsageError

NAN, INF = float("nan"), float("inf")
STEP = Denominators(tokens=6, sequences=3, constant=2)


def good() -> dict[str, Any]:
    """Return a sound batch of three completions of two tokens, the last one unscored."""
    return {
        "rewards": torch.tensor([1.0, 0.0, NAN]),
        "scored": torch.tensor([True, True, False]),
        "groups": torch.tensor([0, 0, 0]),
        "mask": torch.ones(3, 2, dtype=torch.bool),
        "logprobs": torch.full((3, 2), -1.0),
        "reference": torch.full((3, 2), -1.5),
    }


def estimate(name: str, **changes: Any) -> Advantages:
    """Run the first composition on the sound batch with some tensors changed."""
    return advantages(TABLE[name], **(good() | changes))


def learn(name: str, **changes: Any) -> Tensor:
    """Run the second composition on the scored rows with some tensors changed."""
    sound = {key: good()[key] for key in ("mask", "logprobs", "reference")}
    sound |= {"old": good()["logprobs"], "advantages": torch.full((3, 2), 0.5)}
    return policy_loss(TABLE[name], denominators=STEP, **(sound | changes))[0]


def test_the_batch_that_the_refusals_start_from_is_sound() -> None:
    assert torch.isfinite(estimate("rloo").values).all()
    assert torch.isfinite(learn("grpo"))


@pytest.mark.parametrize(
    ("name", "change", "parts"),
    [
        ("rewards", lambda t: t[:, None], ["rewards has shape [3, 1]", "expected [3]"]),
        ("rewards", lambda t: t[:2], ["rewards has shape [2]", "expected [3]"]),
        ("rewards", lambda t: t.nan_to_num().int(), ["rewards is a tensor of floats", "int32"]),
        ("rewards", lambda t: t.fill_(NAN), ["rewards of shape [3] holds nan in row 0"]),
        ("rewards", lambda t: t.fill_(-INF), ["rewards of shape [3] holds -inf in row 0"]),
        ("scored", lambda t: t.int(), ["scored is a tensor of torch.bool, got torch.int32"]),
        ("scored", lambda t: t[:1], ["scored has shape [1], expected [3]"]),
        ("groups", lambda t: t.float(), ["groups is a tensor of torch.int64, got torch.float32"]),
        ("mask", lambda t: t.float(), ["mask is boolean [B, T]", "use mask.bool()"]),
        ("mask", lambda t: t[0], ["mask is boolean [B, T]"]),
        ("logprobs", lambda t: t[:, :1], ["logprobs has shape [3, 1], expected [3, 2]"]),
        (
            "logprobs",
            lambda t: t.fill_(NAN),
            ["logprobs of shape [3, 2] holds nan in row 0"],
        ),
        ("reference", lambda t: t.fill_(INF), ["reference of shape [3, 2] holds inf in row 0"]),
        ("reference", lambda t: t.T, ["reference has shape [2, 3], expected [3, 2]"]),
    ],
)
def test_a_bad_tensor_is_refused_by_name_before_advantages_are_made(
    name: str, change: Callable[[Tensor], Tensor], parts: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        estimate("rloo", **{name: change(good()[name].clone())})
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["logprobs", "old", "reference", "advantages"])
def test_a_broken_value_stops_the_loss_by_name(name: str) -> None:
    broken = torch.full((3, 2), -1.0)
    broken[1, 1] = NAN
    with pytest.raises(UsageError) as caught:
        learn("grpo", **{name: broken})
    assert str(caught.value).startswith(f"{name} of shape [3, 2] holds nan in row 1, token 1")


@pytest.mark.parametrize("name", ["logprobs", "old", "reference", "advantages"])
def test_a_wrong_shape_stops_the_loss_by_name(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        learn("grpo", **{name: torch.zeros(3, 1)})
    assert f"{name} has shape [3, 1], expected [3, 2]" in str(caught.value)


@pytest.mark.parametrize("name", ["logprobs", "reference"])
def test_kl_in_the_reward_without_its_tensors_says_which_is_missing(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        estimate("rloo", **{name: None})
    assert f"rloo has kl='reward' with beta=0.05 and needs `{name}`" in str(caught.value)
    assert "set beta=0" in str(caught.value)


def test_kl_in_the_loss_without_a_reference_says_so() -> None:
    with pytest.raises(UsageError) as caught:
        learn("grpo", reference=None)
    assert "grpo has kl='loss' with beta=0.04 and needs `reference`" in str(caught.value)


def test_a_sequence_ratio_refuses_advantages_that_differ_within_a_completion() -> None:
    values = torch.zeros(3, 2)
    values[2, 1] = 1.0
    with pytest.raises(UsageError, match="row 2 has values from 0 to 1"):
        learn("rloo", advantages=values)


def test_a_batch_of_no_rows_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one row, got none"):
        estimate("vpg", **{key: tensor[:0] for key, tensor in good().items()})


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_broken_moving_average_is_refused(bad: float) -> None:
    with pytest.raises(UsageError, match="baseline is a finite number or None, got"):
        estimate("reinforce-ema", baseline=bad)
