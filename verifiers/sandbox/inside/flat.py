"""The walls of the `flat` tier: Landlock over ordinary folders, where namespaces are refused."""

import os

from . import kernel, root

WRITE_FILE, READ_FILE, LIST = 1 << 1, 1 << 2, 1 << 3
READ = 1 << 0 | READ_FILE | LIST
"""Execute, read a file, list a folder."""
REMOVE_FOLDER = 1 << 4
NODES = 1 << 6 | 1 << 11 | 1 << 15
"""Make a character or block device, use ioctl on one."""
DEVICES = ["/dev/null", "/dev/zero", "/dev/urandom"]
LAST_RIGHT = {1: 12, 2: 13, 3: 14, 4: 14, 5: 15}
"""The highest right over files that a version knows."""
TCP = 0b11
SCOPES = 0b11
"""Abstract sockets and signals."""


class Fence:
    """Two layers: one laid around the server once, naming the library entry by entry, and within it
    a coarse one for each run, which is quick and shuts out other runs' folders.
    """

    def __init__(self, readable: dict, base: str) -> None:
        """Enclose this process; `base` holds the runs' folders and the links to packages."""
        self.abi = kernel.landlock_abi()
        self.rights = (2 << LAST_RIGHT.get(self.abi, 15)) - 1
        self.devices = _opened(DEVICES)
        self.coarse = _opened([*readable["coarse"], base + "/packages"])
        fine = _opened([*readable["fine"], "/proc"])
        listed = [(fd, LIST) for fd in _opened(readable["listed"])]
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        parent = [(fd, REMOVE_FOLDER) for fd in _opened([os.path.dirname(base)])]
        self._restrict([*((fd, READ) for fd in fine), *listed, *parent], base)
        for fd, _ in listed + parent:
            os.close(fd)
        for fd in fine:
            os.close(fd)

    def enclose(self, home: str) -> None:
        """Confine this process to its folder and what every run may read."""
        self._restrict([(fd, READ) for fd in self.coarse], home)

    def _restrict(self, rules: list, home: str) -> None:
        network = TCP if self.abi >= 4 else 0
        scopes = SCOPES if self.abi >= 6 else 0
        ruleset = kernel.landlock_ruleset(self.rights, network, scopes, self.abi)
        for fd, access in rules:
            folder = os.stat(fd).st_mode & 0o170000 == 0o040000
            kernel.landlock_allow(ruleset, fd, access if folder else access & ~LIST)
        for fd in self.devices:
            kernel.landlock_allow(ruleset, fd, WRITE_FILE | READ_FILE)
        own = os.open(home, os.O_PATH | os.O_DIRECTORY)
        kernel.landlock_allow(ruleset, own, self.rights & ~NODES)
        kernel.landlock_restrict(ruleset)
        os.close(own)
        os.close(ruleset)


def drop_root(uid: int, library: str) -> bool:
    """Become an ordinary user.

    An interpreter in a home that only root may enter stays readable by the one capability to read,
    which Landlock then confines to the folders it names.
    """
    kernel.prctl(kernel.PR_SET_KEEPCAPS, 1)
    if not root.drop_root(uid):
        return False
    readable = os.access(library, os.R_OK | os.X_OK)  # asked without regard to capabilities
    kernel.keep_capabilities(0 if readable else kernel.CAP_DAC_READ_SEARCH)
    return True


def _opened(paths: list) -> list:
    return [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in paths if os.path.exists(path)]


def remove_tree(path: str) -> None:
    """Remove a folder whatever is in it: locked, or nested deeper than a path can say.

    A folder within is moved to the top before it is emptied, so no path gets long; its new name
    cannot be foreseen, so nothing stands in its way.
    """
    try:
        os.chmod(path, 0o700)
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        waiting = _empty(top, top)
        while waiting:
            name = waiting.pop()
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
            try:
                waiting += _empty(fd, top)
            finally:
                os.close(fd)
            os.rmdir(name, dir_fd=top)
        os.rmdir(path)
    finally:
        os.close(top)


def _empty(folder: int, top: int) -> list:
    """Remove the files of a folder and move its folders to the top; returns their new names."""
    names = []
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if not is_folder:
            os.unlink(name, dir_fd=folder)
            continue
        os.chmod(name, 0o700, dir_fd=folder)  # a folder must be writable to change its parent
        fresh = "." + os.urandom(12).hex()
        os.rename(name, fresh, src_dir_fd=folder, dst_dir_fd=top)
        names.append(fresh)
    return names
