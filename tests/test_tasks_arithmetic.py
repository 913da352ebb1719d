"""The arithmetic tasks, each recomputed in another way than they were made."""

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import gymnasium
import numpy as np
import pytest

from rlvr.envs.selection import side
from rlvr.envs.tasks.arithmetic import Arithmetic
from rlvr.envs.tasks.gcd import GCD
from rlvr.envs.tasks.linear_equation import LinearEquation
from rlvr.verifiers import UsageError

_NODES: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.USub: operator.neg,
}


def value(text: str) -> int:
    """Compute an expression by walking Python's own syntax tree."""

    def walk(node: ast.AST) -> int:
        if isinstance(node, ast.BinOp):
            return _NODES[type(node.op)](walk(node.left), walk(node.right))
        if isinstance(node, ast.UnaryOp):
            return _NODES[type(node.op)](walk(node.operand))
        assert isinstance(node, ast.Constant)
        assert isinstance(node.value, int)
        return node.value

    return walk(ast.parse(text, mode="eval").body)


def test_the_default_is_the_sum_of_two_numbers_below_a_hundred() -> None:
    for task in Arithmetic(size=300):
        match = re.fullmatch(r"(\d{1,2}) \+ (\d{1,2}) = \?", str(task.prompt))
        assert match
        assert task.truth == int(match[1]) + int(match[2])


@pytest.mark.parametrize(
    "settings",
    [
        {"terms": 5, "operators": "+-*", "digits": 2},
        {"terms": 3, "operators": "-", "low": -20, "high": 20},
        {"terms": 4, "operators": "*+", "low": -9, "high": -1},
        {"terms": 1},
    ],
)
def test_any_expression_has_the_value_that_python_gives_it(settings: dict[str, Any]) -> None:
    size = 30 if settings["terms"] == 1 else 200
    for task in Arithmetic(size=size, prompt="{expression}", **settings):
        assert task.truth == value(str(task.prompt))
        assert task.solution == str(task.truth)


def test_without_a_size_a_small_space_is_taken_whole() -> None:
    train, test = (Arithmetic(digits=1, split=split) for split in ("train", "test"))
    # ten times ten ordered pairs, each on one side
    assert len(train) + len(test) == 100
    assert len({task.prompt for task in (*train, *test)}) == 100
    assert len(Arithmetic()) == 1000


def test_digits_is_a_range_from_zero() -> None:
    tasks = Arithmetic(digits=1, size=40)
    assert (tasks.config.low, tasks.config.high) == (0, 9)


def test_the_compact_prompt_has_no_spaces() -> None:
    task = Arithmetic(prompt="{compact}=", low=-5, high=-1, size=5)[0]
    assert re.fullmatch(r"\(-\d\)\+\(-\d\)=", str(task.prompt))


def test_swapping_summands_or_factors_never_crosses_the_split() -> None:
    tasks = Arithmetic(size=1, operators="+*", terms=4, high=3)
    rng = np.random.default_rng(0)
    sides: dict[tuple[str, ...], str] = {}
    for _ in range(2000):
        problem = tasks.draw(rng)
        products = problem.fields["compact"].split("+")
        sorted_sum = tuple(sorted("*".join(sorted(p.split("*"))) for p in products))
        assert sides.setdefault(sorted_sum, side(problem.canonical)) == side(problem.canonical)
    # 4 numbers of 0 to 3 under 8 patterns of operators: far fewer sums than draws, so many repeats
    assert len(sides) < 1000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"operators": "+/"}, r"operators must be some of '\+-\*'"),
        ({"operators": ""}, "operators must be"),
        ({"operators": "++"}, "each once"),
        ({"digits": 2, "high": 5}, "not both"),
        ({"digits": 0}, "digits must be from 1"),
        ({"terms": 0}, "terms must be from 1"),
        ({"low": 5, "high": 4}, "high must be from 5"),
        ({"digits": 1, "size": 1000}, "of 100 problems about 80 are on that side"),
        ({"digits": 1, "size": 21, "split": "test"}, "about 20 are on that side"),
        ({"digit": 1}, "no setting of Arithmetic 'digit'; did you mean 'digits'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Arithmetic(**settings)


def divisors(number: int) -> set[int]:
    return {d for d in range(1, number + 1) if number % d == 0}


@pytest.mark.parametrize("settings", [{}, {"count": 3}, {"low": 40, "high": 60, "size": 100}])
def test_the_divisor_is_common_and_none_is_greater(settings: dict[str, Any]) -> None:
    for task in GCD(**{"size": 200, **settings}):
        numbers = [int(n) for n in re.findall(r"\d+", str(task.prompt))]
        assert len(numbers) == settings.get("count", 2)
        assert task.truth == max(set.intersection(*map(divisors, numbers)))


def test_one_is_no_good_guess() -> None:
    tasks = GCD(size=1000)
    # half the pairs are uniform, 61 % of them coprime; of the others, few: well below a half in all
    assert sum(task.truth == 1 for task in tasks) < 500


EQUATION = re.compile(r"Solve for x: (-?\d*)x(?: ([+-]) (\d+))? = (-?\d+)")


@pytest.mark.parametrize("settings", [{}, {"rational": True}, {"max_coefficient": 1, "size": 300}])
def test_the_solution_solves_the_equation(settings: dict[str, Any]) -> None:
    fractions = 0
    for task in LinearEquation(**{"size": 400, **settings}):
        match = EQUATION.fullmatch(str(task.prompt))
        assert match, task.prompt
        a = int(match[1] + "1") if match[1] in ("", "-") else int(match[1])
        b = int(f"{match[2]}{match[3]}") if match[2] else 0
        assert a * Fraction(task.truth) + b == int(match[4])
        fractions += not isinstance(task.truth, int)
    assert (fractions > 100) == bool(settings.get("rational"))


@pytest.mark.parametrize("completion", ["5", "x = 5", "x=5", r"\boxed{5}", "The answer is x = 5."])
def test_an_equation_is_answered_with_or_without_the_unknown(completion: str) -> None:
    env = gymnasium.make("rlvr/LinearEquation-v0")
    tasks = env.unwrapped.tasks  # pyright: ignore
    index = next(i for i, task in enumerate(tasks) if task.truth == 5)
    env.reset(options={"index": index})
    assert env.step(completion)[1] == 1.0
    env.reset(options={"index": index})
    assert env.step(completion.replace("5", "6"))[1] == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_coefficient": 0}, "max_coefficient must be from 1"),
        ({"rational": 1}, "rational must be true or false"),
        ({"max_coefficient": 1, "max_constant": 0, "max_solution": 1, "size": 6}, "of 6 problems"),
    ],
)
def test_equations_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LinearEquation(**settings)
