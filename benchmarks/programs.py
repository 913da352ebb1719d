"""HumanEval and MBPP through the program verifier: what passes, what must not, how long it takes.

    python benchmarks/programs.py --data FOLDER
    python benchmarks/programs.py --data FOLDER --mutations
    python benchmarks/programs.py --data FOLDER --peers .venv-peers/bin/python
    python benchmarks/programs.py --repeat 1000 --load 4

The folder holds `HumanEval.jsonl.gz` and `mbpp.jsonl`. Every reference solution must pass. Each is
then tried with one seeded mutation, with an empty body, and replaced by another task's solution
under its name: those must fail. The ones that do not are listed, with whether they also pass when
program and tests simply run in one process: then the tests are too weak, not the verifier.
`mutation, seen` takes for those the next mutation that the tests can see, if one of eight is.
`--mutations` tries mutations alone and shows the lines that those which pass have changed.

`--peers` names a Python that has evalplus (see `sandbox.py`) and verifies all of MBPP in both ways,
in turn. `--repeat` judges some programs again and again beside `--load` processes that keep the
cores busy, and counts the verdicts that differ from the first, which was given on an idle machine.
"""

import argparse
import ast
import difflib
import json
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rlvr.verifiers import Verdict, verify
from rlvr.verifiers.programs import ProgramTests
from rlvr.verifiers.sandbox import Ended, Limits, shared

sys.path.insert(0, str(Path(__file__).parent))
from program_rows import Problem, humaneval, mbpp, mutated, variants

MUTATIONS = 8
"""Mutations that are tried for one whose effect the tests can see."""
SQUARES: dict[str, dict[str, Any]] = {
    "calls": {"function": "f", "tests": [{"args": [n], "output": n * n} for n in range(5)]},
    "code": {"tests": [f"assert f({n}) == {n * n}" for n in range(5)]},
    "printing": {"tests": [{"input": f"{n}\n", "output": f"{n * n}\n"} for n in range(5)]},
}
BODIES = {
    "right": "return n * n",
    "wrong at the end": "return n * n if n < 4 else 17",
    "raises": "return [0, 1, 4][n]",
    "a third of its time": "import time\n    end = time.process_time() + 0.05 * (n == 4)\n"
    "    while time.process_time() < end: pass\n    return n * n",
    "never ends": "while n: pass\n    return 0",
    "sleeps a little": "import time\n    time.sleep(0.02)\n    return n * n",
    "much memory": "x = bytearray(30 << 20)\n    return n * n + x[n]",
    "too much memory": "return len(bytearray(1 << 40))",
    "too much output": "return 'x' * (1 << 23)",
    "leaves": "import os\n    os._exit(0)",
}
"""Name → body of a function that squares, or does not."""


def seen_mutation(problem: Problem) -> str:
    """Return the first of several mutations that fails in one process with its tests."""
    program = problem.solution
    for attempt in range(1, MUTATIONS):
        program = mutated(problem.solution, problem.entry, f"{problem.name}-{attempt}")
        if not passes_plainly(problem, program):
            break
    return program


def judge_all(
    verifier: ProgramTests, problems: list[Problem], programs: list[str]
) -> tuple[list[Verdict], float]:
    """Judge one program for each problem on all cores; returns the verdicts and the seconds."""
    fenced = [f"```python\n{program}\n```" for program in programs]
    start = time.perf_counter()
    with ThreadPoolExecutor(shared().size) as threads:
        verdicts = list(
            threads.map(
                lambda pair: verify(verifier, pair[1], pair[0].truth),
                zip(problems, fenced, strict=True),
            )
        )
    return verdicts, time.perf_counter() - start


def passes_plainly(problem: Problem, program: str) -> bool:
    """Return whether program and tests run without an exception in one process."""
    text = "\n".join([program, *problem.tests])
    return shared().run(text, limits=Limits(cpu=10.0)).ended is Ended.OK


def examine(words: argparse.Namespace, name: str, problems: list[Problem]) -> None:
    """Judge the programs of every kind that was asked for."""
    verifier = ProgramTests(timeout=words.timeout)
    for kind, programs in variants(problems).items():
        if words.kind not in ("", kind):
            continue
        verdicts, seconds = judge_all(verifier, problems, programs)
        report(name, kind, problems, programs, verdicts, seconds)
        if kind == "mutation":
            unseen = [p for p, v in zip(problems, verdicts, strict=True) if v.reward]
            others = [seen_mutation(problem) for problem in unseen]
            verdicts, seconds = judge_all(verifier, unseen, others)
            report(name, "mutation, seen", unseen, others, verdicts, seconds)


def report(
    name: str, kind: str, problems: list[Problem], programs: list[str], verdicts: list[Verdict],
    seconds: float,
) -> None:  # fmt: skip
    """Print one line, and one for each verdict that is not as it should be."""
    wanted = 1.0 if kind == "reference" else 0.0
    counts = Counter(str(verdict.status) for verdict in verdicts)
    said = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    print(f"{name}, {kind}: {said}; {seconds:.1f} s", flush=True)
    for problem, program, verdict in zip(problems, programs, verdicts, strict=True):
        if verdict.reward != wanted:
            also = "passes" if passes_plainly(problem, program) else "fails"
            print(f"  {problem.name}: {verdict.reward}, {also} in one process", end="  ")
            print(json.dumps(dict(verdict.evidence))[:400] if wanted else changed(problem, program))


