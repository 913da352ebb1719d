"""MBPP the way of EvalPlus: a process forked for each solution, through its own entry point.

Run by `programs.py --peers PYTHON` under a Python that has evalplus. Standard input holds one JSON
object: `cores` and `jobs`, each a solution and its tests. A test becomes a call of a function that
runs it and returns whether it held, because that entry point compares results of calls. As in
evalplus' own `evaluate`, a pool of processes makes the calls.
"""

import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from evalplus.eval import untrusted_check  # pyright: ignore[reportMissingImports]

Job = tuple[str, list[str]]


def passes(job: Job) -> bool:
    """Check one solution."""
    solution, tests = job
    code = f"{solution}\nTESTS = {tests!r}\ndef run_test(n):\n    exec(TESTS[n], globals())\n"
    code += "    return True\n"
    inputs, count = [[n] for n in range(len(tests))], len(tests)
    found = untrusted_check(
        "mbpp", code, inputs, "run_test", [True] * count, 0, [0.01] * count, min_time_limit=5.0
    )
    return found[0] == "pass"


def main() -> None:
    """Check all; print seconds and how many pass."""
    given = json.load(sys.stdin)
    jobs: list[Job] = [(solution, tests) for solution, tests in given["jobs"]]
    with ProcessPoolExecutor(given["cores"]) as pool:
        list(pool.map(passes, jobs[: 2 * given["cores"]]))
        start = time.perf_counter()
        found = list(pool.map(passes, jobs))
        seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "passed": sum(found)}))


if __name__ == "__main__":
    main()
