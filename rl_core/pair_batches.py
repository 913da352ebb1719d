"""Preference pairs of a file as the batches of a run: nothing is sampled, nothing is judged.

Each pair becomes a group of two episodes, the chosen completion with the reward 1 and the rejected
one with 0, so that the learner sees what it sees of pairs made from verdicts. The pairs are walked
through in a new seeded order every epoch; where a step stands in that walk follows from its number.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..agents.types import StopReason, Trajectory, Turn
from ..verifiers import TaskError
from .batch import OFFLINE
from .config import TrainConfig
from .pairs import Pair, read_pairs


class PairBatches:
    """Takes the place of a `Collector`."""

    def __init__(self, config: TrainConfig, policy: Any) -> None:
        """Read the pairs and check that each fits.

        Args:
            config: The settings; `rewards.pairs` is the file.
            policy: Whose tokens the pairs become.

        Raises:
            TaskError: A row is no pair, or longer than `max_tokens` or the model's context allow.
        """
        self.config, self.policy = config, policy
        self.pairs = read_pairs(config.rewards.pairs)
        self._end = min(policy.eos_ids)
        own = policy.tokenizer.eos_token_id
        if own in policy.eos_ids:
            self._end = int(own)
        self._check_lengths()
        self.waiting: deque[Any] = deque()
        """Nothing is ever sampled ahead."""

    def next(self, step: int, clock: dict[str, float]) -> Any:
        """Return the pairs of a step as episodes.

        Args:
            step: Number of the step, from 0.
            clock: `clock["environments"]` is 0: there are none.
        """
        from .collection import Collected

        clock["environments"] = 0.0
        episodes = [
            episode
            for group, place in enumerate(self._places(step))
            for episode in self._episodes(self.pairs[place], group)
        ]
        epoch = (step + 1) * self.config.rollout.prompts_per_step / len(self.pairs)
        return Collected(trajectories=episodes, drawn=episodes, metrics={"epoch": epoch})

    def settle(self, began: float) -> float:
        """Nothing is sampled beside the learner."""
        return 0.0

    def close(self) -> None:
        """Nothing is open."""

    def _places(self, step: int) -> list[int]:
        """Return which pairs a step takes."""
        count, size = len(self.pairs), self.config.rollout.prompts_per_step
        orders: dict[int, np.ndarray] = {}
        found = []
        for at in range(step * size, (step + 1) * size):
            epoch, place = divmod(at, count)
            if epoch not in orders:
                entropy = np.random.SeedSequence([self.config.run.seed, 8, epoch])
                orders[epoch] = np.random.default_rng(entropy).permutation(count)
            found.append(int(orders[epoch][place]))
        return found

    def _episodes(self, pair: Pair, group: int) -> list[Trajectory]:
        prompt = list(self.policy.format.prompt(pair.prompt))
        return [
            _episode(pair, group, prompt, self._ids(text), text, label)
            for text, label in ((pair.chosen, "chosen"), (pair.rejected, "rejected"))
        ]

    def _ids(self, text: str) -> list[int]:
        """Return an answer's tokens, with the token that ends it."""
        return [*self.policy.tokenizer(text, add_special_tokens=False)["input_ids"], self._end]

    def _check_lengths(self) -> None:
        longest, most = self.config.rollout.max_tokens, self.policy.context
        over: list[tuple[str, int, str]] = []
        for pair in self.pairs:
            prompt = len(self.policy.format.prompt(pair.prompt))
            for name, text in (("chosen", pair.chosen), ("rejected", pair.rejected)):
                size = len(self._ids(text))
                if size > longest:
                    over.append((f"{pair.where}: {name}", size, f"max_tokens={longest}"))
                elif prompt + size > most:
                    over.append((f"{pair.where}: prompt and {name}", prompt + size,
                                 f"the model's context of {most}"))  # fmt: skip
        if over:
            place, size, limit = over[0]
            raise TaskError(
                f"{place}: {size} tokens are more than {limit} ({len(over)} of "
                f"{2 * len(self.pairs)} completions are too long, the longest with "
                f"{max(size for _, size, _ in over)} tokens); nothing is cut off: raise max_tokens "
                "or leave such pairs out"
            )


def _episode(
    pair: Pair, group: int, prompt: Sequence[int], answer: Sequence[int], text: str, label: str
) -> Trajectory:
    start, end, reward = len(prompt), len(prompt) + len(answer), float(label == "chosen")
    return Trajectory(
        env="pairs",
        task_id=pair.where,
        group=group,
        seed=0,
        tokens=[*prompt, *answer],
        trained=[False] * start + [True] * len(answer),
        logprobs=[0.0] * end,
        turns=[Turn(start=start, end=end, reward=reward, stop_reason=StopReason.EOS)],
        messages=[*map(dict, pair.prompt), {"role": "assistant", "content": text}],  # pyright: ignore
        reward=reward,
        verdict={"reward": reward, "status": label},
        version=OFFLINE,
    )
