"""Values by branching episodes of several turns."""

import math
from typing import Any

import gymnasium
import numpy as np
import pytest

from rlvr.agents.rollouts import Episode, rollout
from rlvr.agents.transformers_policy import TransformersPolicy
from rlvr.agents.types import Completion, Sampling, StopReason, Trajectory
from rlvr.envs import DialogueEnv, Reply
from rlvr.rl_core.algorithm_config import CriticConfig
from rlvr.rl_core.branches import Branches
from rlvr.rl_core.sources import Prompt, Source
from rlvr.verifiers import Task, UsageError, Verdict

TASKS = [Task(id="t", prompt="write", truth="")]


class Letters(DialogueEnv[list[str]]):
    """Two turns of two letters each; the end pays the share of a's in all four."""

    released = 0
    replays = False
    per_turn = 0.0

    def open(self, task: Task, rng: np.random.Generator) -> list[str]:
        """Nothing is said yet."""
        return []

    def answer(self, action: str, state: list[str]) -> Reply:
        """Keep the letters."""
        state.append(action)
        if len(state) == 2:
            return Reply(done=True)
        return Reply("once more", reward=self.per_turn * (action[0] == "a"))

    def judge(self, task: Task, state: list[str], answer: str | None) -> Verdict:
        """Count."""
        return Verdict.score("".join(state).count("a") / 4)


class Bonus(Letters):
    """Pays 1 for a first turn that begins with an a."""

    per_turn = 1.0


class Replayed(Letters):
    """Holds a state that is made again by replay, and counts what is not released."""

    open_states = 0

    def open(self, task: Task, rng: np.random.Generator) -> list[str]:
        """Count."""
        Replayed.open_states += 1
        return []

    def release(self, state: list[str]) -> None:
        """Count."""
        Replayed.open_states -= 1


class Fickle(Letters):
    """Answers otherwise every time."""

    asked = 0

    def answer(self, action: str, state: list[str]) -> Reply:
        """Number the answers."""
        Fickle.asked += 1
        reply = super().answer(action, state)
        return reply if reply.done else Reply(f"answer {Fickle.asked}")


