"""Values by rollouts: V(s_t) as the mean reward of episodes that go on from s_t.

An estimate without a critic, unbiased and independent of the episode's own reward, for the price of
sampling it: `value_rollouts` episodes for every place of every episode. Equal prefixes within a
group are one state and share their estimate.

In an environment of several turns, each episode is gone through once more with its own actions, to
take a snapshot at the start of every turn but the first; branches go on from there, with exactly
the tokens that were sampled up to their place.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from ..agents.conversation import new_messages
from ..agents.rollouts import Episode, rollout
from ..agents.types import Completion, Sampling, StopReason, Trajectory
from ..verifiers import UsageError
from .config import CriticConfig
from .sources import Prompt, Source

Place = tuple[int, tuple[int, ...]]
"""A state: number of the start, and the tokens of the turn so far."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where turns begin: the same state for every episode of a group that came to it."""

    group: int
    """Which prompt."""
    tokens: Sequence[int] = ()
    """The conversation up to there; none: the beginning of the episode."""
    snapshot: Any = None
    """Of the environment; none: the beginning of the episode."""
    paid: float = 0.0
    """What the turns before were paid."""


class Continuing:
    """A policy whose first completions are given: each episode's seed names its own."""

    def __init__(self, policy: Any, beginnings: Mapping[int, Sequence[Sequence[int]]]) -> None:
        """Wrap a policy.

        Args:
            policy: Who goes on from there.
            beginnings: Per episode seed, the tokens that its first, second, … completion begins
                with; all but the last are completions as they are.
        """
        self._policy = policy
        self._left = {seed: list(some) for seed, some in beginnings.items()}
        self.drawn = 0
        """Tokens drawn beyond the beginnings."""

    def __getattr__(self, name: str) -> Any:
        """Be the policy in everything else."""
        return getattr(self._policy, name)

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Draw the rest of a completion; the whole is returned."""
        left = self._left[sampling.seed]
        begun = list(left.pop(0)) if left else []
        if left:
            zeros = [0.0] * len(begun)
            return Completion(tokens=begun, logprobs=zeros, stop_reason=StopReason.STOP)
        room = sampling.max_tokens - len(begun)
        rest = await self._policy.generate(
            [*prompt_ids, *begun], dataclasses.replace(sampling, max_tokens=room)
        )
        self.drawn += len(rest.tokens)
        return dataclasses.replace(
            rest,
            tokens=[*begun, *rest.tokens],
            logprobs=[*[0.0] * len(begun), *rest.logprobs],
            kept=None,  # values are read off, and nothing is learned from the tokens
        )


class Branches:
    """Estimates values by branching episodes."""

    def __init__(
        self,
        config: CriticConfig,
        sources: Sequence[Source],
        policy: Any,
        sampling: Sampling,
        reweigh: Callable[[Sequence[Trajectory]], list[Trajectory]] = list,
        *,
        to_go: bool = False,
    ) -> None:
        """Remember how many branches to draw, where, and how their rewards are reckoned.

        Args:
            config: How many branches, at which tokens.
            sources: Where the prompts come from.
            policy: Who goes on.
            sampling: How.
            reweigh: What is made of the branches' rewards.
            to_go: Whether a value is what is still to be paid; else it is the whole episode's
                reward, earlier turns included, as fits a score that is booked at the end.
        """
        self.config, self.sources = config, sources
        self.policy, self.sampling = policy, sampling
        self.reweigh, self.to_go = reweigh, to_go

    def values(
        self,
        trajectories: Sequence[Trajectory],
        prompts: Sequence[Prompt],
        entropy: Sequence[int],
        clock: dict[str, float],
    ) -> tuple[list[list[float]], int]:
        """Estimate the value before every token.

        Args:
            trajectories: The episodes; group g answers `prompts[g]`.
            prompts: What they answer.
            entropy: What the branches' seeds are derived from.
            clock: Grows by the seconds spent in environments.

        Returns:
            Per trajectory a value for each token from the first sampled one on, nan where every
            branch was unscored and 0 at the environment's tokens; and the tokens that were drawn
            for it.

        Raises:
            UsageError: An episode has several turns, and its environment no `snapshot()`, or
                another answer to the same actions.
        """
        with self._begun(trajectories, prompts, clock) as (starts, numbers):
            places: dict[Place, None] = {}
            for trajectory, turns in zip(trajectories, numbers, strict=True):
                places |= dict.fromkeys(place for _, place in self._places(trajectory, turns))
            order = list(places)
            if not order:
                return [[] for _ in trajectories], 0
            found, drawn = self._estimate(order, starts, prompts, entropy, clock)
        return [
            self._read(trajectory, turns, found)
            for trajectory, turns in zip(trajectories, numbers, strict=True)
        ], drawn

    @contextmanager
    def _begun(
        self, trajectories: Sequence[Trajectory], prompts: Sequence[Prompt], clock: dict[str, float]
    ) -> Iterator[tuple[list[Start], list[list[int]]]]:
        """Find where turns begin, and per trajectory the number of the start of each turn."""
        names: dict[tuple[int, tuple[int, ...]], int] = {}
        firsts: list[tuple[int, int]] = []
        numbers: list[list[int]] = []
        for row, trajectory in enumerate(trajectories):
            numbers.append([])
            for at, turn in enumerate(trajectory.turns):
                key = (trajectory.group, tuple(trajectory.tokens[: turn.start]) if at else ())
                if key not in names:
                    names[key] = len(names)
                    firsts.append((row, at))
                numbers[-1].append(names[key])
        taken = self._snapshots(trajectories, prompts, [f for f in firsts if f[1]], clock)
        try:
            yield (
                [_start(trajectories[row], at, taken.get((row, at))) for row, at in firsts],
                numbers,
            )
        finally:
            for snapshot in taken.values():
                getattr(snapshot, "close", lambda: None)()

    def _snapshots(
        self,
        trajectories: Sequence[Trajectory],
        prompts: Sequence[Prompt],
        wanted: Sequence[tuple[int, int]],
        clock: dict[str, float],
    ) -> dict[tuple[int, int], Any]:
        """Go through episodes again, and return snapshots by row and turn."""
        turns: dict[int, list[int]] = {}
        for row, at in wanted:
            turns.setdefault(row, []).append(at)
        rows = list(turns)
        if not rows:
            return {}
        asked = [prompts[trajectories[row].group] for row in rows]
        envs = [
            _Recorded(env, turns[row]) for env, row in zip(self._free(asked), rows, strict=True)
        ]
        given = {row: [*_actions(trajectories[row])[: max(turns[row])], ()] for row in rows}
        policy: Any = Continuing(self.policy, given)
        episodes = [
            Episode(env=env, seed=row, env_seed=prompt.env_seed, index=prompt.index)
            for env, row, prompt in zip(envs, rows, asked, strict=True)
        ]
        again = rollout(episodes, policy, self.sampling, clock)
        for row, one, env in zip(rows, again, envs, strict=True):
            _check_same(trajectories[row], one, new_messages(env.info, one.messages, env.newest))
        return {
            (row, at): snapshot
            for env, row in zip(envs, rows, strict=True)
            for at, snapshot in env.taken.items()
        }

    def _places(self, trajectory: Trajectory, turns: Sequence[int]) -> Iterator[tuple[int, Place]]:
        """Yield every place of an episode with its index among the tokens."""
        for turn, number in zip(trajectory.turns, turns, strict=True):
            tokens = tuple(trajectory.tokens[turn.start : turn.end])
            for at in range(0, len(tokens), self.config.value_every):
                yield turn.start + at, (number, tokens[:at])

    def _estimate(
        self,
        order: Sequence[Place],
        starts: Sequence[Start],
        prompts: Sequence[Prompt],
        entropy: Sequence[int],
        clock: dict[str, float],
    ) -> tuple[dict[Place, float], int]:
        """Roll every place out, as many at a time as the policy decodes together."""
        count, found, drawn = self.config.value_rollouts, {}, 0
        seeds = np.random.SeedSequence(list(entropy)).generate_state(len(order) * count, np.uint64)
        at_once = max(1, self.policy.max_rows // count)
        for first in range(0, len(order), at_once):
            some = order[first : first + at_once]
            own = [int(s) for s in seeds[first * count : (first + len(some)) * count]]
            episodes = self._episodes([starts[number] for number, _ in some], prompts, own)
            begun = {seed: [some[i // count][1]] for i, seed in enumerate(own)}
            policy: Any = Continuing(self.policy, begun)
            ends = self.reweigh(rollout(episodes, policy, self.sampling, clock))
            drawn += policy.drawn
            for i, place in enumerate(some):
                scores = [t.reward for t in ends[i * count : (i + 1) * count] if t.scored]
                paid = 0.0 if self.to_go else starts[place[0]].paid
                found[place] = paid + sum(scores) / len(scores) if scores else math.nan
        return found, drawn

    def _episodes(
        self, starts: Sequence[Start], prompts: Sequence[Prompt], seeds: Sequence[int]
    ) -> list[Episode]:
        each = [start for start in starts for _ in range(self.config.value_rollouts)]
        asked = [prompts[start.group] for start in each]
        return [
            Episode(
                env=env if start.snapshot is None else _Resumed(env, start.snapshot),
                seed=seed,
                env_seed=prompt.env_seed,
                index=prompt.index,
                group=i,
                begun=start.tokens,
            )
            for i, (env, start, prompt, seed) in enumerate(
                zip(self._free(asked), each, asked, seeds, strict=True)
            )
        ]

    def _free(self, asked: Sequence[Prompt]) -> list["gymnasium.Env[str, str]"]:
        """Return an environment for each prompt, none twice."""
        need = [sum(p.source == i for p in asked) for i in range(len(self.sources))]
        free = [iter(s.instances(n)) for s, n in zip(self.sources, need, strict=True)]
        return [next(free[prompt.source]) for prompt in asked]

    def _read(
        self, trajectory: Trajectory, turns: Sequence[int], found: Mapping[Place, float]
    ) -> list[float]:
        """Return a trajectory's values, each place's until the next one."""
        if not trajectory.turns:
            return []
        first, last = trajectory.turns[0].start, trajectory.turns[-1].end
        ends = {i: turn.end for turn in trajectory.turns for i in range(turn.start, turn.end)}
        out = [0.0] * (last - first)
        for at, place in self._places(trajectory, turns):
            end = min(at + self.config.value_every, ends[at])
            out[at - first : end - first] = [found[place]] * (end - at)
        return out


class _Recorded(gymnasium.Wrapper[str, str, str, str]):
    """Takes snapshots on the way, and ends the episode with the last one."""

    def __init__(self, env: "gymnasium.Env[str, str]", turns: Sequence[int]) -> None:
        super().__init__(env)
        self.turns = turns
        """After how many actions."""
        self.taken: dict[int, Any] = {}
        """The snapshots by the number of actions before."""
        self.newest, self.info = "", {}
        """What the last step returned."""
        self._done = 0
        if not env.has_wrapper_attr("snapshot"):
            raise UsageError(
                f"critic='rollouts' goes on from the middle of an episode, and {env} has no "
                "snapshot(); give it snapshot() and restore(), or use critic='head' or 'model'"
            )

    def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        """Step, and take what is wanted here."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._done += 1
        self.newest, self.info = observation, info
        if self._done in self.turns and not (terminated or truncated):
            self.taken[self._done] = self.env.get_wrapper_attr("snapshot")()
        over = self._done >= max(self.turns)
        if over and self.env.has_wrapper_attr("abandon"):
            self.env.get_wrapper_attr("abandon")()
        return observation, reward, terminated, truncated or (over and not terminated), info


