"""Preference pairs: files that are read, files that are written, and training on them."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from training_harness import lines, starts_low, tasks, weights

from rlvr.agents import Trajectory, TransformersPolicy
from rlvr.envs import PromptEnv
from rlvr.rl_core import train
from rlvr.rl_core.algorithms import algorithm
from rlvr.rl_core.cli import main
from rlvr.rl_core.config import OptimizerConfig, TrainConfig
from rlvr.rl_core.evaluation import row_of
from rlvr.rl_core.learner import Learner
from rlvr.rl_core.pair_batches import PairBatches
from rlvr.rl_core.pairs import Pair, pair_of, pairs_of_rollouts, read_pairs, write_pairs
from rlvr.verifiers import TaskError, UsageError

pytestmark = pytest.mark.usefixtures("short_runs")
ASKED = {"role": "user", "content": "2 + 2?"}
SYSTEM = {"role": "system", "content": "Count."}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def saved(place: Path, rows: list[Any]) -> str:
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(place)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"},
        {"prompt": [ASKED], "chosen": [said("4")], "rejected": [said("5")]},
        {"prompt": [ASKED], "chosen": "4", "rejected": [said("5")], "score_chosen": 7},
        {"prompt": "2 + 2?", "chosen": [ASKED, said("4")], "rejected": [ASKED, said("5")]},
        {"chosen": [ASKED, said("4")], "rejected": [ASKED, said("5")]},
    ],
)
def test_the_usual_forms_are_the_same_pair(row: dict[str, Any]) -> None:
    assert pair_of(row, "") == Pair(prompt=(ASKED,), chosen="4", rejected="5")  # pyright: ignore


def test_a_prompt_may_be_a_whole_conversation() -> None:
    before = [SYSTEM, ASKED, said("3"), {"role": "user", "content": "no"}]
    pair = pair_of({"prompt": before, "chosen": "4", "rejected": "5"}, "")
    assert list(pair.prompt) == before


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "x", "chosen": "4"}, "no 'rejected'; .* prompt, chosen"),
        ({"prompt": "x", "chosen": None, "rejected": "5"}, "no 'chosen'"),
        ({"chosen": "4", "rejected": "5"}, "answers alone; give the prompt"),
        ({"prompt": "", "chosen": "4", "rejected": "5"}, "'prompt' is empty"),
        ({"prompt": [], "chosen": "4", "rejected": "5"}, "a text or a list of messages"),
        ({"prompt": 3, "chosen": "4", "rejected": "5"}, "a text or a list of messages, got 3"),
        ({"prompt": "x", "chosen": " ", "rejected": "5"}, "'chosen' is empty"),
        ({"prompt": "x", "chosen": "4", "rejected": "4"}, "the same text"),
        ({"prompt": "x", "chosen": {"a": 1}, "rejected": "4"}, "'chosen' is a text or a list"),
        ({"prompt": "x", "chosen": [ASKED], "rejected": "4"}, "expected the assistant's answer"),
        ({"prompt": "x", "chosen": [said("")], "rejected": "4"}, "expected the assistant's answer"),
        (
            {"prompt": "x", "chosen": [ASKED, said("4")], "rejected": "5"},
            "not begin with the prompt",
        ),
        ({"prompt": [said("hi")], "chosen": "4", "rejected": "5"}, "ends with the assistant"),
        (
            {"prompt": [{"role": "cat", "content": "x"}], "chosen": "4", "rejected": "5"},
            "has a role",
        ),
        ({"prompt": [{"role": "user"}], "chosen": "4", "rejected": "5"}, "a text as content"),
        ({"chosen": [ASKED, said("4")], "rejected": [SYSTEM, ASKED, said("5")]}, "differ before"),
    ],
)
def test_a_row_that_is_no_pair_is_named_with_its_line(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    good = {"prompt": "x", "chosen": "4", "rejected": "5"}
    file = saved(tmp_path / "p.jsonl", [good, row])
    with pytest.raises(TaskError, match=rf"p\.jsonl, line 2: .*{message}"):
        read_pairs(file)


def test_a_file_that_is_none_or_holds_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("{\n")
    with pytest.raises(TaskError, match="line 1: not JSON"):
        read_pairs(tmp_path / "p.jsonl")
    (tmp_path / "p.jsonl").write_text("\n")
    with pytest.raises(TaskError, match="no pairs"):
        read_pairs(tmp_path / "p.jsonl")
    with pytest.raises(UsageError, match=r"no file of pairs at 'nowhere.jsonl'"):
        TrainConfig.of(algorithm="dpo", pairs="nowhere.jsonl")
    file = saved(tmp_path / "p.jsonl", [{"prompt": "x", "chosen": "4", "rejected": "5"}])
    with pytest.raises(UsageError, match="use algorithm='dpo'"):
        TrainConfig.of(algorithm="rloo", pairs=file)
    with pytest.raises(UsageError, match="sample_ahead"):
        TrainConfig.of(algorithm="dpo", pairs=file, sample_ahead=1)
    with pytest.raises(UsageError, match="judged already"):
        TrainConfig.of(algorithm="dpo", pairs=file, part_weights={"a": 1})


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {"prompt": f"say {i}", "chosen": "a" * (i % 3 + 1), "rejected": "~"} for i in range(count)
    ]


def batches(tiny: tuple[Any, Any], file: str, **settings: Any) -> PairBatches:
    base = {"algorithm": "dpo", "pairs": file, "prompts_per_step": 4, "max_tokens": 8}
    return PairBatches(TrainConfig.of(**{**base, **settings}), TransformersPolicy(*tiny))


def test_pairs_become_groups_of_two_with_the_models_own_tokens(
    tiny: tuple[Any, Any], tmp_path: Path
) -> None:
    found = batches(tiny, saved(tmp_path / "p.jsonl", rows(6))).next(0, {})
    assert [t.group for t in found.trajectories] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [t.reward for t in found.trajectories] == [1.0, 0.0] * 4
    first = found.trajectories[0]
    text = tiny[1].decode(first.tokens)
    number = first.messages[0]["content"]
    assert text == f"<|user|>{number}<|end|><|assistant|>{first.completion}<|end|>"
    assert sum(first.trained) == len(first.completion) + 1  # the token that ends it is learned, too


def test_every_pair_comes_once_an_epoch_in_an_order_that_follows_from_the_step(
    tiny: tuple[Any, Any], tmp_path: Path
) -> None:
    source = batches(tiny, saved(tmp_path / "p.jsonl", rows(6)))
    steps = [source.next(step, {}).trajectories for step in range(6)]
    names = [t.messages[0]["content"] for step in steps for t in step[::2]]
    assert len(names) == 24
    for epoch in range(4):
        assert len(set(names[6 * epoch : 6 * epoch + 6])) == 6
    assert names[:6] != names[6:12]
    again = batches(tiny, str(tmp_path / "p.jsonl")).next(3, {}).trajectories
    assert [t.tokens for t in again] == [t.tokens for t in steps[3]]


def test_what_is_too_long_is_refused_with_its_line_before_training(
    tiny: tuple[Any, Any], tmp_path: Path
) -> None:
    long = {"prompt": "x", "chosen": "a" * 8, "rejected": "b" * 20}
    file = saved(tmp_path / "p.jsonl", [*rows(2), long])
    with pytest.raises(TaskError, match=r"line 3: chosen: 9 tokens .*max_tokens=8 \(2 of 6 .* 21"):
        batches(tiny, file)
    file = saved(tmp_path / "q.jsonl", [{"prompt": "x" * 250, "chosen": "a", "rejected": "b"}])
    with pytest.raises(TaskError, match=r"line 1: prompt and chosen: 260 tokens .*context of 256"):
        batches(tiny, saved(tmp_path / "r.jsonl",
                            [{"prompt": "x" * 253, "chosen": "aaa", "rejected": "b"}]))  # fmt: skip
    assert batches(tiny, file).pairs


def test_a_step_on_pairs_of_a_file_is_that_of_the_formula(
    tiny: tuple[Any, Any], tmp_path: Path
) -> None:
    found = batches(tiny, saved(tmp_path / "p.jsonl", rows(6))).next(0, {})
    model = copy.deepcopy(tiny[0]).double()
    learner = Learner(
        model, algorithm("dpo", beta=0.5), OptimizerConfig(lr=1e-2, warmup_steps=0),
        vocabulary=len(tiny[1]), temperature=1.0, max_tokens=8,
        reference=copy.deepcopy(model).requires_grad_(False),
    )  # fmt: skip
    first = learner.update(found.trajectories, 0)
    # at the start policy and reference are the same: −ln σ(0) = ln 2 for each of the 4 pairs
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert (first["pairs"], first["dead_groups"], first["mismatch"]) == (4.0, 0.0, 0.0)
    assert "entropy" not in first
    margins = [learner.update(found.trajectories, step)["margin"] for step in range(1, 6)]
    assert margins[-1] > 0.5


def test_a_run_on_pairs_needs_no_environment(folder: str, tmp_path: Path) -> None:
    file = saved(tmp_path / "p.jsonl", rows(6))
    settings: dict[str, Any] = {"prompts_per_step": 3, "max_tokens": 8, "lr": 1e-2, "steps": 6}
    train(model=folder, algorithm="dpo", pairs=file, out=tmp_path / "run", quiet=True, **settings)
    told = lines(tmp_path / "run")
    assert [line["step"] for line in told] == [1, 2, 3, 4, 5, 6]  # and none of an evaluation
    assert told[-1]["margin"] > 0.0
    assert told[-1]["epoch"] == 3.0


@pytest.mark.slow
def test_a_run_on_pairs_resumes_exactly_from_the_command_line(folder: str, tmp_path: Path) -> None:
    words = ["train", "--algorithm", "dpo", "--pairs", saved(tmp_path / "p.jsonl", rows(6))]
    words += ["--model", folder, "--lr", "3e-3", "--prompts-per-step", "2", "--max-tokens", "8"]
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert main([*words, "--steps", "4", "--out", str(whole)]) == 0
    assert main([*words, "--steps", "2", "--out", str(halves)]) == 0
    assert main(["train", "--resume", "--steps", "4", "--out", str(halves)]) == 0
    first, second = weights(whole), weights(halves)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def rollout_row(text: str, reward: float | None, **changes: Any) -> dict[str, Any]:
    row = {"step": 1, "env": "e", "task_id": "a", "prompt": "2 + 2?", "truncated": False}
    return row | {"completion": text, "reward": reward} | changes


def test_pairs_are_made_of_groups_whose_rewards_differ() -> None:
    episodes = [
        rollout_row("5", 0.0),
        rollout_row("4", 1.0),
        rollout_row("four", 1.0),
        rollout_row("44", 2.0, truncated=True),
        rollout_row("", -1.0),
        rollout_row("?", None),
        rollout_row("7", 1.0, task_id="b"),
        rollout_row("8", 1.0, task_id="b"),
        rollout_row("0", -1.0, step=2),
    ]
    (pair,) = pairs_of_rollouts(episodes)
    assert (pair["chosen"], pair["rejected"]) == ([said("4")], [said("5")])
    assert (pair["prompt"], pair["chosen_reward"], pair["step"]) == ([ASKED], 1.0, 1)


def test_prompts_of_several_messages_are_kept_whole() -> None:
    asked = Trajectory(env="e", task_id="a", group=0, seed=0, messages=[SYSTEM, ASKED])
    assert row_of(asked)["messages"] == [SYSTEM, ASKED]
    assert "messages" not in row_of(Trajectory(env="e", task_id="a", group=0, seed=0,
                                               messages=[ASKED]))  # fmt: skip
    lines = [rollout_row("4", 1.0, messages=[SYSTEM, ASKED]),
             rollout_row("5", 0.0, messages=[SYSTEM, ASKED])]  # fmt: skip
    (pair,) = pairs_of_rollouts(lines)
    assert pair["prompt"] == [SYSTEM, ASKED]
    again = pair_of(pair, "")
    assert (list(again.prompt), again.chosen, again.rejected) == ([SYSTEM, ASKED], "4", "5")


@pytest.mark.slow
def test_what_a_run_leaves_is_written_as_pairs_and_can_be_trained_on(
    folder: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "model": folder, "prompts_per_step": 4, "group_size": 8, "quiet": True,
        "eval_tasks": 0, "rollouts_per_step": 32, "steps": 2, "stop": (" ",),
    }  # fmt: skip
    train(env=PromptEnv(tasks(4), starts_low), algorithm="dr-grpo", out=tmp_path / "run",
          max_tokens=48, **settings)  # fmt: skip
    out = tmp_path / "pairs.jsonl"
    assert main(["pairs", str(tmp_path / "run"), "--out", str(out)]) == 0
    assert len(read_pairs(out)) >= 1
    done = train(algorithm="ipo", pairs=str(out), out=tmp_path / "dpo", max_tokens=256, **settings)
    assert done.finished


def test_what_makes_no_pairs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pairs.jsonl"
    assert main(["pairs", str(tmp_path), "--out", str(out)]) == 2
    assert "no 'rollouts.jsonl'" in capsys.readouterr().err
    saved(tmp_path / "rollouts.jsonl", [rollout_row("4", 1.0)])
    with pytest.raises(UsageError, match=r"1 episodes .* make no pair"):
        write_pairs(tmp_path, out)
    assert not out.exists()
    saved(tmp_path / "rollouts.jsonl", [rollout_row("4", 1.0), rollout_row("5", 0.0)])
    assert write_pairs(tmp_path, out) == 1
    with pytest.raises(UsageError, match="exists already"):
        write_pairs(tmp_path, out)
    saved(tmp_path / "rollouts.jsonl", [rollout_row("4", 1.0), {"prompt": 3}])
    with pytest.raises(TaskError, match="line 2: an episode has a 'prompt'"):
        write_pairs(tmp_path, tmp_path / "other.jsonl")
