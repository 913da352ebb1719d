"""Namespaces that a run leaves as it found them, kept for the next one.

A room is a mount namespace with a private folder at /tmp, an IPC and a user namespace; making and
ending them costs more than the rest of a run's walls. The first run in a room makes it. Whoever
comes after gets it only if nothing in it was touched: a run can change neither mounts nor, by the
filter of system calls, make anything in the IPC namespace, so the folder decides. It must have the
change time, which no program can set, the mode and the free blocks and files of the beginning. A
room where a file was as much as made and deleted is given up.
"""

import _socket
import marshal
import os
import sys

from . import kernel
from .flat import remove_tree

HOME = "/tmp"
MOST = 4
"""Rooms kept that no run is in."""
PARTS = (("ns/mnt", kernel.CLONE_NEWNS), ("ns/ipc", kernel.CLONE_NEWIPC))
OWNER = ("ns/user", kernel.CLONE_NEWUSER)
"""Entered last: with it go the capabilities to enter the others."""


class Room:
    """Descriptors of the namespaces and of the folder, and how the folder was."""

    __slots__ = ("fds", "key", "state")

    def __init__(self, key: tuple, fds: list, state: tuple) -> None:
        """Take the descriptors: mount, IPC, user namespace, folder."""
        self.key = key
        self.fds = fds
        self.state = state

    def enter(self) -> None:
        """Bring this process into the mount and IPC namespaces and the folder."""
        for at, (_, kind) in enumerate(PARTS):
            kernel.setns(self.fds[at], kind)
        os.fchdir(self.fds[3])

    def leave_server(self) -> None:
        """Bring this process into the user namespace, in which it owns nothing outside."""
        kernel.setns(self.fds[2], kernel.CLONE_NEWUSER)

    def is_untouched(self) -> bool:
        """Return whether the folder is as it was made."""
        return look(self.fds[3]) == self.state

    def close(self) -> None:
        """Let the namespaces go."""
        for fd in self.fds:
            os.close(fd)


def mark(about: "os.stat_result") -> tuple:
    """What a run cannot change back of a folder, once it has made something in it."""
    return (
        about.st_mode,
        about.st_nlink,
        about.st_uid,
        about.st_gid,
        about.st_size,
        about.st_mtime_ns,
        about.st_ctime_ns,
    )


def look(folder: int) -> tuple:
    """The same of a folder with a file system of its own, and what is free there."""
    room = os.fstatvfs(folder)
    return (*mark(os.fstat(folder)), room.f_bfree, room.f_ffree)


class Homes:
    """The same with ordinary folders, for the tiers without namespaces."""

    def __init__(self, base: str) -> None:
        """`base` is the folder that they are made in."""
        self.base = base
        self.free = []
        self.marks = {}
        self.count = 0

    def take(self) -> str:
        """Return an empty folder."""
        if self.free:
            return self.free.pop()
        self.count += 1
        home = f"{self.base}/{self.count}"
        os.mkdir(home, 0o700)
        self.marks[home] = mark(os.stat(home))
        return home

    def give_back(self, home: str) -> None:
        """Keep a folder that was left as it was; remove another, whatever is in it."""
        try:
            if mark(os.stat(home)) == self.marks[home] and not os.listdir(home):
                self.free.append(home)
                return
            del self.marks[home]
            remove_tree(home)
        except OSError:  # one that resists must not end the server
            self.marks.pop(home, None)


class Rooms:
    """The rooms of one server."""

    def __init__(self, proc: int) -> None:
        """`proc` is a descriptor of /proc."""
        self.proc = proc
        self.free = []
        self.near, self.far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)

    def take(self, disk: int, inodes: int) -> "Room | None":
        """Return a free room with a folder of that size, if there is one."""
        for at, room in enumerate(self.free):
            if room.key == (disk, inodes):
                return self.free.pop(at)
        return None

    def give_back(self, room: Room) -> None:
        """Keep a room that was left as it was; the one that waited longest makes way."""
        if not room.is_untouched():
            room.close()
            return
        self.free.append(room)
        if len(self.free) > MOST:
            self.free.pop(0).close()

    def make(self, disk: int, inodes: int) -> tuple:
        """In a fork: make a room's mount and IPC namespaces and enter them.

        The folder is mounted before the user namespace is left, so that neither it nor the mount
        namespace belongs to the run's own user, and no id needs to be mapped.

        Returns:
            The key of the room, its folder, and how that looks.
        """
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC)
        quota = f"mode=700,size={disk},nr_inodes={inodes}"
        kernel.mount("tmpfs", HOME, "tmpfs", FLAGS, quota)
        os.chdir(HOME)
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # looked at here: the owner has no number in the user namespace that comes next
        return (disk, inodes), folder, look(folder)

    def announce(self, place: int, made: tuple) -> None:
        """In a fork that has left the server's user namespace: hand the room to the server."""
        key, folder, state = made
        paths = [path for path, _ in (*PARTS, OWNER)]
        flags = os.O_RDONLY | os.O_CLOEXEC
        fds = [os.open(f"self/{path}", flags, dir_fd=self.proc) for path in paths] + [folder]
        words = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, words)
        data = marshal.dumps((place, key, state), 2)
        self.far.sendmsg([data], [rights])

    def arrivals(self) -> list:
        """Return the rooms that were announced, each with the place of its run."""
        found = []
        space = _socket.CMSG_SPACE(4 * 4)
        flags = _socket.MSG_DONTWAIT | _socket.MSG_CMSG_CLOEXEC
        while True:
            try:
                data, extra, _, _ = self.near.recvmsg(512, space, flags)
            except BlockingIOError:
                return found
            fds = [fd for _, _, words in extra for fd in memoryview(words).cast("i").tolist()]
            place, key, state = marshal.loads(data)
            room = Room(key, fds, state)
            if len(fds) == len(PARTS) + 2:
                found.append((place, room))
            else:  # this process has no room for more descriptors
                room.close()


FLAGS = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOATIME
