"""Rows of HumanEval and MBPP as problems, and the wrong programs made of their solutions."""

import ast
import gzip
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One row of a benchmark."""

    name: str
    truth: dict[str, Any]
    solution: str
    entry: str
    """The function that the tests call."""
    tests: tuple[str, ...]
    """The tests as programs that follow the solution."""


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
                tests=(f"{row['test']}\ncheck({row['entry_point']})\n",),
            )


def mbpp(path: Path) -> Iterator[Problem]:
    """Read MBPP; the function tested is the one that the first test calls."""
    for row in map(json.loads, path.read_text().splitlines()):
        truth = {key: row[key] for key in ("test_list", "test_setup_code", "challenge_test_list")}
        solution = row["code"].replace("\r\n", "\n")
        names = {n.name for n in ast.walk(ast.parse(solution)) if isinstance(n, ast.FunctionDef)}
        called = [n.id for n in ast.walk(ast.parse(row["test_list"][0])) if isinstance(n, ast.Name)]
        tests = (*row["test_list"], *row["challenge_test_list"])
        yield Problem(
            name=f"MBPP/{row['task_id']}",
            truth=truth,
            solution=solution,
            entry=next(name for name in called if name in names),
            tests=tuple(f"{row['test_setup_code']}\n{test}" for test in tests),
        )


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