def changed(problem: Problem, program: str) -> str:
    """Return the lines in which a program differs from the solution."""
    old = ast.unparse(ast.parse(problem.solution)).splitlines()
    lines = list(difflib.unified_diff(old, program.splitlines(), lineterm="", n=0))
    return " → ".join(line[1:].strip() for line in lines[3:5]) if len(lines) < 6 else ""


def against_evalplus(problems: list[Problem], peers: str, rounds: int) -> None:
    """Verify all reference solutions in both ways, in turn; print seconds and their ratio."""
    jobs = [(problem.solution, problem.tests) for problem in problems]
    given = json.dumps({"cores": shared().size, "jobs": jobs})
    script = Path(__file__).parent / "program_peers.py"
    best: dict[str, float] = {}
    for _ in range(rounds):
        verdicts, seconds = judge_all(ProgramTests(), problems, [p.solution for p in problems])
        done = subprocess.run(
            [peers, str(script)], input=given, stdout=subprocess.PIPE, text=True, check=True
        )
        theirs = json.loads(done.stdout)
        passed = sum(verdict.reward == 1.0 for verdict in verdicts)
        print(f"ours {passed} of {len(problems)} in {seconds:.2f} s; evalplus {theirs['passed']} "
              f"in {theirs['seconds']:.2f} s", flush=True)  # fmt: skip
        best["ours"] = min(seconds, best.get("ours", seconds))
        best["evalplus"] = min(theirs["seconds"], best.get("evalplus", theirs["seconds"]))
    print(f"best: {best['evalplus'] / best['ours']:.2f} times as fast as evalplus")


def programs_to_repeat() -> dict[str, tuple[str, dict[str, Any]]]:
    """Name → program and truth: every body in every form."""
    found = {}
    for name, body in BODIES.items():
        for form, truth in SQUARES.items():
            ending = "\nprint(f(int(input())))" if form == "printing" else ""
            found[f"{name} ({form})"] = (f"def f(n):\n    {body}{ending}", truth)
    return found


def repeat(count: int, load: int, only: str = "") -> dict[str, Counter[str]]:
    """Judge programs again and again on busy cores; returns those whose verdicts differ."""
    judge = ProgramTests(timeout=0.15, max_timeout=0.15, memory=512 << 20)
    chosen = {k: v for k, v in programs_to_repeat().items() if k.startswith(only)}
    first = {name: verify(judge, *given) for name, given in chosen.items()}
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(load)]
    differing: dict[str, Counter[str]] = {}
    try:
        with ThreadPoolExecutor(2 * shared().size) as threads:
            for name, given in chosen.items():
                start = time.perf_counter()
                turns = [threads.submit(verify, judge, *given) for _ in range(count)]
                verdicts = [turn.result() for turn in turns]
                other = [v for v in verdicts if v != first[name]]
                seconds = time.perf_counter() - start
                print(f"{name}: {first[name].status}, {count - len(other)} of {count} the same, "
                      f"{seconds:.1f} s", flush=True)  # fmt: skip
                if other:
                    differing[name] = Counter(f"{v.status}: {v.evidence}" for v in other)
                    print(f"  {dict(differing[name])}", flush=True)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    return differing


def main() -> None:
    """Judge everything and print what came out."""
    parser = argparse.ArgumentParser(description="HumanEval and MBPP through the verifier")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--limit", type=int, default=None, help="problems of each benchmark")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds of CPU per test")
    parser.add_argument("--kind", default="", help="reference, mutation, 'empty body', another's")
    parser.add_argument("--mutations", action="store_const", const="mutation", dest="kind")
    parser.add_argument("--peers", help="a Python that has evalplus")
    parser.add_argument("--rounds", type=int, default=3, help="of the comparison with evalplus")
    parser.add_argument("--repeat", type=int, default=0, help="verdicts of each program")
    parser.add_argument("--load", type=int, default=0, help="busy processes beside")
    parser.add_argument("--only", default="", help="repeat those whose name begins so")
    words = parser.parse_args()
    if words.repeat:
        differing = repeat(words.repeat, words.load, words.only)
        raise SystemExit(json.dumps(differing, indent=1) if differing else 0)
    if words.data is None:
        parser.error("--data FOLDER is needed, or --repeat")
    if words.peers:
        problems = list(mbpp(words.data / "mbpp.jsonl"))[: words.limit]
        return against_evalplus(problems, words.peers, words.rounds)
    examine(words, "HumanEval", list(humaneval(words.data / "HumanEval.jsonl.gz"))[: words.limit])
    examine(words, "MBPP", list(mbpp(words.data / "mbpp.jsonl"))[: words.limit])
    return None


if __name__ == "__main__":
    main()
