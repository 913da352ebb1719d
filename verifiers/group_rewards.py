"""What a group verifier's verdicts are worth beside those that each completion got by itself.

Unscored completions are not shown to it and stay unscored; where it fails, those completions become
unscored to whose reward it would have added something.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import UsageError
from .groups import GroupVerifier, check_group, name_of, verify_group
from .task import Task
from .verdict import Status, Verdict

OWN = "own"
"""Part under which a completion's own reward stands where its verdict had no parts."""


@dataclass(frozen=True, kw_only=True)
class GroupReward:
    """A group verifier with what its verdicts are worth.

        r_i = R_i + w·G_i,   with a gate only where completion i is correct, else r_i = R_i

    R_i is the reward that completion i got by itself and G_i the group's verdict on it. With a gate
    the verifier is shown the correct completions alone: what is wrong is neither paid for being
    different nor compared with what is right.

    Three-valued: where R_i is unscored, r_i is; where G_i is unscored and would count, r_i is. The
    status stays that of the completion's own verdict, and the parts gain G_i under the verifier's
    name.

    Example:
        `GroupReward(verifier=make_group("diversity"), weight=0.1, gate=True)`
    """

    verifier: GroupVerifier
    """Judges the group."""
    weight: float = 1.0
    """w."""
    gate: bool = False
    """Whether only correct completions are judged and paid."""

    def __post_init__(self) -> None:
        """Check what is given."""
        check_group(self.verifier)
        numeric = isinstance(self.weight, int | float) and not isinstance(self.weight, bool)
        if not numeric or not math.isfinite(self.weight):
            raise UsageError(f"the weight of a group verifier is a number, got {self.weight!r}")

    @property
    def name(self) -> str:
        """Name of the part that it adds."""
        return name_of(self.verifier)

    def judge(
        self,
        completions: Sequence[str],
        verdicts: Sequence[Verdict],
        truth: Any,
        *,
        task: Task | None = None,
    ) -> list[Verdict]:
        """Return each completion's verdict with the group's added to it.

        Args:
            completions: The group.
            verdicts: What each got by itself.
            truth: The task's truth.
            task: The task itself, where it is known.

        Raises:
            UsageError: A verdict has a part of the verifier's name already.
        """
        if len(completions) != len(verdicts):
            raise UsageError(f"{len(completions)} completions, but {len(verdicts)} verdicts")
        shown = [
            place
            for place, own in enumerate(verdicts)
            if own.scored and (not self.gate or own.status is Status.CORRECT)
        ]
        found = verify_group(self.verifier, [completions[i] for i in shown], truth, task=task)
        judged = dict(zip(shown, found, strict=True))
        return [
            self._added(own, judged.get(place)) if own.scored else own
            for place, own in enumerate(verdicts)
        ]

    def _added(self, own: Verdict, group: Verdict | None) -> Verdict:
        """Return a scored verdict with the group's, none where it was not shown."""
        parts = dict(own.parts) if own.parts else {OWN: own.reward}
        if self.name in parts:
            raise UsageError(
                f"a verdict has a part '{self.name}' already; give the group verifier another name"
            )
        assert own.reward is not None
        if group is None:
            parts[self.name] = 0.0
            return _changed(own, own.reward, own.status, parts, {})
        parts[self.name] = group.reward
        said = {"group": dict(group.evidence)}
        if group.reward is None and self.weight:
            reason = f"{self.name}: {group.evidence.get('reason', group.status)}"
            return _changed(own, None, group.status, parts, {**said, "reason": reason})
        reward = own.reward + self.weight * (group.reward or 0.0)
        return _changed(own, reward, own.status, parts, said)


def _changed(
    own: Verdict,
    reward: float | None,
    status: Status,
    parts: Mapping[str, float | None],
    evidence: Mapping[str, Any],
) -> Verdict:
    return Verdict(
        reward=reward,
        status=status,
        parts=parts,
        evidence={**own.evidence, **evidence},
        cost=own.cost,
    )