class Plain(gymnasium.Env[str, str]):
    """Two turns, and no snapshots."""

    observation_space = action_space = gymnasium.spaces.Text(9)

    def reset(self, **_: Any) -> tuple[str, dict[str, Any]]:
        """Begin."""
        self.turn = 0
        return "write", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Count turns."""
        self.turn += 1
        return "again", 0.0, self.turn == 2, False, {}


class _Coin(TransformersPolicy):
    """Writes `a` or `b`, each with chance one half, and remembers the conversations it saw."""

    def __init__(self, tiny: tuple[Any, Any]) -> None:
        super().__init__(*tiny, check=False)
        self.letters = [self.tokenizer(x)["input_ids"][0] for x in "ab"]
        self.seen: list[list[int]] = []

    def generate_batch(self, prompts: Any, samplings: Any) -> Any:
        """Toss."""
        self.seen += [list(prompt) for prompt in prompts]
        out = []
        for prompt, sampling in zip(prompts, samplings, strict=True):
            rng = np.random.default_rng([sampling.seed, len(prompt)])
            tokens = [self.letters[i] for i in rng.integers(2, size=sampling.max_tokens)]
            logprobs = [math.log(0.5)] * len(tokens)
            out.append(Completion(tokens=tokens, logprobs=logprobs, stop_reason=StopReason.LENGTH))
        return out


def _branched(
    tiny: tuple[Any, Any], kind: Any = Letters, *, to_go: bool = False, **config: Any
) -> tuple[list[Trajectory], list[list[float]], _Coin]:
    policy, sampling = _Coin(tiny), Sampling(max_tokens=2)
    make = kind if issubclass(kind, Plain) else lambda: kind(TASKS)
    source = Source("e", make, 1.0)
    index = None if issubclass(kind, Plain) else 0
    episodes = [Episode(env=make(), seed=i, index=index) for i in range(3)]
    found = rollout(episodes, policy, sampling)
    policy.seen = []
    branches = Branches(
        CriticConfig(critic="rollouts", **config), [source], policy, sampling, to_go=to_go
    )
    prompts = [Prompt(source=0, index=index, env_seed=0)]
    values, _ = branches.values(found, prompts, [1, 2], {})
    source.close()
    return found, values, policy


def _sampled(trajectory: Trajectory, row: list[float]) -> list[float]:
    first = trajectory.turns[0].start
    return [row[i - first] for turn in trajectory.turns for i in range(turn.start, turn.end)]


def _letters(trajectory: Trajectory) -> str:
    return "".join(m["content"] for m in trajectory.messages if m["role"] == "assistant")


@pytest.mark.parametrize("kind", [Letters, Replayed])
def test_values_over_turns_are_what_is_to_be_expected(tiny: tuple[Any, Any], kind: Any) -> None:
    found, values, _ = _branched(tiny, kind, value_rollouts=200)
    for trajectory, row in zip(found, values, strict=True):
        assert len(trajectory.turns) == 2
        text = _letters(trajectory)
        # V(s_t) = (a's so far + half of the letters to come)/4; standard error at most
        # 1/4 / sqrt(200) = 0.018
        wanted = [(text[:t].count("a") + (4 - t) / 2) / 4 for t in range(4)]
        assert _sampled(trajectory, row) == pytest.approx(wanted, abs=5 * 0.018)
        # the environment's tokens have none
        assert len(row) == trajectory.turns[-1].end - trajectory.turns[0].start
        assert sum(value == 0.0 for value in row) == len(row) - 4
    assert Replayed.open_states == 0


def test_branches_go_on_from_exactly_the_sampled_tokens(tiny: tuple[Any, Any]) -> None:
    found, _, policy = _branched(tiny, value_rollouts=1)
    tokens = [t.tokens for t in found]
    turn = found[0].turns[1]
    from_second = [seen for seen in policy.seen if len(seen) in (turn.start, turn.start + 1)]
    known = {tuple(t[: turn.start]) for t in tokens} | {tuple(t[: turn.start + 1]) for t in tokens}
    assert known <= {tuple(seen) for seen in from_second}


@pytest.mark.parametrize(("to_go", "counted"), [(False, 1.0), (True, 0.0)])
def test_what_earlier_turns_were_paid_counts_unless_values_are_to_go(
    tiny: tuple[Any, Any], to_go: bool, counted: float
) -> None:
    found, values, _ = _branched(tiny, Bonus, to_go=to_go, value_rollouts=200)
    assert {_letters(t)[0] for t in found} == {"a", "b"}
    for trajectory, row in zip(found, values, strict=True):
        text, second = _letters(trajectory), _sampled(trajectory, row)[2]
        wanted = (text[:2].count("a") + 1) / 4 + counted * (text[0] == "a")
        assert second == pytest.approx(wanted, abs=5 * 0.018)


def test_one_value_stands_until_the_next_place_of_its_turn(tiny: tuple[Any, Any]) -> None:
    found, values, _ = _branched(tiny, value_rollouts=3, value_every=9)
    for trajectory, row in zip(found, values, strict=True):
        one, two, three, four = _sampled(trajectory, row)
        assert (one, three) == (two, four)


def test_values_over_turns_are_the_same_at_every_call(tiny: tuple[Any, Any]) -> None:
    first, second = (_branched(tiny, value_rollouts=2)[1] for _ in range(2))
    assert first == second


def test_an_environment_without_snapshots_is_refused(tiny: tuple[Any, Any]) -> None:
    with pytest.raises(UsageError, match=r"has no snapshot\(\)"):
        _branched(tiny, Plain)


def test_an_environment_that_answers_otherwise_is_found_out(tiny: tuple[Any, Any]) -> None:
    with pytest.raises(UsageError, match="brought another answer"):
        _branched(tiny, Fickle)
