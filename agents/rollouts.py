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
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import gymnasium

from ..verifiers import ModelError, TrainingStopped, UsageError, Verdict
from ..verifiers.protocol import failure
from .conversation import check_once, new_messages
from .endpoints import EndpointError
from .env_threads import EnvThreads
from .kept import Kept
from .messages import MessagePolicy, Transcript, action_of
from .types import Completion, Policy, Sampling, StopReason, Trajectory, Turn

T = TypeVar("T")

FATAL = (UsageError, ModelError, TrainingStopped)
"""Errors of the caller or the model; anything else that an environment raises is that episode's."""


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
    begun: Sequence[int] = ()
    """The tokens of the conversation that `reset` brings, where that is the middle of an episode;
    none: its prompt is rendered."""


def rollout(
    episodes: Sequence[Episode],
    policy: Policy | MessagePolicy,
    sampling: Sampling | None = None,
    clock: dict[str, float] | None = None,
) -> list[Trajectory]:
    """Run episodes to their end.

    An episode whose conversation outgrows the model's context ends there as `truncated`: its tokens
    end with the last action, it keeps what its turns were paid, and the verdict that it can no
    longer get is `limit`, which pays 0. One whose prompt leaves no room is unscored.

    An environment that raises loses its own episode alone, which is unscored and says why. If all
    of them raise, the first error is raised here: then it is no matter of one episode.

    Args:
        episodes: What to run; no environment twice.
        policy: Who acts; the trajectories of a `MessagePolicy` have no tokens, but their number.
        sampling: How it draws; each episode's own seed replaces `sampling.seed`.
        clock: If given, `clock["environments"]` grows by the seconds in which some environment
            was resetting, stepping or verifying.

    Returns:
        One trajectory per episode, in the same order.

    Raises:
        UsageError: An environment stands in two episodes, or was used wrongly.
        ModelError: The chat template cannot hold such a conversation, or the model failed.
        Exception: What the first environment raised, if every one did.
    """
    if len({id(episode.env) for episode in episodes}) != len(episodes):
        raise UsageError("an environment stands in two episodes of one rollout; make one for each")
    format = getattr(policy, "format", None)  # a policy of messages leaves it to the other side
    if format and any(getattr(episode.env.unwrapped, "turns", 1) > 1 for episode in episodes):
        check_once(format)
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
    episodes: Sequence[Episode], policy: Any, sampling: Sampling, clock: dict[str, float]
) -> list[Trajectory]:
    steps = EnvThreads()
    announce: Callable[[], AbstractContextManager[None]]
    announce = getattr(policy, "episode", nullcontext)
    kind = _MessageRun if hasattr(policy, "reply") else _Run
    runs = [kind(episode, policy, sampling, steps) for episode in episodes]
    tasks: list[asyncio.Future[Trajectory]] = []
    try:
        with announce():  # held until every episode is announced, so that none starts alone
            tasks = [asyncio.ensure_future(run.play(announce())) for run in runs]
            await asyncio.sleep(0)
        found = list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        clock["environments"] = clock.get("environments", 0.0) + steps.seconds
    errors = [run.error for run in runs if run.error is not None]
    if errors and len(errors) == len(runs):
        raise errors[0]
    return found


