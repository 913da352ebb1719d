"""Truncated samples of vLLM, for real: the learner normalises over what its sampler left."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import vllm_harness

from rlvr.agents import Episode, Sampling, rollout
from rlvr.agents.draws import Warp, log_probabilities
from rlvr.agents.embedded import EmbeddedConfig, build
from rlvr.agents.types import Completion
from rlvr.agents.vllm_policy import VLLMPolicy
from rlvr.envs import PromptEnv
from rlvr.rl_core.algorithms import algorithm
from rlvr.rl_core.config import OptimizerConfig
from rlvr.rl_core.learner import Learner
from rlvr.verifiers import Task, verifier

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

PROMPTS = vllm_harness.PROMPTS[:16]
CUTS = [
    {"top_k": 5},
    {"top_k": 40, "top_p": 0.7},
    {"top_k": 40, "min_p": 0.1},
    {"top_k": 20, "top_p": 0.9, "min_p": 0.02, "temperature": 0.8},
]


@verifier
def even(completion: str, truth: str) -> bool:
    return len(completion) % 2 == 0


@pytest.fixture(scope="module")
def policy() -> Iterator[VLLMPolicy]:
    """A started policy whose distributions are uneven."""
    model, tokenizer = build(EmbeddedConfig(width=64, layers=2, heads=2, context=256))
    with torch.no_grad():
        model.model.norm.weight.mul_(2.0)
    found = VLLMPolicy.start(model, tokenizer, max_rows=32)
    yield found
    found.close()


def draw(policy: VLLMPolicy, **sampling: Any) -> list[Completion]:
    return vllm_harness.draw(policy, PROMPTS, **{"max_tokens": 16, **sampling})


def _gap(policy: VLLMPolicy, drawn: list[Completion], temperature: float, *, masked: bool) -> float:
    """Return the greatest difference to the learner's log-probabilities, in nats."""
    kept = [one.kept for one in drawn] if masked else None
    return vllm_harness.gap(policy, drawn, PROMPTS, temperature, kept)


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_the_learner_finds_the_engines_logprobs_within_what_was_left(
    policy: VLLMPolicy, cut: dict[str, Any]
) -> None:
    drawn, temperature = draw(policy, **cut), cut.get("temperature", 1.0)
    for one in drawn:
        assert one.kept is not None
        pairs = list(zip(one.tokens, one.kept, strict=True))
        assert all(token in ids and 1 <= len(ids) <= cut["top_k"] for token, ids in pairs)
    assert _gap(policy, drawn, temperature, masked=True) < 1e-4
    assert _gap(policy, drawn, temperature, masked=False) > 0.1
    again = draw(policy, **cut)
    assert [(one.tokens, one.kept) for one in again] == [(one.tokens, one.kept) for one in drawn]


def test_what_is_left_is_what_the_embedded_sampler_would_leave(policy: VLLMPolicy) -> None:
    sampling = Sampling(top_k=20, top_p=0.9, min_p=0.02, temperature=0.8)
    drawn = draw(policy, top_k=20, top_p=0.9, min_p=0.02, temperature=0.8)
    same = total = 0
    for prompt, one in zip(PROMPTS, drawn, strict=True):
        with torch.inference_mode():
            logits = policy.model(input_ids=torch.tensor([[*prompt, *one.tokens]])).logits[0]
        logits = logits[len(prompt) - 1 : -1, : policy.vocabulary]
        left = log_probabilities(logits, Warp.of([sampling] * len(logits), logits.device))
        for row, ids in zip(left > -torch.inf, one.kept or (), strict=True):
            same += row.nonzero()[:, 0].tolist() == sorted(ids)
            total += 1
    assert same >= 0.98 * total  # a sum at the very edge of top_p may fall to either side


def test_a_step_on_truncated_samples_begins_with_ratios_of_one(policy: VLLMPolicy) -> None:
    tasks = [Task(id=str(i), prompt="say " + "x" * (3 * i), truth="") for i in range(4)]
    episodes = [
        Episode(env=PromptEnv(tasks, even), seed=i, index=i // 4, group=i // 4) for i in range(16)
    ]
    found = rollout(episodes, policy, Sampling(max_tokens=12, top_k=20, top_p=0.8))
    learner = Learner(
        copy.deepcopy(policy.model),
        algorithm("grpo", beta=0),
        OptimizerConfig(lr=1e-3),
        vocabulary=policy.vocabulary,
        temperature=1.0,
        max_tokens=12,
    )
    metrics = learner.update(found, 0)
    assert metrics["mismatch"] < 1e-4
    assert metrics["ratio"] == pytest.approx(1.0, abs=1e-4)


def test_whole_distributions_have_no_mask_and_endless_ones_are_a_problem(
    policy: VLLMPolicy,
) -> None:
    assert all(one.kept is None for one in draw(policy, max_tokens=2))
    assert all(one.kept is None for one in draw(policy, max_tokens=2, top_p=0.5, temperature=0.0))
    assert policy.mask_problem(Sampling(top_k=64, top_p=0.9)) == ""
    assert "set top_k beside the others" in policy.mask_problem(Sampling(top_p=0.9))
