"""What a training step samples: its episodes, and whatever else an algorithm has to sample for it.

Dynamic sampling draws further prompts until enough groups carry a gradient; a greedy baseline is
one more completion of each prompt; values by rollouts are completions branched off at every token.
All of it follows from (seed, step) and from how far the walks through the tasks have come, which is
what a checkpoint holds. Rewards are regraded as soon as a group is complete, so that all that is
decided by them afterwards is decided by those that are trained on.
"""

import dataclasses
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch

from ..agents.kept import Kept
from ..agents.rollouts import rollout
from ..agents.types import Sampling, StopReason, Trajectory, Turn, WeightSpan
from ..verifiers import GroupVerifier
from . import functional as F
from .branches import Branches
from .choices import Algorithm
from .config import TrainConfig
from .pair_batches import PairBatches
from .regrading import Regrader
from .sources import Prompt, Schedule, Source, episodes_of, labelled


@dataclass(kw_only=True)
class Collected:
    """What a step sampled."""

    trajectories: list[Trajectory]
    """What is learned from, in whole groups numbered from 0."""
    drawn: list[Trajectory]
    """Everything that was sampled by the policy as it is: what metrics are made of."""
    greedy: list[float] | None = None
    """Score of the greedy completion of each trajectory's prompt, nan where unscored."""
    values: list[list[float]] | None = None
    """Values before each token of each trajectory."""
    metrics: dict[str, float] = field(default_factory=dict)
    """How much was sampled."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, for a checkpoint."""
        out = dataclasses.asdict(self)
        if self.drawn is self.trajectories:
            out["drawn"] = None
        for row in (*out["trajectories"], *(out["drawn"] or ())):
            row["kept"] = None if row["kept"] is None else row["kept"].to_json()
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Collected":
        """Read what `to_json` wrote."""
        learned = _episodes(data["trajectories"])
        drawn = learned if data["drawn"] is None else _episodes(data["drawn"])
        return cls(**{**data, "trajectories": learned, "drawn": drawn})


def _episodes(rows: Iterable[Mapping[str, Any]]) -> list[Trajectory]:
    return [
        Trajectory(
            **{
                **row,
                "turns": [_turn(turn) for turn in row["turns"]],
                "kept": Kept.from_json(row["kept"]) if row.get("kept") else None,
            }
        )
        for row in rows
    ]


def _turn(row: Mapping[str, Any]) -> Turn:
    spans = tuple(WeightSpan(*span) for span in row.get("spans", ()))
    return Turn(**{**row, "stop_reason": StopReason(row["stop_reason"]), "spans": spans})


