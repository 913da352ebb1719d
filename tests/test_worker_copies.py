"""Workers that serve by copies: the imports once, a killed copy replaced in milliseconds."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from process_harness import gone, wait_until

from rlvr.verifiers import Status, Verdict, WorkerPool
from rlvr.verifiers.channel import WORKERS

IMPORTED_BY = "RLVR_TEST_IMPORTED_BY"


def _import() -> None:
    """Stand for the imports, which leave their mark in the process that made them."""
    os.environ[IMPORTED_BY] = str(os.getpid())


def obey(kind: str, detail: Any = None) -> Any:
    """Do what is asked."""
    match kind:
        case "hold":
            return bool(9 ** (9**8))
        case "sleep":
            time.sleep(60)
        case "exit":
            os._exit(3)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "memory":
            return bool([0] * (1 << 31))
        case "exit once":
            if not Path(detail).exists():
                Path(detail).touch()
                os._exit(3)
        case "child":
            with subprocess.Popen(["sleep", "60"]) as child:
                Path(detail).write_text(str(child.pid))
                child.wait()
    imported = int(os.environ.get(IMPORTED_BY, "0"))
    return Verdict.correct(pid=os.getpid(), parent=os.getppid(), imported=imported)


def _pool(**options: Any) -> WorkerPool:
    return WorkerPool(
        obey, timeout=0.2, size=1, memory=1 << 30, setup=_import, copies=True, **options
    )


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with _pool() as workers:
        yield workers


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        ("hold", Status.TIMEOUT, "longer than 0.2 s"),
        ("sleep", Status.TIMEOUT, "longer than 0.2 s"),
        ("exit", Status.ERROR, "exited with status 3"),
        ("segfault", Status.ERROR, "SIGSEGV"),
        ("memory", Status.ERROR, "MemoryError"),
    ],
)
def test_a_lost_copy_is_replaced_without_new_imports(
    pool: WorkerPool, kind: str, status: Status, reason: str
) -> None:
    before = pool.call("pid").evidence
    verdict = pool.call(kind)
    assert verdict.status is status
    assert reason in verdict.evidence["reason"]
    after = pool.call("pid").evidence
    assert after["pid"] != before["pid"]
    assert after["imported"] == after["parent"] == before["parent"]


def test_a_call_that_was_not_read_does_not_reach_the_next_copy(pool: WorkerPool) -> None:
    long = "x" * (4 << 20)  # far more than a pipe holds
    assert pool.call("sleep", long).status is Status.TIMEOUT
    assert pool.call("pid", long).reward == 1.0
    assert pool.call("exit", long).status is Status.ERROR
    assert pool.call("pid").reward == 1.0


def test_a_killed_copy_takes_its_children_along(pool: WorkerPool, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    assert pool.call("child", str(note)).status is Status.TIMEOUT
    assert gone(int(note.read_text()))


def test_a_copy_killed_while_idle_costs_no_call(pool: WorkerPool) -> None:
    pid = pool.call("pid").evidence["pid"]
    (worker,) = [worker for worker in WORKERS if worker.serving == pid]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not worker.is_idle())  # what it was copied from has said so
    assert pool.call("pid").reward == 1.0


def test_closing_ends_the_copy_and_its_origin() -> None:
    with _pool() as workers:
        found = workers.call("pid").evidence
    assert gone(found["pid"])
    assert gone(found["parent"])


def test_a_call_that_ends_two_workers_in_the_same_way_is_given_what_died_says(
    tmp_path: Path,
) -> None:
    with _pool(died=Verdict.limit) as workers:
        verdict = workers.call("segfault")
        assert verdict.status is Status.LIMIT
        assert verdict.cost["attempts"] == 2
        assert workers.call("exit once", str(tmp_path / "note")).reward == 1.0


ORPHAN = """
import os, sys, time, threading
from rlvr.verifiers import WorkerPool
def hold(note):
    with open(note, "w") as file:
        file.write(f"{os.getpid()} {os.getppid()}")
    return bool(9 ** (9 ** 8))
pool = WorkerPool(hold, timeout=60.0, copies=True)
threading.Thread(target=pool.call, args=(sys.argv[1],), daemon=True).start()
while not os.path.exists(sys.argv[1]) or not open(sys.argv[1]).read():
    time.sleep(0.01)
print("ready", flush=True)
time.sleep(60)
"""


def test_a_copy_that_holds_the_interpreter_dies_with_a_parent_that_is_killed(
    tmp_path: Path,
) -> None:
    note = tmp_path / "pids"
    command = [sys.executable, "-P", "-c", ORPHAN, str(note)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        parent.kill()
    assert all(gone(int(pid)) for pid in note.read_text().split())


def test_a_pool_that_is_interrupted_ends_what_runs_and_goes_on() -> None:
    answers: list[Verdict] = []
    with WorkerPool(obey, timeout=60.0, size=1, copies=True) as workers:
        workers.call("pid")
        thread = threading.Thread(target=lambda: answers.append(workers.call("hold")))
        thread.start()
        time.sleep(0.2)
        workers.interrupt()
        thread.join(5)
        assert [verdict.status for verdict in answers] == [Status.ERROR]
        assert workers.call("pid").reward == 1.0
