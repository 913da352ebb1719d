"""Who runs next: a semaphore with one queue for threads and event loops, fair between callers."""

import collections
import concurrent.futures
import threading
from typing import Generic, TypeVar

Item = TypeVar("Item")
Turn = concurrent.futures.Future


class Gate(Generic[Item]):
    """Hands out a fixed set of items.

    Waiting callers are grouped by share, and the shares take turns: one caller with ten thousand
    programs does not keep another's one waiting behind them. Within a share, first come, first
    served.

    Example:
        >>> gate = Gate(["a"])
        >>> gate.enter("one").result()
        'a'
        >>> waiting = gate.enter("one")
        >>> waiting.done()
        False
        >>> gate.leave("a")
        >>> waiting.result()
        'a'
    """

    def __init__(self, items: list[Item]) -> None:
        """Start with all items free."""
        self.free = collections.deque(items)
        self.shares: dict[str, collections.deque[Turn[Item]]] = {}
        self.lock = threading.Lock()

    def enter(self, share: str) -> "Turn[Item]":
        """Ask for an item; the future is done when there is one."""
        turn: Turn[Item] = concurrent.futures.Future()
        with self.lock:
            if self.free and not self.shares:
                turn.set_running_or_notify_cancel()
                turn.set_result(self.free.popleft())
            else:
                self.shares.setdefault(share, collections.deque()).append(turn)
        return turn

    def leave(self, item: Item) -> None:
        """Give an item back; the next in turn gets it."""
        with self.lock:
            turn = self._next()
            if turn is None:
                self.free.append(item)
        if turn is not None:
            turn.set_result(item)

    def waiting(self) -> int:
        """How many callers wait."""
        with self.lock:
            return sum(map(len, self.shares.values()))

    def _next(self) -> "Turn[Item] | None":
        """The first caller of the first share; the share goes to the end of the line."""
        while self.shares:
            share = next(iter(self.shares))
            queue = self.shares.pop(share)
            turn = queue.popleft()
            if queue:
                self.shares[share] = queue
            if turn.set_running_or_notify_cancel():
                return turn
        return None
