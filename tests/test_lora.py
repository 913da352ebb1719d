"""Low-rank adapters: what they train, what they leave alone, and what a run leaves behind."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from training_harness import lines, starts_low, tasks, weights

from rlvr.agents import Sampling, Trajectory, TransformersPolicy
from rlvr.envs import PromptEnv
from rlvr.rl_core import train
from rlvr.rl_core.algorithm_config import CriticConfig
from rlvr.rl_core.algorithms import algorithm
from rlvr.rl_core.batch import collate
from rlvr.rl_core.config import OptimizerConfig, TrainConfig
from rlvr.rl_core.critic import Critic
from rlvr.rl_core.learner import Learner
from rlvr.rl_core.lora import Adapters, adapt
from rlvr.rl_core.part_loss import part_loss
from rlvr.rl_core.settings import LoraConfig
from rlvr.verifiers import ModelError, UsageError

pytestmark = pytest.mark.usefixtures("short_runs")
Sample = Callable[..., list[Trajectory]]


def _adapted(tiny: tuple[Any, Any], **config: Any) -> Adapters:
    settings: dict[str, Any] = {"lora_rank": 2} | config
    return adapt(copy.deepcopy(tiny[0]), LoraConfig(**settings), seed=0)


def _learner(tiny: tuple[Any, Any], adapters: Adapters, name: str, **changes: Any) -> Learner:
    return Learner(
        adapters.model,
        algorithm(name, **changes),
        OptimizerConfig(lr=1e-2, warmup_steps=0),
        vocabulary=len(tiny[1]),
        temperature=1.0,
        max_tokens=8,
        reference=adapters,
    )


def _weights(model: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def _run(folder: str, out: Path, **changes: Any) -> Path:
    settings: dict[str, Any] = {
        "model": folder, "algorithm": "rloo", "group_size": 4, "prompts_per_step": 4,
        "max_tokens": 2, "lr": 1e-2, "steps": 4, "eval_tasks": 0, "checkpoint_every": 2,
        "token_records_every": 2, "lora_rank": 4, "verifier_timeout": 0,
    }  # fmt: skip
    train(env=PromptEnv(tasks(), starts_low), out=str(out), quiet=True, **(settings | changes))
    return out


@pytest.mark.parametrize("name", ["rloo", "ppo", "trpo", "dpo"])
def test_the_adapters_alone_have_a_gradient_and_move(
    tiny: tuple[Any, Any], sample: Sample, name: str
) -> None:
    adapters = _adapted(tiny)
    learner, before = _learner(tiny, adapters, name), _weights(adapters.model)
    learner.update(sample(groups=4, size=4), 0)
    moved = {n for n, p in _weights(adapters.model).items() if not torch.equal(p, before[n])}
    assert moved
    assert all("lora_" in n for n in moved)
    with_gradient = {n for n, p in adapters.model.named_parameters() if p.grad is not None}
    assert all("lora_" in n for n in with_gradient)
    # Seven linear layers of two blocks, each with an A and a B.
    assert len(learner.parameters) == 2 * 7 * 2


def test_a_natural_step_on_adapters_keeps_to_its_limit(
    tiny: tuple[Any, Any], sample: Sample
) -> None:
    metrics = _learner(tiny, _adapted(tiny), "trpo").update(sample(groups=8, size=2), 0)
    assert metrics["natural/gain"] > 0
    assert 0 < metrics["natural/kl"] <= 0.01


def test_the_reference_is_the_model_with_its_adapters_off(
    tiny: tuple[Any, Any], sample: Sample
) -> None:
    episodes = sample(groups=4, size=4)
    adapters, batch = _adapted(tiny), collate(episodes)
    learner = _learner(tiny, adapters, "rloo")
    base = learner.logprobs(batch, tiny[0])
    assert torch.equal(learner.logprobs(batch), base)  # B is 0 at first
    metrics = [learner.update(episodes, step) for step in range(2)]
    assert metrics[0]["kl"] == 0.0
    assert metrics[1]["rollout_k3"] > 0
    assert torch.equal(learner.logprobs(batch, adapters), base)
    assert not torch.allclose(learner.logprobs(batch), base, atol=1e-3)
    assert all(p.requires_grad for n, p in adapters.model.named_parameters() if "lora_" in n)


def test_a_divergence_over_the_vocabulary_reads_the_model_without_adapters(
    tiny: tuple[Any, Any], sample: Sample
) -> None:
    adapters, episodes = _adapted(tiny), sample(groups=4, size=4)
    learner = _learner(tiny, adapters, "grpo", kl_estimator="full", beta=0.1)
    found = []
    for step in range(2):
        learner.update(episodes, step)
        work, rows = learner.last, range(len(episodes))
        assert work is not None
        found.append(part_loss(learner, work, rows, work.count(rows, 8), None).sums["kl_loss"])
    # After a step the policy has left the reference, after another one further; the graph is whole.
    assert 1e-6 < found[0] < found[1]


def test_sampling_uses_the_adapters(tiny: tuple[Any, Any], sample: Sample) -> None:
    adapters, episodes = _adapted(tiny), sample(groups=4, size=4)
    learner = _learner(tiny, adapters, "rloo")
    for step in range(3):
        learner.update(episodes, step)
    policy, before = TransformersPolicy(adapters.model, tiny[1]), TransformersPolicy(*tiny)
    prompt = episodes[0].tokens[:5]
    (drawn,) = policy.generate_batch([prompt], [Sampling(max_tokens=6, seed=1)])
    (now,) = policy.logprobs([prompt], [drawn.tokens])
    (then,) = before.logprobs([prompt], [drawn.tokens])
    assert torch.allclose(torch.tensor(drawn.logprobs), now, atol=1e-4)
    assert (now - then).abs().max() > 1e-2


def test_two_halves_are_a_whole(folder: str, tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    _run(folder, whole)
    _run(folder, halves, steps=2)
    _run(folder, halves, resume=True)
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        assert lines(whole, name) == lines(halves, name)
    left, right = weights(whole), weights(halves)
    assert all(torch.equal(value, right[name]) for name, value in left.items())


def test_the_model_that_is_left_is_merged_and_the_adapters_stand_beside_it(
    folder: str, tmp_path: Path
) -> None:
    out = _run(folder, tmp_path / "run")
    checkpoint = out / "checkpoints" / "step-000004"
    assert not (checkpoint / "model.safetensors").exists()
    assert (checkpoint / "adapter_model.safetensors").is_file()
    merged = transformers.AutoModelForCausalLM.from_pretrained(out / "model").eval()
    assert not any("lora_" in name for name, _ in merged.named_parameters())
    base = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.arange(10, 22)[None]
    with torch.inference_mode():
        plain = base(ids).logits
        kept = adapt(base, LoraConfig(lora_rank=4), seed=0, folder=out / "adapter")
        adapted = kept.model(ids).logits
        assert torch.allclose(merged(ids).logits, adapted, atol=1e-5)
        assert not torch.allclose(plain, adapted, atol=1e-3)


def test_the_first_values_follow_from_the_seed_and_disturb_no_other_draw(
    tiny: tuple[Any, Any],
) -> None:
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    first = _weights(_adapted(tiny).model)
    assert torch.equal(torch.rand(1), wanted)
    second = _weights(_adapted(tiny).model)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    other = _weights(adapt(copy.deepcopy(tiny[0]), LoraConfig(lora_rank=2), seed=1).model)
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


def test_targets_and_scale_are_as_given(tiny: tuple[Any, Any]) -> None:
    adapters = _adapted(tiny, lora_rank=3, lora_alpha=12.0, lora_targets=("v_proj",))
    trained = [n for n, p in adapters.model.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 2
    assert all("v_proj" in name for name in trained)
    layer = adapters.model.model.layers[0].self_attn.v_proj
    assert layer.scaling["default"] == 4.0  # 12/3
    assert "rank 3" in str(adapters)


def test_a_critic_of_its_own_shares_the_frozen_weights(tiny: tuple[Any, Any]) -> None:
    model = _adapted(tiny).model
    critic = Critic(CriticConfig(critic="model"), model, value_clip=0.0)
    mine, theirs = dict(model.named_parameters()), dict(critic.trunk.named_parameters())
    for name, weight in theirs.items():
        assert (weight is mine[name]) == ("lora_" not in name)
    assert len(critic.weights.parameters) == 2 + 2 * 7 * 2  # the head's two, A and B of 14 layers
    assert set(critic.state()["trunk"]) == {name for name in theirs if "lora_" in name}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_rank": -1}, r"lora_rank must be at least 0, got -1"),
        ({"lora_rank": 2, "lora_alpha": 0.0}, r"lora_alpha must be above 0"),
        ({"lora_targets": ("q_proj",)}, r"lora_targets says .* lora_rank=0 trains all weights"),
        ({"lora_alpha": 8.0}, r"lora_alpha says .* set lora_rank=8"),
        ({"lora_rank": 2, "lora_targets": ("",)}, r"lora_targets must be names of layers"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig.of(**changes)


def test_a_layer_that_is_not_there_is_named_with_those_that_are(
    folder: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"called 'query'; .* q_proj, .*v_proj"):
        _run(folder, tmp_path / "run", lora_targets=("v_proj", "query"))


def test_without_peft_it_is_said_how_to_get_it(
    tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r"pip install 'rlvr\[lora\]'"):
        _adapted(tiny)


def test_adapters_that_cannot_be_read_are_named(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        adapt(copy.deepcopy(tiny[0]), LoraConfig(lora_rank=2), seed=0, folder=tmp_path)


def test_another_rank_on_resume_is_refused(folder: str, tmp_path: Path) -> None:
    _run(folder, tmp_path / "run", steps=2)
    with pytest.raises(UsageError, match="lora_rank=8: it was begun with 4"):
        _run(folder, tmp_path / "run", resume=True, lora_rank=8)
