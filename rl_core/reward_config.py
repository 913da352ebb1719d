"""What a completion is paid beside, or in place of, its own verdict."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from ..verifiers import GroupReward, GroupVerifier, UsageError, make_group


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """How verdicts become the rewards that are trained on; evaluations keep the verdicts."""

    part_weights: tuple[str, ...] = field(default=(), metadata={"mapping": True})
    """Weights of the verdicts' parts: `format=0.2 correct=1`; the reward becomes their weighted
    sum, and a part that is not named adds nothing. None: the verdicts' own rewards."""
    group_verifier: str = ""
    """Judges the completions of a prompt beside one another, with its options: `diversity n=2`."""
    group_weight: float = 1.0
    """What its verdict is multiplied by before it is added."""
    group_gate: bool = False
    """Whether only correct completions are judged by it and paid for it."""
    pairs: str = ""
    """A file of preference pairs (prompt, chosen, rejected) to learn from in place of episodes;
    algorithms `dpo` and `ipo`."""

    def __post_init__(self) -> None:
        """Check what can be checked before there is a verdict."""
        if not math.isfinite(self.group_weight):
            raise UsageError(f"group_weight must be finite, got {self.group_weight!r}")
        weights = self.weights()
        if weights and not any(weights.values()):
            raise UsageError(
                f"part_weights gives every part the weight 0 ({', '.join(weights)}), so that "
                "nothing would be learned; give one another weight"
            )
        if self.pairs and not Path(self.pairs).is_file():
            raise UsageError(f"no file of pairs at '{self.pairs}'; check pairs=")
        if self.pairs and (self.group_verifier or self.part_weights):
            raise UsageError(
                "pairs are judged already: leave group_verifier and part_weights out, or pairs="
            )

    def weights(self) -> dict[str, float]:
        """Return the weights by part.

        Raises:
            UsageError: One is not `name=number`, or stands twice.

        Example:
            >>> RewardConfig(part_weights=("format=0.2", "correct=1")).weights()
            {'format': 0.2, 'correct': 1.0}
        """
        found: dict[str, float] = {}
        for text in self.part_weights:
            name, _, number = text.rpartition("=")
            try:
                weight = float(number)
            except ValueError:
                weight = math.nan
            if not name or not math.isfinite(weight) or name in found:
                raise UsageError(
                    f"part_weights is name=number for each part, once, such as format=0.2; got "
                    f"'{text}'"
                )
            found[name] = weight
        return found

    def group_reward(self, given: GroupVerifier | str | None = None) -> GroupReward | None:
        """Return the group verifier with what it is worth, if there is one.

        Args:
            given: One in place of the configuration's; an empty name is none.

        Raises:
            UsageError: Its name or an option is unknown.
        """
        chosen = given or self.group_verifier
        if not chosen:
            if self.group_weight != 1.0 or self.group_gate:
                raise UsageError(
                    "group_weight and group_gate say what a group verifier is worth, and there is "
                    "none; give group_verifier, or leave them out"
                )
            return None
        return GroupReward(
            verifier=make_group(chosen), weight=self.group_weight, gate=self.group_gate
        )
