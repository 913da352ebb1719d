"""Training on episodes of several turns: what is trained, and what is carried across the rest."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from envs_harness import Asking

from rlvr.agents import Completion, Episode, Sampling, Trajectory, TransformersPolicy, Turn, rollout
from rlvr.agents.types import StopReason
from rlvr.rl_core.algorithms import algorithm
from rlvr.rl_core.batch import collate
from rlvr.rl_core.config import OptimizerConfig
from rlvr.rl_core.learner import Learner
from rlvr.rl_core.objective import advantages


class Logging(TransformersPolicy):
    """Notes what it draws, per episode."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.drawn: dict[int, list[tuple[list[int], Completion]]] = {}

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
        prompt = list(prompt_ids)
        found = await super().generate(prompt, sampling)
        self.drawn.setdefault(sampling.seed, []).append((prompt, found))
        return found


def _policy(tiny: tuple[Any, Any]) -> Logging:
    model = copy.deepcopy(tiny[0])
    with torch.no_grad():
        model.model.norm.weight.mul_(0.2)  # nearly uniform, so that the end token is drawn, too
    model.generation_config.eos_token_id = [1, *range(100, 140)]
    return Logging(model, tiny[1])


def _played(policy: Logging, count: int) -> list[Trajectory]:
    episodes = [Episode(env=Asking(), seed=i) for i in range(count)]
    return rollout(episodes, policy, Sampling(max_tokens=6))


@pytest.mark.parametrize("wait", ["all", "some"])
def test_the_trained_tokens_are_exactly_those_that_were_sampled(
    tiny: tuple[Any, Any], wait: str
) -> None:
    policy = _policy(tiny)
    policy.wait = wait
    found = _played(policy, 12)
    batch = collate(found)
    for row, trajectory in enumerate(found):
        log = policy.drawn[trajectory.seed]
        assert len(log) == len(trajectory.turns) == 3
        ids = torch.tensor(batch.continuations[row])
        mask = batch.mask[row, : len(ids)]
        assert ids[mask].tolist() == [token for _, c in log for token in c.tokens]
        sampled = [value for _, c in log for value in c.logprobs]
        assert batch.logprobs[row, : len(ids)][mask].tolist() == pytest.approx(sampled)
        assert not batch.logprobs[row, : len(ids)][~mask].any()
        for turn, (prompt, completion) in zip(trajectory.turns, log, strict=True):
            assert trajectory.tokens[: turn.start] == prompt  # what it was shown is a prefix
            assert turn.end - turn.start == len(completion.tokens)
    assert len({len(t.tokens) for t in found}) > 1


def test_the_learner_sees_the_samplers_log_probabilities_in_every_turn(
    tiny: tuple[Any, Any],
) -> None:
    policy = _policy(tiny)
    found = _played(policy, 6)
    batch = collate(found)
    whole = _learner(policy.model, len(tiny[1])).logprobs(batch)
    assert torch.allclose(whole[batch.mask], batch.logprobs[batch.mask], atol=1e-5)


def _learner(model: Any, vocabulary: int) -> Learner:
    return Learner(
        model,
        algorithm("reinforce"),
        OptimizerConfig(lr=1e-2, max_grad_norm=1e9),
        vocabulary=vocabulary,
        temperature=1.0,
        max_tokens=6,
    )


def test_the_gradient_is_that_of_the_sampled_tokens_alone(tiny: tuple[Any, Any]) -> None:
    # REINFORCE with the batch mean: L = −(1/B) Σ_i (R_i − mean R) Σ_t log π(a_t | all before), over
    # sampled tokens t
    policy = _policy(tiny)
    found = _played(policy, 8)
    mean = sum(t.reward for t in found) / len(found)
    assert len({t.reward for t in found}) > 1
    model = copy.deepcopy(policy.model).double()
    loss = torch.zeros((), dtype=torch.float64)
    for t in found:
        logits = model(input_ids=torch.tensor([t.tokens])).logits[0, :-1]
        logp = torch.log_softmax(logits, -1).gather(1, torch.tensor(t.tokens[1:])[:, None])[:, 0]
        loss = loss - (t.reward - mean) * logp[torch.tensor(t.trained[1:])].sum() / len(found)
    loss.backward()
    wanted = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    learner = _learner(copy.deepcopy(policy.model).double(), len(tiny[1]))
    learner.update(found, step=10)
    got = torch.cat([p.grad.flatten() for p in learner.parameters if p.grad is not None])
    assert wanted.norm() > 0
    assert torch.allclose(got, wanted, atol=1e-9)


def _two_turns() -> Trajectory:
    """Prompt 9 9, sampled 20 21, observed 30 31 32, sampled 22; paid 0.5 and 1."""
    trained = [False, False, True, True, False, False, False, True]
    turns = [
        Turn(start=2, end=4, reward=0.5, stop_reason=StopReason.EOS),
        Turn(start=7, end=8, reward=1.0, stop_reason=StopReason.EOS),
    ]
    return Trajectory(
        env="e", task_id="a", group=0, seed=0, tokens=[9, 9, 20, 21, 30, 31, 32, 22],
        trained=trained, logprobs=[-1.0 * one for one in trained], turns=turns, reward=1.5,
    )  # fmt: skip


def _advantages(name: str, **given: Any) -> list[float]:
    batch = collate([_two_turns()])
    found = advantages(
        algorithm(name, **given.pop("row", {})),
        rewards=batch.rewards,
        scored=batch.scored,
        groups=batch.groups,
        mask=batch.mask,
        logprobs=batch.logprobs,
        **given,
    )
    assert found.mask.tolist() == [[True, True, False, False, False, True]]
    return found.values[0].tolist()


def test_the_batch_of_two_turns_holds_the_observation_untrained() -> None:
    batch = collate([_two_turns()])
    assert batch.prompts == [[9, 9]]
    assert batch.continuations == [[20, 21, 30, 31, 32, 22]]
    assert batch.mask.tolist() == [[True, True, False, False, False, True]]
    assert batch.logprobs.tolist() == [[-1, -1, 0, 0, 0, -1]]
    assert batch.rewards.tolist() == [1.5]


def test_gae_is_carried_across_the_observation() -> None:
    # γ = 0.5, λ = 0.5, V = 0.5, 0.25 | 7, 8, 9 observed | 0.75, the score 1.5 at the last token:
    # δ₂ = 1.5 − 0.75 = 0.75; δ₁ = 0.5·0.75 − 0.25 = 0.125; δ₀ = 0.5·0.25 − 0.5 = −0.375
    # A₂ = 0.75; A₁ = 0.125 + 0.25·0.75 = 0.3125; A₀ = −0.375 + 0.25·0.3125 = −0.296875
    values = torch.tensor([[0.5, 0.25, 7.0, 8.0, 9.0, 0.75]])
    row = {"gamma": 0.5, "lam": 0.5, "scale": "none", "beta": 0.0}
    found = _advantages("ppo", row=row, values=values)
    assert found == pytest.approx([-0.296875, 0.3125, 0.0, 0.0, 0.0, 0.75])


def test_returns_are_carried_across_the_observation() -> None:
    # γ = 0.5: the score is 2 trained tokens from the first one, 1 from the second: observed
    # tokens cost no time
    row = {"gamma": 0.5, "baseline": "none"}
    found = _advantages("vpg-rtg", row=row)
    assert found == pytest.approx([0.375, 0.75, 0.0, 0.0, 0.0, 1.5])
