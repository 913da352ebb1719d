"""The filter of system calls, run by an interpreter of BPF: also for machines that are not here."""

import struct

import pytest

from rlvr.verifiers.sandbox.inside import calls, seccomp

ALLOW, KILL = seccomp.ALLOW, seccomp.KILL
EPERM, ENOSYS = seccomp.ERRNO | 1, seccomp.ERRNO | 38
MACHINES = ["x86_64", "aarch64"]


def decide(program: bytes, machine: str, number: int, *arguments: int) -> int:
    """Interpret a filter as the kernel does."""
    words = struct.pack("=IIQ6Q", number, seccomp.ARCHITECTURES[machine], 0, *_six(arguments))
    lines = list(struct.iter_unpack("=HBBI", program))
    at = value = 0
    while True:
        code, yes, no, k = lines[at]
        at += 1
        if code == seccomp.LOAD:
            value = struct.unpack_from("=I", words, k)[0]
        elif code == seccomp.AND:
            value &= k
        elif code == seccomp.JUMP:
            at += k
        elif code == seccomp.RET:
            return k
        else:
            tests = {seccomp.JEQ: value == k, seccomp.JGE: value >= k, seccomp.JSET: value & k != 0}
            at += yes if tests[code] else no


def _six(arguments: tuple[int, ...]) -> tuple[int, ...]:
    return (*arguments, *(0,) * (6 - len(arguments)))


def _ask(machine: str, name: str, *arguments: int, **allow: bool) -> int:
    program = seccomp.assemble(machine, 1, **allow)
    return decide(program, machine, calls.numbers(machine)[name], *arguments)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_number_is_answered_by_the_list(machine: str) -> None:
    program = seccomp.assemble(machine, 1)
    numbers = calls.numbers(machine)
    names = {number: name for name, number in numbers.items()}
    for number in range(700):
        name = names.get(number, "")
        action = decide(program, machine, number)
        if name in calls.ALLOWED:
            assert action == ALLOW, name
        elif number > calls.LAST or name in calls.ABSENT:
            assert action == ENOSYS, (number, name)
        elif name in calls.PRETENDED:
            assert action == seccomp.ERRNO, name
        elif name in calls.UNSUPPORTED:
            assert action == seccomp.ERRNO | 95, name
        elif name not in ("ioctl", "fcntl", "prctl", "prlimit64", "kill", "tgkill", "clone"):
            assert action == EPERM, (number, name)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("name", "arguments", "action"),
    [
        ("clone", (0x3D0F00,), ALLOW),  # the flags of pthread_create
        ("clone", (0x11,), EPERM),  # SIGCHLD: fork
        ("clone", (0x3D0F00 | 0x10000000,), EPERM),  # CLONE_NEWUSER
        ("clone3", (0,), ENOSYS),
        ("kill", (1, 0), ALLOW),
        ("kill", (1, 9), EPERM),
        ("kill", (0, 15), EPERM),
        ("kill", (0xFFFFFFFF, 15), EPERM),
        ("kill", (2, 15), EPERM),
        ("tgkill", (1, 7, 6), ALLOW),
        ("tgkill", (2, 2, 6), EPERM),
        ("prctl", (15,), ALLOW),
        ("prctl", (22, 2), EPERM),
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0x5412), EPERM),  # TIOCSTI
        ("fcntl", (0, 3), ALLOW),
        ("fcntl", (0, 1024, 1), EPERM),  # F_SETLEASE
        ("mknodat", (0, 0, 0o010644), ALLOW),  # a fifo
        ("mknodat", (0, 0, 0o060644), EPERM),  # a block device
        ("socketpair", (1, 1), ALLOW),
        ("socketpair", (1, 0x80801), ALLOW),  # SOCK_CLOEXEC and SOCK_NONBLOCK
        ("socketpair", (1, 2), EPERM),  # SOCK_DGRAM
        ("socketpair", (2, 1), EPERM),
        ("socket", (1, 1), EPERM),
        ("prlimit64", (0, 7), ALLOW),
        ("prlimit64", (5, 7), EPERM),
    ],
)
def test_arguments_are_checked(
    machine: str, name: str, arguments: tuple[int, ...], action: int
) -> None:
    assert _ask(machine, name, *arguments) == action


