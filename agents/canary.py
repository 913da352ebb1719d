"""The canary: has the engine the learner's weights, and nothing else?

After each sync, engine and learner say how likely they find the same fixed sequences. Three things
are looked at, because each alone lets something through:

- the **gap** between the two, engine − learner, in nats: another head, another precision, a layer
  left behind. A small update hides inside any tolerance, so that stale weights are looked for with
- the **share of the update that arrived**: with u the learner's change since the last sync and e
  the engine's, share = ⟨e, u⟩ / ⟨u, u⟩, which is 1 for the new weights and 0 for the previous ones;
- the gap **through the prefix cache**: tokens drawn behind the same long prompts, whose cached keys
  and values would be the previous weights' if the cache outlived them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..verifiers import TrainingStopped
from .engines import Engine
from .scoring import continuation_logits, pad, token_logprobs

SEQUENCES = 4
LONGEST = 160
"""Tokens of a sequence at most: more than one block of the cache, which is 128 on a CPU."""
DRAWN = 2
"""Tokens drawn behind each."""

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Mean gap in nats above which training stops; `HALF_PRECISION` otherwise."""
HALF_PRECISION = 0.05

NOISE = {torch.float32: 3e-6, torch.float64: 3e-6}
"""Root mean square in nats of a gap that is rounding; a tenth of the tolerance otherwise."""

ARRIVED = (0.5, 1.5)
"""Range of the share within which the engine is nearer the new weights than the previous ones."""


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What one check found.

    Example:
        `Sighting(gap=2e-6, cached_gap=2e-6, moved=0.01, share=1.0)`
    """

    gap: float
    """Mean |engine − learner| in nats."""
    cached_gap: float
    """The same behind cached prefixes."""
    moved: float
    """Root mean square of the learner's change since the last check, in nats; 0 at the first."""
    share: float | None
    """Share of that change that arrived; `None` if it is too small to be told from rounding."""


class Canary:
    """Fixed sequences, and what both sides last said of them."""

    def __init__(self, model: Any, *, context: int, vocabulary: int) -> None:
        """Draw the sequences.

        Args:
            model: The learner's.
            context: Tokens that model and engine can hold.
            vocabulary: Tokens there are.
        """
        self.model, self.vocabulary = model, vocabulary
        longest = min(LONGEST, context - DRAWN - 1)
        generator = np.random.default_rng(0)
        self.sequences = generator.integers(vocabulary, size=(SEQUENCES, longest)).tolist()
        self._before: tuple[np.ndarray, np.ndarray] | None = None

    def check(self, engine: Engine, version: int) -> Sighting:
        """Compare engine and learner.

        Args:
            engine: What was handed the weights.
            version: Which weights those were.

        Raises:
            TrainingStopped: They differ, with the numbers and the likely causes.
        """
        learner = np.concatenate(self._learner(self.sequences, 1, self._width))
        heard = np.concatenate([np.array(row) for row in engine.score(self.sequences)])
        found = self._sighting(engine, learner, heard)
        self._before = (learner, heard)
        self._judge(engine, version, found)
        return found

    def _sighting(self, engine: Engine, learner: np.ndarray, heard: np.ndarray) -> Sighting:
        drawn = engine.resume(self.sequences, DRAWN)
        whole = [[*ids, *tokens] for ids, (tokens, _) in zip(self.sequences, drawn, strict=True)]
        expected = np.concatenate(self._learner(whole, len(self.sequences[0]), self.vocabulary))
        cached = np.concatenate([np.array(logprobs) for _, logprobs in drawn])
        moved, share = 0.0, None
        if self._before is not None:
            ours, theirs = learner - self._before[0], heard - self._before[1]
            moved = float(np.sqrt(np.mean(ours**2)))
            if moved > 10 * self._noise:
                share = float(theirs @ ours / (ours @ ours))
        gap, cached_gap = (float(np.abs(d).mean()) for d in (heard - learner, cached - expected))
        return Sighting(gap=gap, cached_gap=cached_gap, moved=moved, share=share)

    def _judge(self, engine: Engine, version: int, found: Sighting) -> None:
        said = (
            f"after weight update {version}, engine and learner differ by {found.gap:.3g} nats on "
            f"average, behind cached prefixes by {found.cached_gap:.3g} (at most "
            f"{self._tolerance:g} is rounding in {self._dtype}); the learner moved by "
            f"{found.moved:.3g} since the last update"
        )
        share = "" if found.share is None else f", of which {found.share:.0%} reached the engine"
        if engine.version != version:
            raise TrainingStopped(
                f"the engine has the weights of update {engine.version}, the learner those of "
                f"update {version}: a sync was left out"
            )
        low, high = ARRIVED
        if found.share is not None and not low < found.share < high:
            raise TrainingStopped(
                f"{said}{share}: the engine has not the new weights; a sync that did nothing, or "
                "reached some of the layers only"
            )
        if not found.gap <= self._tolerance:
            raise TrainingStopped(
                f"{said}{share}: likely an output layer that is tied to the embeddings and was "
                "not sent, weights of another checkpoint, or another dtype"
            )
        if not found.cached_gap <= min(self._tolerance, max(10 * found.gap, self._noise)):
            raise TrainingStopped(
                f"{said}{share}: the prefix cache holds keys and values of former weights; it "
                "must be reset at each update"
            )

    def _learner(
        self, sequences: Sequence[Sequence[int]], start: int, width: int
    ) -> list[np.ndarray]:
        """Return the learner's log p of each sequence's tokens from `start` on, among `width`."""
        batch = pad([s[:start] for s in sequences], [s[start:] for s in sequences], self._device)
        with torch.inference_mode():
            logits = continuation_logits(self.model, batch, width)
            found = token_logprobs(logits, batch.targets, 1.0)
        return list(found.cpu().double().numpy())

    @property
    def _dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def _device(self) -> torch.device:
        return self.model.device

    @property
    def _width(self) -> int:
        """Rows of the output layer, padding and all, which is what `Engine.score` is over."""
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def _tolerance(self) -> float:
        return TOLERANCE.get(self._dtype, HALF_PRECISION)

    @property
    def _noise(self) -> float:
        return NOISE.get(self._dtype, HALF_PRECISION / 10)
