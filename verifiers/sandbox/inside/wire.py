"""The messages between a pool and a server; one datagram each, descriptors beside it.

A request names limits and hands descriptors on. What is run, what it reads and what it prints never
passes through the server: a forked run inherits the server's memory, and so could find in it what
an earlier run was given.
"""

import struct

RUN, KILL, LOOK, DONE, USAGE = range(1, 6)
"""Kinds of message; the first byte of each."""

HEAD = struct.Struct("<BI")
"""Kind, and the run's number on this connection."""

REQUEST = struct.Struct("<BIIdddQQQQIII")
"""RUN, number, flags, seconds of CPU, of wall time, of patience with a loaded machine (0: never
judged by the clock), bytes of memory, of disk, of one file, of stack, inodes, threads, open
files."""

ANSWER = struct.Struct("<BIBidddQ")
"""DONE or USAGE, number, cause, wait status, seconds of CPU, of wall time, of waiting for a core,
bytes of memory at the peak."""

STDIN, CHANNEL, PROCESSES, SOCKETS = 1, 2, 4, 8
GROUPS = (16, 32)
"""Flags of a request. Descriptors come in the order payload, stdout, stderr, then stdin, the
channel and up to two doors of control groups where their flag is set."""

ENDED, CPU, WALL, STARVED, KILLED, BROKEN = range(6)
"""Causes: ended by itself; over its limit of CPU or wall time; got too little of a core; ended on
request; never reached the program, because its walls could not be raised."""

CHANNEL_FD = 3
"""Where a run finds its end of the channel."""

MEMORY_EXIT = 247
"""Exit status of a program that ended with MemoryError; it only names the failure."""

MAX_FDS = 7
"""Descriptors that come with one request at most."""
