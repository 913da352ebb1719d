"""Killable workers: limits, crashes, floods, starvation, threads, event loops, forks, orphans."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from process_harness import gone

from rlvr.verifiers import (
    Isolated,
    Status,
    Task,
    TaskError,
    UsageError,
    Verdict,
    WorkerPool,
    isolated,
    make,
    verifier,
)
from rlvr.verifiers.channel import WORKERS
from rlvr.verifiers.starvation import Usage, blame


def attack(kind: str, detail: Any = None) -> Any:
    """Do to a worker what a policy's text might make a verifier do."""
    if kind == "echo":
        return Verdict.correct(answer=detail)
    if kind == "type":
        return Verdict.correct(answer=type(detail).__name__)
    if kind == "pid":
        return Verdict.correct(answer=os.getpid())
    if kind == "sleep":
        time.sleep(detail)
    elif kind == "spin":
        end = time.process_time() + detail
        while time.process_time() < end:
            pass
    elif kind == "hold the interpreter":
        return bool(9 ** (9**8))
    elif kind == "exit":
        os._exit(detail)
    elif kind == "system exit":
        sys.exit(detail)
    elif kind == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif kind == "raise":
        raise ValueError("no such luck")
    elif kind == "memory":
        return bool([0] * (1 << 31))
    elif kind == "recursion":
        return attack(kind)
    return flood(kind, detail)


def flood(kind: str, detail: Any) -> Any:
    """Write where nothing should arrive, or return what is no verdict."""
    if kind == "print":
        print('{"verdict": {"reward": 1.0, "status": "correct"}}' * 20_000)
        os.write(1, b"\x04\x00\x00\x00\x02{}" * 1000)
        return False
    if kind == "read":
        return sys.stdin.read() == ""
    if kind == "huge":
        return Verdict.correct(answer="x" * (2 << 20))
    if kind == "nan":
        return float("nan")
    if kind == "not json":
        return Verdict.correct(answer={1, 2})
    if kind == "child":
        subprocess.Popen(["sleep", "60"])
        time.sleep(60)
    if kind == "nothing":
        return None
    return True


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(attack, timeout=0.3, size=1, memory=1 << 30) as workers:
        yield workers


def test_a_call_returns_what_the_function_returns(pool: WorkerPool) -> None:
    assert pool.call("echo", "é𝄞").evidence == {"answer": "é𝄞"}


@pytest.mark.parametrize("value", [(1, 2), {1: "a"}, b"raw", Task(id="a", prompt="p", truth=1)])
def test_arguments_that_are_not_json_arrive_with_their_type(pool: WorkerPool, value: Any) -> None:
    verdict = pool.call("type", value)
    assert verdict.evidence["answer"] == type(value).__name__


def test_surrogates_arrive_as_they_are() -> None:
    text = "\ud83d\ude00"  # two surrogates: JSON escapes would join them into one character
    with WorkerPool(lambda given: len(given) == 2, size=1) as same:
        assert same.call(text).reward == 1.0


@pytest.mark.parametrize("kind", ["sleep", "spin", "hold the interpreter", "child"])
def test_a_hung_call_times_out_and_the_next_one_works(pool: WorkerPool, kind: str) -> None:
    pool.call("echo", 1)
    start = time.monotonic()
    verdict = pool.call(kind, 60)
    assert verdict.status is Status.TIMEOUT
    assert verdict.reward == 0.0
    assert time.monotonic() - start < 5
    assert pool.call("echo", 1).reward == 1.0


@pytest.mark.parametrize(
    ("kind", "detail", "reason"),
    [
        ("exit", 3, "exited with status 3"),
        ("exit", 0, "exited with status 0"),
        ("segfault", None, "SIGSEGV"),
        ("system exit", 1, "SystemExit"),
        ("raise", None, "ValueError: no such luck"),
        ("memory", None, "MemoryError"),
        ("recursion", None, "RecursionError"),
        ("huge", None, "over 1048576 bytes"),
        ("nan", None, "finite"),
        ("not json", None, "not JSON"),
        ("nothing", None, "a bool, a number or a Verdict"),
    ],
)
def test_a_failure_is_an_error_with_its_reason_and_the_pool_goes_on(
    pool: WorkerPool, kind: str, detail: Any, reason: str
) -> None:
    verdict = pool.call(kind, detail)
    assert verdict.status is Status.ERROR
    assert verdict.reward is None
    assert reason in verdict.evidence["reason"]
    assert pool.call("echo", 1).reward == 1.0


