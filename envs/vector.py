"""Many text environments at once, each at its own pace.

`send` hands actions to some environments, `recv` returns whichever have answered: nobody waits for
the slowest. `step` is send-all and receive-all, as gymnasium has it. Environments run in a bounded
pool of threads, one call at a time each; the threads are daemons, so that a verifier that never
returns cannot keep the process from ending.

Infos are gymnasium's (`key` an array, `_key` who has it), with one difference: a nested dictionary
such as a verdict stays whole, in an array of objects. Split up by leaf, an answer that is a number
in one environment and a text in the next would be an error.
"""

import math
import os
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ..verifiers import UsageError, WorkerError
from ..verifiers.errors import unknown
from .batching import batch_infos, masked, per_env, per_env_seeds
from .threads import Pool, outcome

QUICK = 0.001
"""Seconds under which a call is not worth its hand-over to a thread."""

MOST_THREADS = 256
"""Calls at once at most, unless another number is asked for."""

PATIENCE = 0.05
"""Seconds that calls taken for quick may hold up the others before the rest go to the threads."""

CLOSE_SECONDS = 10.0
"""How long `close` waits for calls under way: a verifier's own limit is usually shorter."""

Env = gymnasium.Env[str, str]
Flags = np.ndarray[Any, np.dtype[np.bool_]]


class Transition(NamedTuple):
    """What one environment answered to one action."""

    id: int
    """Which environment."""
    observation: str
    """Its newest text; under `SAME_STEP`, after the end, the next episode's prompt."""
    reward: float
    """The reward; nan if unscored."""
    terminated: bool
    """Answered."""
    truncated: bool
    """Out of turns."""
    info: dict[str, Any]
    """The environment's info."""


