"""Episodes played from given actions: by a solver, for a demonstration, from a transcript."""

from collections.abc import Iterable, Iterator
from typing import Any

import gymnasium

from ..verifiers import Task, UsageError

Env = gymnasium.Env[str, str]
Step = tuple[str, float, bool, bool, dict[str, Any]]
"""What `step` returns."""
MAX_ACTIONS = 1000
"""Actions of an episode at most, so that an environment that never ends is found out."""


def solution_of(env: Env, task: Task) -> Iterator[str]:
    """Return the actions of a task's solution, as its environment knows them."""
    solve = getattr(env.unwrapped, "solve", None)
    if solve is not None:
        return iter(solve(task))
    return iter(() if task.solution is None else (task.solution,))


def play(
    env: Env, actions: Iterable[str], *, seed: int | None = None, index: int | None = None
) -> list[Step]:
    """Run an episode with given actions, until either is at an end.

    Args:
        env: Any text environment.
        actions: The actions; a generator is sent what each of them brought.
        seed: As in `reset`.
        index: Which task.

    Returns:
        What each step returned; before them, as a step, what `reset` did.

    Raises:
        UsageError: The episode does not end within `MAX_ACTIONS`.
    """
    options = None if index is None else {"index": index}
    observation, info = env.reset(seed=seed, options=options)
    steps: list[Step] = [(observation, 0.0, False, False, info)]
    plan = iter(actions)
    send = getattr(plan, "send", None)
    for _ in range(MAX_ACTIONS):
        try:
            action = next(plan) if send is None or len(steps) == 1 else send(observation)
        except StopIteration:
            return steps
        step = env.step(action)
        observation = step[0]
        steps.append((step[0], float(step[1]), step[2], step[3], step[4]))
        if step[2] or step[3]:
            return steps
    raise UsageError(f"the episode did not end within {MAX_ACTIONS} actions")


def watched(plan: Iterable[str], actions: list[str]) -> Iterator[str]:
    """Pass on a plan's actions, writing them down."""
    found = iter(plan)
    send = getattr(found, "send", None)
    try:
        action = next(found)
        while True:
            actions.append(action)
            observation = yield action
            action = next(found) if send is None else send(observation)
    except StopIteration:
        return
