"""Many runs at once, runs kept open, deaths on either side, and nothing left."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlvr.verifiers import UsageError
from rlvr.verifiers.sandbox import (
    Ended,
    Job,
    Limits,
    Outcome,
    Pool,
)
from rlvr.verifiers.sandbox.gate import Gate


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(size=2) as made:
        yield made


def _descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found


def _is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def _servers(pool: Pool) -> list[int]:
    found = [server for lane in pool.lanes for server in lane.servers.values()]
    return [server.process.pid for server in found if server.process is not None]


def _until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_outcomes_come_in_the_order_of_the_jobs(pool: Pool) -> None:
    jobs = [Job(program=f"import time; time.sleep({(7 - i) / 50}); print({i})") for i in range(8)]
    assert [outcome.text for outcome in pool.map(jobs)] == [f"{i}\n" for i in range(8)]


def test_jobs_are_made_only_as_there_is_room(pool: Pool) -> None:
    made = []

    def endless() -> Iterator[Job]:
        while True:
            made.append(1)
            yield Job(program="print(1)")

    outcomes = pool.map(endless(), window=3)
    assert [next(outcomes).text for _ in range(5)] == ["1\n"] * 5
    del outcomes
    assert len(made) <= 5 + 3


def test_an_event_loop_runs_many_at_once(pool: Pool) -> None:
    async def go() -> list[Outcome]:
        return await asyncio.gather(*[pool.arun(f"print({i})") for i in range(50)])

    assert [outcome.text for outcome in asyncio.run(go())] == [f"{i}\n" for i in range(50)]


def test_outcomes_stream_in_an_event_loop(pool: Pool) -> None:
    async def go() -> list[str]:
        return [outcome.text async for outcome in pool.amap(Job(program="print(1)") for _ in "ab")]

    assert asyncio.run(go()) == ["1\n", "1\n"]


def test_threads_and_an_event_loop_share_a_pool(pool: Pool) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda i=i: found.append(pool.run(f"print({i})").text))
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    outcome = asyncio.run(pool.arun("print('loop')"))
    for thread in threads:
        thread.join()
    assert outcome.text == "loop\n"
    assert sorted(found) == [f"{i}\n" for i in range(8)]


def test_a_cancelled_run_ends_and_the_next_one_starts(pool: Pool) -> None:
    async def go() -> str:
        long = Limits(wall=500.0)
        tasks = [
            asyncio.ensure_future(pool.arun("import time; time.sleep(400)", limits=long))
            for _ in range(5)
        ]
        await asyncio.sleep(0.3)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)
        return (await asyncio.wait_for(pool.arun("print('next')"), 10)).text

    assert asyncio.run(go()) == "next\n"


def test_shares_take_turns() -> None:
    gate: Gate[str] = Gate(["core"])
    assert gate.enter("a").done()
    order: list[str] = []
    for share in ("a", "a", "a", "b", "c", "b"):
        gate.enter(share).add_done_callback(lambda _, share=share: order.append(share))
    for _ in range(6):
        gate.leave("core")
    assert order == ["a", "b", "c", "a", "b", "a"]


def test_a_caller_that_gives_up_loses_its_turn() -> None:
    gate: Gate[str] = Gate(["core"])
    gate.enter("a")
    first, second = gate.enter("a"), gate.enter("a")
    assert first.cancel()
    gate.leave("core")
    assert second.result(0) == "core"
    assert gate.waiting() == 0


def test_a_channel_left_open_ends_with_its_slot(pool: Pool) -> None:
    with pool.slot() as slot:
        slot.open("import time; time.sleep(500)")
        pids = [pid for server in _servers(pool) for pid in _descendants(server)]
    assert _until(lambda: sum(map(_is_there, pids)) <= 2)  # the servers themselves
    assert pool.run("print(1)").text == "1\n"


@pytest.mark.parametrize("tier", ["ns", "flat"])
def test_a_run_whose_server_is_killed_is_redone(tier: str) -> None:
    with Pool(size=1, tier=tier) as pool:  # pyright: ignore[reportArgumentType]
        pool.run("")
        first = _servers(pool)

        def kill() -> None:
            time.sleep(0.3)
            for pid in first:
                os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        outcome = pool.run("import time; time.sleep(0.6); print('done')")
        killer.join()
        assert (outcome.ended, outcome.text) == (Ended.OK, "done\n")
        assert _servers(pool) != first


def test_a_server_that_dies_each_time_is_the_sandboxs_failure() -> None:
    with Pool(size=1) as pool:
        pool.run("")
        over = threading.Event()

        def kill() -> None:
            while not over.wait(0.05):
                for pid in _servers(pool):
                    if len(_descendants(pid)) >= 2:  # the server and a run
                        os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        outcome = pool.run("import time; time.sleep(3)")
        over.set()
        killer.join()
        assert outcome.ended is Ended.INFRA
        assert "3 attempts" in outcome.reason


PARENT = """
import sys, threading, time
from rlvr.verifiers.sandbox import Pool
pool = Pool(size=2, tier=sys.argv[1])
threading.Thread(target=pool.run, args=("import time; time.sleep(500)",), daemon=True).start()
threading.Thread(target=pool.run, args=("while True: pass",), daemon=True).start()
time.sleep(1)
print("ready", flush=True)
time.sleep(100)
"""


@pytest.mark.parametrize("tier", ["ns", "flat"])
def test_nothing_outlives_a_parent_that_is_killed(tier: str) -> None:
    before = set(Path("/tmp").glob("rlvr-sandbox-*"))
    command = [sys.executable, "-P", "-c", PARENT, tier]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        pids = _descendants(parent.pid)
        assert len(pids) >= 4
        parent.kill()
    assert _until(lambda: not any(map(_is_there, pids)))
    assert _until(lambda: set(Path("/tmp").glob("rlvr-sandbox-*")) <= before)


def test_a_forked_child_uses_servers_of_its_own(pool: Pool) -> None:
    pool.run("")
    mine = _servers(pool)
    pid = os.fork()
    if pid == 0:
        good = pool.run("print(2)").text == "2\n" and not set(_servers(pool)) & set(mine)
        pool.close()
        os._exit(0 if good else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert pool.run("print(1)").text == "1\n"
    assert _servers(pool) == mine


def test_many_runs_leave_nothing(pool: Pool) -> None:
    programs = [
        "print(1)",
        "import os; os.mkdir('d'); open('d/f', 'w').write('x'); os.chmod('d', 0)",
        "from threading import Timer\nt = Timer(9, print)\nt.daemon = True\nt.start()",
        "import os; os._exit(3)",
        "import ctypes; ctypes.string_at(0)",
    ]
    for program in programs * 4:
        pool.run(program)
    before = len(os.listdir("/proc/self/fd"))
    pids = _descendants(os.getpid())
    for outcome in pool.map(Job(program=program) for program in programs * 40):
        assert outcome.ended is not Ended.INFRA
    assert len(os.listdir("/proc/self/fd")) == before
    assert _until(lambda: set(_descendants(os.getpid())) <= set(pids))


def test_a_closed_pool_leaves_no_process_and_takes_no_more() -> None:
    pool = Pool(size=2)
    pool.run("print(1)")
    pids = [*_servers(pool), *(p for server in _servers(pool) for p in _descendants(server))]
    pool.close()
    assert not any(map(_is_there, pids))
    with pytest.raises(UsageError, match="closed"):
        pool.run("")


def test_callers_of_a_pool_that_is_closed_are_told() -> None:
    pool = Pool(size=1)
    found: list[str] = []

    def call() -> None:
        with pytest.raises(UsageError, match="closed"):
            pool.run("import time; time.sleep(400)", limits=Limits(wall=500.0))
        found.append("told")

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert _until(lambda: len(pool.lanes[0].connections) == 1)
    time.sleep(0.2)
    pool.close()
    for thread in threads:
        thread.join(10)
    assert found == ["told"] * 3


REFUSING = """
import struct, sys
from rlvr.verifiers.sandbox import Pool, SandboxError
from rlvr.verifiers.sandbox.inside import kernel
unshare = {"x86_64": 272, "aarch64": 97}[kernel.MACHINE]
lines = [(0x20, 0, 0, 0), (0x15, 0, 1, unshare), (6, 0, 0, 0x00050001), (6, 0, 0, 0x7FFF0000)]
kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
program = b"".join(struct.pack("=HBBI", *line) for line in lines)
kernel.filter_system_calls(kernel.Filter.of(program))
with Pool(size=1) as pool:
    print(pool.tier, pool.run("print(6 * 7)").text.strip(), pool.describe().why_not)
