"""Batches and the learner: no matter how a step is cut up, the update is the same."""

import copy
import math
from typing import Any

import pytest
import torch

from rlvr.agents import Episode, Sampling, Trajectory, TransformersPolicy, Turn, rollout
from rlvr.agents.scoring import continuation_logits, pad, token_logprobs
from rlvr.agents.types import StopReason
from rlvr.envs import PromptEnv
from rlvr.rl_core.algorithms import algorithm
from rlvr.rl_core.batch import collate
from rlvr.rl_core.config import OptimizerConfig
from rlvr.rl_core.learner import Learner
from rlvr.verifiers import Task, UsageError, verifier


@verifier
def even(completion: str, truth: str) -> bool:
    return len(completion) % 2 == 0


@pytest.fixture(scope="module")
def sampled(tiny: tuple[Any, Any]) -> list[Trajectory]:
    """24 ragged episodes of 6 prompts, in groups of 4; one is unscored."""
    policy = TransformersPolicy(*tiny)
    tasks = [Task(id=str(i), prompt="say " + "x" * (3 * i), truth="") for i in range(6)]
    episodes = [
        Episode(env=PromptEnv(tasks, even), seed=i, index=i // 4, group=i // 4) for i in range(24)
    ]
    found = rollout(episodes, policy, Sampling(max_tokens=12))
    for i, trajectory in enumerate(found):  # ragged: the untrained model hardly ever ends
        keep = trajectory.turns[0].start + 1 + i % 12
        trajectory.tokens = trajectory.tokens[:keep]
        trajectory.trained = trajectory.trained[:keep]
        trajectory.logprobs = trajectory.logprobs[:keep]
        trajectory.reward = float(i % 3 == 0)
    found[5].scored, found[5].reward = False, math.nan
    return found


def _learner(tiny: tuple[Any, Any], name: str = "rloo", **config: Any) -> Learner:
    model = copy.deepcopy(tiny[0]).double()
    overrides = {"beta": 0} if name in ("rloo", "grpo") else {}
    return Learner(
        model,
        algorithm(name, **overrides),
        OptimizerConfig(lr=1e-2, max_grad_norm=1e9, **config),
        vocabulary=len(tiny[1]),
        temperature=1.0,
        max_tokens=12,
    )


def _moved(
    learner: Learner, trajectories: list[Trajectory]
) -> tuple[dict[str, float], torch.Tensor]:
    metrics = learner.update(trajectories, step=10)
    return metrics, torch.cat([p.detach().flatten() for p in learner.parameters])


def _gradient(
    learner: Learner, trajectories: list[Trajectory]
) -> tuple[dict[str, float], torch.Tensor]:
    metrics = learner.update(trajectories, step=10)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in learner.parameters]
    return metrics, torch.cat([g.flatten() for g in gradients])


@pytest.mark.parametrize("name", ["vpg", "vpg-rtg", "reinforce", "rloo", "grpo", "dr-grpo"])
@pytest.mark.parametrize("tokens", [1, 60, 200])
def test_the_size_of_micro_batches_does_not_change_the_update(
    tiny: tuple[Any, Any], sampled: list[Trajectory], name: str, tokens: int
) -> None:
    whole, expected = _gradient(_learner(tiny, name), sampled)
    parts, found = _gradient(_learner(tiny, name, micro_batch_tokens=tokens), sampled)
    assert expected.norm() > 0
    assert torch.allclose(found, expected, atol=1e-12)
    for key in ("loss", "grad_norm", "ratio", "approx_kl"):
        assert parts[key] == pytest.approx(whole[key], abs=1e-9)


def test_the_order_of_the_episodes_does_not_change_the_update(
    tiny: tuple[Any, Any], sampled: list[Trajectory]
) -> None:
    _, expected = _gradient(_learner(tiny), sampled)
    _, found = _gradient(_learner(tiny), sampled[::-1])
    assert torch.allclose(found, expected, atol=1e-12)


def test_an_unscored_episode_changes_nothing(
    tiny: tuple[Any, Any], sampled: list[Trajectory]
) -> None:
    _, expected = _gradient(_learner(tiny), sampled[:5] + sampled[6:])
    _, found = _gradient(_learner(tiny), sampled)
    assert torch.allclose(found, expected, atol=1e-12)


