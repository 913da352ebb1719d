"""One server process as the pool sees it: start, connect, close."""

import contextlib
import marshal
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import UsageError
from .inside.flat import remove_tree
from .outcome import SandboxError
from .places import PACKAGES, interpreter, package_paths, readable_places, root_places

Tier = Literal["ns", "flat", "none"]
TIERS: tuple[Tier, ...] = ("ns", "flat", "none")
"""From the strongest walls to none."""
DROPPED = 61_357
"""What root becomes before it runs anything: an id that no ordinary service has."""
START_SECONDS = 120.0
"""A start with its imports may take this long on a loaded machine."""
FOLDER = Path(__file__).parent
_BOOT = (
    "import sys; folder, control, owner = sys.argv[1:]; sys.path.insert(0, folder); "
    "from inside.server import main; del sys.path[0]; main(int(control), int(owner))"
)
ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "MALLOC_ARENA_MAX": "2",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PATH": "/usr/bin:/bin",
    "PYTHONHASHSEED": "0",
}
"""All that a run finds in its environment. The seed makes the order of a set the same each time; it
is why the flags are those of -I one by one: -I would ignore it."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What a server is started with; servers of one profile are alike."""

    tier: Tier
    python: str
    packages: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()


class ServerProcess:
    """A server and its control socket; `connect` may be called from any thread."""

    def __init__(self, profile: Profile) -> None:
        """Start it; raises `SandboxError` with the reason if it does not come up."""
        if sys.platform != "linux":
            raise SandboxError(f"the sandbox needs Linux; this is {sys.platform}")
        self.profile = profile
        interpreter(profile.python)  # asked now: it takes a while, the first time
        self.owner = os.getpid()
        self.lock = threading.Lock()
        self.closed = False
        self.control, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        own = os.pidfd_open(os.getpid())
        try:
            try:
                self.process = self._spawn(far.fileno(), own)
            finally:
                far.close()  # before the greeting: a server that dies meanwhile is heard at once
                os.close(own)
            self.base = self._make_base()  # last: a caller that is killed before leaves none
            self.ready = self._greet()
        except BaseException:
            self.close()
            raise

    process: "subprocess.Popen[bytes] | None" = None
    base = ""
    """The folder that the runs of the lower tiers live in; the server removes it when it ends."""

    def _make_base(self) -> str:
        """Make the folder that the runs of the lower tiers live in."""
        if self.profile.tier == "ns":
            return ""
        base = tempfile.mkdtemp(prefix="rlvr-sandbox-")
        os.mkdir(base + "/packages")
        if os.geteuid() == 0 and self.profile.tier == "flat":
            os.chown(base, DROPPED, DROPPED)
            os.chown(base + "/packages", DROPPED, DROPPED)
        return base

    def _spawn(self, control: int, owner: int) -> "subprocess.Popen[bytes]":
        command = [self.profile.python, "-S", "-P", "-s", "-B", "-X", "utf8", "-c", _BOOT]
        try:
            return subprocess.Popen(
                [*command, str(FOLDER), str(control), str(owner)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(control, owner),
                env=ENVIRONMENT | {"LD_BIND_NOW": "1"},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxError(f"cannot start {self.profile.python!r}: {error}") from error

    def _greet(self) -> dict[str, Any]:
        """Send the settings and wait until the server says that it stands."""
        self.control.settimeout(START_SECONDS)
        try:
            self.control.send(marshal.dumps(self._settings(), 2))
            answer = self.control.recv(1 << 16)
        except OSError as error:
            raise SandboxError(f"the sandbox's server did not start: {error}") from error
        self.control.settimeout(None)
        ready = marshal.loads(answer) if answer else {"error": "it ended without a word"}
        if "error" in ready:
            raise SandboxError(f"tier '{self.profile.tier}' cannot be had: {ready['error']}")
        if ready["missing"]:
            raise UsageError(f"modules cannot be preloaded: {'; '.join(ready['missing'])}")
        return ready

    def _settings(self) -> dict[str, Any]:
        """What the server needs to know, of simple types."""
        profile = self.profile
        python = interpreter(profile.python)
        packages = package_paths(profile.packages, python.version)
        path = PACKAGES if packages else ""
        if profile.tier == "ns":
            places: dict[str, Any] = dict(root_places(python, packages))
        else:
            places = dict(readable_places(python, packages))
            for package in packages:
                os.symlink(package, f"{self.base}/packages/{os.path.basename(package)}")
            path = f"{self.base}/packages" if packages else ""
        return {
            "tier": profile.tier,
            "places": places,
            "uid": DROPPED if os.geteuid() == 0 else 0,
            "preload": list(profile.preload),
            "path": path,
            "base": self.base,
        }

    def connect(self) -> socket.socket:
        """Open a connection, on which one caller at a time makes requests."""
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("=i", far.fileno()))
            try:
                with self.lock:
                    self.control.sendmsg([b"C"], [rights], socket.MSG_NOSIGNAL)
            except OSError as error:
                near.close()
                raise SandboxError(f"the sandbox's server is gone: {error}") from error
        return near

    def is_alive(self) -> bool:
        """Return whether the process is there."""
        return not self.closed and self.process is not None and self.process.poll() is None

    def close(self, seconds: float = 5.0) -> None:
        """End the server and all its runs; in a forked child only let go of it."""
        if self.closed:
            return
        self.closed = True
        self.control.close()
        if os.getpid() != self.owner:
            if self.process is not None:
                self.process.returncode = 0  # not a child of this process: nothing to wait for
            return
        if self.process is not None:
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.base:
            with contextlib.suppress(OSError):
                remove_tree(self.base)
