"""Training from the Python door: learning, resuming, stopping, and every kind of bad input."""

import math
import resource
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from training_harness import lines, starts_low, tasks, weights

from rlvr.agents import load_model
from rlvr.agents.embedded import EmbeddedConfig, build, byte_tokenizer
from rlvr.envs import PromptEnv
from rlvr.rl_core import Result, train
from rlvr.verifiers import (
    ModelError,
    TaskError,
    TrainingStopped,
    UsageError,
    Verdict,
    verifier,
)

pytestmark = pytest.mark.usefixtures("short_runs")


def _settings(folder: str, out: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model": folder,
        "algorithm": "reinforce",
        "prompts_per_step": 8,
        "max_tokens": 2,
        "lr": 3e-3,
        "steps": 6,
        "eval_tasks": 0,
        "checkpoint_every": 3,
        "out": str(out),
        "quiet": True,
        "verifier_timeout": 0,  # which spares each run the start of its worker processes
        **changes,
    }


def _run(folder: str, out: Path, judge: Any = starts_low, **changes: Any) -> Result:
    return train(env=PromptEnv(tasks(), judge), **_settings(folder, out, **changes))


SLOW = ["vpg", "reinforce", "reinforce-ema", "rloo", "dr-grpo"]
"""Their pieces are those of the two others, and every row's step is checked by itself."""


@pytest.mark.parametrize(
    "name", ["vpg-rtg", "grpo", *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)]
)
def test_every_algorithm_learns_a_bandit(folder: str, tmp_path: Path, name: str) -> None:
    changes: dict[str, Any] = {"algorithm": name, "steps": 60, "prompts_per_step": 16}
    if name in ("rloo", "grpo", "dr-grpo"):
        changes |= {"prompts_per_step": 8, "group_size": 4}
    _run(folder, tmp_path / "run", checkpoint_every=0, **changes)
    rewards = [line["reward"] for line in lines(tmp_path / "run")]
    first, last = sum(rewards[:5]) / 5, sum(rewards[-5:]) / 5
    assert last > first + 0.25
    assert last > 0.6


def test_fifty_plus_fifty_steps_are_a_hundred(folder: str, tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    changes: dict[str, Any] = {"algorithm": "reinforce-ema", "checkpoint_every": 4}
    changes |= {"token_records_every": 3}  # the last step of each session has records, too
    changes |= {"verifier_timeout": 10.0}
    _run(folder, whole, steps=12, **changes)
    _run(folder, halves, steps=6, **changes)
    _run(folder, halves, steps=12, resume=True, **changes)
    assert lines(whole) == lines(halves)
    assert lines(whole, "rollouts.jsonl") == lines(halves, "rollouts.jsonl")
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(halves)[name])