def test_prints_cannot_forge_a_reply(pool: WorkerPool) -> None:
    assert pool.call("print").reward == 0.0
    assert pool.call("read").reward == 1.0


def test_a_killed_call_takes_its_children_along(pool: WorkerPool, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with WorkerPool(_leave_child, timeout=0.3, size=1) as workers:
        assert workers.call(str(note)).status is Status.TIMEOUT
    child = int(note.read_text())
    assert gone(child)


def _leave_child(note: str) -> bool:
    with subprocess.Popen(["sleep", "60"]) as child:
        Path(note).write_text(str(child.pid))
        child.wait()
    return True


def test_an_idle_worker_is_used_again_and_a_dead_one_is_not(pool: WorkerPool) -> None:
    first = pool.call("pid").evidence["answer"]
    assert pool.call("pid").evidence["answer"] == first
    os.kill(first, signal.SIGKILL)
    assert gone(first)
    second = pool.call("pid")
    assert second.reward == 1.0
    assert second.evidence["answer"] != first


def test_threads_share_a_pool_and_waiting_does_not_count() -> None:
    # eight calls of 0.15 s through two workers: the last waits 0.45 s, with a limit of 0.4 s
    with WorkerPool(attack, timeout=0.4, size=2) as workers, ThreadPoolExecutor(8) as threads:
        verdicts = list(threads.map(lambda _: workers.call("sleep", 0.15), range(8)))
    assert {verdict.status for verdict in verdicts} == {Status.CORRECT}


def test_an_event_loop_goes_on_while_a_call_hangs(pool: WorkerPool) -> None:
    async def main() -> tuple[Verdict, int]:
        await pool.acall("echo", 1)
        call = asyncio.ensure_future(pool.acall("sleep", 60))
        ticks = 0
        while not call.done():
            await asyncio.sleep(0.005)
            ticks += 1
        return await call, ticks

    verdict, ticks = asyncio.run(main())
    assert verdict.status is Status.TIMEOUT
    assert ticks > 5  # about 60 on an idle machine; a loop that is held up has one


def test_a_stopped_worker_is_starved_and_the_call_is_made_again() -> None:
    with WorkerPool(_stop_once, timeout=0.2, size=1) as workers:
        verdict = workers.call(os.getpid(), str(time.monotonic()))
    # stopped in every attempt: the machine's fault, so unscored
    assert verdict.status is Status.ERROR
    assert verdict.cost["attempts"] == 3
    assert "too little of a processor" in verdict.evidence["reason"]


def _stop_once(parent: int, unique: str) -> bool:
    os.kill(os.getpid(), signal.SIGSTOP)
    return True


def test_a_call_stopped_once_succeeds_on_the_second_attempt(tmp_path: Path) -> None:
    with WorkerPool(_stop_first, timeout=0.2, size=1) as workers:
        verdict = workers.call(str(tmp_path / "seen"))
    assert verdict.reward == 1.0
    assert verdict.cost["attempts"] == 2


def _stop_first(note: str) -> bool:
    if not Path(note).exists():
        Path(note).touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    return True


@pytest.mark.parametrize(
    ("wall", "now", "cause"),
    [
        (1.00, Usage(0.98, 0.0, "R"), "work"),  # 0.98 s on a core of 1.00
        (1.00, Usage(0.30, 0.70, "R"), "load"),  # 1.00 - 0.70 queued = 0.30 s of its own
        (3.10, Usage(1.00, 2.05, "R"), "work"),  # 3.10 - 2.05 = 1.05 s of its own
        (1.01, Usage(0.0, 0.0, "S"), "work"),  # asleep by its own will
        (1.01, Usage(0.1, 0.5, "S"), "load"),  # 0.51 s of its own so far, part of it asleep
        (1.01, Usage(0.1, 0.0, "R"), "load"),  # the host took the core: ready, yet not queued
        (3.01, Usage(0.1, 0.0, "R"), "work"),  # for three limits: not the host any more
        (1.01, Usage(0.1, 0.0, "D"), "load"),  # waits for a disk
        (1.01, Usage(0.1, 0.0, "T"), "stopped"),
    ],
)
def test_the_limit_counts_the_work_and_not_the_wait_for_a_core(
    wall: float, now: Usage, cause: str
) -> None:
    assert blame(wall, 1.0, Usage(0.0, 0.0, "R"), now) == cause


def test_without_proc_the_clock_decides() -> None:
    assert blame(1.0, 1.0, None, None) == "work"


def test_work_below_the_limit_passes_on_an_oversubscribed_core() -> None:
    """Two spinning processes and the worker share one core: 0.3 s of work takes about 0.9 s."""
    spin = "import time\nend = time.monotonic() + 20\nwhile time.monotonic() < end: pass"
    core = min(os.sched_getaffinity(0))
    spinners = [
        subprocess.Popen(
            [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{core}}})\n{spin}"]
        )
        for _ in range(2)
    ]
    try:
        with WorkerPool(_spin_on, timeout=0.5, size=1) as workers:
            assert workers.call(core, 0.01).reward == 1.0
            verdict = workers.call(core, 0.3)
            slow = workers.call(core, 5.0)
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()
    assert verdict.status is Status.CORRECT
    assert slow.status is Status.TIMEOUT


