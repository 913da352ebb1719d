"""What a verifier says: a reward, or the reason why there is none.

`Verdict` keeps apart what training must never mix: an answer that is wrong, an answer that could
not be found, and a check that failed. The last kind is *unscored*: its reward is `None`, and it
leaves every mean, baseline and loss instead of becoming a 0.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self


class Status(StrEnum):
    """How a check ended."""

    CORRECT = "correct"
    """The completion solves the task in full."""
    WRONG = "wrong"
    """An answer was found and it is not right."""
    PARTIAL = "partial"
    """Part of the credit: a composition or a graded verifier between wrong and correct."""
    UNPARSED = "unparsed"
    """No answer was found in the completion; scores 0."""
    LIMIT = "limit"
    """The completion is over a named cap (length, depth, digits); scores 0."""
    TIMEOUT = "timeout"
    """The answer itself made the check too slow: the policy's fault; scores 0."""
    BAD_TRUTH = "bad_truth"
    """Unscored: the task's own truth cannot be read."""
    ERROR = "error"
    """Unscored: the verifier or its machinery failed."""

    @property
    def scored(self) -> bool:
        """Whether a verdict of this status carries a reward."""
        return self is not Status.BAD_TRUTH and self is not Status.ERROR


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome of one check.

    Example:
        `Verdict(reward=1.0, status=Status.CORRECT, evidence={"answer": "42"})`
    """

    reward: float | None
    """The reward; `None` exactly for the unscored statuses."""
    status: Status
    """How the check ended."""
    parts: Mapping[str, float | None] = field(default_factory=dict)
    """Named component rewards; `None` for a component that was unscored. They become metrics."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """Why: JSON values only, the same for the same input (`answer`: what was extracted)."""
    cost: Mapping[str, float] = field(default_factory=dict, compare=False)
    """Seconds, bytes, retries: left out of equality, because they differ from run to run."""

    def __post_init__(self) -> None:
        """Check that reward and status agree."""
        if type(self.status) is not Status:
            object.__setattr__(self, "status", Status(self.status))
        if isinstance(self.reward, str | bytes):
            raise ValueError(f"a reward is a number, got {self.reward!r:.100}")
        if self.reward is not None and type(self.reward) is not float:
            object.__setattr__(self, "reward", float(self.reward))
        if (self.reward is not None) != self.status.scored:
            raise ValueError(
                f"a verdict of status '{self.status}' "
                f"{'needs a reward' if self.status.scored else 'has no reward'}, "
                f"got reward={self.reward!r}"
            )
        if self.reward is not None and not math.isfinite(self.reward):
            raise ValueError(f"a reward is a finite number, got {self.reward!r}")
        for name, part in self.parts.items():
            if part is not None and not math.isfinite(part):
                raise ValueError(f"the part '{name}' is a finite number or None, got {part!r}")

    @property
    def scored(self) -> bool:
        """Whether there is a reward."""
        return self.reward is not None

    @classmethod
    def score(cls, reward: float, **evidence: Any) -> Self:
        """Make a verdict of a number: correct from 1 up, wrong from 0 down, partial between.

        Raises:
            ValueError: The number is not finite.
        """
        status = Status.PARTIAL if reward > 0 else Status.WRONG
        status = Status.CORRECT if reward >= 1 else status
        return cls(reward=reward, status=status, evidence=evidence)

    @classmethod
    def correct(cls, **evidence: Any) -> Self:
        """Reward 1."""
        return cls(reward=1.0, status=Status.CORRECT, evidence=evidence)

    @classmethod
    def wrong(cls, **evidence: Any) -> Self:
        """Reward 0, an answer was found."""
        return cls(reward=0.0, status=Status.WRONG, evidence=evidence)

    @classmethod
    def unparsed(cls, reason: str, **evidence: Any) -> Self:
        """Reward 0, no answer was found."""
        return cls(reward=0.0, status=Status.UNPARSED, evidence={"reason": reason, **evidence})

    @classmethod
    def limit(cls, reason: str, **evidence: Any) -> Self:
        """Reward 0, the completion is over a cap."""
        return cls(reward=0.0, status=Status.LIMIT, evidence={"reason": reason, **evidence})

    @classmethod
    def timeout(cls, reason: str, **evidence: Any) -> Self:
        """Reward 0, the answer made the check too slow."""
        return cls(reward=0.0, status=Status.TIMEOUT, evidence={"reason": reason, **evidence})

    @classmethod
    def bad_truth(cls, reason: str, **evidence: Any) -> Self:
        """Unscored: the truth cannot be read."""
        return cls(reward=None, status=Status.BAD_TRUTH, evidence={"reason": reason, **evidence})

    @classmethod
    def error(cls, reason: str, **evidence: Any) -> Self:
        """Unscored: the verifier failed."""
        return cls(reward=None, status=Status.ERROR, evidence={"reason": reason, **evidence})

    def to_json(self, *, cost: bool = True) -> dict[str, Any]:
        """Return the verdict as JSON values; without `cost` it is the same on every run."""
        out: dict[str, Any] = {"reward": self.reward, "status": str(self.status)}
        out["parts"] = dict(self.parts)
        out["evidence"] = dict(self.evidence)
        if cost:
            out["cost"] = dict(self.cost)
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: It is no verdict: a field is missing or of another kind, the reward and
                the status disagree, or the status is unknown.
        """
        fields = {name: data.get(name, {}) for name in ("parts", "evidence", "cost")}
        if not {"reward", "status"} <= data.keys():
            raise ValueError(f"a verdict has a reward and a status, got {sorted(data)!r:.200}")
        for name, value in fields.items():
            if not isinstance(value, Mapping):
                raise ValueError(f"a verdict's {name} is an object, got {value!r:.100}")
        return cls(reward=data["reward"], status=Status(data["status"]), **fields)