def test_lines_after_the_last_checkpoint_are_cut_on_resume(folder: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    _run(folder, out, steps=6)
    with open(out / "metrics.jsonl", "a") as file:
        file.write('{"step": 7, "reward": 9}\n{"step": 8, "rew')
    _run(folder, out, steps=9, resume=True)
    assert [line["step"] for line in lines(out)] == list(range(1, 10))
    assert all(line["reward"] <= 1 for line in lines(out))


def test_a_checkpoint_that_was_cut_off_does_not_count(folder: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    _run(folder, out, steps=6)
    (out / "checkpoints" / ".step-000009.part").mkdir()
    _run(folder, out, steps=9, resume=True)
    assert [line["step"] for line in lines(out)] == list(range(1, 10))


def test_the_result_is_an_ordinary_model_folder_with_report_and_curve(
    folder: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = _run(folder, out, eval_tasks=4, eval_env=PromptEnv(tasks(), starts_low),
                  contamination="ignore", eval_every=3)  # fmt: skip
    assert (result.steps, result.finished) == (6, True)
    assert [step for step, _ in result.evaluations] == [0, 3, 6]
    model = transformers.AutoModelForCausalLM.from_pretrained(out / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(out / "model")
    text = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    assert text == "<|user|>x<|end|>"
    assert model.config.vocab_size == len(tokenizer)
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "report.html").read_text()
    assert "Held-out solved share" in page
    assert "say 0" in page
    assert len(lines(out, "evaluations.jsonl")) == 12
    assert (out / "config.toml").is_file()


def test_rollouts_are_written_with_their_verdicts(folder: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    _run(folder, out, steps=2, rollouts_per_step=3)
    rows = lines(out, "rollouts.jsonl")
    assert [row["step"] for row in rows] == [1, 1, 1, 2, 2, 2]
    assert {row["status"] for row in rows} <= {"correct", "wrong"}
    assert all(row["reward"] == starts_low(row["completion"], "").reward for row in rows)


def test_two_environments_have_weights_and_metrics_of_their_own(
    folder: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    env = ["rlvr/GCD-v0 size=20 weight=3", "rlvr/Arithmetic-v0 size=20"]
    train(env=env, **_settings(folder, out, steps=10, rollouts_per_step=8))
    names = [row["env"] for row in lines(out, "rollouts.jsonl")]
    share = names.count("rlvr/GCD-v0") / len(names)
    # 80 draws with p = 3/4: five standard deviations are 0.24
    assert 0.51 < share < 0.99
    both = [line for line in lines(out) if "env/rlvr/Arithmetic-v0/reward" in line]
    assert both
    assert all("env/rlvr/GCD-v0/solved" in line for line in both)


def test_the_parts_of_a_verdict_become_metrics(folder: str, tmp_path: Path) -> None:
    @verifier
    def parted(completion: str, truth: str) -> Verdict:
        return Verdict(reward=1.0, status="correct", parts={"form": 0.25, "gone": None})  # type: ignore

    _run(folder, tmp_path / "run", parted, steps=1)
    (line,) = lines(tmp_path / "run")
    assert line["parts/form"] == 0.25
    assert "parts/gone" not in line


def test_a_verifier_given_to_train_judges_in_place_of_the_environment(
    folder: str, tmp_path: Path
) -> None:
    always = verifier(lambda completion, truth: True)
    train(
        env="rlvr/GCD-v0 size=20", verifier=always, **_settings(folder, tmp_path / "run", steps=1)
    )
    assert lines(tmp_path / "run")[0]["reward"] == 1.0


def test_callbacks_see_and_add_metrics(folder: str, tmp_path: Path) -> None:
    seen: list[int] = []

    def note(trainer: Any, metrics: dict[str, float]) -> None:
        seen.append(trainer.step)
        metrics["mine"] = 7.0

    _run(folder, tmp_path / "run", steps=3, callbacks=[note])
    assert seen == [1, 2, 3]
    assert [line["mine"] for line in lines(tmp_path / "run")] == [7.0] * 3


def test_train_works_inside_a_running_event_loop_and_off_the_main_thread(
    folder: str, tmp_path: Path
) -> None:
    import asyncio

    results: list[Result] = []

    async def notebook() -> None:
        results.append(_run(folder, tmp_path / "run", steps=2))

    thread = threading.Thread(target=lambda: asyncio.run(notebook()))
    thread.start()
    thread.join()
    assert results[0].finished


def test_ctrl_c_finishes_the_step_saves_and_can_be_resumed(folder: str, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def press(trainer: Any, metrics: dict[str, float]) -> None:
        if trainer.step == 4:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    result = _run(folder, out, steps=9, checkpoint_every=0, callbacks=[press])
    assert (result.steps, result.finished) == (4, False)
    assert signal.getsignal(signal.SIGINT) is before
    assert [line["step"] for line in lines(out)] == [1, 2, 3, 4]
    assert _run(folder, out, steps=9, checkpoint_every=0, resume=True).finished
    assert [line["step"] for line in lines(out)] == list(range(1, 10))


def test_a_failing_verifier_is_counted_and_training_goes_on(folder: str, tmp_path: Path) -> None:
    calls = iter(range(10**6))

    @verifier
    def sometimes(completion: str, truth: str) -> float:
        match next(calls) % 8:
            case 0:
                raise RuntimeError("the judge is away")
            case 1:
                return math.nan
        return float(len(completion) % 2)

    out = tmp_path / "run"
    _run(folder, out, sometimes, steps=3, prompts_per_step=16)
    for line in lines(out):
        assert line["unscored"] == 4.0
        assert line["status/error"] == 4.0
        assert math.isfinite(line["reward"])
        assert math.isfinite(line["loss"])


def test_a_verifier_that_hangs_is_killed_and_the_episode_is_unscored(
    folder: str, tmp_path: Path
) -> None:
    @verifier
    def catastrophic(completion: str, truth: str) -> float:
        import re

        if len(completion) % 2 == 0:  # holds the interpreter's lock for hours
            re.fullmatch(r"(a+)+b", "a" * 60)
        return float(bool(completion) and ord(completion[0]) < 0x50)

    out = tmp_path / "run"
    _run(folder, out, catastrophic, steps=2, prompts_per_step=4, verifier_timeout=0.1,
         max_unscored=1.0)  # fmt: skip
    told = lines(out)
    unscored = sum(line["unscored"] for line in told)
    assert 0 < unscored == sum(line.get("status/error", 0) for line in told)


def test_an_async_verifier_that_hangs_is_given_up(folder: str, tmp_path: Path) -> None:
    @verifier
    async def silent(completion: str, truth: str) -> float:
        import asyncio

        await asyncio.sleep(3600)
        return 1.0

    with pytest.raises(TrainingStopped, match=r"gave no verdict within 0.2 s"):
        _run(folder, tmp_path / "run", silent, verifier_timeout=0.2)


def test_too_many_failures_stop_training_with_their_reasons(folder: str, tmp_path: Path) -> None:
    @verifier
    def broken(completion: str, truth: str) -> float:
        raise RuntimeError("the judge is away")

    with pytest.raises(
        TrainingStopped,
        match=r"8 of 8 episodes of step 1 .* max_unscored=0.5: .*the judge is away \(8×\)",
    ):
        _run(folder, tmp_path / "run", broken)


def test_equal_rewards_are_said_with_the_share_of_groups(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    never = verifier(lambda completion, truth: False)
    _run(folder, tmp_path / "run", never, steps=10, quiet=False)
    out = capsys.readouterr().out
    assert "every reward is equal" in out
    assert "100 % of the groups carry no gradient" in out
    assert "for 10 steps in a row" in out
    assert all(line["dead_groups"] == 1.0 for line in lines(tmp_path / "run"))


def test_a_task_that_is_solved_already_is_refused(folder: str, tmp_path: Path) -> None:
    always = verifier(lambda completion, truth: True)
    with pytest.raises(TrainingStopped, match=r"solves 1.000 .* before training, .*=0.3"):
        _run(folder, tmp_path / "run", always, eval_env=PromptEnv(tasks(), always),
             eval_tasks=4, contamination="ignore", max_solved_before=0.3)  # fmt: skip


def test_evaluation_tasks_among_the_training_tasks_are_refused(folder: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"12 of 12 evaluation prompts are training prompts"):
        _run(folder, tmp_path / "run", eval_env=PromptEnv(tasks(), starts_low), eval_tasks=50)
    assert not (tmp_path / "run").exists()


def test_training_and_evaluation_take_the_two_sides_of_an_environment(
    folder: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train(
        env="rlvr/GCD-v0 size=50",
        **_settings(folder, out, steps=3, eval_tasks=20, rollouts_per_step=8),
    )
    trained = {row["prompt"] for row in lines(out, "rollouts.jsonl")}
    held_out = {row["prompt"] for row in lines(out, "evaluations.jsonl")}
    assert len(held_out) == 20
    assert not trained & held_out


def test_a_run_folder_that_exists_is_left_alone(folder: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    _run(folder, out, steps=1)
    before = (out / "metrics.jsonl").read_bytes()
    with pytest.raises(UsageError, match=r"exists already; .* --resume, .* --overwrite"):
        _run(folder, out, steps=1)
    assert (out / "metrics.jsonl").read_bytes() == before
    _run(folder, out, steps=2, overwrite=True)
    assert len(lines(out)) == 2


def test_overwrite_deletes_no_folder_that_is_no_run(folder: str, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"no run folder .* will not delete it"):
        _run(folder, tmp_path, overwrite=True)
    assert (tmp_path / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 1e-2}, r"lr=0.01: it was begun with 0.003"),
        ({"seed": 5}, r"seed=5: it was begun with 0"),
    ],
)
def test_resuming_with_other_settings_is_refused(
    folder: str, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    _run(folder, tmp_path / "run", steps=3)
    with pytest.raises(UsageError, match=message):
        _run(folder, tmp_path / "run", steps=6, resume=True, **changes)


def test_resuming_what_is_not_there_is_refused(folder: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no run to resume in .* check --out"):
        _run(folder, tmp_path / "nowhere", resume=True)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"env": "rlvr/GDC-v0"}, UsageError, r"no environment 'rlvr/GDC-v0'; did you mean"),
        ({"env": "rlvr/GCD-v0 hihg=3"}, UsageError, r"'hihg'; did you mean 'high'"),
        ({"env": "rlvr/GCD-v0 high"}, UsageError, r"an option is name=value, got 'high'"),
        ({"env": "rlvr/GCD-v0 weight=0"}, UsageError, r"weight must be above 0.*, got 0"),
        ({"verifier": "maths"}, UsageError, r"no verifier 'maths'; did you mean 'math'"),
        ({"algorithm": "rlo"}, UsageError, r"no algorithm 'rlo'; did you mean 'rloo'"),
        ({"algorithm": "grpo", "group_size": 1}, UsageError, r"group_size is 1; set group_size=2"),
        ({"stepps": 3}, UsageError, r"no setting 'stepps'; did you mean 'steps'"),
        ({"steps": 0}, UsageError, r"steps must be at least 1, got 0"),
        ({"lr": "fast"}, UsageError, r"lr must be of type int or float, got 'fast'"),
        ({"temperature": 0.0}, UsageError, r"temperature must be above 0"),
        ({"model": "./nowhere"}, UsageError, r"got './nowhere', which does not exist"),
        ({"device": "abacus"}, UsageError, r"device 'abacus' cannot be used here"),
        ({"dtype": "float7"}, UsageError, r"dtype must be one of .* got 'float7'"),
        ({"prompts_per_step": 3, "updates_per_step": 2, "algorithm": "grpo"}, UsageError,
         r"prompts_per_step=3 is not divisible by updates_per_step=2"),
        ({"updates_per_step": 2}, UsageError, r"'reinforce' has no importance ratio"),
        ({"env": 7}, UsageError, r"an environment is an id .* got 7"),
    ],
)  # fmt: skip
def test_bad_input_is_named_before_anything_is_written(
    folder: str,
    tmp_path: Path,
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    settings = {"env": "rlvr/GCD-v0 size=20", **_settings(folder, tmp_path / "run"), **changes}
    with pytest.raises(error, match=message):
        train(**settings)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_model_folder_without_a_tokenizer_is_named(folder: str, tmp_path: Path) -> None:
    place = tmp_path / "bare"
    transformers.AutoModelForCausalLM.from_pretrained(folder).save_pretrained(place)
    with pytest.raises(ModelError, match=r"no usable tokenizer .*no tokenizer.json.*save_pre"):
        _run(str(place), tmp_path / "run")


def test_a_malformed_line_is_named_with_file_and_number(folder: str, tmp_path: Path) -> None:
    rows = tmp_path / "gsm.jsonl"
    rows.write_text('{"question": "1 + 1?", "answer": "#### 2"}\n{"question": oops}\n')
    with pytest.raises(TaskError, match=r"gsm.jsonl.*2"):
        train(env=f"rlvr/GSM8K-v0 path={rows}", **_settings(folder, tmp_path / "run"))


def test_a_row_without_the_needed_column_names_the_columns_it_has(
    folder: str, tmp_path: Path
) -> None:
    rows = tmp_path / "gsm.jsonl"
    rows.write_text('{"ask": "1 + 1?", "answer": "#### 2"}\n')
    with pytest.raises(TaskError, match=r"ask"):
        train(env=f"rlvr/GSM8K-v0 path={rows}", **_settings(folder, tmp_path / "run"))


def test_a_verifier_that_no_process_can_take_runs_without_a_limit_and_that_is_said(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = threading.Lock()

    @verifier
    def holding(completion: str, truth: Any) -> bool:
        with lock:
            return completion < "m"

    settings: dict[str, Any] = {"steps": 1, "quiet": False, "verifier_timeout": 10.0}
    assert _run(folder, tmp_path / "run", holding, **settings).finished
    said = " ".join(capsys.readouterr().out.split())
    assert "holding cannot be sent to a process that could be killed" in said
    assert "a check that hangs is waited for" in said


def test_a_disk_that_takes_no_more_stops_training_with_the_way_on(
    folder: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"

    def fill(trainer: Any, metrics: dict[str, float]) -> None:
        if trainer.step == 5:
            (out / "metrics.jsonl").rename(out / "kept.jsonl")
            (out / "metrics.jsonl").symlink_to("/dev/full")

    with pytest.raises(
        TrainingStopped, match=r"No space left .* step 3 is whole; .*rlvr train --resume --out"
    ):
        _run(folder, out, callbacks=[fill])
    (out / "metrics.jsonl").unlink()
    (out / "kept.jsonl").rename(out / "metrics.jsonl")
    assert _run(folder, out, resume=True).finished
    assert [line["step"] for line in lines(out)] == [1, 2, 3, 4, 5, 6]


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before_whole(
    folder: str, tmp_path: Path
) -> None:
    out, (soft, hard) = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(trainer: Any, metrics: dict[str, float]) -> None:
        if trainer.step == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))

    try:
        with pytest.raises(TrainingStopped, match=r"write the checkpoint of step 6.* step 3 is"):
            _run(folder, out, callbacks=[fill])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-000003"]
    assert _run(folder, out, resume=True).finished
    assert [line["step"] for line in lines(out)] == [1, 2, 3, 4, 5, 6]


def test_a_sampler_with_other_weights_is_noticed(folder: str, tmp_path: Path) -> None:
    def spoil(trainer: Any, metrics: dict[str, float]) -> None:
        model, _ = load_model(folder)
        trainer.policy.model = model  # the policy now draws from weights that are not trained
        with torch.no_grad():
            model.model.norm.weight.mul_(3)

    with pytest.raises(TrainingStopped, match=r"sampler and learner differ by .* nats"):
        _run(folder, tmp_path / "run", callbacks=[spoil])


def test_a_tokenizer_without_a_chat_template_gives_a_model_with_one(tmp_path: Path) -> None:
    model, _ = build(EmbeddedConfig(width=32, layers=1, heads=2, context=128))
    tokenizer = byte_tokenizer(128)
    tokenizer.chat_template = None
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    _run(str(tmp_path / "base"), tmp_path / "run", steps=1)
    saved = transformers.AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    assert saved.chat_template
