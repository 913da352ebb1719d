"""Branching: going on from a snapshot is the unbroken episode, however the state is had again."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from rlvr.envs import DialogueEnv, PromptEnv, Reply, Snapshot
from rlvr.verifiers import Task, UsageError

TASKS = [Task(id=f"t{i}", prompt=f"Walk {i}", truth=i) for i in range(5)]


class Walk(DialogueEnv[list[int]]):
    """Every action adds a draw of chance to the state."""

    TURNS = 6

    def open(self, task: Task, rng: np.random.Generator) -> list[int]:
        """Begin with a number."""
        return [int(rng.integers(1000))]

    def answer(self, action: str, state: list[int]) -> Reply | str:
        """Go on."""
        state.append(int(self.np_random.integers(1000)))
        return Reply(f"{state}", reward=0.01 * len(state), done=action == "stop")


class Held(Walk):
    """The same with a state that must be released, so that it is not copied."""

    open_states = 0

    def open(self, task: Task, rng: np.random.Generator) -> list[int]:
        """Count."""
        type(self).open_states += 1
        return super().open(task, rng)

    def release(self, state: list[int]) -> None:
        """Count."""
        type(self).open_states -= 1


class Copied(Held):
    """The same with a copy of its own."""

    def copy_state(self, state: list[int]) -> list[int]:
        """Copy, and count."""
        type(self).open_states += 1
        return list(state)


class Uncopyable(Walk):
    """A state that cannot be copied: a generator."""

    def open(self, task: Task, rng: np.random.Generator) -> Any:
        """Count upwards."""
        return iter(int(rng.integers(1000)) + i for i in range(100))

    def answer(self, action: str, state: Any) -> Reply | str:
        """Count."""
        return Reply(f"{next(state)} {self.np_random.integers(1000)}", done=action == "stop")


ACTIONS = ["a", "b", "c", "stop"]


@pytest.mark.parametrize("kind", [Walk, Held, Copied, Uncopyable])
@pytest.mark.parametrize("options", [None, {"index": 2}])
@pytest.mark.parametrize("travelled", [False, True])
def test_going_on_from_a_snapshot_is_the_unbroken_episode(
    kind: type[Walk], options: Any, travelled: bool
) -> None:
    env, other = kind(TASKS, "number"), kind(TASKS, "number")
    env.reset(seed=3)
    env.reset(seed=None if options is None else 5, options=options)
    first = [env.step(action) for action in ACTIONS]
    env.reset(seed=3)
    env.reset(seed=None if options is None else 5, options=options)
    for at, action in enumerate(ACTIONS):
        taken = env.snapshot()
        if travelled:
            taken = pickle.loads(pickle.dumps(taken))
        for branch in (other, other):
            observation, info = branch.restore(taken)
            assert info["messages"] == env.messages
            assert observation == (env.messages[-1]["content"])
            rest = [branch.step(one) for one in ACTIONS[at:]]
            assert rest == first[at:]
        assert env.step(action) == first[at]
        taken.close()
    env.close()
    other.close()
    assert getattr(kind, "open_states", 0) == 0


def test_a_snapshot_outlives_the_episode_and_what_follows_it() -> None:
    env = Walk(TASKS, "number")
    env.reset(seed=3, options={"index": 1})
    env.step("a")
    taken = env.snapshot()
    before = env.step("b")
    env.reset(seed=9, options={"index": 4})
    env.step("x")
    env.restore(taken)
    assert env.step("b") == before
    env.restore(copy.deepcopy(taken))
    assert env.step("b") == before


def test_a_single_turn_environment_can_be_branched_too() -> None:
    env = PromptEnv(TASKS, "number")
    env.reset(seed=3)
    taken = pickle.loads(pickle.dumps(env.snapshot()))
    drawn = env.np_random.integers(2**40)
    assert env.step("9")[1] == 0.0
    for _ in range(2):
        observation, info = env.restore(taken)
        assert observation == info["messages"][0]["content"]
        assert env.step(str(info["index"]))[1] == 1.0
    assert env.np_random.integers(2**40) == drawn


def test_a_snapshot_needs_a_running_episode() -> None:
    for env in (Walk(TASKS, "number"), PromptEnv(TASKS, "number")):
        with pytest.raises(UsageError, match="snapshot without a running episode"):
            env.snapshot()
        env.reset(seed=0)
        env.step("stop")
        with pytest.raises(UsageError, match="snapshot without a running episode"):
            env.snapshot()


@pytest.mark.parametrize(
    "other",
    [
        lambda: PromptEnv(TASKS, "number"),
        lambda: Held(TASKS, "number"),
        lambda: Walk(TASKS[:2], "number"),
        lambda: Walk(list(reversed(TASKS)), "number"),
        lambda: Walk(TASKS, "number", turns=3),
        lambda: Walk(TASKS, "number", system="Be brief."),
    ],
)
def test_a_snapshot_of_another_environment_task_or_setting_is_refused(other: Any) -> None:
    env = Walk(TASKS, "number")
    env.reset(options={"index": 3})
    taken = env.snapshot()
    theirs = other()
    theirs.reset(seed=0)
    with pytest.raises(UsageError, match="of another environment, task or settings"):
        theirs.restore(taken)
    assert theirs.running
    with pytest.raises(UsageError, match=r"restore takes what snapshot\(\) returned, got 'x'"):
        env.restore("x")  # pyright: ignore
    assert isinstance(taken, Snapshot)
    assert repr(taken) == "Snapshot(task 3, after 0 turns)"


def test_an_environment_that_is_not_deterministic_is_found_out_by_replay() -> None:
    class Moody(Held):
        calls = 0

        def answer(self, action: str, state: list[int]) -> str:
            type(self).calls += 1
            return str(self.calls)

    env = Moody(TASKS, "number")
    env.reset(seed=0)
    env.step("a")
    taken = env.snapshot()
    before = Moody.open_states
    with pytest.raises(UsageError, match="the same actions brought another chat"):
        env.restore(taken)
    assert Moody.open_states == before - 1
    with pytest.raises(UsageError, match="call reset"):
        env.step("b")


def test_a_forgotten_snapshot_releases_its_copy() -> None:
    import gc

    env = Copied(TASKS, "number")
    env.reset(seed=0)
    taken = env.snapshot()
    assert Copied.open_states == 2
    del taken
    gc.collect()
    assert Copied.open_states == 1
    env.close()
    assert Copied.open_states == 0
