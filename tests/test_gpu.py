"""Training on a CUDA device, run by `pytest -m gpu` where there is one.

Checked: every kind of row trains there (bandit and per-token rows, a reference, a critic as a head
and as a model, full divergence, a natural step, preference pairs, dynamic sampling, adapters, half
precision); sampler and learner agree; the update is that of the CPU; a run resumes, also on the
other device. Not checked: speed, several devices.
"""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from training_harness import lines, starts_low, tasks

from rlvr.agents import Trajectory, load_model
from rlvr.agents.embedded import EmbeddedConfig, build
from rlvr.envs import PromptEnv
from rlvr.rl_core import Result, train
from rlvr.rl_core.algorithms import algorithm
from rlvr.rl_core.config import OptimizerConfig
from rlvr.rl_core.learner import Learner

pytestmark = pytest.mark.gpu

ROWS: list[dict[str, Any]] = [
    {"algorithm": "reinforce-ema"},
    {"algorithm": "rloo"},
    {"algorithm": "grpo", "kl_estimator": "full", "entropy_bonus": 0.01},
    {"algorithm": "gspo", "beta": 0, "updates_per_step": 2},
    {"algorithm": "dapo", "updates_per_step": 1},
    {"algorithm": "ppo", "critic": "head"},
    {"algorithm": "ppo", "critic": "model", "critic_warmup_steps": 1},
    {"algorithm": "vpg-advantage", "critic": "rollouts", "value_rollouts": 2},
    {"algorithm": "trpo", "cg_steps": 3},
    {"algorithm": "dpo", "group_size": 4},
    {"algorithm": "rloo", "lora_rank": 4},
    {"algorithm": "trpo", "lora_rank": 4, "cg_steps": 3},
    {"algorithm": "grpo", "beta": 0, "dtype": "bfloat16"},
    {"algorithm": "rloo", "dtype": "bfloat16", "lora_rank": 4},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A saved untrained model."""
    place = tmp_path_factory.mktemp("model")
    model, tokenizer = build(EmbeddedConfig(width=64, layers=2, heads=2, context=128))
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return str(place)


def _run(folder: str, out: Path, **changes: Any) -> Result:
    settings: dict[str, Any] = {
        "model": folder, "device": "cuda", "prompts_per_step": 8, "max_tokens": 4, "lr": 1e-3,
        "steps": 4, "eval_tasks": 4, "contamination": "ignore", "checkpoint_every": 2,
        "diagnostics_every": 2, "token_records_every": 2, "quiet": True,
    }  # fmt: skip
    env, held_out = PromptEnv(tasks(), starts_low), PromptEnv(tasks(), starts_low)
    return train(env=env, eval_env=held_out, out=str(out), **(settings | changes))


def _steps(out: Path) -> list[dict[str, Any]]:
    return [line for line in lines(out) if "reward" in line]


@pytest.mark.parametrize("changes", ROWS, ids=lambda changes: "-".join(map(str, changes.values())))
def test_every_kind_of_row_trains(folder: str, tmp_path: Path, changes: dict[str, Any]) -> None:
    assert _run(folder, tmp_path / "run", **changes).finished
    told = _steps(tmp_path / "run")
    assert len(told) == 4
    gaps = [line["mismatch"] for line in told]
    assert all(map(math.isfinite, gaps))
    if changes["algorithm"] not in ("gspo", "ppo"):  # several updates a step move the policy
        assert max(gaps) < (0.25 if changes.get("dtype") == "bfloat16" else 1e-3)
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize("name", ["rloo", "grpo", "ppo", "trpo", "dpo"])
def test_the_update_is_that_of_the_cpu(
    tiny: tuple[Any, Any], sample: Callable[..., list[Trajectory]], name: str
) -> None:
    weights = []
    for device in ("cpu", "cuda"):
        model = copy.deepcopy(tiny[0]).double().to(device)
        learner = Learner(
            model,
            algorithm(name),
            OptimizerConfig(lr=1e-3, warmup_steps=0, micro_batch_tokens=100),
            vocabulary=len(tiny[1]),
            temperature=1.0,
            max_tokens=8,
            reference=copy.deepcopy(model).requires_grad_(False),
        )
        learner.update(sample(groups=4, size=4), 0)
        weights.append(torch.cat([p.detach().flatten().cpu() for p in learner.parameters]))
    assert torch.allclose(*weights, atol=1e-6)


@pytest.mark.parametrize("changes", [{"algorithm": "ppo"}, {"algorithm": "rloo", "lora_rank": 4}])
def test_a_run_goes_on_there_and_on_the_cpu(
    folder: str, tmp_path: Path, changes: dict[str, Any]
) -> None:
    _run(folder, tmp_path / "run", steps=2, **changes)
    _run(folder, tmp_path / "run", steps=3, resume=True, **changes)
    _run(folder, tmp_path / "run", steps=4, resume=True, device="cpu", **changes)
    assert [line["step"] for line in _steps(tmp_path / "run")] == [1, 2, 3, 4]
    assert load_model(tmp_path / "run" / "model", device="cuda")[0].device.type == "cuda"
