"""Where an episode stands, so that it can be gone on from more than once.

A snapshot holds what the next step depends on: the chat, the actions so far, the generator's
position, and a copy of the episode's state where there is one. Without a copy (the state is a
database, a folder; or the snapshot has been pickled) the state is made again by *replay*: the
episode is opened anew and the actions are answered again, which must bring the same chat.
"""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..verifiers import Message, Task

Release = Callable[[Any], None]
"""Frees what a state holds."""
NOTHING: Any = object()
"""No copy of the state: replay."""


@dataclass(frozen=True)
class Chance:
    """Where a generator of random numbers stands.

    Example:
        `Chance(seed=7, kind=None, state=None)`: not yet made, of seed 7
    """

    seed: int | None
    """Gymnasium's seed; -1 if unknown."""
    kind: type[Any] | None
    """Class of the bit generator."""
    state: dict[str, Any] | None
    """Its state."""

    @classmethod
    def of(cls, generator: np.random.Generator | None, seed: int | None) -> "Chance":
        """Note where a generator stands."""
        if generator is None:
            return cls(seed, None, None)
        bits = generator.bit_generator
        return cls(seed, type(bits), bits.state)  # pyright: ignore

    def generator(self) -> np.random.Generator | None:
        """Return a generator that stands there."""
        if self.kind is None:
            return None
        bits = self.kind(0)
        bits.state = copy.deepcopy(self.state)
        return np.random.Generator(bits)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What of an episode is the same for every environment.

    Example:
        `Progress(index=3, mark="9f…", chance=…, messages=(…), said=1, actions=("a",))`
    """

    index: int
    """Which task."""
    mark: str
    """Of the environment and the task: `mark_of`."""
    chance: Chance
    """The generator now."""
    messages: tuple[Message, ...]
    """The chat so far."""
    said: int
    """How many of the last messages the environment said last."""
    actions: tuple[str, ...] = ()
    """The actions so far."""
    begun: Chance | None = None
    """The generator when the episode began."""


class Snapshot:
    """A moment of an episode, taken by `snapshot()`, gone on from by `restore()`.

    Picklable: with the state where that is a plain value, else as a recipe for replay. Release
    what it holds (a copied folder) with `close()`; that also happens when it is forgotten.
    """

    def __init__(
        self,
        progress: Progress,
        state: Any = NOTHING,
        release: Release | None = None,
    ) -> None:
        """Take over a copy of the state; `release` frees it."""
        self.progress = progress
        """What is the same for every environment."""
        self.state = state
        """The copy, or `NOTHING`."""
        self._release = release

    def close(self) -> None:
        """Release what the snapshot holds; it can still be restored, by replay."""
        state, self.state = self.state, NOTHING
        if state is not NOTHING and self._release is not None:
            self._release(state)

    def __del__(self) -> None:
        """Release what a forgotten snapshot holds."""
        if hasattr(self, "_release"):
            self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel with a plain state, and without one that must be released or cannot travel."""
        if self.state is NOTHING or self._release is not None:
            return Snapshot, (self.progress,)
        import pickle

        try:
            pickle.dumps(self.state)
        except Exception:
            return Snapshot, (self.progress,)
        return Snapshot, (self.progress, self.state)

    def __repr__(self) -> str:
        """Show where it stands."""
        turns, index = len(self.progress.actions), self.progress.index
        return f"Snapshot(task {index}, after {turns} turns)"


def mark_of(kind: type[Any], task: Task, settings: Any) -> str:
    """Return what tells an environment and task from others: a hash of all that defines them."""
    parts = (kind.__module__, kind.__qualname__, task.id, task.prompt, task.truth, settings)
    return hashlib.blake2b(
        repr(parts).encode("utf-8", "backslashreplace"), digest_size=16
    ).hexdigest()