@pytest.mark.parametrize("machine", MACHINES)
def test_processes_and_sockets_open_what_they_name(machine: str) -> None:
    assert _ask(machine, "clone", 0x11, processes=True) == ALLOW
    assert _ask(machine, "clone", 0x20000011, processes=True) == EPERM  # CLONE_NEWPID
    assert _ask(machine, "execve", processes=True) == ALLOW
    assert _ask(machine, "kill", 7, 9, processes=True) == ALLOW
    assert _ask(machine, "socket", 2, 1, processes=True) == EPERM
    assert _ask(machine, "socket", 2, 1, sockets=True) == ALLOW
    assert _ask(machine, "socket", 16, 3, sockets=True) == EPERM  # netlink
    assert _ask(machine, "socket", 2, 3, sockets=True) == EPERM  # SOCK_RAW
    assert _ask(machine, "execve", sockets=True) == EPERM


def test_calls_of_another_architecture_end_the_run() -> None:
    program = seccomp.assemble("x86_64", 1)
    assert decide(program, "aarch64", 0) == KILL
    assert decide(program, "x86_64", 0x40000000) == ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
def test_every_name_of_the_lists_is_in_a_table(machine: str) -> None:
    everywhere = {name for table in MACHINES for name in calls.numbers(table)}
    lists = (calls.ALLOWED, calls.WITH_PROCESSES, calls.WITH_SOCKETS, calls.PRETENDED)
    for names in (*lists, calls.UNSUPPORTED, calls.ABSENT):
        assert set(names) <= everywhere
    numbers = calls.numbers(machine)
    assert len(set(numbers.values())) == len(numbers)
    assert max(numbers.values()) <= calls.LAST


@pytest.mark.parametrize("machine", MACHINES)
def test_a_filter_is_short_enough_and_jumps_only_forward(machine: str) -> None:
    program = seccomp.assemble(machine, 1, processes=True, sockets=True)
    lines = list(struct.iter_unpack("=HBBI", program))
    assert len(lines) < 4096
    for at, (code, yes, no, k) in enumerate(lines):
        if code & 7 == 5:
            reach = k if code == seccomp.JUMP else max(yes, no)
            assert at + 1 + reach < len(lines)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("name", "arguments", "action"),
    [
        ("prlimit64", (0, 0, 0), ALLOW),  # looks at the limit of CPU time
        ("prlimit64", (0, 0, 0x1000), EPERM),
        ("prlimit64", (0, 0, 0x100000000), EPERM),  # an address whose lower half is 0
        ("prlimit64", (1, 0, 0x1000), EPERM),
        ("prlimit64", (0, 7, 0x1000), ALLOW),
        ("setrlimit", (0, 0x1000), EPERM),
        ("setrlimit", (7, 0x1000), ALLOW),
        ("openat", (0, 0, 0o1001), ALLOW),
        ("truncate", (0, 0), ALLOW),
        ("fchmod", (3, 0), ALLOW),
    ],
)
def test_the_limit_of_cpu_time_is_only_looked_at(
    machine: str, name: str, arguments: tuple[int, ...], action: int
) -> None:
    assert _ask(machine, name, *arguments) == action


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("name", "arguments", "action"),
    [
        ("openat", (0, 0, 0o2000000), ALLOW),  # O_CLOEXEC
        ("openat", (0, 0, 0o2001101), ALLOW),  # O_WRONLY | O_CREAT | O_TRUNC
        ("openat", (0, 0, 0o1000), EPERM),  # O_RDONLY | O_TRUNC
        ("openat", (0, 0, 3), EPERM),
        ("truncate", (0, 0), EPERM),
        ("ftruncate", (3, 0), ALLOW),
        ("fchmod", (3, 0), seccomp.ERRNO),
        ("fchmodat", (3, 0), seccomp.ERRNO),
        ("utimensat", (3, 0), seccomp.ERRNO),
    ],
)
def test_what_landlock_lets_through_is_refused_or_pretended_in_the_flat_tier(
    machine: str, name: str, arguments: tuple[int, ...], action: int
) -> None:
    assert _ask(machine, name, *arguments, flat=True) == action
