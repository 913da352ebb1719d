"""Many completions at once: order, isolation, memory, Ctrl-C."""

import itertools
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from process_harness import wait_until

from rlvr.verifiers import (
    Status,
    Task,
    TaskError,
    UsageError,
    Verdict,
    make,
    verifier,
    verify,
    verify_each,
    verify_many,
)
from rlvr.verifiers.channel import WORKERS


@verifier
def obey(completion: str, truth: Any) -> Any:
    """Do what the completion says."""
    match completion:
        case "exit":
            os._exit(3)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            time.sleep(60)
        case "raise":
            raise ValueError("no such luck")
        case "bad truth":
            raise TaskError("the truth is bad")
        case "huge":
            return Verdict.correct(answer="x" * (2 << 20))
        case "pid":
            return Verdict.correct(answer=os.getpid())
    return completion == str(truth)


def test_verdicts_come_in_the_order_of_the_rows_and_are_those_of_a_single_call() -> None:
    math = make("math")
    rows = [(rf"so \boxed{{{n % 7}}}", str(n % 5)) for n in range(1000)]
    verdicts = verify_many("math", rows, workers=2)
    assert verdicts == [math(completion, truth) for completion, truth in rows]
    # n % 7 == n % 5 for n mod 35 in 0..4: 28 whole rounds of 35 (980 rows) give 5 each, rows
    # 980..999 (n mod 35 in 0..19) give 5 more
    assert sum(verdict.reward or 0 for verdict in verdicts) == 28 * 5 + 5


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        ("exit", "exited with status 3"),
        ("segfault", "SIGSEGV"),
        ("hang", "longer than 0.3 s"),
        ("raise", "ValueError: no such luck"),
        ("huge", "over 1048576 bytes"),
    ],
)
def test_a_row_that_breaks_its_worker_costs_only_itself(attack: str, reason: str) -> None:
    rows = [(str(n), n) for n in range(40)]
    rows[7] = rows[31] = (attack, 0)
    verdicts = verify_many(obey, rows, workers=1, timeout=0.3)
    assert [n for n, verdict in enumerate(verdicts) if verdict.reward != 1] == [7, 31]
    for broken in (verdicts[7], verdicts[31]):
        assert broken.status is Status.ERROR
        assert reason in broken.evidence["reason"]


def test_a_bad_truth_stays_one() -> None:
    (verdict,) = verify_many(obey, [("bad truth", 1)], workers=1)
    assert verdict.status is Status.BAD_TRUTH


def test_a_task_reaches_the_verifier_with_its_context() -> None:
    @verifier
    def asks(completion: str, truth: str, task: Task) -> bool:
        return completion == f"{task.prompt}{truth}"

    task = Task(id="a", prompt="p", truth="t")
    rewards = [v.reward for v in verify_many(asks, [("pt", task), ("p", task)], workers=1)]
    assert rewards == [1.0, 0.0]


@pytest.mark.parametrize("truth", [(1, 2), {1: "a"}, None, "\ud83d\ude00", 1 << 80])
def test_truths_arrive_as_they_are(truth: Any) -> None:
    same = verifier(lambda completion, given: given == truth and type(given) is type(truth))
    assert [v.reward for v in verify_many(same, [("", truth)] * 3, workers=1)] == [1.0] * 3


def test_all_workers_take_part() -> None:
    # a worker sends its rows back after 0.1 s of work at the latest: 60 rows of 10 ms are 6 chunks
    @verifier
    def slow(completion: str, truth: str) -> Verdict:
        time.sleep(0.01)
        return Verdict.correct(answer=os.getpid())

    verdicts = verify_many(slow, [("", "")] * 60, workers=2)
    assert len({verdict.evidence["answer"] for verdict in verdicts}) == 2


def test_progress_is_told_the_rows_done_and_their_number() -> None:
    told: list[tuple[int, int | None]] = []
    verify_many("exact", [("1", "1")] * 700, workers=1, progress=lambda *at: told.append(at))
    assert told[-1] == (700, 700)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert len(told) > 1
    verify_many("exact", iter([("1", "1")]), workers=1, progress=lambda *at: told.append(at))
    assert told[-1] == (1, None)


