"""One run, from the fork to the end: raise the walls, read the program, run it, leave."""

import gc
import marshal
import mmap
import os
import resource
import sys

from . import kernel, wire
from .flat import Fence
from .rooms import Room, Rooms


class Walls:
    """How a server encloses each run; made once, so that a fork finds everything ready."""

    def __init__(
        self, tier: str, fence: "Fence | None", rooms: "Rooms | None", filters: dict
    ) -> None:
        """Take the tier, the fence of `flat`, the rooms of `ns`, and the filter for each choice of
        permissions: of `ns` ready for the kernel, of `flat` its bytes.
        """
        self.tier = tier
        self.fence = fence
        self.rooms = rooms
        self.filters = filters

    def raise_around(self, request: tuple, home: str, room: "Room | None", place: int) -> None:
        """Enclose this process, in a room that is there or in a new one."""
        flags = request[2]
        if self.tier == "ns":
            self._namespaces(request, room, place)
        else:
            os.chdir(home)
        set_limits(request)
        if self.tier == "none":
            return
        if self.tier == "ns":
            kernel.keep_capabilities()
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        if self.fence is not None:
            kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)
            self.fence.enclose(home)
        record = self.filters[flags & (wire.PROCESSES | wire.SOCKETS)]
        if self.tier != "ns":
            record = kernel.Filter.of(record.replace(PID_MARK, pid_mark(os.getpid())))
        kernel.filter_system_calls(record)

    def _namespaces(self, request: tuple, room: "Room | None", place: int) -> None:
        """Leave the server's namespaces; the private folder covers /tmp."""
        flags, disk, inodes = request[2], request[7], request[10]
        assert self.rooms is not None
        made = ()
        if room is not None:
            room.enter()
        else:
            made = self.rooms.make(disk, inodes)
        if flags & wire.SOCKETS:
            kernel.unshare(kernel.CLONE_NEWNET)
            raise_loopback()
        if flags & wire.PROCESSES:
            os.mkdir(".shm")  # where /dev/shm leads: locks between processes are files there
        if room is not None:
            room.leave_server()
            return
        kernel.unshare(kernel.CLONE_NEWUSER)
        if not flags & wire.PROCESSES:
            self.rooms.announce(place, made)


PID_MARK = (0x7E57C0DE).to_bytes(4, sys.byteorder)
"""Stands in the filters of the `flat` tier where a run's own process id goes."""


def pid_mark(pid: int) -> bytes:
    """The bytes of a process id in a filter."""
    return pid.to_bytes(4, sys.byteorder)


def raise_loopback() -> None:
    """Bring up the loopback of a new network namespace."""
    import _socket
    import fcntl

    with_flags = b"lo".ljust(16, b"\0") + (1 | 64).to_bytes(2, sys.byteorder) + bytes(22)
    link = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    fcntl.ioctl(link.fileno(), 0x8914, with_flags)
    link.close()


def set_limits(request: tuple) -> None:
    """Set the limits that the kernel keeps; the server keeps those of time."""
    cpu, memory, file, stack = request[3], request[6], request[8], request[9]
    threads = request[11]
    seconds = int(cpu) + 2
    for kind, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, file),
        (resource.RLIMIT_STACK, stack),
        (resource.RLIMIT_NPROC, threads),
        (resource.RLIMIT_CPU, seconds),
    ):
        if value != KEEP:
            set_limit(kind, value)


def set_limit(kind: int, value: int) -> None:
    """Set a limit for good, below the one that is there."""
    hard = _hard[kind]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def set_own_limits() -> None:
    """Set in the server, for it and all runs, what is the same for all of them."""
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE):
        resource.setrlimit(kind, (0, 0))


_hard = {kind: resource.getrlimit(kind)[1] for kind in range(resource.RLIMIT_MSGQUEUE + 1)}
"""The limits that the server was started with; asked once, not in every fork."""
KEEP = 0xFFFFFFFF
"""Leave a limit as it is."""


def take_descriptors(fds: list, flags: int) -> int:
    """Put descriptors where the program looks for them, enter groups; returns the payload's."""
    payload, stdout, stderr, *rest = fds
    stdin = rest.pop(0) if flags & wire.STDIN else os.open("/dev/null", os.O_RDONLY)
    for fd, place in ((stdin, 0), (stdout, 1), (stderr, 2)):
        os.dup2(fd, place, inheritable=True)
    if flags & wire.CHANNEL:
        os.dup2(rest.pop(0), wire.CHANNEL_FD, inheritable=True)
    for flag in wire.GROUPS:
        if flags & flag:
            os.write(rest.pop(0), b"0")
    return payload


def run(
    request: tuple,
    fds: list,
    walls: Walls,
    home: str,
    room: "Room | None",
    page: "mmap.mmap",
    at: int,
) -> None:
    """Do one run in a fresh fork; never returns.

    The shared page tells the server that the walls stand; it is given up before the program starts.
    """
    try:
        os.setsid()
        flags = request[2]
        payload = take_descriptors(fds, flags)
        walls.raise_around(request, home, room, at)
        os.closerange(4 if flags & wire.CHANNEL else 3, payload)
        os.closerange(payload + 1, 1 << 20)
        set_limit(resource.RLIMIT_NOFILE, request[12])
        job = marshal.loads(read_all(payload))
        os.close(payload)
        page[at] = 1
        page.close()
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    os._exit(execute(job))


def read_all(fd: int) -> bytes:
    """Read a file to its end."""
    left = os.fstat(fd).st_size
    parts = []
    while left > 0 and (part := os.read(fd, left)):
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def write_files(files: dict) -> None:
    """Lay out the files that the program finds in its folder."""
    for name, content in files.items():
        folder = os.path.dirname(name)
        if folder:
            os.makedirs(folder, exist_ok=True)
        with open(name, "wb") as file:
            file.write(content)


def execute(job: dict) -> int:
    """Run the program as an interpreter would; returns its exit status."""
    main = type(sys)("__main__")
    main.__builtins__ = __builtins__
    sys.modules["__main__"] = main
    sys.argv[:] = job["argv"]
    if "path" in job:
        sys.path.insert(0, job["path"])
    code = 1
    try:
        write_files(job["files"])
        code_object = compile(job["program"], job["name"], "exec", dont_inherit=True)
        gc.enable()
        exec(code_object, main.__dict__)
        code = 0
    except SystemExit as leaving:
        code = exit_status(leaving.code)
    except MemoryError:
        report()
        code = wire.MEMORY_EXIT
    except BaseException:
        report()
    return finish(code, main.__dict__)


def exit_status(code: object) -> int:
    """What SystemExit's argument means."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    try:
        print(code, file=sys.stderr)
    except BaseException:
        return 1
    return 1


def report() -> None:
    """Print the current exception, without the frames that are ours."""
    try:
        error = sys.exception()
        assert error is not None
        trace = error.__traceback__ and error.__traceback__.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
    except BaseException:
        pass


def finish(code: int, space: dict) -> int:
    """Wait for threads, call what was left for the end, write out what was printed."""
    try:
        threading = sys.modules.get("threading")
        if threading is not None:
            threading._shutdown()
        atexit = sys.modules.get("atexit")
        if atexit is not None:
            atexit._run_exitfuncs()
    except BaseException:
        code = code or 1
    code = flush(code)
    try:
        # as an interpreter does at its end: a file that was not closed is written out
        for name in list(space):
            if not name.startswith("__"):
                space[name] = None
    except BaseException:
        code = code or 1
    return flush(code)


def flush(code: int) -> int:
    """Write out what was printed; returns the exit status, another one if that fails."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except BaseException:
            code = code or 120
    return code
