"""Rewards changed once a group is complete: weights of parts, group verifiers, and a run."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from training_harness import lines, starts_low

from rlvr.agents import Sampling, Trajectory, TransformersPolicy, Turn
from rlvr.agents.types import StopReason
from rlvr.envs import PromptEnv
from rlvr.rl_core import train
from rlvr.rl_core.batch import part_weights_of, parts_of
from rlvr.rl_core.collection import Collector
from rlvr.rl_core.config import TrainConfig
from rlvr.rl_core.process import process_rewards
from rlvr.rl_core.regrading import Regrader, reweighed
from rlvr.rl_core.reward_config import RewardConfig
from rlvr.rl_core.sources import Prompt, Schedule, open_sources
from rlvr.verifiers import (
    Status,
    Task,
    UsageError,
    Verdict,
    group_verifier,
    verifier,
    weighted,
)

pytestmark = pytest.mark.usefixtures("short_runs")
TASKS = [Task(id=f"t{i}", prompt=f"say {i}", truth="a") for i in range(4)]
PROMPTS = [Prompt(source=0, index=i, env_seed=0) for i in range(4)]


def episode(verdict: Verdict | None, *, group: int = 0, text: str = "y", before: float | None = None
) -> Trajectory:  # fmt: skip
    """Make an episode of one token a turn; `before` is what an earlier turn was paid."""
    reward = math.nan if verdict is None or verdict.reward is None else verdict.reward
    paid = [reward] if before is None else [before, reward]
    turns = [
        Turn(start=1 + i, end=2 + i, reward=one, stop_reason=StopReason.EOS)
        for i, one in enumerate(paid)
    ]
    return Trajectory(
        env="e", task_id="t", group=group, seed=0,
        tokens=[9, *range(len(paid))], trained=[False] + [True] * len(paid),
        logprobs=[0.0] * (1 + len(paid)), turns=turns,
        messages=[{"role": "user", "content": "x"}, {"role": "assistant", "content": text}],
        reward=sum(paid), scored=math.isfinite(sum(paid)),
        verdict={} if verdict is None else verdict.to_json(cost=False),
    )  # fmt: skip


def regrader(given: Any = None, **settings: Any) -> Regrader:
    base: dict[str, Any] = {"algorithm": "dr-grpo", "verifier_timeout": 0.0}
    sources = open_sources([PromptEnv(TASKS, "exact")])
    return Regrader(TrainConfig.of(**{**base, **settings}), sources, given)


def parts(**values: float | None) -> Verdict:
    """Make a verdict with the equal sum of its parts as reward."""
    if None in values.values():
        return Verdict(reward=None, status=Status.ERROR, parts=values)
    return Verdict(reward=sum(values.values()), status=Status.PARTIAL, parts=values)  # pyright: ignore


def test_parts_are_summed_by_the_given_weights() -> None:
    # 0.2·1 + 1·0.5 = 0.7; length is not named and adds nothing
    found = reweighed(parts(format=1.0, correct=0.5, length=9.0), {"format": 0.2, "correct": 1.0})
    assert found.reward == pytest.approx(0.7)
    assert found.status is Status.PARTIAL
    penalty = reweighed(parts(correct=1.0, length=2.0), {"correct": 1.0, "length": -0.75})
    assert penalty.reward == -0.5  # 1·1 − 0.75·2


@pytest.mark.parametrize(
    ("values", "weights", "reward", "status"),
    [
        ({"a": 1.0, "b": None}, {"a": 1.0, "b": 0.5}, None, "error"),
        ({"a": 1.0, "b": None}, {"a": 2.0}, 2.0, "correct"),
        ({"a": 0.5, "b": None}, {"a": 2.0, "b": 0.0}, 1.0, "partial"),
        ({"a": 0.0, "b": None}, {"a": 2.0}, 0.0, "wrong"),
        ({"a": 1.0, "b": None}, {"a": 1.0, "c": 1.0}, None, "error"),  # c was never reached
        ({"a": 1.0, "b": 1.0}, {"a": 1.0, "c": 1.0}, 1.0, "partial"),  # c earned nothing
    ],
)
def test_unscored_parts_decide_only_where_they_weigh(
    values: dict[str, float | None], weights: dict[str, float], reward: float | None, status: str
) -> None:
    found = reweighed(parts(**values), weights)
    assert (found.reward, str(found.status)) == (reward, status)


def test_a_scored_verdict_becomes_unscored_with_a_part_that_now_weighs() -> None:
    metric = Verdict(reward=1.0, status=Status.CORRECT, parts={"a": 1.0, "b": None})
    found = reweighed(metric, {"a": 1.0, "b": 0.1})
    assert (found.reward, found.status) == (None, Status.ERROR)
    assert "b" in found.evidence["reason"]


def test_episodes_get_the_new_reward_on_their_last_turn() -> None:
    change = regrader(part_weights={"format": 0.5, "right": 1.0})
    mixed = [
        episode(parts(format=1.0, right=1.0)),
        episode(parts(format=1.0, right=0.0), before=0.25),
        episode(parts(format=1.0, right=None)),
    ]
    one, two, three = change.regrade(mixed, PROMPTS)
    assert (one.reward, one.turns[0].reward, one.verdict["reward"]) == (1.5, 1.5, 1.5)
    assert (two.reward, [t.reward for t in two.turns]) == (0.75, [0.25, 0.5])  # 0.25 + 0.5·1
    assert not three.scored
    assert math.isnan(three.reward)
    assert mixed[0].reward == 2.0  # what was given is as it was


def test_what_the_environment_paid_beside_its_verdict_is_kept() -> None:
    own = episode(parts(format=1.0, right=1.0))
    own.turns = [Turn(start=1, end=2, reward=1.9, stop_reason=StopReason.EOS)]  # a fee of 0.1
    own.reward = 1.9
    (found,) = regrader(part_weights={"format": 0.5, "right": 1.0}).regrade([own], PROMPTS)
    assert found.reward == pytest.approx(1.4)  # 1.9 + 1.5 − 2


def test_unknown_parts_are_refused_at_the_first_verdict() -> None:
    change = regrader(part_weights={"fromat": 0.5, "right": 1.0})
    with pytest.raises(UsageError, match="no part of the verdicts 'fromat'; did you mean 'format'"):
        change.regrade([episode(parts(format=1.0, right=1.0))], PROMPTS)
    with pytest.raises(UsageError, match="gives none"):
        regrader(part_weights={"a": 1.0}).regrade([episode(Verdict.correct())], PROMPTS)
    with pytest.raises(UsageError, match="names no part of the verdicts of e"):
        regrader(part_weights={"a": 1.0}).regrade([episode(parts(b=1.0))], PROMPTS)
    waiting = regrader(part_weights={"a": 1.0})
    (found,) = waiting.regrade([episode(Verdict.error("down"))], PROMPTS)  # tells of no parts yet
    assert not found.scored


@group_verifier
def share(completions: Sequence[str], truth: Any) -> list[float]:
    """Pay each the share of the group that has its text."""
    return [completions.count(one) / len(completions) for one in completions]


def test_groups_are_judged_apart_and_added_by_weight() -> None:
    change = regrader(share, group_weight=0.5)
    given = [
        episode(Verdict.correct(), group=0, text="a"),
        episode(Verdict.wrong(), group=0, text="b"),
        episode(Verdict.error("down"), group=0, text="a"),
        episode(Verdict.correct(), group=1, text="a"),
        episode(Verdict.correct(), group=1, text="a"),
    ]
    clock: dict[str, float] = {}
    found = change.regrade(given, PROMPTS, clock)
    # group 0 has two scored members, which differ: 1 + 0.5/2, 0 + 0.5/2; group 1: 1 + 0.5
    assert [t.reward for t in found if t.scored] == [1.25, 0.25, 1.5, 1.5]
    assert [t.scored for t in found] == [True, True, False, True, True]
    assert clock["environments"] > 0
    assert found[0].verdict["parts"] == {"own": 1.0, "share": 0.5}


def test_the_group_verifier_is_given_the_task_of_its_group() -> None:
    @group_verifier
    def asks(completions: Sequence[str], truth: Any, *, task: Task) -> list[bool]:
        return [truth == "a" and task.id == "t2"] * len(completions)

    found = regrader(asks).regrade([episode(Verdict.wrong(), group=2)] * 2, PROMPTS)
    assert [t.reward for t in found] == [1.0, 1.0]


def test_an_environment_without_verdicts_is_judged_by_its_reward() -> None:
    own = episode(Verdict.score(0.5))
    own.verdict = {}
    found = regrader(share).regrade([own, own], PROMPTS)
    assert [t.reward for t in found] == [1.5, 1.5]


def test_spans_are_paid_what_regrading_added_at_their_end() -> None:
    judged = Verdict(reward=1.0, status=Status.CORRECT, evidence={"spans": [[0, 1, 0.7]]})
    found = regrader(share).regrade([episode(judged), episode(judged)], PROMPTS)
    booked = process_rewards(found, [1, 1], 1, lambda ids: "y" * len(ids))
    assert booked.token_rewards.tolist() == [[pytest.approx(1.7)], [pytest.approx(1.7)]]


def test_rewards_made_of_parts_have_the_weights_of_the_settings() -> None:
    change = regrader(share, part_weights={"right": 2.0}, group_weight=0.5)
    given = [episode(parts(form=1.0, right=0.0)), episode(parts(form=0.0, right=1.0))]
    found = change.regrade(given, PROMPTS)
    assert parts_of(found).tolist() == [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]  # pyright: ignore
    assert part_weights_of(found).tolist() == [0.0, 2.0, 0.5]  # pyright: ignore
    assert part_weights_of([episode(parts(a=1.0))]) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group_verifier": "diversity", "group_size": 1}, "group_size"),
        ({"group_verifier": "diversity", "algorithm": "vpg-td", "critic": "rollouts",
          "group_size": 4}, "belong to no group"),
        ({"group_verifier": "divers"}, "did you mean 'diversity'"),
        ({"group_weight": 0.5}, "there is none"),
        ({"group_verifier": "diversity", "group_weight": math.inf}, "group_weight"),
        ({"part_weights": {"a": "x"}}, "name=number"),
        ({"part_weights": ["a=1", "a=2"]}, "once"),
        ({"part_weights": {"a": 0.0}}, "weight 0"),
        ({"part_weights": "a"}, "name=number"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        regrader(**settings)


def test_weights_survive_toml(tmp_path: Path) -> None:
    config = TrainConfig.of(
        part_weights={"format": 0.2, "right": 1}, group_verifier="diversity n=3"
    )
    (tmp_path / "c.toml").write_text(config.to_toml())
    again = TrainConfig.from_toml(tmp_path / "c.toml")
    assert again.rewards == config.rewards
    assert again.rewards.weights() == {"format": 0.2, "right": 1.0}
    (tmp_path / "d.toml").write_text("[rewards]\npart_weights = {format = 0.2, right = 1.0}\n")
    assert TrainConfig.from_toml(tmp_path / "d.toml").rewards.weights() == again.rewards.weights()


@verifier
def short(completion: str, truth: str) -> float:
    """Paid for one character."""
    return float(len(completion) < 2)


BOTH = weighted({"low": (starts_low, 1.0), "short": (short, 1.0)})


def test_dynamic_sampling_sees_the_rewards_that_are_trained_on(tiny: tuple[Any, Any]) -> None:
    config = TrainConfig.of(
        algorithm="dapo", updates_per_step=1, group_size=8, prompts_per_step=2, max_tokens=2,
        max_redraws=1, part_weights={"low": 0.0, "short": 1.0},
    )  # fmt: skip
    sources = open_sources([PromptEnv(TASKS, BOTH)])
    policy, schedule = TransformersPolicy(*tiny), Schedule(sources, 0)
    collector = Collector(config, config.algorithm.row(), sources, schedule, policy,
                          Sampling(max_tokens=2))  # fmt: skip
    found = collector.collect(0, {})
    for t in found.drawn:
        assert t.reward == t.verdict["parts"]["short"]
    alive = found.metrics["groups_alive"]
    groups = [found.drawn[i : i + 8] for i in range(0, len(found.drawn), 8)]
    assert alive == sum(len({t.reward for t in group}) > 1 for group in groups)


def _train(folder: str, out: Path, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "model": folder, "algorithm": "dr-grpo", "prompts_per_step": 2, "group_size": 4,
        "max_tokens": 3, "eval_tasks": 4, "steps": 2, "out": str(out), "quiet": True,
    }  # fmt: skip
    return train(env=PromptEnv(TASKS, BOTH), **{**settings, **changes})


@pytest.mark.slow
def test_a_run_is_trained_on_regraded_rewards_and_resumes_exactly(
    folder: str, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        "group_verifier": "diversity n=1", "group_weight": 0.5, "part_weights": {"low": 2.0},
        "checkpoint_every": 1,
    }  # fmt: skip
    _train(folder, tmp_path / "whole", **changes)
    _train(folder, tmp_path / "halves", **{**changes, "steps": 1})
    _train(folder, tmp_path / "halves", resume=True, **changes)
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        assert lines(tmp_path / "whole", name) == lines(tmp_path / "halves", name)
    for line in lines(tmp_path / "whole")[-2:]:
        wanted = 2 * line["parts/low"] + 0.5 * line["parts/diversity"]
        assert line["reward"] == pytest.approx(wanted)
    with pytest.raises(UsageError, match="part_weights"):
        _train(
            folder, tmp_path / "halves", resume=True, **{**changes, "part_weights": {"low": 1.0}}
        )


def test_a_group_verifier_of_ones_own_is_given_to_train(folder: str, tmp_path: Path) -> None:
    seen: list[int] = []

    class Counting:
        name = "counting"

        def judge_group(self, completions: Sequence[str], truth: Any, *, task: Any = None) -> Any:
            seen.append(len(completions))
            return [Verdict.score(1 / 4)] * len(completions)

    _train(folder, tmp_path / "run", group_verifier=Counting(), verifier_timeout=0.0)
    assert seen == [4, 4, 4, 4]
    line = lines(tmp_path / "run")[-1]
    assert line["parts/counting"] == 0.25
    assert torch.isfinite(torch.tensor(line["reward"]))


def test_an_empty_name_is_no_group_verifier() -> None:
    assert RewardConfig().group_reward("") is None
    assert RewardConfig(group_verifier="diversity").group_reward("") is not None