def test_no_row_gives_no_verdict() -> None:
    assert verify_many("exact", [], workers=1) == []


def test_rows_are_read_as_they_are_needed() -> None:
    read = itertools.count()
    rows = ((str(n), str(n)) for n in read)
    verdicts = verify_each("exact", rows, workers=1)
    assert [next(verdicts).reward for _ in range(100)] == [1.0] * 100
    verdicts.close()  # pyright: ignore
    # 100 rows handed over, and at most 17 chunks of 256 ahead of them
    assert next(read) < 100 + 18 * 256


def test_what_is_held_does_not_grow_with_the_rows() -> None:
    """Figures: a row of 2 kB; 12,000 of them are 24 MB, the chunks under way at most 9 MB."""

    def rows() -> Iterator[tuple[str, str]]:
        for n in range(12_000):
            yield f"{n:>2000}", str(n)

    tracemalloc.start()
    try:
        paid = sum(verdict.reward or 0 for verdict in verify_each("exact", rows(), workers=2))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert paid == 12_000
    assert peak < 18 << 20


def test_closing_early_ends_every_worker_at_once() -> None:
    rows = [("pid", 0)] * 16 + [("hang", 0)] * 1000
    verdicts = verify_each(obey, rows, workers=2, timeout=60.0)
    pids = {next(verdicts).evidence["answer"] for _ in range(16)}
    start = time.monotonic()
    verdicts.close()  # pyright: ignore
    assert time.monotonic() - start < 5
    assert pids
    assert all(worker.closed for worker in WORKERS if worker.process.pid in pids)


INTERRUPTED = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts behind
from rlvr.verifiers import verify_many, verifier
@verifier
def hang(completion, truth):
    import os
    open(sys_path + f"/{os.getpid()}", "w").close()
    time.sleep(60)
sys_path = sys.argv[1]
try:
    verify_many(hang, [("", "")] * 100, workers=2, timeout=50.0)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c_leaves_nothing_running(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", INTERRUPTED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        start = time.monotonic()
        parent.send_signal(signal.SIGINT)
        try:
            out, _ = parent.communicate(timeout=20)
        finally:
            parent.kill()
    assert out == "interrupted\n"
    assert time.monotonic() - start < 5
    for note in tmp_path.iterdir():
        wait_until(lambda note=note: not Path(f"/proc/{note.name}").exists())


def test_a_verifier_that_cannot_travel_is_refused_and_judged_here_on_request() -> None:
    import threading

    lock = threading.Lock()
    holds = verifier(lambda completion, truth: not lock.locked())
    with pytest.raises(UsageError, match=r"cannot be sent to worker processes.*workers=0"):
        verify_many(holds, [("", "")])
    assert verify_many(holds, [("", "")], workers=0)[0].reward == 1.0


def test_judging_here_gives_the_same_verdicts() -> None:
    rows = [("4", "4"), ("raise", "5"), ("bad truth", "1")]
    here = verify_many(obey, rows, workers=0)
    assert here == verify_many(obey, rows, workers=1)
    assert here == [verify(obey, *row) for row in rows]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([("a", "b", "c")], {}, "row 0 is a pair"),
        ([("a", "b"), "ab"], {}, "row 1 is a pair"),
        ([("a", "b"), (5, "b")], {"workers": 0}, "row 1 is a pair of a completion"),
        ([], {"workers": -1}, "workers= is a number of processes from 0 up, got -1"),
        ([], {"workers": True}, "got True"),
        ([], {"timeout": 0}, "timeout= is a number of seconds above 0"),
    ],
)
def test_bad_input_is_named(rows: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        verify_many("exact", rows, **options)


def test_an_unknown_verifier_is_refused_before_anything_starts() -> None:
    before = len(WORKERS)
    with pytest.raises(UsageError, match="did you mean 'math'"):
        verify_each("maths", [])
    assert len(WORKERS) == before
