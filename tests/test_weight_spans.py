"""Which weights drew which tokens, from the completion to what a learner calls stale."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from rlvr.agents import Completion, Episode, Sampling, StopReason, Trajectory, Turn, rollout
from rlvr.agents.transformers_policy import TransformersPolicy
from rlvr.agents.types import WeightSpan
from rlvr.envs import PromptEnv
from rlvr.rl_core.batch import OFFLINE, collate
from rlvr.rl_core.collection import Collected
from rlvr.verifiers import Task


class Updated(TransformersPolicy):
    """A policy that takes an update in the middle of each completion."""

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
        found = await super().generate(prompt_ids, sampling)
        spans = (WeightSpan(3, 0, 1), WeightSpan(4, 1, len(found.tokens)))
        return Completion(
            tokens=found.tokens,
            logprobs=found.logprobs,
            stop_reason=found.stop_reason,
            version=4,
            spans=spans,
        )


@pytest.fixture
def spanned(tiny: tuple[Any, Any]) -> Trajectory:
    """An episode whose first token was drawn by older weights than the others."""
    env = PromptEnv([Task(id="1", prompt="Say 1", truth="1")], "exact")
    policy = Updated(*tiny)
    (found,) = rollout([Episode(env=env, seed=1, env_seed=1)], policy, Sampling(max_tokens=6))
    return found


def test_an_episode_is_as_old_as_its_oldest_token(spanned: Trajectory) -> None:
    length = spanned.length
    assert spanned.turns[0].spans == (WeightSpan(3, 0, 1), WeightSpan(4, 1, length))
    assert (spanned.version, spanned.oldest) == (4, 3)
    assert collate([spanned]).versions.tolist() == [3]


def test_spans_survive_a_checkpoint(spanned: Trajectory) -> None:
    before = Collected(trajectories=[spanned], drawn=[spanned])
    after = Collected.from_json(json.loads(json.dumps(before.to_json())))
    assert after.trajectories[0].turns == spanned.turns
    assert isinstance(after.trajectories[0].turns[0].spans[0], WeightSpan)


def test_the_oldest_of_several_turns_counts_and_a_file_stays_without_weights() -> None:
    def turn(version: int, *spans: WeightSpan) -> Turn:
        return Turn(
            start=0, end=2, reward=0.0, stop_reason=StopReason.EOS, version=version, spans=spans
        )

    def episode(version: int, *turns: Turn) -> Trajectory:
        return Trajectory(env="e", task_id="t", group=0, seed=0, version=version, turns=[*turns])

    assert episode(7, turn(5), turn(7)).oldest == 5
    assert episode(7, turn(7, WeightSpan(2, 0, 1), WeightSpan(7, 1, 2))).oldest == 2
    assert episode(OFFLINE, turn(0)).oldest == OFFLINE
