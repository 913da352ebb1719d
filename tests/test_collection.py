"""What a step samples beyond its episodes, and that a run with all of it resumes exactly."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from training_harness import lines, weights

from rlvr.agents import Sampling, TransformersPolicy, load_model
from rlvr.agents.types import Completion
from rlvr.envs import PromptEnv
from rlvr.rl_core import Result, train
from rlvr.rl_core.algorithms import algorithm
from rlvr.rl_core.collection import Collected, Collector, lag_warning
from rlvr.rl_core.config import TrainConfig
from rlvr.rl_core.sources import Schedule, open_sources
from rlvr.verifiers import ModelError, Task, UsageError, verifier

pytestmark = pytest.mark.usefixtures("short_runs")


@verifier
def low_first(completion: str, truth: str) -> float:
    """Paid for a first character in the lower half; half of the tasks pay nobody."""
    return float(bool(completion) and ord(completion[0]) < 0x50 and truth == "yes")


def _tasks(count: int, paying: Sequence[int]) -> list[Task]:
    return [
        Task(id=f"t{i}", prompt=f"say {i}", truth="yes" if i in paying else "no")
        for i in range(count)
    ]


def _collected(
    tiny: tuple[Any, Any], paying: Sequence[int], steps: int = 1, **settings: Any
) -> list[Collected]:
    base: dict[str, Any] = {"algorithm": "dapo", "updates_per_step": 1, "group_size": 8}
    config = TrainConfig.of(prompts_per_step=4, max_tokens=2, **{**base, **settings})
    sources = open_sources([PromptEnv(_tasks(16, paying), low_first)])
    policy = TransformersPolicy(*tiny)
    schedule, row = Schedule(sources, 0), config.algorithm.row()
    collector = Collector(config, row, sources, schedule, policy, Sampling(max_tokens=2))
    return [collector.collect(step, {}) for step in range(steps)]


def test_groups_without_a_gradient_are_drawn_anew(tiny: tuple[Any, Any]) -> None:
    several = _collected(tiny, range(8), steps=3)
    assert max(found.metrics["rounds"] for found in several) > 1
    for found in several:
        assert [t.group for t in found.trajectories] == [i // 8 for i in range(32)]
        for g in range(4):
            rewards = {t.reward for t in found.trajectories if t.group == g}
            assert rewards == {0.0, 1.0}
        drawn = found.metrics["groups_drawn"]
        assert drawn == 4 * found.metrics["rounds"] == len(found.drawn) / 8
        assert found.metrics["groups_alive"] >= 4


def test_no_prompt_is_posed_twice_in_an_epoch_by_drawing_anew(tiny: tuple[Any, Any]) -> None:
    (found,) = _collected(tiny, range(8), max_redraws=3)
    asked = [t.task_id for t in found.drawn[::8]]
    assert len(asked) == len(set(asked)) == found.metrics["groups_drawn"]


def test_drawing_ends_at_its_cap_and_goes_on_with_what_there_is(tiny: tuple[Any, Any]) -> None:
    (found,) = _collected(tiny, [0], max_redraws=3)
    assert found.metrics["rounds"] == 4.0  # 16 prompts: the one that pays is among them
    assert found.metrics["groups_alive"] == 1.0
    assert {t.task_id for t in found.trajectories} == {"t0"}
    (nothing,) = _collected(tiny, [], max_redraws=2)
    assert nothing.metrics["groups_alive"] == 0.0
    assert len(nothing.trajectories) == 32
    (once,) = _collected(tiny, [], max_redraws=0)
    assert once.metrics["rounds"] == 1.0


def test_the_greedy_completion_is_the_same_for_the_whole_group(tiny: tuple[Any, Any]) -> None:
    (found,) = _collected(tiny, range(16), algorithm="remax", group_size=3)
    assert found.greedy is not None
    assert len(found.greedy) == len(found.trajectories) == 12
    assert all(found.greedy[i] == found.greedy[i - i % 3] for i in range(12))
    assert set(found.greedy) <= {0.0, 1.0}
    assert found.metrics["greedy_unscored"] == 0.0


def test_values_by_rollouts_come_for_every_sampled_token(tiny: tuple[Any, Any]) -> None:
    (found,) = _collected(
        tiny, range(16), algorithm="vpg-td", critic="rollouts", group_size=2, value_rollouts=2
    )
    assert found.values is not None
    assert [len(row) for row in found.values] == [t.length for t in found.trajectories]
    assert {value for row in found.values for value in row} <= {0.0, 0.5, 1.0}
    assert found.metrics["branch_tokens"] > 0


def _run(folder: str, out: Path, **changes: Any) -> Result:
    settings: dict[str, Any] = {
        "model": folder,
        "prompts_per_step": 4,
        "max_tokens": 2,
        "lr": 3e-3,
        "eval_tasks": 0,
        "checkpoint_every": 2,
        "out": str(out),
        "quiet": True,
        "verifier_timeout": 0,
    }
    return train(env=PromptEnv(_tasks(16, range(8)), low_first), **{**settings, **changes})


def _name(changes: dict[str, Any]) -> str:
    return "-".join(str(value) for value in changes.values() if isinstance(value, str))


QUICK = [
    {"algorithm": "ppo", "critic": "head", "critic_lr": 1e-2, "kl_target": 0.01},
    {"algorithm": "dapo", "updates_per_step": 2, "group_size": 4, "overlong": "train"},
    {
        "algorithm": "dr-grpo",
        "mismatch": "tis_token",
        "sample_ahead": 2,
        "max_staleness": 2,
        "top_p": 0.9,
    },
]
SLOW = [
    {"algorithm": "ppo", "critic": "model", "updates_per_step": 2, "critic_warmup_steps": 1},
    {"algorithm": "vpg-advantage", "critic": "rollouts", "value_rollouts": 2},
    {"algorithm": "remax"},
    {"algorithm": "trpo", "cg_steps": 3},
    {"algorithm": "dpo", "group_size": 4},
    {"algorithm": "rloo", "kl_target": 1e-4, "kl_horizon": 100.0},
    {"algorithm": "dapo", "overlong": "train", "updates_per_step": 1, "sample_ahead": 1},
]


@pytest.mark.parametrize(
    "changes", [*QUICK, *(pytest.param(c, marks=pytest.mark.slow) for c in SLOW)], ids=_name
)
def test_two_halves_are_a_whole(folder: str, tmp_path: Path, changes: dict[str, Any]) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    changes = {**changes, "token_records_every": 2}  # the last step of a session has them, too
    _run(folder, whole, steps=4, **changes)
    _run(folder, halves, steps=2, **changes)
    _run(folder, halves, steps=4, resume=True, **changes)
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        assert lines(whole, name) == lines(halves, name)
    start, first, second = load_model(folder)[0].state_dict(), weights(whole), weights(halves)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert any(not torch.equal(value, start[name]) for name, value in first.items())


def test_episodes_that_were_sampled_ahead_are_as_old_as_it_says(
    folder: str, tmp_path: Path
) -> None:
    lags: list[int] = []

    def note(trainer: Any, metrics: dict[str, float]) -> None:
        versions = {int(v) for v in trainer.learner.last.batch.versions}
        lags.append(trainer.policy.version - 1 - versions.pop())
        assert not versions

    changes: dict[str, Any] = {"algorithm": "dr-grpo", "mismatch": "tis_token", "sample_ahead": 2}
    _run(folder, tmp_path / "run", steps=5, callbacks=[note], **changes)
    assert lags == [0, 1, 2, 2, 2]
    off = [line.get("rollout_k3", 0.0) for line in lines(tmp_path / "run")]
    assert off[0] < 1e-6 < max(off[2:])  # a batch that teaches nothing has no such line


def test_stale_episodes_are_warned_about_or_refused() -> None:
    assert "tis_token" in lag_warning(algorithm("dr-grpo"), 1)
    assert lag_warning(algorithm("dr-grpo"), 0) == ""
    assert lag_warning(algorithm("dr-grpo", anchor="rollout"), 1) == ""
    assert lag_warning(algorithm("dr-grpo", mismatch="tis_token"), 1) == ""
    with pytest.raises(UsageError, match="max_staleness=1"):
        TrainConfig.of(algorithm="dr-grpo", max_staleness=1, sample_ahead=2)
    with pytest.raises(UsageError, match="sample_ahead"):
        TrainConfig.of(sample_ahead=-1)


def test_adapting_a_price_that_nothing_pays_is_refused(folder: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="kl_target"):
        _run(folder, tmp_path / "run", algorithm="dr-grpo", kl_target=0.1)


def test_every_token_is_recorded_with_the_episode(folder: str, tmp_path: Path) -> None:
    _run(folder, tmp_path / "run", steps=2, algorithm="ppo", rollouts_per_step=3, critic="head")
    rows = lines(tmp_path / "run", "rollouts.jsonl")
    assert len(rows) == 6
    for row in rows:
        record = row["token_records"]
        assert len(record["text"]) == row["tokens"]
        assert {"advantage", "value", "ratio", "kl", "coefficient", "mask"} <= record.keys()
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<script src" not in page
    assert "Why did these tokens move" in page


def test_a_policy_apart_from_the_learner_samples_beside_it_what_it_would_have_sampled(
    tiny: tuple[Any, Any],
) -> None:
    class Apart(TransformersPolicy):
        apart = True

    def collect(kind: type[TransformersPolicy]) -> list[list[list[int]]]:
        settings: dict[str, Any] = {"algorithm": "rloo", "group_size": 2, "beta": 0.0}
        config = TrainConfig.of(prompts_per_step=2, max_tokens=4, sample_ahead=2, **settings)
        sources = open_sources([PromptEnv(_tasks(16, range(8)), low_first)])
        row, schedule, policy = config.algorithm.row(), Schedule(sources, 0), kind(*tiny)
        collector = Collector(config, row, sources, schedule, policy, Sampling(max_tokens=4))
        found = []
        for step in range(3):
            clock: dict[str, float] = {}
            batch = collector.next(step, clock)
            both = collector.settle(time.perf_counter())
            assert both >= 0.0
            assert clock["environments"] >= 0.0
            assert len(collector.waiting) == 2
            found.append([t.tokens for t in batch.trajectories])
        collector.close()
        return found

    assert collect(Apart) == collect(TransformersPolicy)


def test_what_fails_beside_the_learner_is_raised_when_it_is_waited_for(
    tiny: tuple[Any, Any],
) -> None:
    drawn: list[int] = []

    class Failing(TransformersPolicy):
        apart = True

        async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
            drawn.append(sampling.seed)
            if len(drawn) <= 4:
                return await super().generate(prompt_ids, sampling)
            raise ModelError("the engine is gone")

    settings: dict[str, Any] = {"algorithm": "rloo", "group_size": 2, "beta": 0.0}
    config = TrainConfig.of(prompts_per_step=2, max_tokens=2, sample_ahead=1, **settings)
    sources = open_sources([PromptEnv(_tasks(16, range(8)), low_first)])
    row, schedule, policy = config.algorithm.row(), Schedule(sources, 0), Failing(*tiny)
    collector = Collector(config, row, sources, schedule, policy, Sampling(max_tokens=2))
    assert len(collector.next(0, {}).trajectories) == 4
    with pytest.raises(ModelError, match="the engine is gone"):
        collector.settle(time.perf_counter())
    collector.close()
