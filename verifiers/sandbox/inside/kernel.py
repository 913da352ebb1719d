"""System calls that the standard library lacks, through ctypes; needs no library but libc."""

import ctypes
import os
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_RELATIME = 1 << 21
MNT_DETACH = 2

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38

CAP_DAC_READ_SEARCH = 1 << 2

KEPT_FLAGS = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | 1024 | 2048
"""Flags of a mount that statvfs reports under the same numbers, and that a remount must repeat."""
ST_RELATIME = 4096

_libc = ctypes.CDLL(None, use_errno=True)
_long = ctypes.c_long
# looked up here once, not in every fork
_unshare, _setns, _prctl, _syscall = _libc.unshare, _libc.setns, _libc.prctl, _libc.syscall
_mount, _umount2 = _libc.mount, _libc.umount2
_NUMBERS = {
    "x86_64": {"pivot_root": 155, "capset": 126},
    "aarch64": {"pivot_root": 41, "capset": 91},
}
_SAME_EVERYWHERE = {
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}
MACHINE = os.uname().machine
_CAPSET = _long(_NUMBERS[MACHINE]["capset"]) if MACHINE in _NUMBERS else _long(-1)
_CAPABILITIES = struct.pack("=Ii", 0x20080522, 0)
_NO_CAPABILITIES = bytes(24)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _call(name: str, *arguments: object) -> int:
    number = _SAME_EVERYWHERE.get(name) or _NUMBERS[MACHINE][name]
    words = [_long(word) if isinstance(word, int) else word for word in arguments]
    return _checked(_syscall(_long(number), *words), name)


def unshare(flags: int) -> None:
    """Leave the namespaces that the flags name for new ones."""
    _checked(_unshare(flags), f"unshare({flags:#x})")


def setns(fd: int, kind: int) -> None:
    """Enter the namespace that a descriptor stands for."""
    _checked(_setns(fd, kind), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount, bind or remount."""
    words = [os.fsencode(word) if word else None for word in (source, target, kind)]
    result = _mount(*words, ctypes.c_ulong(flags), os.fsencode(data) if data else None)
    _checked(result, f"mount {kind or 'of'} {source} on {target}")


def unmount(target: str) -> None:
    """Take a mount off the tree; it goes when nothing uses it."""
    _checked(_umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


def make_read_only(target: str) -> None:
    """Remount a bind read-only, keeping the flags that a user namespace may not take away."""
    have = os.statvfs(target).f_flag
    flags = have & KEPT_FLAGS | (MS_RELATIME if have & ST_RELATIME else 0)
    mount("", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | flags)


def pivot_root(new: str, old: str) -> None:
    """Make `new` the root and move the old one to `old`."""
    _call("pivot_root", os.fsencode(new), os.fsencode(old))


def prctl(option: int, value: int, pointer: object = None) -> None:
    """Set a property of the process."""
    third = pointer if pointer is not None else ctypes.c_ulong(0)
    zero = ctypes.c_ulong(0)
    _checked(_prctl(option, ctypes.c_ulong(value), third, zero, zero), f"prctl({option})")


def keep_capabilities(mask: int = 0) -> None:
    """Give up every capability but those in the mask, which stay effective."""
    kept = struct.pack("=6I", mask, mask, 0, 0, 0, 0) if mask else _NO_CAPABILITIES
    _checked(_syscall(_CAPSET, _CAPABILITIES, kept), "capset")


class Filter(ctypes.Structure):
    """A seccomp filter as the kernel takes it."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]

    @classmethod
    def of(cls, program: bytes) -> "Filter":
        """Wrap assembled instructions."""
        return cls(len(program) // 8, program)


def filter_system_calls(record: Filter) -> None:
    """Put a seccomp filter on this process and all it starts; needs `no_new_privs`."""
    prctl(PR_SET_SECCOMP, 2, ctypes.byref(record))


def landlock_abi() -> int:
    """The version of Landlock, 0 where there is none."""
    try:
        return _call("landlock_create_ruleset", None, 0, 1)
    except OSError:
        return 0


def landlock_ruleset(files: int, network: int, scoped: int, abi: int) -> int:
    """Make a ruleset that denies what it handles; returns its descriptor."""
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    return _call("landlock_create_ruleset", struct.pack("=QQQ", files, network, scoped), size, 0)


def landlock_allow(ruleset: int, path: int, access: int) -> None:
    """Allow access beneath a path, given as a descriptor."""
    _call("landlock_add_rule", ruleset, 1, struct.pack("=Qi", access, path), 0)


def landlock_restrict(ruleset: int) -> None:
    """Put the ruleset on this process and all it starts."""
    _call("landlock_restrict_self", ruleset, 0)