class _Resumed(gymnasium.Wrapper[str, str, str, str]):
    """Begins an episode where a snapshot was taken."""

    def __init__(self, env: "gymnasium.Env[str, str]", snapshot: Any) -> None:
        super().__init__(env)
        self._snapshot = snapshot

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Restore the snapshot."""
        if self.env is not self.env.unwrapped:  # wrappers begin to count at a reset
            self.env.reset(seed=seed, options=options)
        return self.env.get_wrapper_attr("restore")(self._snapshot)


def _start(trajectory: Trajectory, at: int, snapshot: Any) -> Start:
    """Return the start of a turn."""
    if not at:
        return Start(group=trajectory.group)
    return Start(
        group=trajectory.group,
        tokens=tuple(trajectory.tokens[: trajectory.turns[at].start]),
        snapshot=snapshot,
        paid=sum(turn.reward for turn in trajectory.turns[:at]),
    )


def _actions(trajectory: Trajectory) -> list[Sequence[int]]:
    """Return the tokens of every turn."""
    return [trajectory.tokens[turn.start : turn.end] for turn in trajectory.turns]


def _check_same(
    trajectory: Trajectory, again: Trajectory, said: Sequence[Mapping[str, Any]]
) -> None:
    """Refuse an episode that went otherwise than before with the same actions.

    Raises:
        UsageError: It did.
    """
    told = [message["content"] for message in (*again.messages, *said)]
    before = [message["content"] for message in trajectory.messages[: len(told)]]
    paid = [turn.reward for turn in again.turns]
    if told != before or paid != [turn.reward for turn in trajectory.turns[: len(paid)]]:
        raise UsageError(
            f"critic='rollouts' went through an episode of {trajectory.env} (task "
            f"'{trajectory.task_id}') again, and the same actions brought another answer; make the "
            "environment depend on its seed and the actions alone, or use critic='head' or 'model'"
        )
