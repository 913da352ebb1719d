"""The episodes that a run keeps, line by line in `rollouts.jsonl`.

Every step keeps its first episodes as text. What each of their tokens was credited with and why it
moved costs more than the rest of the line, and is told at some steps only: the first, the last, and
every so many between them.
"""

from collections.abc import Sequence
from typing import Any

from ..agents.types import Trajectory
from .config import RunConfig
from .evaluation import row_of
from .records import Run
from .token_records import token_records


class RolloutLog:
    """Writes episodes."""

    def __init__(self, config: RunConfig, run: Run, learner: Any, form: Any) -> None:
        """Remember where to.

        Args:
            config: How many episodes, and how often with their tokens.
            run: Where they are written.
            learner: Knows why the tokens of its last batch moved.
            form: Spells tokens: a `ChatFormat`.
        """
        self.config, self.run, self.learner, self.form = config, run, learner, form
        self._spelt: dict[int, str] = {}

    def told(self, step: int) -> bool:
        """Whether the tokens of a step, counted from 1, have records."""
        every = self.config.token_records_every
        return every > 0 and (step in (1, self.config.steps) or step % every == 0)

    def write(self, trajectories: Sequence[Trajectory], step: int) -> None:
        """Write the first episodes of a step.

        Args:
            trajectories: The episodes that were learned from.
            step: The step's number, from 1.
        """
        kept = trajectories[: self.config.rollouts_per_step]
        records: list[Any] = [None] * len(kept)
        if self.told(step):
            found = token_records(self.learner, len(kept), self._spell, step - 1)
            records[: len(found)] = found
        self.run.append(
            "rollouts.jsonl",
            [
                {"step": step, **row_of(trajectory), "token_records": record}
                for trajectory, record in zip(kept, records, strict=True)
            ],
        )

    def _spell(self, token: int) -> str:
        if token not in self._spelt:
            self._spelt[token] = self.form.spell([token])
        return self._spelt[token]
