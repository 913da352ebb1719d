"""The server: takes requests, forks a run for each, watches its time, says how it ended.

One thread, no payload. It ends, and everything in its process-id namespace with it, when its
control socket closes or the process that asked for it is gone.
"""

import _signal  # pyright: ignore[reportMissingImports]
import _socket
import errno
import gc
import marshal
import mmap
import os
import select
import sys
import time

from . import child, kernel, wire
from .flat import remove_tree
from .outer import preload, prepare
from .rooms import Homes, Room, Rooms
from .warm import complete_builtins, warm_up

PAGE = 4096
"""Runs that a server can hold at a time: one byte of a shared page each."""
RECHECK = 0.02
"""Seconds between two looks at a run near its limit, at least."""
NEVER = float("inf")
OWN_FRAMES = 9
"""Calls of ours that a program stands on: it can recurse as deeply as one that stands on none."""
FD_SPACE = _socket.CMSG_SPACE(4 * wire.MAX_FDS)


class Run:
    """A run in progress."""

    __slots__ = (
        "cause",
        "connection",
        "deadline",
        "home",
        "number",
        "pid",
        "pidfd",
        "place",
        "request",
        "room",
        "seen",
        "started",
    )

    def __init__(
        self,
        connection: int,
        request: tuple,
        pid: int,
        place: int,
        home: str,
        room: "Room | None",
    ) -> None:
        """Note what was forked."""
        self.connection = connection
        self.request = request
        self.number = request[1]
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.place = place
        self.home = home
        self.room = room
        self.cause = wire.ENDED
        self.seen = -1.0
        self.started = time.monotonic()
        cpu, wall = request[3], request[4]
        self.deadline = self.started + min(cpu, wall)

    def cpu(self) -> float:
        """Seconds of CPU so far, from the kernel's clock of the process."""
        try:
            return time.clock_gettime(~self.pid << 3 | 2)
        except OSError:
            return 0.0

    def judge(self, now: float, queued: float) -> int:
        """Say whether the run is over a limit, and set the time of the next look."""
        cpu, wall, patience = self.request[3:6]
        used, elapsed = self.cpu(), now - self.started
        if used >= cpu:
            return wire.CPU
        own = elapsed - queued
        if own >= wall:
            return wire.WALL
        if elapsed >= patience:
            return wire.STARVED
        self.deadline = now + max(RECHECK, min(cpu - used, wall - own))
        return wire.ENDED


