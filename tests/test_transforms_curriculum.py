"""Curricula by measured pass rate."""

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from envs_harness import broken

from rlvr.envs import PromptEnv, make
from rlvr.envs.wrappers import Curriculum, Noise, PassRates
from rlvr.verifiers import Task, UsageError, verifier

TASKS = [
    Task(id=f"{level}{i}", prompt=f"{level} {i}?", truth=level, metadata={"difficulty": level})
    for level in ("easy", "fair", "hard")
    for i in range(4)
]


@verifier
def truth_in(completion: str, truth: Any) -> bool:
    """Whether the truth is in the completion."""
    return truth in completion


def curriculum(by: Any = "difficulty", rates: PassRates | None = None) -> Curriculum:
    return Curriculum(PromptEnv(TASKS, truth_in), by, rates=rates)


def level_after_training(target: float) -> dict[str, int]:
    """Pose 300 tasks to a policy that passes easy, every other fair, and no hard ones."""
    env = curriculum(rates=PassRates(target=target))
    env.reset(seed=0)
    posed: list[str] = []
    for number in range(300):
        _, info = env.reset()
        posed.append(info["level"])
        env.step("easy fair" if number % 2 else "easy")
    late = posed[100:]
    return {level: late.count(level) for level in env.levels}


def test_the_level_nearest_to_the_target_rate_is_posed_most() -> None:
    assert level_after_training(0.5)["fair"] > 180
    assert level_after_training(1.0)["easy"] > 180
    assert level_after_training(0.0)["hard"] > 180


def test_rates_are_counts_with_a_prior_and_forget() -> None:
    rates = PassRates(memory=2.0)
    assert rates.rate("new") == 0.5
    rates.record("a", True)
    # s = 1, f = 0: (1 + 1)/(2 + 1)
    assert rates.rate("a") == pytest.approx(2 / 3)
    rates.record("a", False)
    # both halved, then f + 1: s = 1/2, f = 1: 1.5/3.5
    assert rates.rate("a") == pytest.approx(1.5 / 3.5)
    assert rates.rates() == {"a": rates.rate("a")}


def test_a_level_that_was_never_posed_is_tried_soon() -> None:
    rates = PassRates()
    for _ in range(200):
        rates.record("easy", True)
    rng = np.random.default_rng(0)
    chosen = [rates.choose(["easy", "new"], rng) for _ in range(100)]
    # "new" is any rate, "easy" near 1: it wins unless it is drawn further from 1/2, seldom
    assert chosen.count(1) >= 85


def test_the_same_seed_and_rates_pose_the_same_tasks() -> None:
    def posed() -> list[str]:
        env = curriculum("task", PassRates(learning=False))
        return [env.reset(seed=4)[0]] + [env.reset()[0] for _ in range(15)]

    assert posed() == posed()
    assert len(set(posed())) > 4


def test_a_callers_index_has_precedence_and_its_outcome_counts() -> None:
    rates = PassRates()
    env = curriculum(rates=rates)
    _, info = env.reset(seed=0, options={"index": 9})
    assert (info["index"], info["level"], info["level_rate"]) == (9, "hard", 0.5)
    env.step("hard")
    assert rates.rates() == {"hard": pytest.approx(2 / 3)}
    assert env.choose(np.random.default_rng(0))["index"] in range(12)


def test_unscored_and_abandoned_episodes_are_not_counted() -> None:
    rates = PassRates()
    env = Curriculum(PromptEnv(TASKS, broken), "difficulty", rates=rates)
    env.reset(seed=0)
    assert math.isnan(env.step("easy")[1])
    env.reset()
    env.reset()
    assert rates.rates() == {}


def test_noise_above_a_curriculum_does_not_reach_its_rates() -> None:
    rates = PassRates()
    env = Noise(curriculum(rates=rates), false_positive=1.0)
    env.reset(seed=0, options={"index": 0})
    assert env.step("no")[1] == 1.0
    assert rates.rate("easy") < 0.5
    inside = Curriculum(Noise(PromptEnv(TASKS, truth_in), false_positive=1.0), rates=PassRates())
    inside.reset(seed=0, options={"index": 0})
    inside.step("no")
    assert inside.rates.rate("easy0") > 0.5


def test_levels_come_from_tasks_metadata_functions_or_options() -> None:
    assert curriculum("task").levels == [task.id for task in TASKS]
    assert curriculum().levels == ["easy", "fair", "hard"]
    assert curriculum(lambda task: len(task.id)).levels == ["5"]
    env = curriculum([{"index": 3}, {"index": 7}])
    assert {env.reset(seed=seed)[1]["index"] for seed in range(20)} == {3, 7}


def test_an_environment_without_verdicts_is_passed_by_its_return() -> None:
    class Coin(gymnasium.Env[str, str]):
        """Pays a half a turn, for two turns."""

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[str, dict[str, Any]]:
            """Begin."""
            self.turn = 0
            return "go", {"options": options}

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            """Count."""
            self.turn += 1
            return "", 0.5, self.turn == 2, False, {}

    env = Curriculum(Coin(), [{"stake": 1}])
    env.reset(seed=0)
    env.step("a")
    env.step("a")
    assert env.rates.rates() == {"[('stake', 1)]": pytest.approx(2 / 3)}


def test_rates_are_saved_whole_and_loaded(tmp_path: Path) -> None:
    rates = PassRates()
    for number in range(7):
        rates.record("ä", number % 3 == 0)
    rates.save(tmp_path / "rates.json")
    again = PassRates()
    again.load(tmp_path / "rates.json")
    assert again.rates() == rates.rates()
    assert [path.name for path in tmp_path.iterdir()] == ["rates.json"]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"counts": {"a": [1]}}', '{"counts": {"a": [-1, 0]}}', '{"counts": 3}']
)
def test_a_file_that_holds_no_rates_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "rates.json").write_text(text)
    with pytest.raises(UsageError, match=r"rates\.json"):
        PassRates().load(tmp_path / "rates.json")
    with pytest.raises(UsageError, match="missing"):
        PassRates().load(tmp_path / "missing")


def test_copies_share_their_rates_and_another_process_gets_its_own() -> None:
    rates = PassRates(target=0.3)
    assert copy.deepcopy(rates) is rates
    rates.record("a", True)
    sent = pickle.loads(pickle.dumps(rates))
    sent.record("a", True)
    assert (sent.target, sent.rate("a") > rates.rate("a")) == (0.3, True)


@pytest.mark.parametrize(
    ("by", "match"),
    [
        ("size", r"no 'size' in its metadata \(known: difficulty\)"),
        ([], "by= is 'task'"),
        (["easy"], "by= is 'task'"),
        (3, "by= is 'task'"),
        ([{"index": 1}, {"index": 1}], "two levels are called"),
    ],
)
def test_levels_that_are_none_are_refused(by: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        curriculum(by)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match=r"target must be in \[0, 1\]"):
        PassRates(target=1.1)
    with pytest.raises(UsageError, match="memory must be a number from 1 up"):
        PassRates(memory=0.5)
    with pytest.raises(UsageError, match="rates must be a PassRates"):
        Curriculum(PromptEnv(TASKS, truth_in), rates={})  # pyright: ignore
    with pytest.raises(UsageError, match="make the environment with a size"):
        Curriculum(make("rlvr/Arithmetic-v0", digits=9, size=200_000))