def test_the_update_is_that_of_the_formula(
    tiny: tuple[Any, Any], sampled: list[Trajectory]
) -> None:
    # REINFORCE with the batch mean: L = −(1/B) Σ_i (R_i − mean R) Σ_t log π, over scored episodes.
    learner = _learner(tiny, "reinforce")
    model = copy.deepcopy(learner.model)
    scored = [t for t in sampled if t.scored]
    mean = sum(t.reward for t in scored) / len(scored)
    loss = torch.zeros((), dtype=torch.float64)
    for t in scored:
        start = t.turns[0].start
        logits = model(input_ids=torch.tensor([t.tokens])).logits[0, start - 1 : -1]
        logp = torch.log_softmax(logits, -1)
        total = logp.gather(1, torch.tensor(t.tokens[start:])[:, None]).sum()
        loss = loss - (t.reward - mean) * total / len(scored)
    loss.backward()
    norm = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()
    metrics, _ = _moved(learner, sampled)
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert metrics["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)


def test_rows_without_advantage_are_left_out_without_a_trace(
    tiny: tuple[Any, Any], sampled: list[Trajectory]
) -> None:
    flat = copy.deepcopy(sampled)
    for t in flat[:8]:  # two groups in which every reward is equal
        t.reward = 1.0 if t.scored else math.nan
    learner = _learner(tiny)
    seen: list[int] = []
    hook = learner.model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    metrics, found = _gradient(learner, flat)
    hook.remove()
    assert sum(seen) == 16
    assert metrics["dead_groups"] == pytest.approx(2 / 6)
    kept = [t for t in flat if t.group >= 2]
    _, alone = _gradient(_learner(tiny), kept)
    # The denominator counts all 23 scored episodes, not the 16 that were run through the model.
    assert (23 * found - 16 * alone).norm() < 1e-6 * (16 * alone).norm()


def test_a_batch_of_equal_rewards_leaves_the_weights_alone(
    tiny: tuple[Any, Any], sampled: list[Trajectory]
) -> None:
    flat = copy.deepcopy(sampled)
    for t in flat:
        t.reward = 0.0 if t.scored else math.nan
    learner = _learner(tiny)
    before = torch.cat([p.detach().flatten() for p in learner.parameters])
    metrics, after = _moved(learner, flat)
    assert torch.equal(before, after)
    assert (metrics["dead_groups"], metrics["grad_norm"], metrics["loss"]) == (1.0, 0.0, 0.0)


def test_every_episode_unscored_leaves_the_weights_alone(
    tiny: tuple[Any, Any], sampled: list[Trajectory]
) -> None:
    nothing = copy.deepcopy(sampled)
    for t in nothing:
        t.scored, t.reward = False, math.nan
    learner = _learner(tiny)
    before = torch.cat([p.detach().flatten() for p in learner.parameters])
    assert torch.equal(before, _moved(learner, nothing)[1])


def test_several_updates_per_step_take_whole_groups(
    tiny: tuple[Any, Any], sampled: list[Trajectory]
) -> None:
    learner = _learner(tiny, "grpo", updates_per_step=3)
    steps: list[int] = []
    step = learner.optimizer.step
    learner.optimizer.step = lambda *a: (steps.append(1), step(*a))[1]  # type: ignore
    metrics, _ = _moved(learner, sampled)
    assert len(steps) == 3
    assert metrics["ratio"] != 1.0


def test_kl_to_the_reference_is_zero_at_the_reference_alone(
    tiny: tuple[Any, Any], sampled: list[Trajectory]
) -> None:
    learner = _learner(tiny, "rloo")
    learner.row = algorithm("rloo", beta=0.1)
    learner.reference = copy.deepcopy(learner.model)
    first, _ = _moved(learner, sampled)
    assert first["kl"] == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        learner.reference.model.norm.weight.mul_(0.5)
    second, _ = _moved(learner, sampled)
    assert abs(second["kl"]) > 1e-3


def test_a_turn_of_the_environment_is_never_trained_on(tiny: tuple[Any, Any]) -> None:
    trajectory = Trajectory(
        env="e", task_id="t", group=0, seed=0,
        tokens=[9, 10, 11, 12, 13, 14],
        trained=[False, False, True, False, True, True],
        logprobs=[0, 0, -1.0, 0, -2.0, -3.0],
        turns=[
            Turn(start=2, end=3, reward=0.0, stop_reason=StopReason.EOS),
            Turn(start=4, end=6, reward=1.0, stop_reason=StopReason.EOS),
        ],
        reward=1.0,
    )  # fmt: skip
    batch = collate([trajectory])
    assert batch.prompts == [[9, 10]]
    assert batch.continuations == [[11, 12, 13, 14]]
    assert batch.mask.tolist() == [[True, False, True, True]]
    assert batch.logprobs.tolist() == [[-1.0, 0.0, -2.0, -3.0]]


def test_micro_batches_hold_every_row_once_and_keep_to_their_size(
    sampled: list[Trajectory],
) -> None:
    batch = collate(sampled)
    for tokens in (1, 50, 100, 10_000):
        parts = batch.micro_batches(range(24), tokens)
        assert sorted(row for part in parts for row in part) == list(range(24))
        for part in parts:
            wide = max(len(batch.prompts[r]) for r in part)
            wide += max(len(batch.continuations[r]) for r in part)
            assert len(part) == 1 or len(part) * wide <= tokens


def test_padding_does_not_change_logprobs(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    prompts, tails = [[9, 10, 11], [9]], [[12], [13, 14, 15, 16]]
    batch = pad(prompts, tails)
    together = token_logprobs(continuation_logits(model, batch, len(tokenizer)), batch.targets, 1.0)
    for row in range(2):
        one = pad([prompts[row]], [tails[row]])
        alone = token_logprobs(continuation_logits(model, one, len(tokenizer)), one.targets, 1.0)
        assert torch.allclose(together[row, : len(tails[row])], alone[0], atol=1e-5)
    assert batch.present.tolist() == [[True, False, False, False], [True] * 4]


def test_a_reference_that_is_missing_is_refused(tiny: tuple[Any, Any]) -> None:
    settings: dict[str, Any] = {"vocabulary": 9, "temperature": 1.0, "max_tokens": 4}
    for name in ("rloo", "grpo", "dpo"):
        with pytest.raises(UsageError, match=f"{name} keeps the policy near a reference .*None"):
            Learner(tiny[0], algorithm(name), OptimizerConfig(), **settings)


def test_a_model_of_which_nothing_is_trained_is_refused(tiny: tuple[Any, Any]) -> None:
    frozen = copy.deepcopy(tiny[0]).requires_grad_(False)
    settings: dict[str, Any] = {"vocabulary": 9, "temperature": 1.0, "max_tokens": 4}
    with pytest.raises(UsageError, match="no weight of the LlamaForCausalLM requires a gradient"):
        Learner(frozen, algorithm("vpg"), OptimizerConfig(), **settings)
