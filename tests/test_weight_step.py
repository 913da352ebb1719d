"""One step on some weights: in float32 whatever they are stored in, or not at all."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_harness import starts_low, tasks

from rlvr.agents import load_model
from rlvr.envs import PromptEnv
from rlvr.rl_core import train
from rlvr.rl_core.weight_step import WeightStep
from rlvr.verifiers import TrainingStopped

pytestmark = pytest.mark.usefixtures("short_runs")


def _step(weight: Tensor, *, lr: float = 1e-4, masters: bool = True) -> WeightStep:
    return WeightStep(
        [weight], lr=lr, betas=(0.9, 0.99), weight_decay=0.0, max_norm=1e9, masters=masters
    )


def _weight(value: float, dtype: torch.dtype) -> Tensor:
    return torch.full((1,), value, dtype=dtype, requires_grad=True)


def _walk(step: WeightStep, count: int) -> None:
    for _ in range(count):
        step.clear()
        step.parameters[0].sum().backward()
        step.take("the gradient's", "")


def test_small_steps_of_half_precision_add_up_in_the_copy_and_are_lost_without() -> None:
    # A gradient of 1 moves AdamW by lr: 100 · 1e-4 = 0.01. Below 1, bfloat16 goes in steps of
    # 1/256: 0.99 · 256 = 253.44, stored as 253/256. Alone, a step of 1e-4 < 1/512 is rounded away.
    kept, lost = _weight(1.0, torch.bfloat16), _weight(1.0, torch.bfloat16)
    step = _step(kept)
    _walk(step, 100)
    _walk(_step(lost, masters=False), 100)
    assert step.stepped[0].tolist() == [pytest.approx(0.99, abs=1e-5)]
    assert kept.tolist() == [253 / 256]
    assert lost.tolist() == [1.0]


def test_weights_of_single_precision_have_no_copy() -> None:
    weight = _weight(1.0, torch.float32)
    step = _step(weight)
    assert step.pairs == []
    assert step.stepped[0] is weight


def test_gradients_of_several_passes_add_up_in_float32() -> None:
    weight = _weight(1.0, torch.bfloat16)
    step = _step(weight)
    for size in (1.0, 2.0**-9):  # in bfloat16 their sum is 1
        (weight.sum() * size).backward()
        step.gather()
    assert step.take("the gradient's", "") == 1 + 2.0**-9
    step.clear()
    assert weight.grad is None
    assert step.stepped[0].grad is None


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    weight = _weight(1.0, torch.float16)
    step = _step(weight)
    (weight.sum() * float("inf")).backward()
    with pytest.raises(TrainingStopped, match="norm is inf: no step was taken; do this"):
        step.take("the gradient's", "do this")
    assert weight.tolist() == [1.0]
    assert step.stepped[0].tolist() == [1.0]


def test_a_step_continues_from_its_state_to_the_last_bit() -> None:
    first, second = _weight(1.0, torch.bfloat16), _weight(1.0, torch.bfloat16)
    whole, half = _step(first), _step(second)
    _walk(whole, 6)
    _walk(half, 3)
    rest = _weight(second.tolist()[0], torch.bfloat16)
    resumed = _step(rest)
    resumed.load(half.state())
    _walk(resumed, 3)
    assert torch.equal(resumed.stepped[0], whole.stepped[0])


@pytest.mark.parametrize("masters", [True, False])
def test_a_run_in_half_precision_resumes_to_the_last_bit(
    folder: str, tmp_path: Path, masters: bool
) -> None:
    settings: dict[str, Any] = {
        "model": folder, "verifier_timeout": 0, "dtype": "bfloat16", "master_weights": masters,
        "algorithm": "grpo", "beta": 0, "group_size": 4, "prompts_per_step": 2, "max_tokens": 2,
        "lr": 1e-4, "eval_tasks": 0, "token_records_every": 0, "quiet": True,
    }  # fmt: skip
    saved = {}
    for name, legs in (("whole", (4,)), ("halves", (2, 4))):
        for leg in legs:
            resume, out = leg != legs[0], str(tmp_path / name)
            env = PromptEnv(tasks(), starts_low)
            train(env=env, out=out, steps=leg, resume=resume, **settings)
        place = tmp_path / name / "checkpoints" / "step-000004" / "learner.pt"
        saved[name] = torch.load(place, weights_only=True)["weights"]
    count = len(list(load_model(folder)[0].parameters()))
    assert len(saved["whole"]["copies"]) == (count if masters else 0)
    for one, other in zip(saved["whole"]["copies"], saved["halves"]["copies"], strict=True):
        assert torch.equal(one, other)
    states = [saved[name]["optimizer"]["state"] for name in ("whole", "halves")]
    for index, state in states[0].items():
        assert torch.equal(state["exp_avg"], states[1][index]["exp_avg"])
