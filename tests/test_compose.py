"""Compositions: sums, gates, all, any, best, with components that fail."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.verifiers import (
    Composite,
    Status,
    TaskError,
    UsageError,
    Verdict,
    Verifier,
    all_of,
    any_of,
    best_of,
    gates,
    verifier,
    verify,
    weighted,
)

VALUES: dict[str, Any] = {"one": 1.0, "half": 0.5, "zero": 0.0, "failed": None}


def fixed(value: float | None, *, later: bool = False) -> Verifier:
    """Make a verifier that always gives the same reward, or fails."""

    def now(completion: str, truth: object) -> float:
        if value is None:
            raise RuntimeError("down")
        return value

    async def soon(completion: str, truth: object) -> float:
        await asyncio.sleep(0)
        return now(completion, truth)

    return verifier(soon if later else now)


ONE, HALF, ZERO, FAILED = (fixed(value) for value in VALUES.values())


def rewards(composite: Composite) -> tuple[float | None, str]:
    verdict = verify(composite, "c", "t")
    return verdict.reward, str(verdict.status)


def test_a_weighted_sum_adds_up() -> None:
    # 0.2·1 + 0.8·0.5 = 0.6
    verdict = verify(weighted({"a": (ONE, 0.2), "b": (HALF, 0.8)}), "c", "t")
    assert verdict.reward == pytest.approx(0.6)
    assert verdict.status is Status.PARTIAL
    assert verdict.parts == {"a": 1.0, "b": 0.5}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"a": (ONE, 0.3), "b": (ONE, 0.7)}, (1.0, "correct")),
        ({"a": (ZERO, 0.3), "b": (ZERO, 0.7)}, (0.0, "wrong")),
        ({"a": (ONE, 1.0), "long": (ZERO, -0.5)}, (1.0, "correct")),
        ({"a": (ONE, 1.0), "long": (ONE, -0.5)}, (0.5, "partial")),
        ({"a": (ZERO, 1.0), "long": (ONE, -0.5)}, (-0.5, "wrong")),
        ({"a": (ONE, 1.0), "b": (FAILED, 0.1)}, (None, "error")),
        ({"a": (ZERO, 1.0), "b": (FAILED, 0.1)}, (None, "error")),
        ({"a": (ONE, 1.0), "metric": (FAILED, 0.0)}, (1.0, "correct")),
        ({"a": (ONE, 1.0), "metric": (ZERO, 0.0)}, (1.0, "correct")),
    ],
)
def test_a_weighted_sum_is_unscored_where_a_part_with_weight_is(
    parts: dict[str, tuple[Verifier, float]], expected: tuple[float | None, str]
) -> None:
    assert rewards(weighted(parts)) == expected


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ((ONE, ONE), (1.0, "correct")),
        ((ONE, HALF), (0.6, "partial")),  # 0.2 + 0.8·0.5
        ((ONE, ZERO), (0.2, "partial")),
        ((HALF, ONE), (0.1, "partial")),  # 0.2·0.5, and the gate is shut
        ((ZERO, ONE), (0.0, "wrong")),
        ((ZERO, FAILED), (0.0, "wrong")),
        ((ONE, FAILED), (None, "error")),
        ((FAILED, ONE), (None, "error")),
    ],
)
def test_a_gate_decides_about_what_follows(
    stages: tuple[Verifier, Verifier], expected: tuple[float | None, str]
) -> None:
    composite = gates([("first", stages[0], 0.2), ("second", stages[1], 0.8)])
    reward, status = rewards(composite)
    assert reward == pytest.approx(expected[0])
    assert status == expected[1]


def test_what_a_shut_gate_keeps_from_running_is_a_part_of_zero() -> None:
    verdict = verify(gates([("a", ZERO, 0.2), ("b", FAILED, 0.8)]), "c", "t")
    assert verdict.parts == {"a": 0.0, "b": 0.0}


TRUTH_TABLE = [
    # components, all_of, any_of, best_of
    ("one one", 1.0, 1.0, 1.0),
    ("one half", 0.0, 1.0, 1.0),
    ("one zero", 0.0, 1.0, 1.0),
    ("half zero", 0.0, 0.0, 0.5),
    ("zero zero", 0.0, 0.0, 0.0),
    ("one failed", None, 1.0, 1.0),
    ("half failed", 0.0, None, None),
    ("zero failed", 0.0, None, None),
    ("failed failed", None, None, None),
]


@pytest.mark.parametrize(("names", "every", "some", "best"), TRUTH_TABLE)
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("later", [False, True])
def test_the_scored_parts_decide_where_they_can(
    names: str, every: float | None, some: float | None, best: float | None, swap: bool, later: bool
) -> None:
    given = names.split()[::-1] if swap else names.split()
    parts = {f"{n}{i}": fixed(VALUES[n], later=later and i == 0) for i, n in enumerate(given)}
    assert rewards(all_of(parts))[0] == every
    assert rewards(any_of(parts))[0] == some
    assert rewards(best_of(parts))[0] == best
    assert verify(all_of(parts), "c", "t").parts == {n: VALUES[n[:-1]] for n in parts}


def test_async_components_are_awaited_inside_a_loop() -> None:
    composite = weighted({"a": (ONE, 0.5), "b": (fixed(1.0, later=True), 0.25), "c": (ONE, 0.25)})

    async def main() -> Any:
        value = composite("c", "t")
        assert not isinstance(value, Verdict)
        return await value

    assert asyncio.run(main()).reward == 1.0


def test_a_shared_reason_for_failing_becomes_the_status() -> None:
    numbers = weighted({"a": ("number", 0.5), "b": ("math", 0.5)})
    assert verify(numbers, "no number here", 4).status is Status.UNPARSED
    assert verify(all_of(["number", "format"]), "4", 5).status is Status.WRONG


def test_a_bad_truth_makes_the_whole_a_bad_truth() -> None:
    composite = weighted({"format": ("format", 0.1), "answer": ("number", 0.9)})
    verdict = verify(composite, "4", "not a number")
    assert verdict.status is Status.BAD_TRUTH
    assert "answer: the truth 'not a number'" in verdict.evidence["reason"]
    with pytest.raises(TaskError, match="is no number"):
        composite.check_truth("not a number")


def test_the_weightiest_answer_is_the_one_that_votes() -> None:
    composite = weighted({"text": ("exact", 0.1), "answer": ("number", 0.9)})
    verdict = verify(composite, "4.0", 4)
    assert verdict.evidence["answer"] == "4"
    assert verdict.evidence["parts"]["text"]["answer"] == "4.0"


def test_compositions_nest() -> None:
    inner = any_of({"a": ZERO, "b": ONE})
    assert rewards(gates([("form", ONE, 0.5), ("inner", inner, 0.5)])) == (1.0, "correct")


@pytest.mark.parametrize(
    "build",
    [
        lambda: weighted({}),
        lambda: weighted({"a": (ONE, 0.0)}),
        lambda: weighted({"a": (ONE, float("nan"))}),
        lambda: weighted({"a": (ONE, float("inf"))}),
        lambda: gates([]),
        lambda: gates([("a", ONE, 1.0), ("a", ONE, 1.0)]),
        lambda: gates([("a", ONE, -1.0)]),
        lambda: all_of([]),
        lambda: any_of(["no such verifier"]),
    ],
)
def test_a_composition_that_makes_no_sense_is_refused(build: Any) -> None:
    with pytest.raises(UsageError):
        build()


@given(
    st.lists(st.tuples(st.sampled_from(list(VALUES)), st.floats(0.1, 1)), min_size=1, max_size=4)
)
def test_a_component_that_fails_never_raises_a_reward(rows: list[tuple[str, float]]) -> None:
    parts = {str(i): (fixed(VALUES[name]), weight) for i, (name, weight) in enumerate(rows)}
    reward = verify(weighted(parts), "c", "t").reward
    failed = any(name == "failed" for name, _ in rows)
    assert (reward is None) == failed
    if not failed:
        assert reward == pytest.approx(sum(VALUES[name] * weight for name, weight in rows))
