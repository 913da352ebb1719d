"""A vLLM server as a child process: started with the flags that training needs, and ended for good.

Bound to loopback: the routes that change weights ask nobody who they are.
"""

import atexit
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..verifiers import ModelError
from .transports import free_port
from .vllm_masks import MOST_SHOWN
from .vllm_settings import ENVIRONMENT, PROCESSOR, adapter_options, refuse_on_a_cpu

SCALE_OUT = "--enable-scale-out"
"""Opens the route from token ids to token ids, from vLLM 0.32 on; earlier it always is open."""

TARGETS = "--lora-target-modules"
"""Keeps the output layer without adapters; older versions do not know it."""

STREAMED = 16
"""Tokens between two pieces of an answer, and so those that are lost with a server at most."""

TERM_SECONDS = 10.0
"""Seconds between asking a server to end and ending it."""


class ServerProcess:
    """A running server and how to start it again."""

    def __init__(
        self,
        words: Sequence[str],
        port: int,
        *,
        limit: float,
        environment: Mapping[str, str],
        owned: Path | None = None,
    ) -> None:
        """Start it, and wait until it is healthy.

        Args:
            words: The flags of vLLM's server, but for host and port.
            port: Where it listens on loopback.
            limit: Seconds that a start may take.
            environment: Variables of the child, besides this process's.
            owned: A folder that is removed when it is closed.

        Raises:
            ModelError: It ended, or was not healthy in time.
        """
        self.words, self.port, self.limit = list(words), port, limit
        self.url = f"http://127.0.0.1:{port}"
        self.folder = Path(tempfile.mkdtemp(prefix="rlvr-vllm-server-"))
        self.log = self.folder / "log.txt"
        self._environment = {**ENVIRONMENT, **os.environ, **environment}
        self._owned = owned
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        atexit.register(self.close)
        try:
            self.restart()
        except BaseException:
            self.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether the process runs, healthy or not."""
        return self.process is not None and self.process.poll() is None

    def restart(self) -> None:
        """End what runs, start anew, and wait until it is healthy.

        Raises:
            ModelError: It ended, or was not healthy in time.
        """
        self._end()
        self._spawn()
        deadline = time.monotonic() + self.limit
        while not self._healthy():
            if not self.alive and self._drop_unknown_flag():
                self._spawn()
            elif not self.alive:
                code = self.process.returncode if self.process else None
                raise ModelError(f"the vLLM server ended with status {code}: {self._tail()}")
            elif time.monotonic() > deadline:
                self._end()
                raise ModelError(
                    f"the vLLM server was not healthy within {self.limit:g} s: {self._tail()}"
                )
            time.sleep(0.2)

    def _spawn(self) -> None:
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--host", "127.0.0.1", "--port", str(self.port), *self.words]
        self.starts += 1
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command,
                env=self._environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that all of its processes end together
            )

    def _drop_unknown_flag(self) -> bool:
        """Leave out flags that older versions do not know; returns whether those were it."""
        if "unrecognized arguments" not in (tail := self._tail()):
            return False
        unknown = [flag for flag in (SCALE_OUT, TARGETS) if flag in self.words and flag in tail]
        for flag in unknown:
            at = self.words.index(flag)
            values = itertools.takewhile(lambda word: word[:2] != "--", self.words[at + 1 :])
            del self.words[at : at + 1 + len(list(values))]
        return bool(unknown)

    def _healthy(self) -> bool:
        try:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"{self.url}/health", timeout=5) as got:
                return self.alive and got.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def _tail(self) -> str:
        """Return the last lines of the log."""
        lines = self.log.read_text("utf-8", "replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-12:])[-2000:] or "it wrote nothing"

    def _end(self) -> None:
        """End the whole process group."""
        if self.process is None:
            return
        for sent, seconds in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, TERM_SECONDS)):
            try:
                os.killpg(self.process.pid, sent)
            except ProcessLookupError:
                break
            try:
                self.process.wait(0.0 if self.process.poll() is not None else seconds)
            except subprocess.TimeoutExpired:
                continue
        self.process.wait()
        self.process = None

    def close(self) -> None:
        """End it; it cannot be started again."""
        self._end()
        for folder in (self.folder, *([self._owned] if self._owned else [])):
            shutil.rmtree(folder, ignore_errors=True)
        atexit.unregister(self.close)


def start_server(
    folder: str | Path,
    *,
    vocabulary: int,
    context: int,
    dtype: str = "float32",
    max_rows: int = 256,
    port: int = 0,
    limit: float = 300.0,
    environment: Mapping[str, str] | None = None,
    owned: bool = False,
    transport: str = "files",
    rank: int = 0,
    targets: Sequence[str] = (),
    **settings: Any,
) -> ServerProcess:
    """Start a server on loopback that can be trained through.

    Args:
        folder: The model, with its tokenizer.
        vocabulary: As for `LocalEngine`.
        context: The longest sequence in tokens.
        dtype: Of weights and computation.
        max_rows: Sequences that are computed at the same time at most.
        port: Where it listens; 0: a free one.
        limit: Seconds that a start may take.
        environment: More environment variables, such as `CUDA_VISIBLE_DEVICES`.
        owned: Whether the folder goes when the server is closed.
        transport: How it is to be handed weights: one of `policies.TRANSPORTS`.
        rank: Of the adapters that it is to serve beside the weights; 0: none.
        targets: Names of the layers that have them.
        settings: More flags of the server: `tensor_parallel_size=2`; `True` gives a bare flag.

    Raises:
        ModelError: It did not start.
    """
    words = server_words(
        folder,
        vocabulary=vocabulary,
        context=context,
        dtype=dtype,
        max_rows=max_rows,
        transport=transport,
        settings={**adapter_options(rank, targets), **settings},
    )
    fixed = {
        "VLLM_SERVER_DEV_MODE": "1",  # the routes that change weights
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "PYTHONSAFEPATH": "1",
    }
    if rank:
        fixed["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    if transport == "ipc":
        fixed["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"  # handles of memory travel pickled
    return ServerProcess(
        words,
        port or free_port(),
        limit=limit,
        environment={**fixed, **(environment or {})},
        owned=Path(folder) if owned else None,
    )


def server_words(
    folder: str | Path,
    *,
    vocabulary: int,
    context: int,
    dtype: str,
    max_rows: int,
    transport: str,
    settings: Mapping[str, Any],
) -> list[str]:
    """Return the flags of a server that can be trained through; as for `start_server`."""
    import torch

    refuse_on_a_cpu(settings)
    flags: dict[str, Any] = {
        "model": folder,
        "dtype": dtype,
        "max_model_len": context,
        "max_num_seqs": max_rows,
        "logprobs_mode": "processed_logprobs",
        "max_logprobs": MOST_SHOWN,
        "generation_config": "vllm",
        "logits_processors": PROCESSOR,
        "additional_config": json.dumps({"vocabulary": vocabulary}),
        "stream_interval": STREAMED,
        "disable_uvicorn_access_log": True,
        "enforce_eager": not torch.cuda.is_available(),
        "no_enable_chunked_prefill": not torch.cuda.is_available(),  # as for `engine_options`
    }
    if transport != "files":
        flags["weight_transfer_config"] = json.dumps({"backend": transport})
    words = [SCALE_OUT]
    for name, value in {**flags, **settings}.items():
        if value is not False:
            values = value if isinstance(value, list) else [] if value is True else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return words
