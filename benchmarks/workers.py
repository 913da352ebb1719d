"""Systems side by side, each in a process of its own that is warm and waits while others run.

The parent lets one worker at a time take a few steps, so that whatever slows the machine down for
a while slows all systems down alike. In a worker the system's own loop is in charge: at the end of
each of its steps it calls `Gate.tick`, which does not return before the next step is wanted.
"""

import multiprocessing
import os
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import torch
from stopwatch import Stopwatch


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one step of a system took."""

    parts: Mapping[str, float]
    """Seconds by part; they add up to the step."""
    lengths: Sequence[int] = ()
    """Completion lengths in characters, one per episode."""
    rewards: Sequence[float] = ()
    """Rewards, one per episode."""

    @property
    def seconds(self) -> float:
        """The wall time of the step."""
        return sum(self.parts.values())


@dataclass
class Gate:
    """A worker's end: counts steps, and waits for the parent between blocks."""

    pipe: Connection
    watch: Stopwatch = field(default_factory=Stopwatch)
    """Runs while the gate is open."""
    evaluate: Callable[[], Any] = lambda: None
    """What the parent may ask for between blocks, outside the clock."""
    leave: Callable[[], Any] = lambda: None
    """Called when the parent is gone: ends what would outlive this process."""
    lengths: list[int] = field(default_factory=list)
    """The reward function enters each completion's length here."""
    rewards: list[float] = field(default_factory=list)
    """And its reward here."""
    _wanted: int = 0
    _steps: list[Step] = field(default_factory=list)

    def ready(self) -> None:
        """Say that the set-up is done, and wait for the first block."""
        self.pipe.send("ready")
        self._wait()

    def tick(self, parts: Mapping[str, float] | None = None) -> None:
        """End a step.

        Args:
            parts: Seconds of some parts as the system itself measured them; taken out of what the
                watch booked as `other`.
        """
        lap = self.watch.lap()
        for name, seconds in (parts or {}).items():
            lap[name] += seconds
            lap["other"] -= seconds
        self._steps.append(Step(parts=lap, lengths=[*self.lengths], rewards=[*self.rewards]))
        self.lengths.clear()
        self.rewards.clear()
        if len(self._steps) >= self._wanted:
            self.pipe.send(self._steps)
            self._wait()

    def _wait(self) -> None:
        while (command := self._receive()) == "evaluate":
            self.pipe.send(self.evaluate())
            self.lengths.clear()
            self.rewards.clear()
        self._wanted, self._steps = command, []
        self.watch.lap()

    def _receive(self) -> Any:
        try:
            return self.pipe.recv()
        except EOFError:  # the parent has what it wants; the system's loop is not to go on
            self.leave()
            os._exit(0)


def _serve(pipe: Connection, threads: int, target: Callable[..., None], args: Any) -> None:
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore", FutureWarning)  # TRL's calls into transformers
    try:
        target(Gate(pipe), *args)
        pipe.send(RuntimeError("the system's loop ended early; give it more steps"))
    except Exception:
        pipe.send(RuntimeError(traceback.format_exc()))


class Worker:
    """The parent's end of one system."""

    def __init__(self, name: str, threads: int, target: Callable[..., None], *args: Any) -> None:
        """Start the process; `target(gate, *args)` runs the system's loop in it."""
        self.name = name
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        # not daemonic: a daemonic process may have no children, and verifiers may want some
        self.process = context.Process(target=_serve, args=(theirs, threads, target, args))
        self.process.start()
        theirs.close()
        self._ready = False

    def steps(self, count: int) -> list[Step]:
        """Let the system take some steps."""
        return self._ask(count)

    def evaluate(self) -> Any:
        """Call the worker's `Gate.evaluate`."""
        return self._ask("evaluate")

    def wait_ready(self) -> None:
        """Wait until the set-up is done."""
        if not self._ready:
            self._answer()
            self._ready = True

    def _ask(self, command: Any) -> Any:
        self.pipe.send(command)
        return self._answer()

    def _answer(self) -> Any:
        try:
            answer = self.pipe.recv()
        except EOFError:
            self.process.join()
            code = self.process.exitcode
            raise RuntimeError(f"worker '{self.name}' has died with exit code {code}") from None
        if isinstance(answer, Exception):
            raise RuntimeError(f"worker '{self.name}' failed:\n{answer}")
        return answer

    def close(self) -> None:
        """End the process."""
        self.pipe.close()
        self.process.join(timeout=10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
