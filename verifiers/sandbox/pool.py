"""A warm server per core, and who runs on it next."""

import asyncio
import os
import re
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..errors import UsageError
from .connection import Job, ServerGone
from .gate import Gate
from .lane import ATTEMPTS, Lane, Slot
from .outcome import Ended, Limits, Options, Outcome, SandboxError, cores
from .places import default_python, interpreter, module_names, package_paths
from .process import Profile, Tier
from .survey import Survey, choose
from .waiting import Steps, adrive, drive

USUAL = (
    "bisect", "collections", "copy", "functools", "heapq", "itertools", "math", "operator",
    "random", "re", "string", "typing",
)  # fmt: skip
"""Imported beforehand for programs that import any of them: `typing` alone costs more than a run
does."""
ALWAYS = ("_json", "itertools", "math", "time")
"""Imported in every server: they cost a fork nothing, and a run that loads them much."""
_IMPORT = re.compile(rb"^[ \t]*+(?:import|from)[ \t]+([\w., \t]+)", re.MULTILINE)


class Pool:
    """Runs programs on all cores; for threads and event loops at once.

    Args:
        size: Runs at a time; the number of cores if not given.
        tier: `ns`, `flat`, or `None` for the strongest that works here.
        require: Refuse anything weaker than this tier.
        unsafe_no_isolation: Run programs without any walls. There is no other way to get none.
        python: The interpreter that programs run under; this one's if not given.
        packages: Distributions that programs may import, each with what it needs.
        preload: Modules that servers import beforehand; chosen for each program by what it imports
            if not given. `Options.preload` adds to them.

    Raises:
        SandboxError: No tier, or not the one required, can be had here; says why.

    Example:
        >>> pool = Pool(size=1)
        >>> pool.run("print(6 * 7)").text
        '42\\n'
        >>> pool.close()
    """

    def __init__(
        self,
        *,
        size: int | None = None,
        tier: Tier | None = None,
        require: Tier | None = None,
        unsafe_no_isolation: bool = False,
        python: str | None = None,
        packages: tuple[str, ...] = (),
        preload: tuple[str, ...] | None = None,
    ) -> None:
        """Choose the tier by a self-test; servers start with the first programs."""
        if size is not None and size < 1:
            raise UsageError(f"size={size}; expected at least 1")
        self.python = python or default_python()
        self.survey: Survey = choose(self.python, tier, require, unsafe_no_isolation)
        self.tier: Tier = self.survey.tier
        self.packages = tuple(packages)
        paths = package_paths(self.packages, interpreter(self.python).version)
        self.modules = module_names(paths)
        self.preload = preload
        self.size = size or cores()
        self.closed = False
        self._reset()
        _POOLS.add(self)

    def _reset(self) -> None:
        self.lanes = [Lane() for _ in range(self.size)]
        self.gate: Gate[Lane] = Gate(list(self.lanes))
        self.threads: ThreadPoolExecutor | None = None
        self.lock = threading.Lock()
        self.finalizer = weakref.finalize(self, _close_all, self.lanes)

    def run(
        self,
        program: str | bytes,
        *,
        stdin: bytes = b"",
        files: dict[str, bytes] | None = None,
        limits: Limits | None = None,
        options: Options | None = None,
        share: str = "",
    ) -> Outcome:
        """Run a program to its end, after those that came before.

        Args:
            program: Python source.
            stdin: What it reads.
            files: Name → content, laid out in its folder.
            limits: What it may use.
            options: How it is started.
            share: Whose program it is: shares take turns.

        Returns:
            How it ended and what it printed. A failure of the sandbox is an outcome too
            (`Ended.INFRA`), after three attempts.

        Raises:
            UsageError: A wrong argument, or one that this tier does not offer.
        """
        return self.run_job(Job.of(program, stdin, files, limits, options), share)

    async def arun(
        self,
        program: str | bytes,
        *,
        stdin: bytes = b"",
        files: dict[str, bytes] | None = None,
        limits: Limits | None = None,
        options: Options | None = None,
        share: str = "",
    ) -> Outcome:
        """Run a program without blocking the event loop; a cancellation ends it."""
        return await self.arun_job(Job.of(program, stdin, files, limits, options), share)

    def run_job(self, job: Job, share: str = "") -> Outcome:
        """Run a job to its end."""
        self.check(job)
        lane = self.take(share)
        try:
            return drive(self._attempts(lane, job))
        finally:
            self.gate.leave(lane)

    async def arun_job(self, job: Job, share: str = "") -> Outcome:
        """Run a job without blocking the event loop."""
        self.check(job)
        lane = await self.atake(share)
        try:
            return await adrive(self._attempts(lane, job))
        finally:
            self.gate.leave(lane)

    def map(self, jobs: Iterable[Job], *, window: int | None = None) -> Iterator[Outcome]:
        """Run many jobs; outcomes come in the jobs' order.

        Args:
            jobs: Taken as there is room, so they may be made on the way and without end.
            window: Jobs taken whose outcome has not been fetched; four a core if not given.
        """
        room = window or 4 * self.size
        with self.lock:
            if self.threads is None:
                self.threads = ThreadPoolExecutor(self.size, "rlvr-sandbox")
        waiting: deque[Any] = deque()
        try:
            for job in jobs:
                waiting.append(self.threads.submit(self.run_job, job))
                if len(waiting) >= room:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for turn in waiting:
                turn.cancel()

    async def amap(
        self, jobs: Iterable[Job], *, window: int | None = None
    ) -> AsyncIterator[Outcome]:
        """Run many jobs in an event loop; outcomes come in the jobs' order."""
        room = window or 4 * self.size
        waiting: deque[asyncio.Task[Outcome]] = deque()
        try:
            for job in jobs:
                waiting.append(asyncio.ensure_future(self.arun_job(job)))
                if len(waiting) >= room:
                    yield await waiting.popleft()
            while waiting:
                yield await waiting.popleft()
        finally:
            for task in waiting:
                task.cancel()

    def slot(self, share: str = "") -> Slot:
        """Take a turn in which several runs may be kept open; `with` or `async with` it."""
        return Slot(self, share)

    def take(self, share: str) -> Lane:
        """Wait for a core."""
        self._check_open()
        turn = self.gate.enter(share)
        try:
            return turn.result()
        except BaseException:
            self._give_up(turn)
            raise

    async def atake(self, share: str) -> Lane:
        """Wait for a core without blocking the event loop."""
        self._check_open()
        turn = self.gate.enter(share)
        if turn.done():
            return turn.result()
        try:
            return await asyncio.wrap_future(turn)
        except BaseException:
            self._give_up(turn)
            raise

    def _give_up(self, turn: Any) -> None:
        """Leave the queue; a core that came in the meantime goes to the next."""
        if not turn.cancel():
            turn.add_done_callback(lambda done: done.cancelled() or self.gate.leave(done.result()))

    def _check_open(self) -> None:
        if self.closed:
            raise UsageError("the pool is closed; make a new one")

    def _attempts(self, lane: Lane, job: Job) -> "Steps[Outcome]":
        """Run a job; what is the sandbox's fault is tried again."""
        profile = self.profile(job)
        reason = ""
        for _ in range(ATTEMPTS):
            try:
                outcome = yield from self._attempt(lane, profile, job)
            except (ServerGone, SandboxError) as error:
                reason = str(error)
                lane.drop(profile, server=True)
                continue
            if outcome.ended is not Ended.INFRA:
                return outcome
            reason = outcome.reason
        return Outcome(Ended.INFRA, reason=f"{reason} ({ATTEMPTS} attempts)", tier=self.tier)

    def _attempt(self, lane: Lane, profile: Profile, job: Job) -> "Steps[Outcome]":
        started = lane.connection(profile).start(job)
        ended = False
        try:
            outcome = yield from started.wait()
            ended = True
            return outcome
        finally:
            started.close()
            if not ended:
                lane.drop(profile, server=False)

    def profile(self, job: Job) -> Profile:
        """Which server a job goes to."""
        preload = self.preload
        if preload is None:
            wanted = imports(job.source())
            preload = ALWAYS
            if wanted & (set(USUAL) - set(ALWAYS)):
                preload += USUAL
            preload += tuple(sorted(wanted & self.modules))
        preload += tuple(sorted(set(job.options.preload) - set(preload)))
        return Profile(tier=self.tier, python=self.python, packages=self.packages, preload=preload)

    def check(self, job: Job) -> None:
        """Refuse a job that asks for what this tier cannot give."""
        if self.tier != "ns" and (job.options.processes or job.options.sockets):
            raise UsageError(
                f"processes and sockets need the tier 'ns'; here is '{self.tier}': "
                f"{self.survey.why_not or 'chosen by the caller'}"
            )

    def describe(self) -> Survey:
        """What walls stand, what is missing and what that means; prints as a table."""
        return self.survey

    def close(self) -> None:
        """End all servers. Callers that wait get a `UsageError`; the pool takes no more."""
        self.closed = True
        if self.threads is not None:
            self.threads.shutdown(wait=False, cancel_futures=True)
        self.finalizer()

    def __enter__(self) -> "Pool":
        """Return the pool."""
        return self

    def __exit__(self, *details: object) -> None:
        """End all servers."""
        self.close()


def imports(source: bytes) -> set[str]:
    """Guess the modules that a program imports; only speed hangs on it.

    Example:
        >>> sorted(imports(b"import os, re\\nfrom math import pi"))
        ['math', 'os', 're']
    """
    found = set()
    for line in _IMPORT.findall(source):
        words = line.decode().partition(" import ")[0]
        found |= {part.split()[0].partition(".")[0] for part in words.split(",") if part.strip()}
    return found


def _close_all(lanes: list[Lane]) -> None:
    for lane in lanes:
        lane.close()


_POOLS: "weakref.WeakSet[Pool]" = weakref.WeakSet()


def _after_fork() -> None:
    """Let go of the parent's servers; a child of a fork starts its own."""
    for pool in list(_POOLS):
        pool.finalizer()
        pool._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