class _Run:
    """One episode on its way."""

    def __init__(
        self, episode: Episode, policy: Any, sampling: Sampling, steps: EnvThreads
    ) -> None:
        self.env, self.policy, self.sampling, self.steps = episode.env, policy, sampling, steps
        self.episode = episode
        self.tools: Sequence[Any] = ()
        self.error: Exception | None = None
        """What the environment raised."""
        spec = episode.env.spec
        self.out = Trajectory(
            env=spec.id if spec else type(episode.env.unwrapped).__name__,
            task_id="",
            group=episode.group,
            seed=episode.seed,
        )

    async def play(self, announced: AbstractContextManager[None]) -> Trajectory:
        """Run the episode to its end."""
        with announced:
            if await self._begin():
                while await self._act():
                    pass
        self._close()
        return self.out

    def _close(self) -> None:
        if not self.out.tokens:  # nothing was asked, and a row of a batch cannot be empty
            self._extend([min(self.policy.format.eos_ids)])

    async def _begin(self) -> bool:
        """Reset the environment and render the prompt; returns whether the policy can act."""
        options = None if self.episode.index is None else {"index": self.episode.index}
        began = await self._ask(
            "reset", lambda: self.env.reset(seed=self.episode.env_seed, options=options)
        )
        if began is None:
            return False
        observation, info = began
        messages = info.get("messages") or [{"role": "user", "content": str(observation)}]
        self.tools = info.get("tools") or ()
        self.out.task_id = str(info.get("task_id", ""))
        self.out.messages = [dict(message) for message in messages]
        return self._open(messages)

    def _open(self, messages: Sequence[Mapping[str, Any]]) -> bool:
        """Take the prompt; returns whether the policy can act."""
        ids = self.episode.begun or self.policy.format.prompt(messages, self.tools)
        self._extend(ids[: self.policy.context])
        if len(ids) < self.policy.context:
            return True
        self._outgrown(
            Verdict.error(
                f"the prompt has {len(ids)} tokens, the model's context is {self.policy.context}"
            )
        )
        self.out.scored, self.out.reward = False, math.nan
        return False

    async def _act(self) -> bool:
        """Take one turn; returns whether the policy can act again."""
        out = self.out
        try:
            spoken = await self._speak()
        except BaseException:
            self._abandon()
            raise
        if spoken is None:
            return False
        text, start, completion = spoken
        history = [*out.messages]
        out.messages.append({"role": "assistant", "content": text})
        answer = await self._ask("step", lambda: self.env.step(text))
        if answer is None:
            self._book(start, math.nan, completion, {"verdict": out.verdict})
            return False
        observation, reward, terminated, truncated, info = answer
        self._book(start, float(reward), completion, info)
        out.truncated |= truncated
        if terminated or truncated:
            return False
        said = new_messages(info, out.messages, observation)
        if not self._hear(said, completion, history):
            return False
        out.messages += [dict(message) for message in said]
        return True

    async def _speak(self) -> tuple[str, int, Completion] | None:
        """Have the policy act; returns the text, where its tokens start, and the completion."""
        out, policy = self.out, self.policy
        room = policy.context - len(out.tokens)
        limit = min(self.sampling.max_tokens, room)
        turn = replace(self.sampling, seed=self.episode.seed, max_tokens=limit)
        completion = await policy.generate(out.tokens, turn)
        start = len(out.tokens)
        self._extend(completion.tokens, completion.logprobs, completion.kept)
        return policy.format.text(completion.tokens), start, completion

    def _hear(
        self,
        said: Sequence[Mapping[str, Any]],
        completion: Completion,
        history: Sequence[Mapping[str, Any]],
    ) -> bool:
        """Take what the environment said; returns whether the policy can act again."""
        out, policy = self.out, self.policy
        delta = policy.format.delta(said, completion.tokens, history=history, tools=self.tools)
        total = len(out.tokens) + len(delta)
        if total >= policy.context:
            reason = (
                f"the conversation has {total} tokens with what the environment said last, the "
                f"model's context is {policy.context}"
            )
            self._outgrown(Verdict.limit(reason))
            return False
        self._extend(delta)
        return True

    async def _ask(self, kind: str, call: Callable[[], T]) -> T | None:
        """Call the environment; an error of its own ends the episode, unscored."""
        try:
            return await self.steps.call(self.env, kind, call)
        except FATAL:
            raise
        except Exception as error:
            self._fail(error)
            return None

    def _fail(self, error: Exception) -> None:
        """Leave the episode unscored."""
        self.error, self.out.scored, self.out.reward = error, False, math.nan
        self.out.verdict = failure(error).to_json(cost=False)
        self._abandon()

    def _extend(
        self,
        tokens: Sequence[int],
        logprobs: Sequence[float] | None = None,
        kept: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Append tokens; those with log-probabilities are the policy's."""
        if kept is not None and self.out.kept is None:
            self.out.kept = Kept()
            self.out.kept.skip(len(self.out.tokens))
        if kept is not None and self.out.kept is not None:
            self.out.kept.extend(kept)
        elif self.out.kept is not None:
            self.out.kept.skip(len(tokens))
        self.out.tokens += tokens
        self.out.logprobs += [0.0] * len(tokens) if logprobs is None else logprobs
        self.out.trained += [logprobs is not None] * len(tokens)

    def _book(
        self, start: int, reward: float, completion: Completion, info: Mapping[str, Any]
    ) -> None:
        """Enter one step's outcome."""
        out, reason = self.out, completion.stop_reason
        out.turns.append(
            Turn(
                start=start,
                end=start + len(completion.tokens),
                reward=reward,
                stop_reason=reason,
                version=completion.version,
                spans=completion.spans,
            )
        )
        out.version, out.near_ties = completion.version, out.near_ties + completion.near_ties
        out.truncated |= reason is StopReason.LENGTH
        out.verdict = dict(info.get("verdict") or {})
        out.reward += reward
        out.scored = out.scored and not info.get("unscored", False) and math.isfinite(reward)
        if not out.scored:
            out.reward = math.nan

    def _outgrown(self, verdict: Verdict) -> None:
        """Close an episode whose conversation has no room in the context."""
        self.out.truncated = True
        self.out.verdict = self.out.verdict or verdict.to_json(cost=False)
        self._abandon()

    def _abandon(self) -> None:
        """Let the environment free what an episode holds that will not go on."""
        abandon = getattr(self.env.unwrapped, "abandon", None)
        if abandon is not None:
            abandon()


class _MessageRun(_Run):
    """An episode with a policy that answers messages and shows no tokens, but their number."""

    def _open(self, messages: Sequence[Mapping[str, Any]]) -> bool:
        self.transcript = Transcript()
        self.transcript.hear(messages)
        return True

    async def _speak(self) -> tuple[str, int, Completion] | None:
        turn = replace(self.sampling, seed=self.episode.seed)
        try:
            answer = await self.policy.reply(self.transcript.messages, turn, self.tools)
        except EndpointError as error:
            if error.fatal and not error.outgrown:
                raise
            while self.out.turns and self.out.messages[-1]["role"] != "assistant":
                self.out.messages.pop()
            self._end(error)
            return None
        self.transcript.say(answer)
        text = action_of(answer, getattr(self.env.unwrapped, "form", "tags"))
        counted = Completion(
            tokens=range(answer.tokens), logprobs=[], stop_reason=answer.stop_reason
        )
        return text, self.out.length, counted

    def _hear(
        self,
        said: Sequence[Mapping[str, Any]],
        completion: Completion,
        history: Sequence[Mapping[str, Any]],
    ) -> bool:
        self.transcript.hear(said)
        return True

    def _end(self, error: EndpointError) -> None:
        """Close an episode that gets no further answer."""
        if not error.outgrown:
            self._fail(error)
        elif self.out.turns:
            self._outgrown(Verdict.limit(str(error)))
        else:
            self._outgrown(Verdict.error(str(error)))
            self.out.scored, self.out.reward = False, math.nan

    def _close(self) -> None:
        """Leave the trajectory without tokens: there is nothing to be learned from it."""
