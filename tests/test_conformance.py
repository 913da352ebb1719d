"""The conformance suite finds what is wrong with an environment, and names it."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from rlvr.envs import DialogueEnv, PromptEnv, Reply, check_env
from rlvr.envs.playing import play, solution_of
from rlvr.rl_core.check_command import run_check
from rlvr.verifiers import Task, UsageError, verifier

TASKS = [
    Task(id=f"t{i}", prompt=f"{i} + 1 = ?", truth=i + 1, solution=str(i + 1)) for i in range(9)
]


class Sound(DialogueEnv[list[str]]):
    """Asks again until there is a number, three times at most."""

    TURNS = 3

    def open(self, task: Task, rng: np.random.Generator) -> list[str]:
        """Begin a list of what was said."""
        return []

    def answer(self, action: str, state: list[str]) -> Reply | str:
        """Take a number as the answer."""
        state.append(action)
        if action.isascii() and action.isdigit():
            return Reply(done=True)
        return f"a number, please ({len(state)}, {self.np_random.integers(99)})"


class Unseeded(Sound):
    """Draws from a generator that no seed reaches."""

    def answer(self, action: str, state: list[str]) -> Reply | str:
        """Draw."""
        return Reply(str(random.random()), done=action.isdigit())


class Raises(Sound):
    """Trusts the policy to write a number."""

    def answer(self, action: str, state: list[str]) -> Reply | str:
        """Read it."""
        return Reply(done=int(action) > 0)


class Pays(Sound):
    """Pays for every word."""

    def answer(self, action: str, state: list[str]) -> Reply | str:
        """Pay."""
        return Reply("thanks", reward=0.5, done=action.isascii() and action.isdigit())


class Shares(Sound):
    """Copies a state by not copying it."""

    def copy_state(self, state: list[str]) -> list[str]:
        """Share."""
        return state


class Leaks(Sound):
    """Opens a second state and forgets the first."""

    def opening(self, task: Task, state: list[str]) -> str:
        """Open again."""
        self._hold([])
        return task.text


class Objects(Sound):
    """Puts an object into the info."""

    def answer(self, action: str, state: list[str]) -> Reply | str:
        """Say something that is not JSON."""
        return Reply("so", info={"set": {1, 2}}, done=action.isascii() and action.isdigit())


class Endless(Sound):
    """Never ends."""

    TURNS = 10**9

    def answer(self, action: str, state: list[str]) -> Reply | str:
        """Go on."""
        return "go on"


class Misjudges(Sound):
    """Its solution is wrong."""

    def solve(self, task: Task) -> Iterator[str]:
        """Give another number."""
        yield f"{task.truth + 1}"


def found(kind: type[Sound], **options: Any) -> dict[str, str]:
    report = check_env(lambda: kind(TASKS, "number"), episodes=5, **options)
    return {row.check: row.detail for row in report.rows if not row.ok}


def test_a_sound_environment_passes() -> None:
    report = check_env(lambda: Sound(TASKS, "number"), episodes=5)
    assert report.ok, str(report)
    assert "5 of 5 solutions" in str(report)
    assert "states opened and released" in str(report)


@pytest.mark.parametrize(
    ("kind", "check", "detail"),
    [
        (Unseeded, "same seed, same episode", "observation 1 is"),
        (Unseeded, "snapshots", "the episode from a snapshot: observation"),
        (Raises, "garbage earns nothing", "unscored (error): ValueError"),
        (Raises, "random policy at the floor", "unscored (error)"),
        (Pays, "garbage earns nothing", "earns 1.5, expected 0 at most"),
        (Pays, "random policy at the floor", "earns 1.500 on average, more than 0.05"),
        (Shares, "snapshots", "the episode from a snapshot"),
        (Leaks, "state is released", "states opened"),
        (Objects, "texts and infos", "an info is not JSON"),
        (Endless, "garbage earns nothing", "did not end within 1000 actions"),
        (Misjudges, "solver scores 1", "0 of 5 solutions; not: t0 (wrong"),
    ],
)
def test_what_is_wrong_is_found_and_named(kind: type[Sound], check: str, detail: str) -> None:
    assert detail in found(kind)[check]


def test_tasks_with_the_same_id_are_found() -> None:
    twice = [*TASKS[:2], TASKS[0]]
    report = check_env(lambda: PromptEnv(twice, "number"), episodes=5)
    assert [row.detail for row in report.rows if not row.ok] == ["3 tasks have 2 ids"]


def test_a_verifier_that_pays_for_anything_is_found() -> None:
    generous = verifier(lambda completion, truth: True)
    report = check_env(lambda: PromptEnv(TASKS, generous), episodes=5)
    broken = {row.check for row in report.rows if not row.ok}
    assert broken == {"garbage earns nothing", "random policy at the floor"}


def test_a_solver_of_ones_own_can_be_given() -> None:
    bare = [Task(id=f"t{i}", prompt=f"{i} + 1 = ?", truth=i + 1) for i in range(9)]
    solver: Callable[[Task], list[str]] = lambda task: ["hm", str(task.truth)]  # noqa: E731
    report = check_env(lambda: Sound(bare, "number"), episodes=5, solver=solver)
    assert report.ok, str(report)
    assert "5 of 5 solutions" in str(report)
    assert "no task has a solution" in str(check_env(lambda: Sound(bare, "number"), episodes=2))


def test_an_environment_instead_of_a_function_is_refused() -> None:
    with pytest.raises(UsageError, match="a function that makes the environment"):
        check_env(Sound(TASKS, "number"))  # pyright: ignore


def test_a_generator_is_sent_what_its_actions_brought() -> None:
    seen: list[str] = []

    def actions() -> Iterator[str]:
        seen.append((yield "hm"))
        seen.append((yield "well"))
        yield "3"

    steps = play(Sound(TASKS, "number"), actions(), seed=0, index=2)
    assert [step[1] for step in steps] == [0.0, 0.0, 0.0, 1.0]
    assert seen == [steps[1][0], steps[2][0]]
    assert list(solution_of(PromptEnv(TASKS, "number"), TASKS[2])) == ["3"]


def test_the_command_prints_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_check("rlvr/GCD-v0 size=50", 5)
    printed = capsys.readouterr().out
    for name in ("gymnasium's check_env", "snapshots", "verifier's contract"):
        assert name in printed
