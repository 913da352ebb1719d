"""Episodes that have a state: made from the task, copied for branches, always released.

The state lives in this process. It is released when its episode ends, whichever way that comes
about; in a forked child, which only has a copy of the reference, it is left alone.
"""

import atexit
import copy
import hashlib
import os
import warnings
import weakref
from typing import Any, Generic, TypeVar

import numpy as np

from ..verifiers import Task, UsageError
from .base import TaskEnv
from .snapshots import NOTHING, Release

S = TypeVar("S")
"""The state of an episode."""


class StateEnv(TaskEnv, Generic[S]):
    """What `DialogueEnv` does with the state of an episode."""

    _owner = 0
    """The process that holds the state; 0 if there is none."""
    _state: Any = None

    def open(self, task: Task, rng: np.random.Generator) -> S:
        """Make the state of an episode.

        Args:
            task: The task; its truth may be part of the state.
            rng: Of the task: the same task opens with the same draws every time.

        Returns:
            Anything. Must not depend on clocks or on `np_random`. If this raises half-way it has
            to undo what it did.
        """
        return None  # pyright: ignore

    def release(self, state: S) -> None:
        """Free what the state holds; called once for every state. Calls `state.close()`, if any."""
        close = getattr(state, "close", None)
        if callable(close):
            close()

    def copy_state(self, state: S) -> S:
        """Return a copy that nothing done to the original can change.

        By default a deep copy, taken only of states that need no release: a path can be copied,
        the folder behind it is still the same. Others are made again by replay, unless this is
        overridden. Raise `NotImplementedError` for one that cannot be copied.
        """
        return copy.deepcopy(state)

    @property
    def state(self) -> S:
        """The state of the running episode.

        Raises:
            UsageError: There is none.
        """
        if not self._owner:
            raise UsageError("no episode is running, so there is no state: call reset() first")
        return self._state

    def abandon(self) -> None:
        """End the episode now, unjudged, and release its state; without one, do nothing."""
        self._running = False
        self._let_go()

    def close(self) -> None:
        """Release the state of an episode that is going on."""
        self.abandon()
        super().close()

    def __del__(self) -> None:
        """Release the state of a forgotten environment."""
        if getattr(self, "_owner", 0):
            self._let_go()

    def _hold(self, state: Any) -> None:
        self._state, self._owner = state, os.getpid()
        if self._releases():
            _LIVE.add(self)

    def _releases(self) -> bool:
        """Whether the state holds something that must be freed."""
        return type(self).release is not StateEnv.release or hasattr(self._state, "close")

    def _let_go(self) -> None:
        """Release the state, once, in the process that made it."""
        owner, state = self._owner, self._state
        self._owner, self._state = 0, None
        if owner != os.getpid():
            return  # there is none, or it is the parent's: this is a forked child
        try:
            self.release(state)
        except Exception as error:
            task = self.task.id if self.task else ""
            warnings.warn(
                f"{type(self).__name__}.release failed on the state of task '{task}': "
                f"{type(error).__name__}: {error}; what it held may still be there",
                RuntimeWarning,
                stacklevel=2,
            )

    def _state_copy(self) -> tuple[Any, Release | None]:
        """Return a copy of the state and what frees it, or nothing where it is to be replayed."""
        custom = type(self).copy_state is not StateEnv.copy_state
        if self._releases() and not custom:
            return NOTHING, None
        try:
            state = self.copy_state(self._state)
        except Exception as error:
            if custom and not isinstance(error, NotImplementedError):
                raise
            return NOTHING, None
        return state, self.release if self._releases() else None


def rng_of(task: Task) -> np.random.Generator:
    """Return the generator of a task: its draws follow from the task's id."""
    digest = hashlib.blake2b(task.id.encode("utf-8", "backslashreplace"), digest_size=16).digest()
    words = np.frombuffer(digest, dtype="<u4")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words.tolist())))


_LIVE: "weakref.WeakSet[StateEnv[Any]]" = weakref.WeakSet()


@atexit.register
def _release_all() -> None:
    """Release every state that the process still holds at its end."""
    for env in list(_LIVE):
        env.close()
