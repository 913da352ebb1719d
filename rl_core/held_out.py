"""Evaluations in the course of a run: on the held-out tasks, written down and said."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ..agents.types import Sampling
from ..verifiers import TrainingStopped
from .config import TrainConfig
from .evaluation import Evaluation, evaluate
from .records import Run
from .sources import Source


class HeldOut:
    """The held-out tasks of a run."""

    def __init__(
        self,
        config: TrainConfig,
        run: Run,
        sources: Sequence[Source],
        policy: Any,
        sampling: Sampling,
        say: Callable[[str], None],
    ) -> None:
        """Remember who is asked, and what.

        Args:
            config: The settings.
            run: Where evaluations are written.
            sources: What is asked; none: every evaluation is empty.
            policy: Who answers.
            sampling: How training samples; what it cuts off is not cut off here.
            say: Prints a line that stays.
        """
        self.config, self.run, self.sources, self.policy = config, run, sources, policy
        self.say = say
        temperature = config.evaluation.eval_temperature
        self.sampling = dataclasses.replace(
            sampling, temperature=temperature, top_p=1.0, top_k=0, min_p=0.0
        )
        self.found: list[tuple[int, Evaluation]] = []
        """Evaluations of this session with the step after which each was made."""

    def evaluate(self, step: int) -> dict[str, float]:
        """Evaluate after `step` steps; returns the metrics.

        Raises:
            TrainingStopped: The tasks are solved before training, more than is allowed.
        """
        config = self.config
        if not self.sources or not config.evaluation.eval_tasks:
            return {}
        found = evaluate(
            self.policy,
            self.sources,
            tasks=config.evaluation.eval_tasks,
            sampling=self.sampling,
            seed=config.run.seed,
            batch=config.rollout.max_rows,
        )
        self.found.append((step, found))
        self.run.append("evaluations.jsonl", [{"step": step, **row} for row in found.rows])
        low, high = found.interval
        self.say(
            f"step {step}: solved {found.solved:.3f} [{low:.3f}, {high:.3f}] of "
            f"{found.tasks} held-out tasks"
            + (f", {found.unscored} unscored" if found.unscored else "")
        )
        for name, (share, count) in found.environments.items():
            self.say(f"  {name}: solved {share:.3f} of {count}")
        if step == 0:
            self._before(found)
        return found.metrics()

    def _before(self, found: Evaluation) -> None:
        """Say how hard the task is before training, and refuse one that is solved already."""
        for name, (share, count) in found.groups.items():
            self.say(f"  difficulty {name}: solved {share:.3f} of {count}")
        self.run.append("metrics.jsonl", [{"step": 0, **found.metrics()}])
        limit = self.config.evaluation.max_solved_before
        if found.solved > limit:
            raise TrainingStopped(
                f"the model solves {found.solved:.3f} of the held-out tasks before training, more "
                f"than max_solved_before={limit:g}; choose harder tasks, or raise the limit"
            )
