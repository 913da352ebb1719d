"""What the options of the `math` verifier change, and which truths it takes."""

from typing import Any

import pytest

from rlvr.verifiers import Status, TaskError, UsageError, make
from rlvr.verifiers.mathematics import MathAnswer

MATH = MathAnswer()


@pytest.mark.parametrize(
    ("options", "completion", "truth", "reward"),
    [
        ({"percent": "either"}, "50%", 50, 1),
        ({"percent": "either"}, "50%", "1/2", 1),
        ({"percent": "either"}, "50", "50%", 1),
        ({"percent": "either"}, "5000%", 0.5, 0),
        ({"percent": "either"}, "50", "1/2", 0),
        ({"percent": "forbid"}, "50%", "1/2", 0),
        ({"percent": "forbid"}, "50%", "50%", 1),
        ({"absolute": 0.1}, "1.1", 1, 1),
        ({"absolute": 0.1}, "1.1001", 1, 0),
        ({"relative": 0.001}, "3.1415", r"\pi", 1),
        ({"relative": 0.0001}, "3.14", r"\pi", 0),
        ({"units": "require"}, "5 cm", 5, 0),
        ({"units": "require"}, "5", "5 cm", 0),
        ({"units": "require"}, "100 cm", r"1\text{ m}", 1),
        ({"units": "require"}, r"45^\circ", 45, 0),
        ({"units": "ignore"}, r"5\text{ kg}", r"5\text{ cm}", 1),
        ({"units": "ignore"}, "5 or so", 5, 0),
        ({"decimals": "exact"}, "84/13", "6.46", 0),
        ({"decimals": "rounded"}, "84/13", "6.46", 1),
        ({"ordered": True}, "2, 1", "1, 2", 0),
        ({"ordered": True}, "1, 2", "1, 2", 1),
        ({"ordered": True}, r"\{2, 1\}", r"\{1, 2\}", 1),
        ({"forms": "same"}, "0.5", "1/2", 0),
        ({"forms": "same"}, "2/4", "1/2", 0),
        ({"forms": "same"}, r"\dfrac{1}{2}", r"\frac12", 1),
        ({"strict": True}, r"\frac{1}{2}", r"\dfrac12", 1),
        ({"strict": True}, "2, 1", "1, 2", 0),
        ({"strict": True}, "5 cm", "5", 0),
        ({"strict": True, "units": "optional"}, "5 cm", "5", 0),
        ({"extract": ("boxed",)}, "#### 42", 42, 0),
    ],
)
def test_each_leniency_is_an_option(
    options: dict[str, Any], completion: str, truth: Any, reward: int
) -> None:
    assert MathAnswer(**options)(completion, truth).reward == reward


@pytest.mark.parametrize(
    "options",
    [
        {"percent": "maybe"},
        {"units": True},
        {"decimals": "close"},
        {"forms": "any"},
        {"timeout": 0},
        {"absolute": -1},
        {"relative": float("nan")},
        {"extract": ()},
        {"extract": "bx"},
        {"colour": "red"},
    ],
)
def test_a_bad_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        make("math", **options)


@pytest.mark.parametrize(
    "truth",
    ["", "  $$ ", "1/0", "(", "1, 1/0", "x = 1/0", "1" * 5000, None, True, [1], float("nan"), b"1"],
)
def test_a_truth_that_cannot_be_read_is_refused_and_unscored(truth: Any) -> None:
    with pytest.raises(TaskError, match="truth"):
        MATH.check_truth(truth)
    assert MATH("5", truth).status is Status.BAD_TRUTH


@pytest.mark.parametrize(
    "truth",
    [
        r"Adding gives \boxed{5}.",
        r"first \boxed{4}, then \boxed{5}",
        "the answer is 5",
        "Answer: 5",
        "$5$",
        r"\[ 5 \]",
        5.0,
    ],
)
def test_a_truth_may_be_a_whole_solution(truth: Any) -> None:
    assert MATH("5", truth).status is Status.CORRECT
    assert MATH("4", truth).status is Status.WRONG
