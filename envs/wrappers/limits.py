"""Transforms that end an episode: after so many turns, after so many seconds."""

import math
import time
from collections.abc import Callable
from typing import Any, ClassVar

from ...verifiers import UsageError
from .transform import TextEnv, Transform, finite

Step = tuple[str, float, bool, bool, dict[str, Any]]


class TurnLimit(Transform[str, str]):
    """Ends an episode after a number of turns: `truncated`, unless it has terminated by then.

    The rewards paid so far stay; a verdict that was not reached is not made up.

    Example:
        >>> from rlvr import envs
        >>> TurnLimit(envs.make("rlvr/Arithmetic-v0"), 8).turns
        8
    """

    _KEPT: ClassVar[tuple[str, ...]] = ("_taken",)

    def __init__(self, env: TextEnv, turns: int) -> None:
        """Wrap an environment.

        Args:
            env: The environment.
            turns: Steps at most, from 1 up.

        Raises:
            UsageError: `turns` is out of range.
        """
        if not isinstance(turns, int) or isinstance(turns, bool) or turns < 1:
            raise UsageError(f"turns must be an integer from 1 up, got {turns!r:.100}")
        super().__init__(env, turns=turns)
        self.turns = turns
        self._taken = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin an episode."""
        self._taken = 0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: str) -> Step:
        """Pass the action on and count it."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._taken += 1
        if self._taken >= self.turns and not (terminated or truncated):
            self._abandon()
            truncated = True
        return observation, float(reward), terminated, truncated, info


class TimeLimit(Transform[str, str]):
    """Ends an episode that has taken too long, by the clock: `truncated`, with its rewards so far.

    A budget, not a verdict: a busy machine ends more episodes, so that runs under it cannot be
    repeated exactly. It looks at the clock after a step has returned, and does not break off one
    that hangs: that is for the time limits of verifiers and tools, whose workers can be killed.
    `info["time_limit"]` names the limit that was passed.

    Example:
        >>> from rlvr import envs
        >>> TimeLimit(envs.make("rlvr/Arithmetic-v0"), episode=60.0).episode
        60.0
    """

    _KEPT: ClassVar[tuple[str, ...]] = ("_spent",)

    def __init__(
        self,
        env: TextEnv,
        *,
        episode: float | None = None,
        step: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wrap an environment.

        Args:
            env: The environment.
            episode: Seconds from `reset` on, the policy's time included.
            step: Seconds of one step of the environment.
            clock: Tells the time in seconds.

        Raises:
            UsageError: There is no limit, or one is not above 0.
        """
        given = {} if clock is time.monotonic else {"clock": clock}
        super().__init__(env, episode=episode, step=step, **given)
        if episode is None and step is None:
            raise UsageError("TimeLimit needs episode= or step=, in seconds")
        least = math.ulp(0.0)
        for name, value in (("episode", episode), ("step", step)):
            if value is not None:
                finite(name, value, "a number of seconds above 0", least, math.inf)
        self.episode = episode
        self.step_seconds = step
        self._clock = clock
        self._spent = 0.0
        self._last = clock()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin an episode; the clock starts when it has begun."""
        answer = self.env.reset(seed=seed, options=options)
        self._spent, self._last = 0.0, self._clock()
        return answer

    def step(self, action: str) -> Step:
        """Pass the action on and look at the clock."""
        began = self._clock()
        observation, reward, terminated, truncated, info = self.env.step(action)
        now = self._clock()
        self._spent += now - self._last
        self._last = now
        passed = self._passed(now - began)
        if passed and not (terminated or truncated):
            self._abandon()
            return observation, float(reward), False, True, {**info, "time_limit": passed}
        return observation, float(reward), terminated, truncated, info

    def _passed(self, seconds: float) -> str:
        """Return which limit has been passed, empty if none."""
        if self.step_seconds is not None and seconds > self.step_seconds:
            return "step"
        return "episode" if self.episode is not None and self._spent > self.episode else ""

    def _restored(self, observation: str, info: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        self._last = self._clock()
        return observation, info
