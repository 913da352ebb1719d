"""The seccomp filter, assembled into BPF: a search tree over the numbers, arguments checked.

The kernel tries a new filter on every number when it is installed, once per run; a tree of depth
eight keeps that, and each call afterwards, cheap.
"""

import struct

from . import calls

ALLOW = 0x7FFF0000
KILL = 0x80000000
ERRNO = 0x00050000
EPERM, ENOSYS, ENOTSUP = 1, 38, 95

LOAD, JUMP, JEQ, JGE, JSET, AND, RET = 0x20, 0x05, 0x15, 0x35, 0x45, 0x54, 0x06
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32 = 0x40000000
CLONE_THREAD = 0x00010000
CLONE_NEW = 0x7E020080
"""Every flag of clone that makes a namespace."""
EMPTYING = (0o3, 0o1000, 0o1003)
"""Ways to open a file that empty it, or touch it, and do not say that they write."""
FATAL = (9, 19)
"""SIGKILL and SIGSTOP, by which a run could end as if from outside."""
IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""
FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)
"""Duplicates, flags, record locks, the size of a pipe; no leases, owners, seals, notices."""
PRCTLS = (15, 16, 0x53564D41)
"""A thread's name, set and got, and the name of a mapping."""

Code = list[tuple[int, int, int, int]]


def _return(action: int) -> Code:
    return [(RET, 0, 0, action)]


_REFUSE = _return(ERRNO | EPERM)


def _argument(index: int) -> tuple[int, int, int, int]:
    """Load the low half of an argument."""
    return (LOAD, 0, 0, 16 + 8 * index)


def _one_of(index: int, values: tuple[int, ...], then: Code | None = None) -> Code:
    """Go on if an argument is one of the values, refuse it if not."""
    last = len(values) - 1
    tests: Code = [(JEQ, last - at + 1, 0, value) for at, value in enumerate(values)]
    return [_argument(index), *tests, *_REFUSE, *(then or _return(ALLOW))]


def _none_of(index: int, values: tuple[int, ...]) -> Code:
    """Refuse an argument that is one of the values."""
    last = len(values) - 1
    tests: Code = [(JEQ, last - at + 1, 0, value) for at, value in enumerate(values)]
    return [_argument(index), *tests, *_return(ALLOW), *_REFUSE]


def _masked(mask: int, code: Code) -> Code:
    """Look at some bits of the argument that the code loads first."""
    return [code[0], (AND, 0, 0, mask), *code[1:]]


def _limits(pid: int) -> Code:
    """The process's own limits. That of CPU time may only be looked at: the kernel keeps it by a
    SIGKILL, which looks as if it came from outside.
    """
    only_looks: Code = [_argument(2), (JEQ, 0, 3, 0), (LOAD, 0, 0, 36), (JEQ, 0, 1, 0)]
    is_time: Code = [_argument(1), (JEQ, 1, 0, 0), *_return(ALLOW)]
    return _one_of(0, (0, pid), [*is_time, *only_looks, *_return(ALLOW), *_REFUSE])


def _clone(processes: bool) -> Code:
    """Threads, and with `processes` children too, but no namespace."""
    thread = (
        _return(ALLOW) if processes else [(JSET, 1, 0, CLONE_THREAD), *_REFUSE, *_return(ALLOW)]
    )
    return [_argument(0), (JSET, 0, 1, CLONE_NEW), *_REFUSE, *thread]


def _checks(pid: int, processes: bool, sockets: bool, flat: bool) -> dict[str, Code]:
    """The calls whose arguments are looked at."""
    fifo = (0o010000,)
    checks = {
        "clone": _clone(processes),
        "ioctl": _one_of(1, IOCTLS),
        "fcntl": _one_of(1, FCNTLS),
        "prctl": _one_of(0, PRCTLS),
        "prlimit64": _limits(pid),
        "setrlimit": _none_of(0, (0,)),
        "mknod": _masked(0o170000, _one_of(1, fifo)),
        "mknodat": _masked(0o170000, _one_of(2, fifo)),
        # of a pair of datagram sockets, either could write to any socket on the machine by name
        "socketpair": _one_of(0, (1,), _masked(0xF, _one_of(1, (1, 5)))),
    }
    if sockets:
        checks["socket"] = _one_of(0, (1, 2, 10), _masked(0xF, _one_of(1, (1, 2, 5))))
    if not processes:
        checks["kill"] = _one_of(0, (pid,), _none_of(1, FATAL))
        checks["tgkill"] = _one_of(0, (pid,), _none_of(2, FATAL))
    if flat:
        checks["open"] = _masked(0o1003, _none_of(1, EMPTYING))
        checks["openat"] = _masked(0o1003, _none_of(2, EMPTYING))
        checks |= dict.fromkeys(calls.PRETENDED_IN_FLAT, _return(ERRNO))
        checks |= dict.fromkeys(calls.REFUSED_IN_FLAT, _REFUSE)
    return checks


def _actions(machine: str, pid: int, processes: bool, sockets: bool, flat: bool) -> dict[int, Code]:
    """Number → code; numbers that are missing are refused."""
    names: dict[str, Code] = dict.fromkeys(calls.ALLOWED, _return(ALLOW))
    names |= dict.fromkeys(calls.WITH_PROCESSES if processes else (), _return(ALLOW))
    names |= dict.fromkeys(calls.WITH_SOCKETS if sockets else (), _return(ALLOW))
    names |= dict.fromkeys(calls.PRETENDED, _return(ERRNO))
    names |= dict.fromkeys(calls.UNSUPPORTED, _return(ERRNO | ENOTSUP))
    names |= dict.fromkeys(calls.ABSENT, _return(ERRNO | ENOSYS))
    names |= _checks(pid, processes, sockets, flat)
    known = calls.numbers(machine)
    return {known[name]: code for name, code in names.items() if name in known}


def _tree(spans: list[tuple[int, Code]]) -> Code:
    """Search for the span that the number lies in; each is given by its first number."""
    if len(spans) == 1:
        return spans[0][1]
    middle = len(spans) // 2
    left, right = _tree(spans[:middle]), _tree(spans[middle:])
    start = spans[middle][0]
    if len(left) <= 255:
        return [(JGE, len(left), 0, start), *left, *right]
    return [(JGE, 0, 1, start), (JUMP, 0, 0, len(left)), *left, *right]


def assemble(
    machine: str, pid: int, *, processes: bool = False, sockets: bool = False, flat: bool = False
) -> bytes:
    """Assemble the filter of one run.

    Args:
        machine: `x86_64` or `aarch64`.
        pid: The run's process id as it sees it itself; signals go nowhere else.
        processes: Allow fork, exec and signals to other processes.
        sockets: Allow sockets of the local and the internet families.
        flat: Nothing else keeps the run from files of its own user elsewhere than Landlock.

    Example:
        >>> len(assemble("x86_64", 1)) % 8
        0
    """
    actions = _actions(machine, pid, processes, sockets, flat)
    spans: list[tuple[int, Code]] = []
    for number in range(calls.LAST + 1):
        code = actions.get(number, _REFUSE)
        if not spans or spans[-1][1] != code:
            spans.append((number, code))
    spans.append((calls.LAST + 1, _return(ERRNO | ENOSYS)))
    program: Code = [
        (LOAD, 0, 0, 4),
        (JEQ, 1, 0, ARCHITECTURES[machine]),
        *_return(KILL),
        (LOAD, 0, 0, 0),
        *_tree(spans),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in program)
