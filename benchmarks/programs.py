"""HumanEval and MBPP through the program verifier: what passes, what must not, how long it takes.

    python benchmarks/programs.py --data FOLDER

The folder holds `HumanEval.jsonl.gz` and `mbpp.jsonl`. Every reference solution must pass. Each is
then tried with one seeded mutation, with an empty body, and replaced by another task's solution
under its name: those must fail. The ones that do not are listed, with whether they also pass when
program and tests simply run in one process: then the tests are too weak, not the verifier.
`mutation, seen` takes for those the next mutation that the tests can see, if one of eight is.
"""

import argparse
import ast
import gzip
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr.verifiers import Verdict, verify
from rlvr.verifiers.programs import ProgramTests
from rlvr.verifiers.sandbox import Ended, Limits, shared


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One row of a benchmark."""

    name: str
    truth: dict[str, Any]
    solution: str
    entry: str
    """The function that the tests call."""
    plain: str
    """The tests as a program that follows the solution."""


def humaneval(path: Path) -> Iterator[Problem]:
    """Read HumanEval; its solutions continue their prompt."""
    with gzip.open(path, "rt") as lines:
        for row in map(json.loads, lines):
            truth = {key: row[key] for key in ("prompt", "test", "entry_point")}
            yield Problem(
                name=row["task_id"],
                truth=truth,
                solution=row["prompt"] + row["canonical_solution"],
                entry=row["entry_point"],
                plain=f"{row['test']}\ncheck({row['entry_point']})\n",
            )


def mbpp(path: Path) -> Iterator[Problem]:
    """Read MBPP; the function tested is the one that the first test calls."""
    for row in map(json.loads, path.read_text().splitlines()):
        truth = {key: row[key] for key in ("test_list", "test_setup_code", "challenge_test_list")}
        solution = row["code"].replace("\r\n", "\n")
        names = {n.name for n in ast.walk(ast.parse(solution)) if isinstance(n, ast.FunctionDef)}
        called = [n.id for n in ast.walk(ast.parse(row["test_list"][0])) if isinstance(n, ast.Name)]
        tests = [row["test_setup_code"], *row["test_list"], *row["challenge_test_list"]]
        yield Problem(
            name=f"MBPP/{row['task_id']}",
            truth=truth,
            solution=solution,
            entry=next(name for name in called if name in names),
            plain="\n".join(tests),
        )


MUTATIONS = 8
"""Mutations that are tried for one whose effect the tests can see."""

SWAPS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Lt: ast.LtE, ast.LtE: ast.Lt,
    ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or,
    ast.Or: ast.And, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip


def mutated(solution: str, entry: str, seed: str) -> str:
    """Change one operator, comparison or constant of the function that is tested."""
    tree = ast.parse(solution)
    places: list[Callable[[], None]] = []
    for function in tree.body:
        if isinstance(function, ast.FunctionDef) and function.name == entry:
            for node in ast.walk(function):
                places += _mutations(node)
    if not places:
        return solution + "\nraise ValueError('nothing to change')\n"
    random.Random(seed).choice(places)()
    return ast.unparse(tree)


def seen_mutation(problem: Problem) -> str:
    """Return the first of several mutations that fails in one process with its tests."""
    program = problem.solution
    for attempt in range(1, MUTATIONS):
        program = mutated(problem.solution, problem.entry, f"{problem.name}-{attempt}")
        if not passes_plainly(problem, program):
            break
    return program


def _mutations(node: ast.AST) -> Iterator[Callable[[], None]]:
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPS:
        yield lambda: setattr(node, "op", SWAPS[type(node.op)]())
    if isinstance(node, ast.Compare):
        yield lambda: setattr(node, "ops", [SWAPS[type(op)]() for op in node.ops])
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        yield lambda: setattr(node, "value", not node.value)
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield lambda: setattr(node, "value", node.value + 1)  # pyright: ignore
    if isinstance(node, ast.Return) and node.value is not None:
        yield lambda: setattr(node, "value", None)


def emptied(solution: str, entry: str) -> str:
    """Take the body out of the function that is tested."""
    tree = ast.parse(solution)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == entry:
            node.body = [ast.Pass()]
    return ast.unparse(tree)


def variants(problems: list[Problem]) -> dict[str, list[str]]:
    """Return the programs to try: kind → one for each problem."""
    others = problems[1:] + problems[:1]
    return {
        "reference": [p.solution for p in problems],
        "mutation": [mutated(p.solution, p.entry, p.name) for p in problems],
        "empty body": [emptied(p.solution, p.entry) for p in problems],
        "another's": [
            f"{other.solution}\n{p.entry} = {other.entry}\n"
            for p, other in zip(problems, others, strict=True)
        ],
    }


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
    text = f"{program}\n{problem.plain}"
    return shared().run(text, limits=Limits(cpu=10.0)).ended is Ended.OK


def main() -> None:
    """Judge everything and print what came out."""
    parser = argparse.ArgumentParser(description="HumanEval and MBPP through the verifier")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=None, help="problems of each benchmark")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds of CPU per test")
    parser.add_argument("--kind", default="", help="reference, mutation, 'empty body', another's")
    options = parser.parse_args()
    verifier = ProgramTests(timeout=options.timeout)
    sources = {
        "HumanEval": humaneval(options.data / "HumanEval.jsonl.gz"),
        "MBPP": mbpp(options.data / "mbpp.jsonl"),
    }
    for name, source in sources.items():
        problems = list(source)[: options.limit]
        for kind, programs in variants(problems).items():
            if options.kind not in ("", kind):
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
            plain = passes_plainly(problem, program)
            also = "passes" if plain else "fails"
            print(f"  {problem.name}: {verdict.reward}, {also} in one process", end=" ")
            print(json.dumps(dict(verdict.evidence))[:400] if kind == "reference" else "")


if __name__ == "__main__":
    main()
