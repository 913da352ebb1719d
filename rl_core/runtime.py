"""What training asks of the process that it runs in: Ctrl-C, freed memory, the garbage collector.

Nothing here changes a number of the training; each measure is undone afterwards, except that freed
memory stays with the process.
"""

import ctypes
import gc
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's malloc options, from its malloc.h."""


class Interrupt:
    """Ctrl-C as a wish: the step is finished first; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        """Nothing is asked for yet."""
        self.asked = False

    def __enter__(self) -> Self:
        """Take over SIGINT where that is possible: in the main thread."""
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        """Give SIGINT back."""
        if self._main:
            signal.signal(signal.SIGINT, self._before)

    def _ask(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def keep_freed_memory() -> None:
    """Have glibc keep freed blocks for the next step.

    By default it gives large ones back to the system at once, and a step on a CPU then spends a
    fifth of its time having the same pages zeroed again. Elsewhere than on glibc, nothing happens.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, 1 << 30)
        set_option(_M_TRIM_THRESHOLD, (1 << 31) - 1)


@contextmanager
def long_lived_objects_left_alone() -> Iterator[None]:
    """Keep the garbage collector from walking through libraries and model at every full round."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
