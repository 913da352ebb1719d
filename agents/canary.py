"""The canary: has the engine the learner's weights, and nothing else?

After each sync, engine and learner say how likely they find the same fixed sequences. Three things
are looked at, because each alone lets something through:

- the **gap** between the two, engine − learner, in nats: another head, another precision, a layer
  left behind. A small update hides inside any tolerance, so that stale weights are looked for with
- the **share of the update that arrived**: with u the learner's change since the last sync and e
  the engine's, share = ⟨e, u⟩ / ⟨u, u⟩, which is 1 for the new weights and 0 for the previous ones;
- the gap **through the prefix cache**: tokens drawn behind the same long prompts, whose cached keys
  and values would be the previous weights' if the cache outlived them.

An engine of several copies of the weights, such as servers, has each of them looked at by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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


class Copy(Protocol):
    """Something with weights of its own."""

    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """As `Engine.score`."""
        ...

    def resume(
        self, prompts: Sequence[Sequence[int]], count: int
    ) -> list[tuple[list[int], list[float]]]:
        """As `Engine.resume`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What one check found.

    Example:
        `Sighting(where="the engine", gap=2e-6, cached_gap=2e-6, moved=0.01, share=1.0)`
    """

    where: str
    """What was looked at: an address, or `the engine` where there is one."""
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
        self._before: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def check(self, engine: Engine, version: int) -> Sighting:
        """Compare the learner with each copy of the weights that the engine has.

        Args:
            engine: What was handed the weights.
            version: Which weights those were.

        Returns:
            What was found of the copy that is furthest from the learner.

        Raises:
            TrainingStopped: They differ, with the numbers and the likely causes.
        """
        if engine.version != version:
            raise TrainingStopped(
                f"the engine has the weights of update {engine.version}, the learner those of "
                f"update {version}: a sync was left out"
            )
        learner = np.concatenate(self._learner(self.sequences, 1, self._width))
        found = [self._sighting(*one, learner) for one in _copies(engine).items()]
        for sighting in found:
            self._judge(version, sighting)
        return max(found, key=lambda sighting: sighting.gap)

    def _sighting(self, where: str, copy: Copy, learner: np.ndarray) -> Sighting:
        heard = np.concatenate([np.array(row) for row in copy.score(self.sequences)])
        drawn = copy.resume(self.sequences, DRAWN)
        whole = [[*ids, *tokens] for ids, (tokens, _) in zip(self.sequences, drawn, strict=True)]
        expected = np.concatenate(self._learner(whole, len(self.sequences[0]), self.vocabulary))
        cached = np.concatenate([np.array(logprobs) for _, logprobs in drawn])
        before, self._before[where] = self._before.get(where), (learner, heard)
        moved, share = 0.0, None
        if before is not None:
            ours, theirs = learner - before[0], heard - before[1]
            moved = float(np.sqrt(np.mean(ours**2)))
            if moved > 10 * self._noise:
                share = float(theirs @ ours / (ours @ ours))
        gap, cached_gap = (float(np.abs(d).mean()) for d in (heard - learner, cached - expected))
        return Sighting(where=where, gap=gap, cached_gap=cached_gap, moved=moved, share=share)

    def _judge(self, version: int, found: Sighting) -> None:
        said = (
            f"after weight update {version}, {found.where} and the learner differ by "
            f"{found.gap:.3g} nats on average, behind cached prefixes by {found.cached_gap:.3g} "
            f"(at most {self._tolerance:g} is rounding in {self._dtype}); the learner moved by "
            f"{found.moved:.3g} since the last update"
        )
        share = "" if found.share is None else f", of which {found.share:.0%} arrived there"
        low, high = ARRIVED
        if found.share is not None and not low < found.share < high:
            raise TrainingStopped(
                f"{said}{share}: {found.where} has not the new weights; a sync that did nothing, "
                "or reached some of the layers only"
            )
        if not found.gap <= self._tolerance:
            raise TrainingStopped(
                f"{said}{share}: likely an output layer that is tied to the embeddings and was "
                "not sent, or one of another number of tokens (the learner's are over "
                f"{self._width}), weights of another checkpoint, or another dtype"
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


def _copies(engine: Engine) -> Mapping[str, Copy]:
    """Return all that has weights of its own, under a name."""
    several = getattr(engine, "copies", None)
    return {"the engine": engine} if several is None else several()
