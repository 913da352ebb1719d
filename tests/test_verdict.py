"""The verdict: reward and status agree, and nothing unfinished gets through."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.verifiers import Status, Verdict

SCORED = (
    Status.CORRECT,
    Status.WRONG,
    Status.PARTIAL,
    Status.UNPARSED,
    Status.LIMIT,
    Status.TIMEOUT,
)


def test_the_unscored_statuses_are_bad_truth_and_error() -> None:
    assert {s for s in Status if not s.scored} == {Status.BAD_TRUTH, Status.ERROR}
    assert {s for s in Status if s.scored} == set(SCORED)


@pytest.mark.parametrize("status", list(Status))
def test_a_reward_stands_exactly_with_a_scored_status(status: Status) -> None:
    wrong = None if status.scored else 0.0
    with pytest.raises(ValueError, match=f"status '{status}'"):
        Verdict(reward=wrong, status=status)


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_is_refused(reward: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Verdict.score(reward)
    with pytest.raises(ValueError, match="part 'a' is a finite number"):
        Verdict(reward=0.0, status=Status.WRONG, parts={"a": reward})


@pytest.mark.parametrize(
    ("reward", "status"),
    [(2.0, "correct"), (1.0, "correct"), (0.5, "partial"), (0.0, "wrong"), (-1.0, "wrong")],
)
def test_a_number_becomes_a_status(reward: float, status: str) -> None:
    assert Verdict.score(reward).status == status


def test_the_cost_is_outside_equality() -> None:
    one = Verdict(reward=1.0, status=Status.CORRECT, cost={"seconds": 0.1})
    assert one == Verdict(reward=1.0, status=Status.CORRECT, cost={"seconds": 0.2})
    assert "cost" not in one.to_json(cost=False)


def test_the_short_forms_score_as_documented() -> None:
    zero = (Verdict.wrong(), Verdict.unparsed("r"), Verdict.limit("r"), Verdict.timeout("r"))
    assert [verdict.reward for verdict in zero] == [0.0] * 4
    assert [verdict.reward for verdict in (Verdict.bad_truth("r"), Verdict.error("r"))] == [
        None
    ] * 2


@given(
    st.sampled_from(SCORED),
    st.floats(allow_nan=False, allow_infinity=False),
    st.dictionaries(st.text(max_size=5), st.none() | st.floats(-1, 1), max_size=3),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers(), max_size=3),
)
def test_a_verdict_survives_json(
    status: Status, reward: float, parts: dict[str, float | None], evidence: dict[str, object]
) -> None:
    verdict = Verdict(reward=reward, status=status, parts=parts, evidence=evidence)
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"reward": 1.0},
        {"reward": 1.0, "status": "error"},
        {"reward": None, "status": "wrong"},
        {"reward": "1", "status": "correct"},
        {"reward": 1.0, "status": "excellent"},
        {"reward": 1.0, "status": "correct", "evidence": []},
        {"reward": 1.0, "status": "correct", "parts": {"a": math.nan}},
    ],
)
def test_what_is_no_verdict_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Verdict.from_json(data)
