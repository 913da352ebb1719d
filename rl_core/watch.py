"""What is looked out for while training goes on: what stops it, and what is said aloud once."""

import math
from collections import Counter
from collections.abc import Callable, Sequence

import torch

from ..agents.types import Trajectory
from ..verifiers import TrainingStopped

MISMATCH = 0.01
"""Mean difference in nats between the sampler's and the learner's log-probabilities above which
float32 training stops: rounding gives less than 1e-5, so one of the two has other weights."""


class Watch:
    """Remembers what was said, so that nothing is said at every step."""

    def __init__(self, say: Callable[[str], None], *, max_unscored: float) -> None:
        """Nothing has been seen yet.

        Args:
            say: Prints a line that stays.
            max_unscored: Share of unscored episodes in a step above which training stops.
        """
        self.say, self.max_unscored = say, max_unscored
        self._silent, self._spoken = 0, False
        self._doubts: set[str] = set()

    def unscored(
        self, trajectories: Sequence[Trajectory], step: int, save: Callable[[], object]
    ) -> None:
        """Stop where verifiers fail more often than allowed.

        Args:
            trajectories: The episodes of the step.
            step: Steps done before it.
            save: Writes a checkpoint and returns where; called before stopping, if there is
                anything to save.

        Raises:
            TrainingStopped: With the most frequent reasons.
        """
        failed = [t for t in trajectories if not t.scored]
        if len(failed) / len(trajectories) <= self.max_unscored:
            return
        reasons = Counter(
            str((t.verdict.get("evidence") or {}).get("reason", "no reason given")) for t in failed
        )
        worst = "; ".join(f"{reason} ({count}×)" for reason, count in reasons.most_common(3))
        saved = f", saved as {save()}" if step else ""
        raise TrainingStopped(
            f"{len(failed)} of {len(trajectories)} episodes of step {step + 1} are unscored, "
            f"more than max_unscored={self.max_unscored:g}: {worst}; mend the verifier "
            f"or the tasks, or raise the limit (weights are as after step {step}{saved})"
        )

    def mismatch(self, gap: float, step: int, *, exact: bool, dtype: torch.dtype) -> None:
        """Stop where sampler and learner disagree about the same tokens.

        Args:
            gap: Mean difference of their log-probabilities in nats.
            step: Steps done.
            exact: Whether both are to have the same weights.
            dtype: Of the weights; half precision differs by rounding alone.

        Raises:
            TrainingStopped: The difference cannot be rounding.
        """
        if exact and dtype == torch.float32 and gap > MISMATCH:
            raise TrainingStopped(
                f"step {step}: log-probabilities of sampler and learner differ by {gap:.3g} nats "
                "on average (rounding gives less than 1e-5): the sampler does not draw from the "
                "weights that are trained"
            )

    def silence(self, step: int, *, dead_groups: float, reward: float, equal: bool = False) -> None:
        """Say when rewards taught nothing: the first time, and after 10, 100, … such steps on end.

        The share of groups without gradient is in every line of the log.

        Args:
            step: Steps done.
            dead_groups: That share.
            reward: The batch's mean reward.
            equal: Whether all rewards that are compared are equal; groups may then still have the
                gradient of a penalty, be it rounding.
        """
        self._silent = self._silent + 1 if dead_groups >= 1 or equal else 0
        first, self._spoken = not self._spoken, self._spoken or self._silent > 0
        power = self._silent > 1 and math.log10(self._silent) % 1 == 0
        if (self._silent and first) or power:
            self.say(
                f"step {step}: every reward is equal within its group (mean {reward:.3f}), "
                f"{100 * dead_groups:.0f} % of the groups carry no gradient"
                + (", the others that of penalties alone (KL, length)" if dead_groups < 1 else "")
                + (f", for {self._silent} steps in a row" if self._silent > 1 else "")
                + "; tasks of mixed difficulty or a larger group_size would teach more"
            )

    def doubts(self, found: Sequence[str], step: int) -> None:
        """Say what looks wrong with the batch, each kind of doubt once.

        Args:
            found: Sentences; those that differ in their figures alone are of one kind.
            step: Steps done.
        """
        for doubt in found:
            kind = "".join(char for char in doubt if not char.isdigit())
            if kind not in self._doubts and not doubt.startswith("all "):  # silence has its own
                self._doubts.add(kind)
                self.say(f"step {step}: {doubt}")
