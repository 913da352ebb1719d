"""Classes of reasons: what logs count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.agents.types import Trajectory
from rlvr.rl_core.summary import describe
from rlvr.verifiers import Verdict, class_counts, explain, reason_class, weighted
from rlvr.verifiers.reasons import MAX_CHARS, MAX_CLASSES


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        ("no answer was found", "no answer was found"),
        ("an exponent beyond ±1000", "an exponent beyond …"),
        ("a numeral of 1,523 characters; at most 400 are read", "a numeral of … characters"),
        ("the truth 'a; b' cannot be read: no", "the truth … cannot be read"),
        (r"unknown command \rac", "unknown command …"),
        ("the worker's reply is no verdict", "the worker's reply is no verdict"),
        ("ValueError: it is 'so", "ValueError"),
        ("the check took longer than 0.3 s", "the check took longer than … s"),
        ("'unclosed quotation that goes on", "…"),
        ("", "no reason"),
        ("x" * 10_000, "x" * MAX_CHARS),
    ],
)
def test_the_values_of_one_case_are_left_out(reason: str, name: str) -> None:
    assert reason_class(reason) == name


@given(st.text())
def test_every_text_has_a_short_class_that_is_its_own_class(text: str) -> None:
    name = reason_class(text)
    assert 0 < len(name) <= MAX_CHARS
    assert reason_class(name).startswith(reason_class(name)[:1])
    assert class_counts([{"status": "wrong", "evidence": {"reason": text or "x"}}])


def test_a_composition_is_explained_by_its_components() -> None:
    both = weighted({"answer": ("number", 1.0)})
    status = both("no number here", "4").to_json()
    assert explain(status)[1] == "not a number"


def test_reasons_beyond_the_cap_are_counted_together() -> None:
    letters = [a + b for a in "abcdefgh" for b in "abcdefgh"]
    verdicts = [Verdict.unparsed(f"no {word}").to_json() for word in letters]
    verdicts += [Verdict.unparsed("no aa").to_json()] * 3
    counts = class_counts(verdicts)
    assert len(counts) == MAX_CLASSES + 1
    assert counts["reason/unparsed/no-aa"] == 4.0
    assert counts["reason/other"] == 64 - MAX_CLASSES
    assert sum(counts.values()) == 67


def test_an_episode_without_a_verdict_is_in_no_class() -> None:
    assert class_counts([{}, {"status": "correct"}]) == {}


def test_the_training_log_counts_statuses_tiers_and_reasons() -> None:
    verdicts = [
        Verdict.correct(tier="rational"),
        Verdict.wrong(tier="rational"),
        Verdict.unparsed("no answer was found"),
        Verdict.limit("a numeral of 500 characters; at most 400 are read"),
        Verdict.limit("a numeral of 900 characters; at most 400 are read"),
        Verdict.error("ValueError: x"),
    ]
    metrics = describe([_episode(verdict) for verdict in verdicts])
    counted = {k: v for k, v in metrics.items() if k.split("/")[0] in ("tier", "reason", "status")}
    assert counted == {
        "status/correct": 1.0,
        "status/error": 1.0,
        "status/limit": 2.0,
        "status/unparsed": 1.0,
        "status/wrong": 1.0,
        "reason/error/valueerror": 1.0,
        "reason/limit/a-numeral-of-N-characters": 2.0,
        "reason/unparsed/no-answer-was-found": 1.0,
        "tier/rational": 2.0,
    }


def _episode(verdict: Verdict) -> Trajectory:
    return Trajectory(
        env="a",
        task_id="t",
        group=0,
        seed=0,
        reward=verdict.reward or 0.0,
        scored=verdict.scored,
        verdict=verdict.to_json(cost=False),
    )
