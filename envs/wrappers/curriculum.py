"""A transform that poses what the policy is just learning: a curriculum by measured pass rate."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ...verifiers import Status, Task, UsageError
from .pass_rates import PassRates
from .transform import TextEnv, Transform

MOST_TASKS = 100_000
"""Tasks that are sorted into levels: a rate for each of more than that is never measured."""

By = str | Callable[[Task], Hashable] | Sequence[Mapping[str, Any]]


class Curriculum(Transform[str, str]):
    """Chooses at `reset` what to pose, by how often it has been passed lately.

    A level is a task of its own, the tasks with one value in their metadata, or a set of reset
    options; `PassRates` chooses the level, and within it a task is drawn evenly. A caller's
    `options={"index": i}` has precedence (a group's members must share their task; ask `choose`
    for an index), and its outcome counts all the same.

    Passed is a verdict `correct`, without a verdict a return of at least 1; truncated episodes
    count as what they were paid, unscored and unfinished ones not at all. Transforms below it have
    changed the verdict already: put `Noise` above it to keep the noise out of the rates. `info` of
    `reset` has `level` and `level_rate`.

    The choice follows from the seed *and* what was measured so far: to repeat it, load the same
    rates.

    Example:
        >>> from rlvr import envs
        >>> env = Curriculum(envs.make("rlvr/Arithmetic-v0", size=50), by="task")
        >>> env.reset(seed=0)[1]["level_rate"]
        0.5
    """

    _KEPT: ClassVar[tuple[str, ...]] = ("_level", "_total")

    def __init__(self, env: TextEnv, by: By = "task", *, rates: PassRates | None = None) -> None:
        """Wrap an environment.

        Args:
            env: The environment; without reset options in `by`, one with `tasks`.
            by: `"task"`; a key of the tasks' metadata; a function of the task; or a list of reset
                options, each a level.
            rates: What is known and the target; shared by the environments that are given it.

        Raises:
            UsageError: A task has no such key, there are too many tasks, or `by` is none of these.
        """
        super().__init__(env, by=by, rates=rates)
        self.rates = PassRates() if rates is None else rates
        if not isinstance(self.rates, PassRates):
            raise UsageError(f"rates must be a PassRates, got {rates!r:.100}")
        self._options: list[dict[str, Any]] | None = None
        self._tasks: list[list[int]] = []
        if isinstance(by, str) or callable(by):
            self._levels = self._sorted(by)
        else:
            self._levels = self._of_options(by)
        self._of_task = {i: at for at, tasks in enumerate(self._tasks) for i in tasks}
        self._rng = np.random.default_rng()
        self._level: int | None = None
        self._total = 0.0

    @property
    def levels(self) -> list[str]:
        """The names of the levels."""
        return list(self._levels)

    def choose(self, rng: np.random.Generator) -> dict[str, Any]:
        """Return reset options for what should be posed next: `{"index": i}` or a level's own."""
        level = self.rates.choose(self._levels, rng)
        if self._options is not None:
            return dict(self._options[level])
        tasks = self._tasks[level]
        return {"index": tasks[int(rng.integers(len(tasks)))]}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin an episode of the chosen level; the caller's own options have precedence."""
        if seed is not None:
            self._rng = np.random.default_rng([int(seed), 0xC0])
        given = {**self.choose(self._rng), **(options or {})}
        observation, info = self.env.reset(seed=seed, options=given)
        if seed is not None:
            _ = self.env.unwrapped.np_random  # gymnasium's check wants a seed's generator to exist
        self._level, self._total = self._level_of(given), 0.0
        if self._level is None:
            return observation, info
        name = self._levels[self._level]
        return observation, {**info, "level": name, "level_rate": self.rates.rate(name)}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Pass the action on; count the outcome when the episode ends."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._total += float(reward)
        scored = math.isfinite(self._total) and not info.get("unscored", False)
        if (terminated or truncated) and self._level is not None:
            if scored:
                self.rates.record(self._levels[self._level], _passed(info, self._total))
            self._level = None
        return observation, float(reward), terminated, truncated, info

    def _level_of(self, options: Mapping[str, Any]) -> int | None:
        if self._options is None:
            return self._of_task.get(options["index"])
        return next((at for at, one in enumerate(self._options) if one == options), None)

    def _of_options(self, given: Any) -> list[str]:
        usable = isinstance(given, Sequence) and all(isinstance(one, Mapping) for one in given)
        if not usable or not given:
            raise UsageError(
                "by= is 'task', a key of the tasks' metadata, a function of the task or a list of "
                f"reset options, got {given!r:.100}"
            )
        self._options = [dict(one) for one in given]
        return _named([repr(sorted(one.items())) for one in self._options])

    def _sorted(self, by: str | Callable[[Task], Hashable]) -> list[str]:
        """Sort the tasks into levels."""
        tasks = getattr(self.env.unwrapped, "tasks", None)
        if tasks is None:
            raise UsageError(f"{self.env.unwrapped} has no `tasks`; give a list of reset options")
        if len(tasks) > MOST_TASKS:
            raise UsageError(
                f"{len(tasks)} tasks are too many to measure; make the environment with a size of "
                f"{MOST_TASKS} at most"
            )
        if by == "task":
            self._tasks = [[i] for i in range(len(tasks))]
            return _named([tasks[i].id for i in range(len(tasks))])
        found: dict[str, list[int]] = {}
        for i in range(len(tasks)):
            level = _of_metadata(tasks[i], by) if isinstance(by, str) else by(tasks[i])
            found.setdefault(str(level), []).append(i)
        self._tasks = list(found.values())
        return list(found)


def _named(names: list[str]) -> list[str]:
    """Refuse names that stand for two levels."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UsageError(
                f"two levels are called {name!r:.100}; give every task an id of its own"
            )
        seen.add(name)
    return names


def _of_metadata(task: Task, key: str) -> Any:
    if key not in task.metadata:
        known = ", ".join(sorted(map(str, task.metadata))) or "none"
        raise UsageError(
            f"task '{task.id}' has no '{key}' in its metadata (known: {known}); use by='task' or a "
            "function of the task"
        )
    return task.metadata[key]


def _passed(info: Mapping[str, Any], total: float) -> bool:
    verdict = info.get("verdict")
    if isinstance(verdict, Mapping) and "status" in verdict:
        return verdict["status"] == Status.CORRECT
    return total >= 1
