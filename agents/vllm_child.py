"""The process of an engine of vLLM: started, watched, ended, and its last words.

It is started by vLLM. What we add to it comes by way of its log's configuration, which is the first
thing that it reads: whatever it writes goes to a file instead of the user's terminal, and Ctrl-C in
that terminal does not reach it, so that a run can finish its step.
"""

import json
import logging
import multiprocessing
import os
import signal
import sys
import traceback
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..verifiers import ModelError

VARIABLE = "VLLM_LOGGING_CONFIG_PATH"
"""The environment variable by which vLLM's processes find the configuration of their log."""


class Child:
    """An engine's process, and how to start another."""

    def __init__(self, options: Mapping[str, Any], folder: Path) -> None:
        """Note what to start.

        Args:
            options: The engine's arguments.
            folder: Where its log is kept.
        """
        self.options, self.log = dict(options), folder / "log.txt"
        self.llm: Any = None
        """vLLM's `AsyncLLM`; it belongs to the event loop that started it."""
        self.processes: list[Any] = []

    def start(self) -> None:
        """Start a process in place of the one there was; to be called on the engine's event loop.

        Raises:
            ModelError: It did not start.
        """
        from vllm.engine.arg_utils import AsyncEngineArgs  # pyright: ignore
        from vllm.v1.engine.async_llm import AsyncLLM  # pyright: ignore

        self.end()
        before = multiprocessing.active_children()
        try:
            with _logging_to(self.log), _main_left_alone():
                self.llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**self.options))
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # they hold sockets and processes
            model = self.options["model"]
            raise ModelError(
                f"vLLM could not start with '{model}': {error}; {self.tail()}"
            ) from error
        finally:
            started = [p for p in multiprocessing.active_children() if p not in before]
            self.processes = [p for p in started if p.name.startswith("EngineCore")]

    @property
    def alive(self) -> bool:
        """Whether it runs, and can be asked."""
        if self.llm is None or self.llm.errored:
            return False
        return all(process.is_alive() for process in self.processes)

    def kill(self) -> None:
        """End it at once, with all that it has started."""
        for process in self.processes:
            with suppress(OSError, ValueError):
                if process.is_alive() and os.getpgid(process.pid) == process.pid:
                    os.killpg(process.pid, signal.SIGKILL)
                process.kill()

    def end(self) -> None:
        """Have it end, and forget it."""
        llm, self.llm = self.llm, None
        if llm is not None:
            with suppress(Exception):
                llm.shutdown()
        self.kill()

    def tail(self, lines: int = 12) -> str:
        """Return the last lines that it has written."""
        text = self.log.read_text("utf-8", "replace") if self.log.exists() else ""
        return "\n".join(text.strip().splitlines()[-lines:])[-2000:] or "(it is empty)"


class ChildLog(logging.FileHandler):
    """The log of vLLM, and in its own process whatever else is written there."""

    def __init__(self, filename: str, parent: int) -> None:
        """Open it.

        Args:
            filename: The file.
            parent: Id of the process that is not to be changed.
        """
        super().__init__(filename, encoding="utf-8", errors="replace")
        if os.getpid() == parent:
            return
        file = self.stream or self._open()
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        with suppress(OSError):
            os.setpgid(0, 0)


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Let vLLM's processes that are started here log to a file, unless the user has a wish."""
    if VARIABLE in os.environ:
        yield
        return
    path.unlink(missing_ok=True)
    handler = {"()": f"{__name__}.ChildLog", "filename": str(path), "parent": os.getpid()}
    form = {"format": "%(levelname)s %(asctime)s %(message)s"}
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": form},
        "handlers": {"child": {**handler, "formatter": "plain"}},
        "loggers": {"vllm": {"handlers": ["child"], "level": "INFO", "propagate": False}},
    }
    place = path.with_suffix(".json")
    place.write_text(json.dumps(config))
    os.environ[VARIABLE] = str(place)
    try:
        yield
    finally:
        del os.environ[VARIABLE]


@contextmanager
def _main_left_alone() -> Iterator[None]:
    """Keep processes that are started here from running the user's script again.

    A new interpreter imports the main module of the one that started it; a script that trains at
    its top level would train in there, too. The engine needs nothing of it.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
