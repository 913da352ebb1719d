"""The empty root of the `ns` tier, and the namespaces that a server lives in.

As root the tree is built first, with root's eyes, because an interpreter may stand in a home that
nobody else may enter; only then is root given up. An ordinary user gets the right to mount from a
new user namespace instead.
"""

import os

from . import kernel

HOME = "/tmp"
"""A run's private folder, as it sees it."""
MAPPED = 1000
"""The server's user id in its own namespace: not 0, so that nothing regains capabilities."""
OUTER = kernel.CLONE_NEWIPC | kernel.CLONE_NEWNET | kernel.CLONE_NEWUTS | kernel.CLONE_NEWPID


def enter(places: dict, uid: int, proc: int) -> bool:
    """Build the root, enter it, give up root, and leave every outer namespace.

    The next child is the first process of a new process-id namespace.

    Args:
        places: `binds`, pairs of (source, target); `links`, pairs of (text, path); `hidden`,
            folders to cover with an empty one.
        uid: The id to change to where the process is root, 0 for none.
        proc: A descriptor of /proc.

    Returns:
        Whether the change of user was made.
    """
    me, group = os.geteuid(), os.getegid()
    if me == 0:
        kernel.unshare(kernel.CLONE_NEWNS)
    else:
        kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
        map_user(proc, me, group)
    build(places)
    dropped = me == 0 and uid > 0 and drop_root(uid)
    if me == 0:
        me, group = os.geteuid(), os.getegid()
        kernel.unshare(kernel.CLONE_NEWUSER)
        map_user(proc, me, group)
    kernel.unshare(OUTER)
    return dropped


def drop_root(uid: int) -> bool:
    """Become an ordinary user; `False` where a container has only one user to offer."""
    try:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    except OSError:
        return False
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # else our own /proc entries belong to root
    return True


def map_user(proc: int, uid: int, gid: int) -> None:
    """Give the new user namespace its one user."""
    _write(proc, "self/setgroups", "deny")
    _write(proc, "self/uid_map", f"{MAPPED} {uid} 1")
    _write(proc, "self/gid_map", f"{MAPPED} {gid} 1")


def _write(proc: int, path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY, dir_fd=proc)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def build(places: dict) -> None:
    """Make the tree on a new tmpfs, pivot into it, and let the machine's own tree go."""
    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", HOME, "tmpfs", kernel.MS_NOSUID, "mode=755")
    os.mkdir(HOME + "/new")
    os.mkdir(HOME + "/old")
    kernel.pivot_root(HOME, HOME + "/old")
    os.chdir("/")
    kernel.mount("root", "/new", "tmpfs", kernel.MS_NOSUID, "mode=755,size=1m,nr_inodes=512")
    for source, target in places["binds"]:
        _bind("/old" + source, "/new" + target)
    for path in places["hidden"]:
        if os.path.isdir("/new" + path):
            kernel.mount("none", "/new" + path, "tmpfs", kernel.MS_RDONLY, "mode=555,nr_inodes=2")
    os.makedirs("/new" + HOME, exist_ok=True)
    for text, path in places["links"]:
        _link(text, "/new" + path)
    kernel.pivot_root("/new", "/new" + HOME)
    os.chdir("/")
    kernel.unmount(HOME)
    kernel.make_read_only("/")


def _bind(source: str, target: str) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o444))
    kernel.mount(source, target, "", kernel.MS_BIND | kernel.MS_REC)
    kernel.make_read_only(target)


def _link(text: str, path: str) -> None:
    if not os.path.lexists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(text, path)