class Collector:
    """Samples the episodes of each step."""

    def __init__(
        self,
        config: TrainConfig,
        row: Algorithm,
        sources: Sequence[Source],
        schedule: Schedule,
        policy: Any,
        sampling: Sampling,
        group_verifier: GroupVerifier | None = None,
    ) -> None:
        """Remember where prompts come from and who answers."""
        self.config, self.row, self.policy, self.sampling = config, row, policy, sampling
        self.sources, self.schedule = sources, schedule
        by_rollouts = row.needs_values and config.critic.critic == "rollouts"
        self.regrader = Regrader(config, sources, group_verifier)
        self._branches = None
        if by_rollouts:
            reweigh = self.regrader.reweigh
            to_go = row.needs_spans
            self._branches = Branches(
                config.critic, sources, policy, sampling, reweigh, to_go=to_go
            )
        self.waiting: deque[Collected] = deque()
        """What was sampled ahead, oldest first; a checkpoint holds it."""
        self._beside: ThreadPoolExecutor | None = None
        if config.rollout.sample_ahead and getattr(policy, "apart", False):
            self._beside = ThreadPoolExecutor(1, "sampling")
        self._sampling: Future[float] | None = None

    def next(self, step: int, clock: dict[str, float]) -> Collected:
        """Return the episodes that a step learns from, sampled `sample_ahead` steps before it.

        Where the policy draws apart from the learner, what is sampled now for later steps is
        sampled beside it, from here to `settle`, by the same weights as otherwise.

        Args:
            step: Number of the step, from 0.
            clock: Grows by the seconds spent in environments.
        """
        ahead = self.config.rollout.sample_ahead
        self._sample(step, 0 if self._beside else ahead, clock)
        found = self.waiting.popleft()
        if self._beside:
            clock.setdefault("environments", 0.0)
            self._sampling = self._beside.submit(self._sample, step + 1, ahead - 1, clock)
        return found

    def _sample(self, step: int, ahead: int, clock: dict[str, float]) -> float:
        """Sample until a step and those ahead of it have theirs; returns when that was done."""
        while len(self.waiting) <= ahead:
            self.waiting.append(self.collect(step + len(self.waiting), clock))
        return time.perf_counter()

    def settle(self, began: float) -> float:
        """Wait for what is sampled beside the learner, before the weights change.

        Args:
            began: When `next` returned, by `time.perf_counter`.

        Returns:
            Seconds in which sampling and learning went on at the same time.

        Raises:
            Exception: What sampling raised.
        """
        if self._sampling is None:
            return 0.0
        now, sampling, self._sampling = time.perf_counter(), self._sampling, None
        return max(0.0, min(now, sampling.result()) - began)

    def close(self) -> None:
        """Wait for what is being sampled, and end what judges groups."""
        if self._beside:
            self._beside.shutdown()
        self.regrader.close()

    def collect(self, step: int, clock: dict[str, float]) -> Collected:
        """Sample the episodes of a step.

        Args:
            step: Number of the step, from 0.
            clock: Grows by the seconds spent in environments.
        """
        prompts, found = self._round(step, 0, clock)
        out = Collected(trajectories=found, drawn=found)
        if self.row.resamples:
            prompts, out = self._until_alive(step, prompts, found, clock)
        if self.row.needs_greedy:
            out.greedy = self._greedy(step, prompts, out.trajectories, clock)
            unknown = sum(reward != reward for reward in out.greedy)
            out.metrics["greedy_unscored"] = float(unknown)
        if self._branches is not None:
            entropy = [self.config.run.seed, 7, step]
            out.values, tokens = self._branches.values(out.trajectories, prompts, entropy, clock)
            out.metrics["branch_tokens"] = float(tokens)
        return out

    def _round(
        self, step: int, number: int, clock: dict[str, float]
    ) -> tuple[list[Prompt], list[Trajectory]]:
        """Pose prompts and roll them out; groups are numbered from 0."""
        prompts = self.schedule.step(step, self.config.rollout.prompts_per_step, number)
        entropy = [self.config.run.seed, 5, step, number]
        episodes = episodes_of(self.sources, prompts, self.row.group_size, entropy)
        found = rollout(episodes, self.policy, self.sampling, clock)
        found = labelled(found, prompts, self.sources)
        return prompts, self.regrader.regrade(found, prompts, clock)

    def _until_alive(
        self, step: int, prompts: list[Prompt], found: list[Trajectory], clock: dict[str, float]
    ) -> tuple[list[Prompt], Collected]:
        """Draw further rounds until there are enough groups that carry a gradient.

        Groups without one are dropped; those beyond the wanted number, too. If there are not
        enough after the last round, training goes on with those that there are, or with the first
        round as it is if there is none.
        """
        wanted, size = self.config.rollout.prompts_per_step, self.row.group_size
        kept: list[tuple[Prompt, list[Trajectory]]] = []
        drawn: list[Trajectory] = []
        first, rounds, groups = (prompts, found), 1, 0
        while True:
            drawn += found
            groups += len(prompts)
            kept += [
                (prompt, group)
                for at, prompt in enumerate(prompts)
                if self._alive(group := found[at * size : (at + 1) * size])
            ]
            if len(kept) >= wanted or rounds > self.config.rollout.max_redraws:
                break
            prompts, found = self._round(step, rounds, clock)
            rounds += 1
        metrics = {
            "rounds": float(rounds),
            "groups_drawn": float(groups),
            "groups_alive": float(len(kept)),
        }
        if not kept:
            return first[0], Collected(trajectories=first[1], drawn=drawn, metrics=metrics)
        chosen = kept[:wanted]
        trajectories = [
            dataclasses.replace(trajectory, group=number)
            for number, (_, group) in enumerate(chosen)
            for trajectory in group
        ]
        used = [prompt for prompt, _ in chosen]
        return used, Collected(trajectories=trajectories, drawn=drawn, metrics=metrics)

    def _alive(self, group: Sequence[Trajectory]) -> bool:
        """Whether the scored rewards of a group differ, or for single completions, are not 0."""
        rewards = [t.reward + self._penalty(t) for t in group if t.scored]
        if not self.row.needs_group:
            return any(reward != 0 for reward in rewards)
        return len(rewards) > 1 and min(rewards) < max(rewards)

    def _penalty(self, trajectory: Trajectory) -> float:
        if not self.row.overlong_buffer:
            return 0.0
        length = torch.tensor([trajectory.length])
        longest, buffer = self.sampling.max_tokens, self.row.overlong_buffer
        return float(F.overlong_penalty(length, longest=longest, buffer=buffer))

    def _greedy(
        self,
        step: int,
        prompts: Sequence[Prompt],
        trajectories: Sequence[Trajectory],
        clock: dict[str, float],
    ) -> list[float]:
        """Score the most likely completion of every prompt."""
        episodes = episodes_of(self.sources, prompts, 1, [self.config.run.seed, 6, step])
        likeliest = dataclasses.replace(self.sampling, temperature=0.0)
        found = self.regrader.reweigh(rollout(episodes, self.policy, likeliest, clock))
        by_group = {t.group: t.reward if t.scored else float("nan") for t in found}
        return [by_group[t.group] for t in trajectories]


def collector_of(
    config: TrainConfig,
    sources: Sequence[Source],
    schedule: Schedule,
    policy: Any,
    sampling: Sampling,
    group_verifier: GroupVerifier | None = None,
) -> Collector | PairBatches:
    """Return what a run takes its batches from: sampled episodes, or the pairs of a file.

    Args:
        config: The settings.
        sources: Where prompts come from.
        schedule: In which order.
        policy: Who answers.
        sampling: How.
        group_verifier: Judges groups in place of the configuration's.
    """
    if config.rewards.pairs:
        return PairBatches(config, policy)
    row = config.algorithm.row()
    return Collector(config, row, sources, schedule, policy, sampling, group_verifier)


def lag_warning(row: Algorithm, ahead: int) -> str:
    """Say what is wrong with episodes of older weights under an algorithm; empty if nothing."""
    anchored = row.ratio != "none" and row.anchor == "rollout"
    if not ahead or row.mismatch != "none" or anchored or row.on_pairs:
        return ""
    return (
        f"{row.name} takes episodes for the current policy's, and sample_ahead={ahead} makes them "
        f"{ahead} updates old: the gradient is biased; set mismatch='tis_token' ('tis_seq' for "
        "ratios of whole completions), or anchor='rollout' where there is a ratio"
    )
