"""Verdicts changed for training, once a group is complete: parts weighed anew, the group judged.

    R_i = Σ_k w_k R_{i,k},   r_i = R_i + w G_i

Both are optional. What is added to or taken from an episode's reward is booked where the verdict
was: at the last turn, and there, if the verdict judges spans of it, at the end of the last one.
Evaluations see none of this.
"""

import dataclasses
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from ..agents.types import Trajectory
from ..verifiers import GroupVerifier, Status, Task, UsageError, Verdict
from ..verifiers.errors import unknown
from ..verifiers.groups import guarded_group
from .config import TrainConfig
from .sources import Prompt, Source

AT_ONCE = 8
"""Groups that are judged at the same time; a judge bounds the calls that it has under way."""

ADDED = "added"
"""Key of a trajectory's verdict: what regrading added to its reward."""

WEIGHTS = "weights"
"""Key of a trajectory's verdict: the weights of its parts, for rewards made of parts."""


class Regrader:
    """Changes the verdicts of episodes as a configuration says."""

    def __init__(
        self,
        config: TrainConfig,
        sources: Sequence[Source],
        group_verifier: GroupVerifier | None = None,
    ) -> None:
        """Make the group verifier.

        Args:
            config: The settings; `rewards` says what is changed.
            sources: Where the episodes' tasks are found.
            group_verifier: One in place of the configuration's.

        Raises:
            UsageError: A setting does not fit the algorithm.
        """
        self.weights = config.rewards.weights()
        self.sources = sources
        self._unseen = set(self.weights)
        self._parts: set[str] = set()
        self._known: set[int] = set()
        """Sources of which a scored verdict has been seen."""
        self._group = config.rewards.group_reward(group_verifier)
        if self._group is None:
            return
        row, name = config.algorithm.row(), self._group.name
        if row.group_size < 2:
            raise UsageError(
                f"the group verifier '{name}' compares the completions of a prompt, and {row.name} "
                f"samples group_size={row.group_size}; set group_size to 2 or more"
            )
        if row.needs_values and config.critic.critic == "rollouts":
            raise UsageError(
                f"critic='rollouts' estimates values by completions that belong to no group, so "
                f"what '{name}' pays would be missing in them; use critic='head' or 'model'"
            )
        guarded = guarded_group(self._group.verifier, config.run.verifier_timeout)
        self._group = dataclasses.replace(self._group, verifier=guarded)

    def regrade(
        self,
        trajectories: Sequence[Trajectory],
        prompts: Sequence[Prompt],
        clock: dict[str, float] | None = None,
    ) -> list[Trajectory]:
        """Return the episodes of whole groups with the rewards that are trained on.

        Args:
            trajectories: The episodes; group g answers `prompts[g]`.
            prompts: What they answer.
            clock: `clock["environments"]` grows by the seconds that group verifiers took.

        Raises:
            UsageError: A weighted part is one that no verdict has.
        """
        found = {i: _verdict(t) for i, t in enumerate(trajectories) if t.turns}
        if self.weights:
            self._check_parts(trajectories, found, prompts)
            found = {i: reweighed(verdict, self.weights) for i, verdict in found.items()}
        if self._group is not None:
            began = time.perf_counter()
            found |= self._judged(trajectories, found, prompts)
            if clock is not None:
                spent = time.perf_counter() - began
                clock["environments"] = clock.get("environments", 0.0) + spent
        if not self.weights and self._group is None:
            return list(trajectories)
        return [self._with(t, found.get(i)) for i, t in enumerate(trajectories)]

    def reweigh(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """Return episodes that belong to no group, with the parts of their verdicts weighed."""
        if not self.weights:
            return list(trajectories)
        return [
            self._with(t, reweighed(_verdict(t), self.weights) if t.turns else None)
            for t in trajectories
        ]

    def close(self) -> None:
        """End what the group verifier runs in."""
        close = getattr(self._group and self._group.verifier, "close", None)
        if close is not None:
            close()

    def _judged(
        self,
        trajectories: Sequence[Trajectory],
        found: Mapping[int, Verdict],
        prompts: Sequence[Prompt],
    ) -> dict[int, Verdict]:
        """Judge every group."""
        groups: dict[int, list[int]] = {}
        for place in found:
            groups.setdefault(trajectories[place].group, []).append(place)
        reward = self._group
        assert reward is not None

        def one(group: int) -> list[Verdict]:
            places, task = groups[group], self._task(prompts[group])
            return reward.judge(
                [trajectories[i].completion for i in places],
                [found[i] for i in places],
                None if task is None else task.truth,
                task=task,
            )

        with ThreadPoolExecutor(AT_ONCE, "rlvr-groups") as threads:
            verdicts = threads.map(one, groups)
            return {
                place: verdict
                for places, judged in zip(groups.values(), verdicts, strict=True)
                for place, verdict in zip(places, judged, strict=True)
            }

    def _task(self, prompt: Prompt) -> Task | None:
        tasks = self.sources[prompt.source].tasks
        return None if tasks is None or prompt.index is None else tasks[prompt.index]

    def _check_parts(
        self,
        trajectories: Sequence[Trajectory],
        found: Mapping[int, Verdict],
        prompts: Sequence[Prompt],
    ) -> None:
        """Refuse names of parts that no verdict has, once every source has been heard."""
        for place, verdict in found.items():
            own = set(verdict.parts)
            self._parts |= own
            self._unseen -= own
            if verdict.scored:
                self._known.add(prompts[trajectories[place].group].source)
            if own and own.isdisjoint(self.weights):
                raise UsageError(
                    f"part_weights names no part of the verdicts of {trajectories[place].env}, "
                    f"whose parts are {', '.join(sorted(own))}: its rewards would all be 0; add one"
                )
        if self._unseen and len(self._known) == len(self.sources):
            if not self._parts:
                raise UsageError(
                    "part_weights needs verdicts with parts, and the verifier gives none; compose "
                    "it with weighted(…) or gates(…), or leave part_weights out"
                )
            raise unknown("part of the verdicts", min(self._unseen), self._parts)

    def _with(self, trajectory: Trajectory, verdict: Verdict | None) -> Trajectory:
        """Return an episode with another verdict on its last turn."""
        if verdict is None:
            return trajectory
        *before, last = trajectory.turns
        paid, old = last.reward, trajectory.verdict.get("reward", last.reward)
        if verdict.reward is None:
            now = math.nan
        elif old is None or not math.isfinite(paid) or paid == old:
            now = verdict.reward
        else:  # the environment paid for more than the verdict
            now = paid + verdict.reward - old
        turns = [*before, dataclasses.replace(last, reward=now)]
        total = sum(turn.reward for turn in turns) if before else now
        added = now - paid if math.isfinite(now) and math.isfinite(paid) else 0.0
        told = {**verdict.to_json(cost=False), ADDED: added}
        weights = self._part_weights(verdict.parts)
        return dataclasses.replace(
            trajectory,
            turns=turns,
            reward=total,
            scored=math.isfinite(total),
            verdict={**trajectory.verdict, **told, WEIGHTS: weights},
        )

    def _part_weights(self, parts: Iterable[str]) -> dict[str, float]:
        """Return what each part of a verdict counts for."""
        known = {name: self.weights.get(name, 0.0) if self.weights else 1.0 for name in parts}
        if self._group is not None and self._group.name in known:
            known[self._group.name] = self._group.weight
        return known


def _verdict(trajectory: Trajectory) -> Verdict:
    """Return an episode's verdict; of an environment that gives none, its last reward."""
    if trajectory.verdict:
        return Verdict.from_json(trajectory.verdict)
    reward = trajectory.turns[-1].reward
    return Verdict.score(reward) if math.isfinite(reward) else Verdict.error("no verdict")


def reweighed(verdict: Verdict, weights: Mapping[str, float]) -> Verdict:
    """Return a verdict whose reward is the weighted sum of its parts: R = Σ_k w_k R_k.

    Three-valued: unscored if a part that has a weight is, and scored if all of them are, whatever
    the others say. A part that a scored verdict lacks earned nothing. A verdict without parts is
    returned as it is. The status stays, so that what counts as solved does not depend on weights;
    a verdict that becomes scored is correct when every part with a weight above 0 has its full
    reward and every one below 0 has none.

    Args:
        verdict: Any verdict.
        weights: w_k by the part's name; a part that is not named weighs nothing.

    Example:
        >>> verdict = Verdict(reward=1, status=Status.CORRECT, parts={"format": 1, "right": 1})
        >>> reweighed(verdict, {"format": 0.25, "right": 2.0}).reward  # 0.25·1 + 2·1
        2.25
    """
    if not verdict.parts:
        return verdict
    lacking = 0.0 if verdict.scored else None
    deciding = {name: verdict.parts.get(name, lacking) for name, w in weights.items() if w}
    failed = [name for name, value in deciding.items() if value is None]
    if failed:
        reason = verdict.evidence.get("reason", f"unscored parts: {', '.join(failed)}")
        status = Status.ERROR if verdict.scored else verdict.status
        evidence = {**verdict.evidence, "reason": reason}
        return dataclasses.replace(verdict, reward=None, status=status, evidence=evidence)
    earned = {name: float(value or 0.0) for name, value in deciding.items()}
    reward = sum(weights[name] * value for name, value in earned.items())
    status = verdict.status
    if not verdict.scored:
        full = all(v >= 1 if weights[name] > 0 else v <= 0 for name, v in earned.items())
        status = Status.WRONG if reward <= 0 else Status.CORRECT if full else Status.PARTIAL
    return dataclasses.replace(verdict, reward=reward, status=status)