class TextVectorEnv(VectorEnv[tuple[str, ...], Sequence[str], np.ndarray[Any, Any]]):
    """Text environments side by side; what `gymnasium.make_vec` makes of ours.

    Autoreset is `DISABLED` (reset the finished ones with `options={"reset_mask": mask}`) or
    `SAME_STEP` (`info` then has `final_obs` and `final_info`). `NEXT_STEP` would generate a
    completion for nothing and is refused.

    Example:
        >>> envs = gymnasium.make_vec("rlvr/Arithmetic-v0", num_envs=2)
        >>> prompts, _ = envs.reset(seed=0, options={"index": [0, 0]})
        >>> prompts[0] == prompts[1]
        True
        >>> envs.step(["?", "?"])[1]
        array([0., 0.])
        >>> envs.close()
    """

    metadata: dict[str, Any]
    _MODES: ClassVar = (AutoresetMode.DISABLED, AutoresetMode.SAME_STEP)

    def __init__(
        self,
        env_fns: Sequence[Callable[[], Env]],
        *,
        autoreset_mode: str | AutoresetMode = AutoresetMode.DISABLED,
        threads: int | None = None,
    ) -> None:
        """Make the environments.

        Args:
            env_fns: Make one each; at least one.
            autoreset_mode: `"Disabled"` or `"SameStep"`.
            threads: Calls at once at most; 0 calls in the caller's thread. By default up to one
                per environment and `MOST_THREADS`, as many as the environments' slowness asks for.

        Raises:
            UsageError: There is no environment, or an option is out of range.
        """
        if not len(env_fns):
            raise UsageError("a vector environment needs num_envs of at least 1, got 0")
        self._same_step = _mode(autoreset_mode, self._MODES) is AutoresetMode.SAME_STEP
        self.envs = [make() for make in env_fns]
        self.num_envs = len(self.envs)
        few = None
        if threads is None:
            threads, few = min(self.num_envs, MOST_THREADS), 2 * (os.cpu_count() or 1)
        if not isinstance(threads, int) or threads < 0:
            raise UsageError(f"threads must be an integer from 0 up, got {threads!r}")
        self.metadata = {**self.envs[0].metadata, "autoreset_mode": self._MODES[self._same_step]}
        self.render_mode = self.envs[0].render_mode
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._observations = [""] * self.num_envs
        self._ready = np.zeros(self.num_envs, dtype=np.bool_)
        self._busy: set[int] = set()
        self._answers: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._pool = Pool(threads, few)
        self._took = [math.inf] * self.num_envs
        """Seconds of each environment's last call; infinite before it."""

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[tuple[str, ...], dict[str, Any]]:
        """Begin episodes.

        Args:
            seed: One per environment, or a single one from which each gets its own by
                `SeedSequence([seed, i])`.
            options: `index`: a task for all, or a list with one per environment; `reset_mask`: a
                boolean array of the environments to reset, the others stay as they are; anything
                else goes to every environment.

        Returns:
            Every environment's newest observation, and the infos of those that were reset.

        Raises:
            UsageError: A length is wrong, or an environment to be reset has an action under way.
        """
        given = dict(options or {})
        ids = masked(given.pop("reset_mask", None), self.num_envs)
        seeds = per_env_seeds(seed, self.num_envs)
        each = [dict(given) for _ in range(self.num_envs)]
        if "index" in given:
            indices = per_env("options['index']", given["index"], self.num_envs)
            each = [{**one, "index": index} for one, index in zip(each, indices, strict=True)]
        self._refuse_busy(ids, "reset")

        def start(i: int) -> Transition:
            observation, info = self.envs[i].reset(seed=seeds[i], options=each[i] or None)
            return Transition(i, observation, 0.0, False, False, info)

        infos = {one.id: one.info for one in self._all(ids, [partial(start, i) for i in ids])}
        return tuple(self._observations), batch_infos(infos, self.num_envs)

    def send(self, ids: Sequence[int], actions: Sequence[str]) -> None:
        """Hand an action to each of some environments and return at once.

        Raises:
            UsageError: The lengths differ, an id is out of range, repeated or still busy, or its
                episode is over.
        """
        chosen = self._sendable(ids, actions)
        self._submit(chosen, self._steps(chosen, actions))

    def _steps(self, ids: Sequence[int], actions: Sequence[str]) -> list[Callable[[], Any]]:
        """Return the calls that act in some environments."""
        return [partial(self._advance, i, action) for i, action in zip(ids, actions, strict=True)]

    def _sendable(self, ids: Sequence[int], actions: Sequence[str]) -> list[int]:
        """Refuse actions that cannot be taken; return the ids."""
        self._refuse_closed()
        if isinstance(actions, str) or len(actions) != len(ids):
            count = "one text" if isinstance(actions, str) else f"{len(actions)} actions"
            raise UsageError(f"send needs one action per environment: got {count} for {len(ids)}")
        chosen = [int(i) for i in ids]
        if len(set(chosen)) < len(chosen) or not all(0 <= i < self.num_envs for i in chosen):
            raise UsageError(
                f"ids must be different numbers from 0 to {self.num_envs - 1}, got {chosen}"
            )
        self._refuse_busy(chosen, "send to")
        over = [i for i in chosen if not self._ready[i]]
        if over:
            raise UsageError(
                f"no episode is running in the environments {over}; reset them first, "
                'options={"reset_mask": mask} leaves the others alone'
            )
        return chosen

    def recv(self, min_n: int = 1, timeout: float | None = None) -> list[Transition]:
        """Return what has been answered, once there are at least `min_n` answers.

        Args:
            min_n: Answers to wait for; no more than there are environments with an action under
                way.
            timeout: Seconds after which fewer are returned; `None` waits.

        Returns:
            One transition per answer, sorted by environment.

        Raises:
            UsageError: More answers are asked for than can come.
            Exception: Whatever an environment raised, with a note that names it. The answers of
                the others stay for the next call.
        """
        if not 0 <= min_n <= len(self._busy):
            raise UsageError(
                f"recv({min_n}) would wait for ever: {len(self._busy)} environments have an action "
                "under way; send first"
            )
        end = None if timeout is None else time.monotonic() + timeout
        got: list[Transition] = []
        try:
            while True:
                found = self._next(end, block=len(got) < min_n)
                if found is None:
                    break
                got.append(self._taken(*found))
        except Exception:
            for one in got:
                self._busy.add(one.id)
                self._answers.put((one.id, one))
            raise
        return sorted(got, key=lambda one: one.id)

    def step(self, actions: Sequence[str]) -> tuple[tuple[str, ...], Any, Any, Any, dict[str, Any]]:
        """Act in every environment and wait for all.

        Raises:
            UsageError: There is not one action per environment, an episode is over, or an action
                is under way.
            Exception: Whatever an environment raised, with a note that names it.
        """
        ids = self._sendable(range(self.num_envs), actions)
        _, observations, rewards, terminated, truncated, infos = zip(
            *self._all(ids, self._steps(ids, actions)), strict=True
        )
        batched = batch_infos(dict(enumerate(infos)), self.num_envs)
        ended = np.array(terminated, np.bool_), np.array(truncated, np.bool_)
        return observations, np.array(rewards, np.float64), *ended, batched

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of every environment, or read an attribute, one after the other."""
        self._refuse_busy(range(self.num_envs), "call")
        found = [env.get_wrapper_attr(name) for env in self.envs]
        return tuple(one(*args, **kwargs) if callable(one) else one for one in found)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Read an attribute of every environment."""
        return tuple(env.get_wrapper_attr(name) for env in self.envs)

    def render(self) -> tuple[Any, ...] | None:
        """Render every environment."""
        return tuple(env.render() for env in self.envs)

    def close_extras(self, **kwargs: Any) -> None:
        """Wait for calls under way (ten seconds at most), end the threads, close all.

        Raises:
            WorkerError: A call is still under way; its thread is left behind.
        """
        stuck = self._pool.close(CLOSE_SECONDS)
        busy = set() if not stuck else self._busy
        for i, env in enumerate(self.envs):
            if i not in busy:
                env.close()
        self.closed = True
        if stuck:
            raise WorkerError(
                f"{stuck} of the environments {sorted(busy)} did not answer within "
                f"{CLOSE_SECONDS:.0f} s of close(); give their verifier a time limit"
            )

    def __del__(self) -> None:
        """End the threads of an environment that was not closed."""
        pool = getattr(self, "_pool", None)
        if pool is not None and not self.closed:
            pool.close(0.0)

    def _advance(self, i: int, action: str) -> Transition:
        """Step one environment; under `SAME_STEP` begin its next episode at the end."""
        env = self.envs[i]
        observation, reward, terminated, truncated, info = env.step(action)
        if self._same_step and (terminated or truncated):
            final = {"final_obs": observation, "final_info": info}
            observation, fresh = env.reset()
            info = {**fresh, **final}
        return Transition(i, observation, float(reward), terminated, truncated, info)

    def _settle(self, one: Transition) -> None:
        """Note what a transition means for the next call."""
        self._observations[one.id] = one.observation
        self._ready[one.id] = self._same_step or not (one.terminated or one.truncated)

    def _all(self, ids: Sequence[int], jobs: Sequence[Callable[[], Any]]) -> list[Transition]:
        """Run calls to their end and return what they brought, by environment.

        Those of environments whose last call was quick run in this thread, which waits anyway:
        that saves the hand-over, most of what a quick call costs.
        """
        took, quick = self._took, []
        for i, job in zip(ids, jobs, strict=True):
            if took[i] < QUICK:
                quick.append((i, job))
            else:
                self._submit([i], [job])
        answers: dict[int, Any] = {}
        held_up = 0.0
        for i, job in quick:
            if held_up > PATIENCE:
                self._submit([i], [job])
                continue
            self._ready[i] = False
            began = time.perf_counter()
            answers[i] = outcome(job)
            took[i] = time.perf_counter() - began
            if took[i] >= QUICK:
                held_up += took[i]
        return self._collect(ids, answers)

    def _timed(self, i: int, job: Callable[[], Any]) -> None:
        began = time.perf_counter()
        answer = outcome(job)
        self._took[i] = time.perf_counter() - began
        self._answers.put((i, answer))

    def _submit(self, ids: Sequence[int], jobs: Sequence[Callable[[], Any]]) -> None:
        for i, job in zip(ids, jobs, strict=True):
            self._ready[i] = False
            self._busy.add(i)
            try:
                self._pool.submit(
                    partial(self._timed, i, job), slow=QUICK <= self._took[i] < math.inf
                )
            except KeyboardInterrupt:
                self._busy.discard(i)
                raise

    def _next(self, end: float | None, *, block: bool) -> tuple[int, Any] | None:
        """Take one answer, or `None` if there is none (in time)."""
        try:
            if not block or not self._busy:
                return self._answers.get_nowait()
            wait = None if end is None else max(0.0, end - time.monotonic())
            return self._answers.get(timeout=wait)
        except queue.Empty:
            return None

    def _taken(self, i: int, answer: Any) -> Transition:
        self._busy.discard(i)
        if isinstance(answer, Exception):
            raise _noted(answer, i)
        self._settle(answer)
        return answer

    def _collect(self, ids: Sequence[int], answers: dict[int, Any]) -> list[Transition]:
        """Wait for the answers of `ids`, all of them, then raise the first error among them.

        Args:
            ids: The environments.
            answers: Those that are known already; grows.
        """
        wanted, others = set(ids).difference(answers), []
        while wanted:
            i, answer = self._answers.get()
            if i in wanted:
                wanted.discard(i)
                self._busy.discard(i)
                answers[i] = answer
            else:
                others.append((i, answer))
        for other in others:
            self._answers.put(other)
        found = [answers[i] for i in ids]
        for answer in found:
            if not isinstance(answer, Exception):
                self._settle(answer)
        failed = next((i for i in sorted(ids) if isinstance(answers[i], Exception)), None)
        if failed is not None:
            raise _noted(answers[failed], failed)
        return found

    def _refuse_busy(self, ids: Sequence[int], what: str) -> None:
        self._refuse_closed()
        busy = sorted(self._busy.intersection(ids))
        if busy:
            raise UsageError(f"cannot {what} the environments {busy}: recv their answers first")

    def _refuse_closed(self) -> None:
        if self.closed:
            raise UsageError("this vector environment is closed; make a new one")


def _mode(given: str | AutoresetMode, known: Sequence[AutoresetMode]) -> AutoresetMode:
    for mode in known:
        if given in (mode, mode.value, mode.name):
            return mode
    raise unknown("autoreset mode", str(given), [mode.value for mode in known])


def _noted(error: Exception, i: int) -> Exception:
    error.add_note(
        f"raised in environment {i} of the vector environment; reset it before its next step"
    )
    return error
