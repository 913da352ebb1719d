"""Many episodes at once, each at its own pace, as exact trajectories.

Every episode is a coroutine: it resets its environment, asks the policy, steps, and asks again.
Environments run in a bounded thread pool, one thread at a time each, but for those that answer in
less time than the hand-over to a thread costs; the policy decides how to batch what waits for it.
The whole runs on an event loop of its own thread, so that it can be called from a notebook or from
inside another loop.
"""

import asyncio
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import gymnasium

from ..verifiers import UsageError, Verdict
from .types import Policy, Sampling, StopReason, Trajectory, Turn

T = TypeVar("T")

ENV_THREADS = 32
"""Environment steps that run at the same time at most."""

GROW_AFTER = 0.005
"""Seconds that calls wait for the first worker before others join: many threads of microsecond
steps take the interpreter's lock from each other."""

QUICK = 0.001
"""Seconds under which an environment's `reset` or `step` counts as quick."""

PATIENCE = 0.05
"""Seconds that calls taken for quick may block the event loop before a rollout stops taking any."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One episode to be run."""

    env: "gymnasium.Env[str, str]"
    """An environment that no other episode of the call uses."""
    seed: int
    """Seeds the policy's draws; different for the members of a group."""
    env_seed: int | None = None
    """Seeds the environment; the same for the members of a group."""
    index: int | None = None
    """Which task, or `None` to let the environment draw one."""
    group: int = 0
    """Number of the group."""


def rollout(
    episodes: Sequence[Episode],
    policy: Policy,
    sampling: Sampling | None = None,
    clock: dict[str, float] | None = None,
) -> list[Trajectory]:
    """Run episodes to their end.

    Args:
        episodes: What to run; no environment twice.
        policy: Who acts.
        sampling: How it draws; each episode's own seed replaces `sampling.seed`.
        clock: If given, `clock["environments"]` grows by the seconds in which some environment
            was resetting, stepping or verifying.

    Returns:
        One trajectory per episode, in the same order.

    Raises:
        UsageError: An environment stands in two episodes.
    """
    if len({id(episode.env) for episode in episodes}) != len(episodes):
        raise UsageError("an environment stands in two episodes of one rollout; make one for each")
    return _run(_all(episodes, policy, sampling or Sampling(), {} if clock is None else clock))


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, on this thread or, where a loop runs already, on another."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(_outcome(work)), daemon=True)
    thread.start()
    thread.join()
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