try:
    Pool(require="ns")
except SandboxError as error:
    print("refused", error)
"""


def test_where_namespaces_are_refused_the_lower_tier_is_taken_and_named() -> None:
    command = [sys.executable, "-P", "-c", REFUSING]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("flat 42 tier 'ns' cannot be had: PermissionError")
    assert second.startswith("refused no sandbox here: tier 'ns' cannot be had")


def test_a_pool_that_is_forgotten_closes_itself() -> None:
    pool = Pool(size=1)
    pool.run("print(1)")
    pids = _servers(pool)
    del pool
    assert _until(lambda: not any(map(_is_there, pids)))


def test_a_starved_run_is_not_late() -> None:
    # one run wants 0.3 s of CPU and may take 0.6 s; three others of its core want all of it
    others = [
        subprocess.Popen(
            [sys.executable, "-S", "-c", "while True: pass"], stdout=subprocess.DEVNULL
        )
        for _ in range(8)
    ]
    before = os.sched_getaffinity(0)
    core = {min(before)}
    try:
        for other in others:
            os.sched_setaffinity(other.pid, core)
        os.sched_setaffinity(0, core)
        with Pool(size=1) as pool:
            program = "import time\nwhile time.process_time() < 0.3: pass\nprint('done')"
            outcome = pool.run(program, limits=Limits(cpu=0.5, wall=0.6))
    finally:
        os.sched_setaffinity(0, before)
        for other in others:
            other.kill()
            other.wait()
    assert outcome.text == "done\n", outcome
    assert outcome.cost.wall > 0.6


def test_a_module_that_cannot_be_preloaded_is_named() -> None:
    with (
        Pool(size=1, preload=("nothing_like_it",)) as pool,
        pytest.raises(UsageError, match="cannot be preloaded: nothing_like_it: ModuleNotFound"),
    ):
        pool.run("")


@pytest.mark.slow
def test_the_same_verdict_a_thousand_times_on_a_crowded_machine() -> None:
    crowd = [
        subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
        for _ in range(2 * len(os.sched_getaffinity(0)))
    ]
    job = Job(
        program="print({str(i) for i in range(9)}, sum(range(100000)))", limits=Limits(cpu=0.5)
    )
    try:
        with Pool() as pool:
            found = {(o.ended, o.stdout) for o in pool.map(job for _ in range(1000))}
    finally:
        for process in crowd:
            process.kill()
            process.wait()
    assert len(found) == 1
    assert found.pop()[0] is Ended.OK


@pytest.mark.slow
def test_twenty_thousand_runs_leave_nothing() -> None:
    hostile = [
        "while True: pass",
        "x = []\nwhile True: x.append(bytearray(1 << 20))",
        "import os\nfor i in range(600): open(str(i), 'w').close()",
        "import os; os.kill(os.getpid(), 9); os.abort()",
        "import threading, time\nfor _ in range(99): threading.Thread(target=time.sleep, "
        "args=(99,)).start()",
    ]
    limits = Limits(cpu=0.05, wall=0.1, memory=100 << 20, inodes=64, threads=16)

    def jobs() -> Iterator[Job]:
        for i in range(20_000):
            program = hostile[i // 10 % 5] if i % 10 == 0 else f"print({i})"
            yield Job(program=program, limits=limits if i % 10 == 0 else Limits())

    with Pool() as pool:
        for _ in range(20):
            pool.run("print(1)")
        fds, pids = len(os.listdir("/proc/self/fd")), _servers(pool)
        before = set(_descendants(os.getpid()))  # workers of other tests may be among them
        wrong = sum(
            outcome.text != f"{i}\n" for i, outcome in enumerate(pool.map(jobs())) if i % 10
        )
        assert wrong == 0
        assert len(os.listdir("/proc/self/fd")) == fds
        assert set(pids) <= set(_servers(pool))
        assert _until(lambda: set(_descendants(os.getpid())) <= before)
