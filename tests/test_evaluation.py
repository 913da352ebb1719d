"""Figures of an evaluation, by hand and by counting."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.agents import Sampling, ScriptedPolicy
from rlvr.agents.embedded import byte_tokenizer
from rlvr.envs import PromptEnv
from rlvr.rl_core.evaluation import clustered, evaluate, majority, pass_at_k, wilson
from rlvr.rl_core.sources import Source
from rlvr.verifiers import Task, UsageError, Verdict, verifier


def test_pass_at_k_by_hand() -> None:
    # n = 5, c = 2, k = 3: 1 − C(3,3)/C(5,3) = 1 − 1/10
    assert pass_at_k(5, 2, 3) == pytest.approx(0.9)
    assert pass_at_k(5, 0, 3) == 0.0
    assert pass_at_k(5, 3, 3) == 1.0
    assert pass_at_k(7, 2, 1) == pytest.approx(2 / 7)


@given(n=st.integers(1, 8), data=st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(itertools.combinations(range(n), k))
    hit = sum(any(i < c for i in subset) for subset in subsets)
    assert pass_at_k(n, c, k) == pytest.approx(hit / len(subsets))


@pytest.mark.parametrize(("n", "c", "k"), [(2, 3, 1), (2, 1, 3), (2, 1, 0), (2, -1, 1)])
def test_pass_at_k_refuses_what_cannot_be(n: int, c: int, k: int) -> None:
    with pytest.raises(UsageError, match=f"n={n}, c={c}, k={k}"):
        pass_at_k(n, c, k)


def test_majority_counts_answers_not_samples() -> None:
    assert majority(["a", "b", "b"], [True, False, False]) == 0.0
    assert majority(["a", "b", "a"], [True, False, True]) == 1.0
    # three answers tie, one of them right
    assert majority(["a", "b", "c"], [True, False, False]) == pytest.approx(1 / 3)
    assert majority([None, None, "a"], [False, False, True]) == 1.0
    assert majority([None], [False]) == 0.0


def test_wilson_interval_by_hand() -> None:
    # p = 0, n = 10: upper end z²/(n + z²) = 3.8415/13.8415
    low, high = wilson(0.0, 10)
    assert (low, high) == (pytest.approx(0.0), pytest.approx(0.27753, abs=1e-4))
    assert wilson(0.5, 0) == (0.0, 1.0)


def test_samples_of_one_task_widen_the_interval() -> None:
    # 40 tasks, each all right or all wrong: 160 samples say no more than 40.
    alike = [float(i % 2) for i in range(40)]
    mixed = [0.5] * 39 + [0.25]
    low, high = clustered(alike, 160)
    assert (low, high) == (
        pytest.approx(wilson(0.5, 40)[0], abs=0.01),
        pytest.approx(0.65, abs=0.01),
    )
    assert clustered(mixed, 160)[1] - clustered(mixed, 160)[0] < high - low


@verifier
def last_digit(completion: str, truth: str) -> Verdict:
    if not completion:
        return Verdict.unparsed("nothing")
    if completion == "?":
        raise RuntimeError("cannot tell")
    same = completion == truth
    return Verdict.correct(answer=completion) if same else Verdict.wrong(answer=completion)


def _evaluate(script: list[str], samples: int) -> Any:
    tasks = [
        Task(id=str(i), prompt=f"p{i}", truth="1", metadata={"difficulty": "low" if i else "high"})
        for i in range(3)
    ]
    source = Source("env", lambda: PromptEnv(tasks, last_digit))
    policy = ScriptedPolicy(byte_tokenizer(), script)
    return evaluate(
        policy, [source], tasks=3, samples=samples, sampling=Sampling(max_tokens=4), batch=1
    )


def test_an_evaluation_by_hand() -> None:
    # Task 0: right, wrong, right, unscored; task 1: all wrong, one unparsed; task 2: all unscored.
    found = _evaluate(["1", "2", "1", "?", "2", "3", "", "2", "?", "?", "?", "?"], samples=4)
    assert (found.tasks, found.samples, found.unscored) == (2, 7, 5)
    assert found.solved == pytest.approx((2 / 3 + 0) / 2)
    # pass@2: task 0 has 3 scored, 2 right: 1 − C(1,2)/C(3,2) = 1; task 1: 0. pass@4: only task 1
    # has four scored samples.
    assert found.pass_at == {1: pytest.approx(1 / 3), 2: pytest.approx(0.5), 4: 0.0}
    assert found.majority == pytest.approx(0.5)
    assert found.statuses == {"correct": 2, "wrong": 4, "error": 5, "unparsed": 1}
    assert found.groups == {"high": (pytest.approx(2 / 3), 1), "low": (0.0, 1)}
    assert found.reward == pytest.approx(2 / 7)
    assert len(found.rows) == 12
    assert math.isfinite(found.interval[0] + found.interval[1])


def test_an_evaluation_without_any_score_says_so() -> None:
    found = _evaluate(["?"], samples=1)
    assert (found.solved, found.tasks, found.unscored) == (0.0, 0, 3)
    assert found.interval == (0.0, 1.0)
