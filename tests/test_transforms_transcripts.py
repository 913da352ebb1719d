"""Recording episodes and playing them back."""

import json
import math
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from envs_harness import broken, same

from rlvr.envs import DialogueEnv, PromptEnv, Reply
from rlvr.envs.wrappers import Record, Replay, SystemPrompt, read_transcripts
from rlvr.verifiers import Task, TaskError, UsageError

TASKS = [Task(id=f"t{i}", prompt=f"Digit {i}?", truth=str(i)) for i in range(6)]
ODD = "a\n\u2028\x00 ½ \ud800 漢 \U0001f3b2"


class Game(DialogueEnv[None]):
    """Answers with a random digit, pays a tenth of it; digits are answers."""

    def answer(self, action: str, state: None) -> Reply:
        """Answer."""
        drawn = int(self.np_random.integers(10))
        info = {"drawn": np.int64(drawn), "pair": (1, 2)}
        return Reply(f"{drawn}", reward=drawn / 10, done=action.isdigit(), info=info)


def game() -> Game:
    return Game(TASKS, same, turns=5)


def play(env: Any, *actions: str, **begin: Any) -> list[Any]:
    return [env.reset(**begin), *(env.step(action) for action in actions)]


def recorded(path: Path) -> list[Any]:
    """Record three episodes and return what they showed."""
    env = Record(game(), path)
    shown = play(env, ODD, "b", "3", seed=7, options={"index": 3})
    shown += play(env, "3", seed=8)
    shown += play(env, "x", "y")
    env.close()
    return shown


def as_read(steps: list[Any]) -> list[Any]:
    """Return what was shown as JSON knows it."""
    return json.loads(json.dumps(steps, default=lambda value: value.item()))


def test_every_episode_is_one_line_with_all_that_was_said(tmp_path: Path) -> None:
    recorded(tmp_path / "t.jsonl")
    lines = (tmp_path / "t.jsonl").read_text().splitlines()
    first, _, last = map(json.loads, lines)
    assert len(lines) == 3
    assert (first["seed"], first["options"], first["ended"]) == (7, {"index": 3}, True)
    assert [step["action"] for step in first["steps"]] == [ODD, "b", "3"]
    assert first["info"]["task_id"] == "t3"
    assert first["steps"][-1]["info"]["verdict"]["status"] == "correct"
    assert first["steps"][0]["info"]["pair"] == [1, 2]
    assert (last["ended"], len(last["steps"])) == (False, 2)


@pytest.mark.parametrize("live", [False, True])
def test_a_replay_shows_what_was_recorded(live: bool, tmp_path: Path) -> None:
    shown = recorded(tmp_path / "t.jsonl")
    env = Replay(game(), tmp_path / "t.jsonl", live=live)
    again = play(env, ODD, "b", "3") + play(env, "3")
    assert as_read(again) == as_read(shown[:6])
    if not live:  # the third was begun without a seed: another run draws otherwise
        assert as_read(play(env, "x", "y")) == as_read(shown[6:])


def test_a_transcript_is_found_by_its_seed_and_options_or_its_number(tmp_path: Path) -> None:
    recorded(tmp_path / "t.jsonl")
    env = Replay(game(), tmp_path / "t.jsonl")
    assert env.reset(seed=7, options={"index": np.int64(3)})[0] == "Digit 3?"
    assert env.reset(seed=8)[0] == env.transcripts[1]["observation"]
    assert env.reset(seed=7, options={"index": 3})[1]["task_id"] == "t3"
    env.reset(options={"transcript": 2})
    with pytest.raises(UsageError, match=r"all 3 transcripts have been played; .*begins again"):
        env.reset()
    with pytest.raises(UsageError, match=r"no transcript was begun with \{'seed': 9"):
        env.reset(seed=9)
    with pytest.raises(UsageError, match="an integer from 0 to 2, got 3"):
        env.reset(options={"transcript": 3})


def test_another_action_or_a_further_step_is_refused(tmp_path: Path) -> None:
    recorded(tmp_path / "t.jsonl")
    env = Replay(game(), tmp_path / "t.jsonl")
    with pytest.raises(UsageError, match=r"no further step .* call reset\(\)"):
        env.step("3")
    play(env, ODD)
    with pytest.raises(
        UsageError, match=r"step 1 of transcript 0 was recorded with .*'b', got 'c'"
    ):
        env.step("c")
    env.step("b")
    env.step("3")
    with pytest.raises(UsageError, match="no further step after 3"):
        env.step("3")


