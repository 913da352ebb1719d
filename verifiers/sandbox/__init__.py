"""Programs that nobody has read: `run(program, stdin=..., limits=...) -> Outcome`, and a `Pool`.

A library of its own: it knows programs and what they print, not what is right.

How it works. A server per core, a bare interpreter with an emptied environment, forks each run. The
server never holds a payload: program, input and output are anonymous files whose descriptors it
hands on, so no run can find another's in the heap it inherits, and the cost does not depend on the
caller's memory. The server says how a run ended and what it used; what it printed, the caller reads
from the file. Exit status and signals name a failure; they are the program's to choose.

Tiers, chosen by a self-test that runs into every wall, recorded in each outcome, never lowered in
silence (`require="ns"` refuses less; `describe()` and `rlvr sandbox` print the table):

- `ns`: an unprivileged user in new user, mount, process-id, IPC, network and host-name namespaces
  around each server, and user, mount, process-id and IPC ones again around each run (and a network
  one with `sockets`). An empty read-only root with the standard library, shared libraries and
  allow-listed packages; a private tmpfs, limited in bytes and files; no /proc; no capabilities; no
  new privileges; limits on memory, threads, descriptors, file sizes; an allow-list of system calls
  with their arguments checked; no fork, exec or socket unless asked for; the whole tree of a run
  ends with its first process. All but the process-id and network namespaces are kept for a later
  run if a run has left no trace in them (see `inside/rooms.py`).
- `flat`, where namespaces are refused: the same limits and system calls, Landlock around an
  ordinary folder, no processes and no sockets at all. Changes of a file's mode and times are
  pretended, for Landlock does not confine them.
- none, by `unsafe_no_isolation=True` alone.

Control groups are a bonus where this process may make some: they hold all processes of a run with
`processes` to one limit of memory. Nothing else needs them.

Time. CPU time decides, read from the kernel's clock of the process. Wall time bounds sleep; waiting
for a core does not count, and a run that a loaded machine starves is redone, then `Ended.INFRA`. A
server that dies or hangs takes its runs with it and they are redone. When the process that owns a
pool ends, however it ends, its servers and their runs end.

Modules. Servers have the usual modules imported for programs that name one; allow-listed packages
(`Pool(packages=("numpy",))`) and what `Options.preload` asks for are imported once, in servers that
are kept, a few for each core.

Covered: endless loops and sleep, memory, disk, files, output, threads and processes without end;
reading, writing or changing anything outside; other runs and what they leave; signals, tracing,
other processes' memory; network and local sockets; shared memory, locks, leases, message queues;
inherited descriptors; capabilities and set-user-id; kernel interfaces that programs do not need
(bpf, io_uring, keys, userfaultfd, perf, mounts, handles, memfd, kernel timers, 32-bit and x32
calls); an end that looks as if it came from outside.

Not covered: faults of the kernel itself, which is shared (put gVisor or a virtual machine under it,
through `GVisor` or `Remote`); side channels of the processor; covert channels between programs that
work together, at the same time (record locks on library files, load) or one after the other (the
numbers that the kernel gives to files and devices); in `flat`, the number of files and their sum,
threads up to a number that all runs share, names and sizes of files elsewhere, process ids; where
control groups cannot be made, the total memory of `processes`, which is each one's limit times
their number; fairness of the disk, which runs do not reach. A caller that is killed leaves the
empty control group of a run with `processes`, which the next one removes. Linux on
x86-64 and aarch64, kernel 5.4 or newer (`flat`: 5.13); Python 3.11 or newer inside. The aarch64
table is tested by interpreting the filter, version 2 of control groups by its files, not on such
machines.

Other engines stand behind the same `run` and `arun`: `Bubblewrap` for other languages, `Container`
for docker and podman, `GVisor`, and `Remote` and `serve` for a sandbox on another machine. Of
these, `Container` is tested by its command line alone.
"""

from .bubblewrap import Bubblewrap
from .channel import Channel, ChannelClosed, ChannelError, ChannelFull, ChannelSlow
from .connection import Job, ServerGone, Usage
from .containers import Container
from .default import arun, run, shared
from .engine import Engine
from .gvisor import GVisor
from .lane import Slot
from .outcome import Cost, Ended, Limits, Options, Outcome, SandboxError
from .pool import Pool
from .process import Tier
from .remote import Remote, serve
from .survey import Row, Survey

__all__ = [
    "Bubblewrap",
    "Channel",
    "ChannelClosed",
    "ChannelError",
    "ChannelFull",
    "ChannelSlow",
    "Container",
    "Cost",
    "Ended",
    "Engine",
    "GVisor",
    "Job",
    "Limits",
    "Options",
    "Outcome",
    "Pool",
    "Remote",
    "Row",
    "SandboxError",
    "ServerGone",
    "Slot",
    "Survey",
    "Tier",
    "Usage",
    "arun",
    "run",
    "serve",
    "shared",
]
