"""The program that a worker process runs: read a call, make it, write the reply.

Started as a file of its own with nothing but the standard library, so that it is up in
milliseconds. The function arrives once, pickled by the parent; calls arrive as JSON where they can;
replies are JSON and nothing else, because what ran here has seen a policy's text.

File descriptors 0 and 1 are moved away before anything of the user's runs, so that its prints
cannot be taken for replies. The lifeline is a pipe that the parent holds open and never writes to:
when the parent ends, however it ends, the kernel signals this process group, and the default action
of that signal is to end it, even inside a computation that never lets go of the interpreter.

A function with costly imports may be served by a copy: this process imports, stays as it is, and
forks; when the copy is killed, the next one is there in milliseconds. Not for targets with threads.
"""

import contextlib
import json
import os
import pickle
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

HEADER = struct.Struct(">BI")
"""Kind and length of a frame from the parent; replies have the same form."""
ENDING = struct.Struct(">i")
"""After the token on the replies: the wait status of a copy that has ended."""
SETTINGS, TARGET, JSON_CALL, PICKLED_CALL, REPLY = range(5)
MAX_REPLY = 1 << 20
"""Bytes of a reply: a verdict with its evidence, not a document."""


def _private_pipes() -> tuple[int, int]:
    """Move the protocol off descriptors 0 and 1 and leave /dev/null there."""
    requests, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    return requests, replies


def _die_with_parent(lifeline: int) -> None:
    """Have the kernel end this process group when the lifeline's other end is closed."""
    try:
        import fcntl
        import signal

        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
    except (ImportError, AttributeError, OSError):
        return  # elsewhere than on Linux: an idle worker still ends at the end of its requests


def _limit_memory(size: int | None) -> None:
    """Bound the address space and leave no core files."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if size:
            resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _serve_by_copies(requests: int, replies: int, token: bytes) -> None:
    """Return in a copy of this process, and in the next one whenever a copy has ended."""
    import ctypes
    import gc
    import signal

    libc = ctypes.CDLL(None)
    gc.freeze()
    parent = os.getpid()
    while True:
        copy = os.fork()
        if copy == 0:
            os.setpgid(0, 0)  # it is killed with its children, and this process is not
            libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:
                os._exit(0)
            return
        _, status = os.waitpid(copy, 0)
        os.set_blocking(requests, False)
        with contextlib.suppress(BlockingIOError):
            while os.read(requests, 1 << 16):  # meant for the one that has ended
                pass
        os.set_blocking(requests, True)
        os.write(replies, token + ENDING.pack(status))


class _Channel:
    """Frames in and out, over raw descriptors."""

    def __init__(self, requests: int, replies: int) -> None:
        self.requests = requests
        self.replies = replies

    def receive(self) -> tuple[int, bytes]:
        """Wait for the next frame; the end of the requests ends the process."""
        kind, length = HEADER.unpack(self._exactly(HEADER.size))
        return kind, self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        data = os.read(self.requests, length) if length else b""
        if len(data) == length:
            return data
        parts = bytearray(data)
        while len(parts) < length:
            data = os.read(self.requests, length - len(parts))
            if not data:
                os._exit(0)
            parts += data
        return bytes(parts)

    def send(self, message: dict[str, Any]) -> None:
        """Write one reply; a message that does not fit the protocol becomes an error."""
        try:
            body = json.dumps(message, separators=(",", ":")).encode("ascii")
        except (TypeError, ValueError, RecursionError) as error:
            body = _failure(f"the verdict is not JSON: {type(error).__name__}")
        if len(body) > MAX_REPLY:
            body = _failure(f"the verdict is over {MAX_REPLY} bytes")
        data = memoryview(HEADER.pack(REPLY, len(body)) + body)
        while data:
            data = data[os.write(self.replies, data) :]


def _failure(reason: str) -> bytes:
    return json.dumps({"failed": reason, "cpu": time.process_time()}).encode("ascii")


def _reason(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:1000]
    except BaseException:  # an exception whose own text raises
        return type(error).__name__


def _load(channel: _Channel) -> Callable[..., Any]:
    """Receive the target; name a module that is missing, so that the parent sends it by value."""
    while True:
        _, data = channel.receive()
        try:
            target, setup = pickle.loads(data)
            if setup is not None:
                setup()
            return target
        except ModuleNotFoundError as error:
            channel.send({"missing": error.name or "", "reason": _reason(error)})
        except BaseException as error:
            channel.send({"failed": _reason(error)})


def _call(target: Callable[..., Any], kind: int, data: bytes) -> dict[str, Any]:
    args, kwargs = json.loads(data) if kind == JSON_CALL else pickle.loads(data)
    return target(*args, **kwargs)


def main() -> None:
    """Serve calls until the parent closes the requests."""
    channel = _Channel(*_private_pipes())
    _die_with_parent(int(sys.argv[1]))
    _, data = channel.receive()
    settings = json.loads(data)
    sys.path.extend(place for place in settings["path"] if place not in sys.path)
    _limit_memory(settings["memory"])
    target = _load(channel)
    if settings["token"]:
        _serve_by_copies(channel.requests, channel.replies, bytes.fromhex(settings["token"]))
    channel.send({"ready": True, "pid": os.getpid(), "cpu": time.process_time()})
    while True:
        kind, data = channel.receive()
        message: dict[str, Any] = {}
        try:
            message["verdict"] = _call(target, kind, data)
        except MemoryError as error:
            # what is left of the heap is not to be trusted with the next call
            message.update(failed=_reason(error), last=True)
        except BaseException as error:
            message["failed"] = _reason(error)
        message["cpu"] = time.process_time()
        channel.send(message)


if __name__ == "__main__":
    main()