def test_an_environment_that_has_changed_is_refused_with_the_place(tmp_path: Path) -> None:
    recorded(tmp_path / "t.jsonl")
    changed = Game([Task(id=t.id, prompt=t.prompt + "!", truth=t.truth) for t in TASKS], same)
    env = Replay(changed, tmp_path / "t.jsonl", live=True)
    with pytest.raises(
        UsageError, match=r"reset of transcript 0: .*'Digit 3\?!' where 'Digit 3\?'"
    ):
        env.reset()
    harder = Game([Task(id=t.id, prompt=t.prompt, truth="x") for t in TASKS], same, turns=5)
    env = Replay(harder, tmp_path / "t.jsonl", live=True)
    play(env, ODD, "b")
    with pytest.raises(UsageError, match=r"step 2 of transcript 0: .* it has changed since"):
        env.step("3")


def test_an_unscored_reward_comes_back_as_nan(tmp_path: Path) -> None:
    play(Record(PromptEnv(TASKS, broken), tmp_path / "t.jsonl"), "3", seed=0)
    assert '"reward": null' in (tmp_path / "t.jsonl").read_text()
    for live in (False, True):
        env = Replay(PromptEnv(TASKS, broken), tmp_path / "t.jsonl", live=live)
        _, reward, terminated, _, info = play(env, "3")[-1]
        assert math.isnan(reward)
        assert (terminated, info["unscored"]) == (True, True)


def test_a_line_that_a_crash_cut_off_is_left_out_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    recorded(path)
    whole = path.read_bytes()
    for cut in (1, 2, 50, 300):
        path.write_bytes(whole[:-cut])
        assert len(read_transcripts(path)) == 2
        play(Record(game(), path), "3", seed=8)
        assert [t["seed"] for t in read_transcripts(path)] == [7, 8, 8]


def test_a_whole_line_that_is_no_transcript_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    for line in ("nothing", "3", "{}", '{"format": "rlvr-transcript-1", "steps": []}'):
        path.write_text(line + "\n")
        with pytest.raises(TaskError, match=r"t\.jsonl:1 is no transcript"):
            Replay(game(), path)
    path.write_text("")
    with pytest.raises(UsageError, match="holds no transcripts"):
        Replay(game(), path)
    with pytest.raises(UsageError, match="cannot read"):
        Replay(game(), tmp_path / "missing.jsonl")
    with pytest.raises(UsageError, match="cannot write transcripts"):
        Record(game(), tmp_path / "no" / "t.jsonl")


def record_some(path: str, seed: int) -> None:
    """Record twenty episodes of a few kilobytes."""
    env = Record(game(), path)
    for number in range(20):
        play(env, "z" * 3000, str(seed), seed=seed * 100 + number)


def test_several_processes_write_whole_lines_to_one_file(tmp_path: Path) -> None:
    path = str(tmp_path / "t.jsonl")
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=record_some, args=(path, seed)) for seed in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    seeds = sorted(transcript["seed"] for transcript in read_transcripts(path))
    assert seeds == [seed * 100 + number for seed in range(3) for number in range(20)]


@pytest.mark.parametrize("live", [False, True])
def test_a_replay_can_be_branched(live: bool, tmp_path: Path) -> None:
    recorded(tmp_path / "t.jsonl")
    env = Replay(game(), tmp_path / "t.jsonl", live=live)
    play(env, ODD)
    taken = env.snapshot()
    after = [env.step("b"), env.step("3")]
    observation, info = env.restore(taken)
    assert observation == env.transcripts[0]["steps"][0]["observation"]
    assert info["task_id"] == "t3"
    assert [env.step("b"), env.step("3")] == after


def test_a_branch_is_written_with_the_steps_before_it(tmp_path: Path) -> None:
    env = Record(game(), tmp_path / "t.jsonl")
    play(env, "a", seed=1, options={"index": 2})
    taken = env.snapshot()
    env.step("2")
    env.restore(taken)
    env.step("3")
    found = read_transcripts(tmp_path / "t.jsonl")
    assert [[step["action"] for step in one["steps"]] for one in found] == [["a", "2"], ["a", "3"]]


def test_a_recorder_outside_of_other_transforms_writes_what_the_policy_saw(tmp_path: Path) -> None:
    env = Record(SystemPrompt(game(), "Be brief."), tmp_path / "t.jsonl", sync=True)
    play(env, "3", seed=0)
    messages = read_transcripts(tmp_path / "t.jsonl")[0]["info"]["messages"]
    assert messages[0] == {"role": "system", "content": "Be brief."}
