"""Values by rollouts: V(s_t) as the mean reward of completions that go on from s_t.

An estimate without a critic, unbiased and independent of the completion's own reward, for the price
of sampling it: `value_rollouts` completions for every place of every episode. Equal prefixes within
a group are one state and share their estimate. For environments of one turn.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..agents.rollouts import Episode, rollout
from ..agents.types import Completion, Sampling, Trajectory
from ..verifiers import UsageError
from .config import CriticConfig
from .sources import Prompt, Source

Place = tuple[int, tuple[int, ...]]
"""A state: group, and the tokens sampled so far."""


class Continuing:
    """A policy whose completions begin as told: each episode's seed names its beginning."""

    def __init__(self, policy: Any, beginnings: Mapping[int, Sequence[int]]) -> None:
        """Wrap a policy.

        Args:
            policy: Who goes on from there.
            beginnings: Per episode seed, the tokens that its completion begins with.
        """
        self._policy, self._beginnings = policy, beginnings
        self.drawn = 0
        """Tokens drawn beyond the beginnings."""

    def __getattr__(self, name: str) -> Any:
        """Be the policy in everything else."""
        return getattr(self._policy, name)

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Draw the rest of a completion; the whole is returned."""
        begun = list(self._beginnings[sampling.seed])
        room = sampling.max_tokens - len(begun)
        rest = await self._policy.generate(
            [*prompt_ids, *begun], dataclasses.replace(sampling, max_tokens=room)
        )
        self.drawn += len(rest.tokens)
        return dataclasses.replace(
            rest,
            tokens=[*begun, *rest.tokens],
            logprobs=[*[0.0] * len(begun), *rest.logprobs],
        )


class Branches:
    """Estimates values by branching episodes."""

    def __init__(
        self, config: CriticConfig, sources: Sequence[Source], policy: Any, sampling: Sampling
    ) -> None:
        """Remember how many branches to draw, and where."""
        self.config, self.sources = config, sources
        self.policy, self.sampling = policy, sampling

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
            branch was unscored; and the tokens that were drawn for it.

        Raises:
            UsageError: An episode has several turns.
        """
        places: dict[Place, None] = {}
        for trajectory in trajectories:
            places |= dict.fromkeys(self._places(trajectory))
        order = list(places)
        if not order:
            return [[] for _ in trajectories], 0
        found, drawn = self._estimate(order, prompts, entropy, clock)
        return [self._read(trajectory, found) for trajectory in trajectories], drawn

    def _places(self, trajectory: Trajectory) -> list[Place]:
        if len(trajectory.turns) > 1:
            raise UsageError(
                f"critic='rollouts' branches episodes of one turn, and {trajectory.env} had "
                f"{len(trajectory.turns)}; use critic='head' or 'model'"
            )
        tokens = _sampled(trajectory)
        every = range(0, len(tokens), self.config.value_every)
        return [(trajectory.group, tuple(tokens[:at])) for at in every]

    def _estimate(
        self,
        order: Sequence[Place],
        prompts: Sequence[Prompt],
        entropy: Sequence[int],
        clock: dict[str, float],
    ) -> tuple[dict[Place, float], int]:
        """Roll every place out, as many at a time as the policy decodes together."""
        count, found, drawn = self.config.value_rollouts, {}, 0
        seeds = np.random.SeedSequence(list(entropy)).generate_state(len(order) * count, np.uint64)
        at_once = max(1, self.policy.max_rows // count)
        for start in range(0, len(order), at_once):
            some = order[start : start + at_once]
            own = [int(s) for s in seeds[start * count : (start + len(some)) * count]]
            episodes = self._episodes(some, prompts, own)
            begun = {seed: some[i // count][1] for i, seed in enumerate(own)}
            policy: Any = Continuing(self.policy, begun)
            ends = rollout(episodes, policy, self.sampling, clock)
            drawn += policy.drawn
            for i, place in enumerate(some):
                scores = [t.reward for t in ends[i * count : (i + 1) * count] if t.scored]
                found[place] = sum(scores) / len(scores) if scores else math.nan
        return found, drawn

    def _episodes(
        self, places: Sequence[Place], prompts: Sequence[Prompt], seeds: Sequence[int]
    ) -> list[Episode]:
        count = self.config.value_rollouts
        asked = [prompts[group] for group, _ in places for _ in range(count)]
        need = [sum(p.source == i for p in asked) for i in range(len(self.sources))]
        free = [iter(s.instances(n)) for s, n in zip(self.sources, need, strict=True)]
        return [
            Episode(
                env=next(free[prompt.source]),
                seed=seed,
                env_seed=prompt.env_seed,
                index=prompt.index,
                group=i,
            )
            for i, (prompt, seed) in enumerate(zip(asked, seeds, strict=True))
        ]

    def _read(self, trajectory: Trajectory, found: dict[Place, float]) -> list[float]:
        """Return a trajectory's values, each place's until the next one."""
        tokens, every = _sampled(trajectory), self.config.value_every
        return [
            found[trajectory.group, tuple(tokens[: at - at % every])] for at in range(len(tokens))
        ]


def _sampled(trajectory: Trajectory) -> list[int]:
    """Return the tokens of the only turn."""
    if not trajectory.turns:
        return []
    turn = trajectory.turns[0]
    return trajectory.tokens[turn.start : turn.end]