class Server:
    """Serves the connections that arrive on the control socket."""

    def __init__(self, control: int, owner: int, proc: int, walls: child.Walls, base: str) -> None:
        """Take the descriptors; `base` is the folder that `flat` runs live in."""
        self.control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, control)
        self.owner = owner
        self.proc = proc
        self.walls = walls
        self.base = base
        self.connections = {}
        self.runs = {}
        self.page = mmap.mmap(-1, PAGE)
        self.free = list(range(PAGE - 1, -1, -1))
        self.poll = select.epoll()
        self.poll.register(control, select.EPOLLIN)
        self.poll.register(owner, select.EPOLLIN)
        self.namespace = -1
        self.homes = Homes(base)
        if walls.tier == "ns":
            self.namespace = os.open("self/ns/pid", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)

    def serve(self) -> None:
        """Serve until the owner lets go."""
        while True:
            deadline = min((run.deadline for run in self.runs.values()), default=NEVER)
            wait = -1 if deadline >= NEVER else max(0.0, deadline - time.monotonic())
            for fd, _ in self.poll.poll(wait):
                if fd == self.owner or (fd == self.control.fileno() and not self.accept()):
                    return self.clean()
                if fd in self.runs:
                    self.finish(self.runs.pop(fd))
                elif fd in self.connections:
                    self.read(fd)
            self.check_time()

    def clean(self) -> None:
        """End all runs; the folder of `flat` goes with the server."""
        for run in self.runs.values():
            _signal.pidfd_send_signal(run.pidfd, _signal.SIGKILL)
            os.waitpid(run.pid, 0)
        if self.base:
            try:
                remove_tree(self.base)
            except OSError:
                return

    def accept(self) -> bool:
        """Take in a new connection; `False` when the control socket closed."""
        data, fds = receive(self.control)
        if not data:
            return False
        for fd in fds:
            connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
            self.connections[fd] = connection
            self.poll.register(fd, select.EPOLLIN)
        return True

    def read(self, fd: int) -> None:
        """Do what a connection asks for; one that closed takes its runs with it."""
        data, fds = receive(self.connections[fd])
        if not data:
            self.poll.unregister(fd)
            self.connections.pop(fd).close()
            for run in self.runs.values():
                if run.connection == fd:
                    run.connection = -1
                    self.kill(run, wire.KILLED)
        elif data[0] == wire.RUN:
            self.start(fd, wire.REQUEST.unpack(data), fds)
        else:
            self.order(fd, *wire.HEAD.unpack(data))

    def order(self, fd: int, kind: int, number: int) -> None:
        """Kill a run, or say what it has used."""
        for run in self.runs.values():
            if run.connection == fd and run.number == number:
                if kind == wire.KILL:
                    self.kill(run, wire.KILLED)
                else:
                    elapsed = time.monotonic() - run.started
                    self.answer(run, wire.USAGE, 0, run.cpu(), elapsed, self.queued(run), 0)

    def start(self, connection: int, request: tuple, fds: list) -> None:
        """Fork a run."""
        place = self.free.pop()
        self.page[place] = 0
        home, room = "", None
        rooms = self.walls.rooms
        try:
            if rooms is not None:
                room = rooms.take(request[7], request[10])
            else:
                home = self.homes.take()
            pid = self.fork(request, fds, place, home, room)
            run = Run(connection, request, pid, place, home, room)
        except OSError as error:
            self.free.append(place)
            if room is not None:
                room.close()
            if home:
                self.homes.give_back(home)
            os.write(fds[2], f"cannot fork: {error}".encode())
            self.send(connection, wire.DONE, request[1], wire.BROKEN)
            return
        finally:
            for fd in fds:
                os.close(fd)
        self.runs[run.pidfd] = run
        self.poll.register(run.pidfd, select.EPOLLIN)

    def fork(self, request: tuple, fds: list, place: int, home: str, room: "Room | None") -> int:
        """Fork, into a process-id namespace of its own where there are namespaces."""
        if self.namespace >= 0:
            kernel.unshare(kernel.CLONE_NEWPID)
        try:
            pid = os.fork()
            if pid == 0:
                child.run(request, fds, self.walls, home, room, self.page, place)
        finally:
            if self.namespace >= 0:
                kernel.setns(self.namespace, kernel.CLONE_NEWPID)
        return pid

    def finish(self, run: Run) -> None:
        """Reap a run and say how it ended."""
        _, status, usage = os.wait4(run.pid, 0)
        self.poll.unregister(run.pidfd)
        os.close(run.pidfd)
        if run.home:
            self.homes.give_back(run.home)
        if self.walls.rooms is not None:
            self.clear(run, self.walls.rooms)
        if not self.page[run.place] and run.cause == wire.ENDED:
            run.cause = wire.BROKEN
        self.free.append(run.place)
        cpu = usage.ru_utime + usage.ru_stime
        elapsed = time.monotonic() - run.started
        self.answer(run, wire.DONE, status, cpu, elapsed, 0.0, usage.ru_maxrss * 1024)

    def clear(self, run: Run, rooms: Rooms) -> None:
        """Take back the room of a run whose processes are all gone."""
        if run.room is None:
            here = {run.place: run, **{other.place: other for other in self.runs.values()}}
            for place, room in rooms.arrivals():
                if place in here:
                    here[place].room = room
                else:
                    room.close()
        if run.room is not None:
            rooms.give_back(run.room)

    def answer(self, run: Run, kind: int, status: int, *figures: float) -> None:
        """Send a message about a run."""
        self.send(run.connection, kind, run.number, run.cause, status, *figures)

    def send(self, connection: int, kind: int, number: int, cause: int, *rest: float) -> None:
        """Send a message; a connection that is gone gets none."""
        status, cpu, wall, queued, memory = rest or (0, 0.0, 0.0, 0.0, 0)
        message = wire.ANSWER.pack(kind, number, cause, status, cpu, wall, queued, memory)
        try:
            self.connections[connection].send(message, _socket.MSG_NOSIGNAL | _socket.MSG_DONTWAIT)
        except (KeyError, OSError):
            return

    def kill(self, run: Run, cause: int) -> None:
        """End a run; the first process of its namespace takes the others with it."""
        if run.cause == wire.ENDED:
            run.cause = cause
        run.deadline = NEVER
        _signal.pidfd_send_signal(run.pidfd, _signal.SIGKILL)

    def check_time(self) -> None:
        """Kill the runs that are over a limit."""
        now = time.monotonic()
        for run in self.runs.values():
            if now >= run.deadline:
                waited = now - run.started >= run.request[4]
                cause = run.judge(now, self.queued(run) if waited else 0.0)
                if cause == wire.WALL and self.is_held_up(run):
                    run.deadline = now + RECHECK
                    cause = wire.STARVED if now - run.started >= run.request[5] else wire.ENDED
                if cause != wire.ENDED:
                    self.kill(run, cause)

    def is_held_up(self, run: Run) -> bool:
        """Say whether the run is ready and got no core since the last look: the kernel counts a
        wait only when it is over.
        """
        before, run.seen = run.seen, run.cpu()
        try:
            state = self.about(run, "stat").rpartition(")")[2].split(None, 1)[0]
        except (OSError, IndexError):
            return False
        return state == "R" and before in (-1.0, run.seen)

    def queued(self, run: Run) -> float:
        """Seconds that the run was ready and had no core; 0 where the kernel does not say."""
        try:
            return int(self.about(run, "schedstat").split()[1]) * 1e-9
        except (OSError, ValueError, IndexError):
            return 0.0

    def about(self, run: Run, name: str) -> str:
        """Read a file of /proc about the run, whose number is another one there."""
        pid = self.text(f"self/fdinfo/{run.pidfd}").partition("Pid:")[2].split(None, 1)[0]
        return self.text(f"{pid}/{name}")

    def text(self, path: str) -> str:
        """Read a file of /proc."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.proc)
        try:
            return os.read(fd, 4096).decode()
        finally:
            os.close(fd)


def receive(socket: "_socket.socket") -> tuple:
    """Receive one message: its bytes, and the descriptors that came with it."""
    try:
        data, extra, _, _ = socket.recvmsg(4096, FD_SPACE, _socket.MSG_CMSG_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ECONNRESET:
            return b"", []
        raise
    fds = []
    for level, kind, words in extra:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds += memoryview(words).cast("i").tolist()
    return data, fds


def give_up(socket: "_socket.socket", reason: str, base: str) -> None:
    """Say why there will be no server, if anybody is left to hear it, and leave nothing."""
    try:
        if base:
            remove_tree(base)
        socket.send(marshal.dumps({"error": reason}, 2))
    except OSError:
        return


def main(control: int, owner: int) -> None:
    """Start up, say so on the control socket, and serve."""
    # no descriptor that comes later gets a number that a run puts something else under
    while os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) < wire.CHANNEL_FD:
        pass
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, os.dup(control))
    settings = {}
    try:
        settings = marshal.loads(socket.recv(1 << 18))
        proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        walls = prepare(settings, proc)
        missing = preload(settings["preload"], settings["path"])
        server = Server(control, owner, proc, walls, settings["base"])
        ready = {
            "landlock": kernel.landlock_abi(),
            "uid": os.geteuid(),
            "missing": missing,
            "python": sys.version.split()[0],
        }
        socket.send(marshal.dumps(ready, 2))
    except BaseException as error:
        give_up(socket, f"{type(error).__name__}: {error}", settings.get("base", ""))
        os._exit(1)
    socket.close()
    del settings
    child.set_own_limits()
    del os.environ["LD_BIND_NOW"]
    sys.setrecursionlimit(sys.getrecursionlimit() + OWN_FRAMES)
    complete_builtins()
    warm_up()
    gc.collect()
    gc.freeze()
    gc.disable()
    server.serve()
    os._exit(0)