def _spin_on(core: int, seconds: float) -> bool:
    os.sched_setaffinity(0, {core})
    attack("spin", seconds)
    return True


def test_a_forked_child_starts_workers_of_its_own(pool: WorkerPool) -> None:
    mine = pool.call("pid").evidence["answer"]
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            pid = pool.call("pid").evidence["answer"]
            os.write(write, str(pid).encode())
            pool.close()
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    theirs = os.read(read, 100)
    os.close(read)
    assert int(theirs) != mine
    assert pool.call("pid").evidence["answer"] == mine


ORPHAN = """
import os, sys, threading, time
from rlvr.verifiers import WorkerPool
def hold(note):
    with open(note, "w") as file:
        file.write(str(os.getpid()))
    return bool(9 ** (9 ** 8))
pool = WorkerPool(hold, timeout=60.0)
threading.Thread(target=pool.call, args=(sys.argv[1],), daemon=True).start()
while not os.path.exists(sys.argv[1]) or not open(sys.argv[1]).read():
    time.sleep(0.01)
print("ready", flush=True)
time.sleep(60)
"""


def test_a_worker_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    command = [sys.executable, "-P", "-c", ORPHAN, str(note)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        parent.kill()
    assert gone(int(note.read_text()))


def test_closing_a_pool_ends_its_workers_and_a_call_starts_new_ones(pool: WorkerPool) -> None:
    first = pool.call("pid").evidence["answer"]
    pool.close()
    assert gone(first)
    assert pool.call("pid").evidence["answer"] != first


def test_no_worker_is_started_before_the_first_call() -> None:
    before = len(WORKERS)
    isolated("exact")
    assert len(WORKERS) == before


def test_a_pool_travels_by_pickle_without_its_processes(pool: WorkerPool) -> None:
    pool.call("echo", 1)
    with cloudpickle.loads(cloudpickle.dumps(pool)) as copy:
        assert copy.timeout == 0.3
        assert copy.call("echo", 2).evidence["answer"] == 2


def test_a_function_that_cannot_be_sent_is_an_error_that_says_so() -> None:
    lock = threading.Lock()
    with WorkerPool(lambda: lock.locked(), size=1) as workers:
        assert "cannot be sent to a worker" in workers.call().evidence["reason"]


def test_an_argument_that_cannot_be_sent_is_an_error_that_says_so(pool: WorkerPool) -> None:
    assert "cannot be sent" in pool.call("echo", threading.Lock()).evidence["reason"]


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": float("nan")}, {"size": 0}])
def test_a_bad_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="got"):
        WorkerPool(attack, **options)


@pytest.fixture(scope="module")
def checked() -> Iterator[Isolated]:
    async def patient(completion: str, truth: str) -> bool:
        if truth == "bad":
            raise TaskError("the truth is bad")
        await asyncio.sleep(60 if completion == "slow" else 0)
        return completion == truth

    wrapped = isolated(verifier(patient), timeout=0.3, size=1)
    yield wrapped
    wrapped.close()


def test_an_async_verifier_runs_isolated(checked: Isolated) -> None:
    assert checked("4", "4", task=Task(id="a", prompt="p", truth="4")).reward == 1.0
    assert checked("5", "4").reward == 0.0
    assert checked("slow", "4").status is Status.TIMEOUT
    assert checked("4", "bad").status is Status.BAD_TRUTH


def test_an_isolated_verifier_is_awaitable_and_forwards_the_truth_check(checked: Isolated) -> None:
    assert asyncio.run(checked.acall("4", "4")).reward == 1.0
    assert checked.check_truth("4") is None
    with pytest.raises(TaskError, match="exact truth"):
        isolated(make("exact")).check_truth(None)


def test_the_reward_does_not_depend_on_the_isolation() -> None:
    plain, wrapped = make("number"), isolated("number", size=1)
    for completion in ("#### 42", "#### 43", "no number"):
        assert wrapped(completion, 42) == plain(completion, 42)
    wrapped.close()