def _outcome(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return asyncio.run(work)
    except BaseException as error:
        return error


async def _all(
    episodes: Sequence[Episode], policy: Policy, sampling: Sampling, clock: dict[str, float]
) -> list[Trajectory]:
    steps = EnvThreads()
    announce: Callable[[], AbstractContextManager[None]]
    announce = getattr(policy, "episode", nullcontext)
    tasks: list[asyncio.Future[Trajectory]] = []
    try:
        with announce():  # held until every episode is announced, so that none starts alone
            tasks = [
                asyncio.ensure_future(_episode(e, policy, sampling, steps, announce()))
                for e in episodes
            ]
            await asyncio.sleep(0)
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        clock["environments"] = clock.get("environments", 0.0) + steps.seconds


async def _episode(
    episode: Episode,
    policy: Any,
    sampling: Sampling,
    steps: "EnvThreads",
    announced: AbstractContextManager[None],
) -> Trajectory:
    env = episode.env
    with announced:
        options = None if episode.index is None else {"index": episode.index}
        observation, info = await steps.call(
            env, "reset", lambda: env.reset(seed=episode.env_seed, options=options)
        )
        out = _begin(episode, policy, observation, info)
        while True:
            room = policy.context - len(out.tokens)
            if room < 1:
                return _outgrown(out, policy.context)
            turn = replace(sampling, seed=episode.seed, max_tokens=min(sampling.max_tokens, room))
            completion = await policy.generate(out.tokens, turn)
            start = len(out.tokens)
            text = policy.format.text(completion.tokens)
            _extend(out, completion.tokens, completion.logprobs, trained=True)
            out.messages.append({"role": "assistant", "content": text})
            out.version, out.near_ties = completion.version, out.near_ties + completion.near_ties
            observation, reward, terminated, truncated, info = await steps.call(
                env, "step", lambda text=text: env.step(text)
            )
            _book(out, start, float(reward), completion.stop_reason, info)
            out.truncated |= truncated
            if terminated or truncated:
                return out
            said = info.get("messages") or [{"role": "user", "content": str(observation)}]
            delta = policy.format.delta(said, completion.tokens)
            _extend(out, delta, [0.0] * len(delta), trained=False)
            out.messages += [dict(message) for message in said]


def _begin(episode: Episode, policy: Any, observation: Any, info: Mapping[str, Any]) -> Trajectory:
    """Render the prompt."""
    messages = info.get("messages") or [{"role": "user", "content": str(observation)}]
    spec = episode.env.spec
    out = Trajectory(
        env=spec.id if spec else type(episode.env.unwrapped).__name__,
        task_id=str(info.get("task_id", "")),
        group=episode.group,
        seed=episode.seed,
        messages=[dict(message) for message in messages],
    )
    ids = policy.format.prompt(messages, info.get("tools") or ())
    _extend(out, ids, [0.0] * len(ids), trained=False)
    return out


def _extend(
    out: Trajectory, tokens: Sequence[int], logprobs: Sequence[float], *, trained: bool
) -> None:
    out.tokens += tokens
    out.logprobs += logprobs
    out.trained += [trained] * len(tokens)


def _book(
    out: Trajectory, start: int, reward: float, reason: StopReason, info: Mapping[str, Any]
) -> None:
    """Enter one step's outcome."""
    out.turns.append(Turn(start=start, end=len(out.tokens), reward=reward, stop_reason=reason))
    out.truncated |= reason is StopReason.LENGTH
    out.verdict = dict(info.get("verdict") or {})
    out.reward += reward
    out.scored = out.scored and not info.get("unscored", False) and math.isfinite(reward)
    if not out.scored:
        out.reward = math.nan


def _outgrown(out: Trajectory, context: int) -> Trajectory:
    """Close an episode whose conversation has filled the context."""
    out.truncated = True
    if not out.turns:
        out.scored, out.reward = False, math.nan
        reason = f"the prompt has {len(out.tokens)} tokens, the model's context is {context}"
        out.verdict = Verdict.error(reason).to_json(cost=False)
    return out


class EnvThreads:
    """A bounded pool that steps environments, cheap for thousands of steps of microseconds.

    A worker takes calls from one queue until it is empty, so that a call costs a queue entry, not
    a hand-over between threads. One worker begins; if calls still wait after `GROW_AFTER`, the
    steps are slow and the others join, so that a slow step holds up its own worker alone. The
    threads outlive a rollout and serve the next one.

    An environment whose last call of a kind was quick is called on the event loop's own thread,
    which saves the hand-over; calls that turn out slow there end that after `PATIENCE`.
    """

    _threads = ThreadPoolExecutor(ENV_THREADS, thread_name_prefix="rlvr-env")
    _last: ClassVar["weakref.WeakKeyDictionary[Any, dict[str, float]]"] = (
        weakref.WeakKeyDictionary()
    )
    """Per environment and kind of call, the seconds that the last one took."""

    def __init__(self) -> None:
        """Deliver results on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._calls: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._done: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []
        self._workers = 0
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0
        self._blocked = 0.0
        self.seconds = 0.0
        """Time during which at least one call ran."""

    async def call(self, env: Any, kind: str, function: Callable[[], T]) -> T:
        """Run a call of an environment and wait for what it returns or raises."""
        last = self._last.setdefault(env, {})
        if last.get(kind, QUICK) >= QUICK or self._blocked > PATIENCE:
            return await self._hand_over(lambda: _timed(function, last, kind))
        try:
            return _timed(function, last, kind)
        finally:
            self.seconds += last[kind]
            self._blocked += last[kind] if last[kind] >= QUICK else 0.0

    async def _hand_over(self, function: Callable[[], T]) -> T:
        """Run a function in the pool and wait for what it returns or raises."""
        future: asyncio.Future[T] = self._loop.create_future()
        with self._lock:
            self._calls.append((function, future))
            start = not self._workers
            if start:
                self._since = time.perf_counter()
                self._workers = 1
        if start:
            self._threads.submit(self._work)
        elif self._timer is None:
            self._timer = self._loop.call_later(GROW_AFTER, self._grow)
        return await future

    def _grow(self) -> None:
        """Let more workers join if calls wait."""
        self._timer = None
        with self._lock:
            more = min(ENV_THREADS - self._workers, len(self._calls)) if self._workers else 0
            self._workers += more
            waiting = bool(self._calls) and self._workers < ENV_THREADS
        for _ in range(more):
            self._threads.submit(self._work)
        if waiting:
            self._timer = self._loop.call_later(GROW_AFTER, self._grow)

    def _next(self) -> tuple[Callable[[], Any], "asyncio.Future[Any]"] | None:
        with self._lock:
            if self._calls:
                return self._calls.popleft()
            self._workers -= 1
            if not self._workers:
                self.seconds += time.perf_counter() - self._since
            return None

    def _work(self) -> None:
        while (item := self._next()) is not None:
            function, future = item
            if future.cancelled():
                continue
            value, failure = None, None
            try:
                value = function()
            except BaseException as error:
                failure = error
            with self._lock:
                self._done.append((future, value, failure))
                first = len(self._done) == 1
            if first:
                self._notify()

    def _notify(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            return  # the loop has ended: nobody waits any more

    def _deliver(self) -> None:
        with self._lock:
            done, self._done = self._done, []
        for future, value, failure in done:
            if future.done():
                continue
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(value)


def _timed(function: Callable[[], T], last: dict[str, float], kind: str) -> T:
    """Run a function and note how long it took."""
    began = time.perf_counter()
    try:
        return function()
    finally:
        last[kind] = time.perf_counter() - began
