"""The main job as a user meets it: what a mistake costs, what a run is called, what it says."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from rich.console import Console

from rlvr.agents import TransformersPolicy, load_model
from rlvr.agents.embedded import byte_tokenizer
from rlvr.envs import PromptEnv
from rlvr.rl_core import TrainConfig, train
from rlvr.rl_core.cli import main
from rlvr.rl_core.progress import COLUMNS, Display
from rlvr.rl_core.records import Run
from rlvr.rl_core.report import before_and_after
from rlvr.verifiers import ModelError, Task, TrainingStopped, UsageError, verifier

pytestmark = pytest.mark.usefixtures("short_runs")
ROW = {"question": "1 + 1?", "answer": "2"}


@verifier
def never(completion: str, truth: Any) -> bool:
    return False


def _settings(model: str, out: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model": model,
        "algorithm": "reinforce",
        "prompts_per_step": 4,
        "max_tokens": 2,
        "steps": 1,
        "eval_tasks": 0,
        "out": out,
        "quiet": True,
        **changes,
    }


def _metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def _said(capsys: pytest.CaptureFixture[str], words: list[str], code: int = 2) -> str:
    """Return what a command says, on one line and without the box of a flag's error."""
    try:
        assert main(words) == code
    except SystemExit as ended:
        assert ended.code == code  # noqa: PT017
    found = capsys.readouterr()
    return " ".join(found.err.replace("│", " ").split())


def test_a_start_that_fails_leaves_an_earlier_run_whole_and_no_new_folder(
    folder: str, tmp_path: Path
) -> None:
    out, env = tmp_path / "run", "rlvr/GCD-v0 size=20"
    train(env=env, **_settings(folder, out))
    before = sorted(path.name for path in out.rglob("*"))
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="no usable tokenizer"):
        train(env=env, overwrite=True, **_settings(str(tmp_path / "bare"), out))
    assert sorted(path.name for path in out.rglob("*")) == before
    with pytest.raises(ModelError, match="no usable tokenizer"):
        train(env=env, **_settings(str(tmp_path / "bare"), tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_a_run_may_be_trained_from_the_model_of_the_run_that_it_replaces(
    folder: str, tmp_path: Path
) -> None:
    out, env = tmp_path / "run", "rlvr/GCD-v0 size=20"
    train(env=env, **_settings(folder, out))
    again = _settings(str(out / "model"), out, steps=2)
    assert train(env=env, overwrite=True, **again).finished
    assert [line["step"] for line in _metrics(out)] == [1, 2]


def test_to_resume_and_to_overwrite_exclude_each_other(folder: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--resume continues .* --overwrite deletes it; give one"):
        train(resume=True, overwrite=True, **_settings(folder, tmp_path / "run"))


def test_one_environment_with_two_settings_is_two_environments(folder: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    env = ["rlvr/Arithmetic-v0 digits=1", "rlvr/Arithmetic-v0 digits=2"]
    settings = _settings(folder, out, prompts_per_step=16, eval_tasks=10)
    found = train(env=env, **settings).evaluations[-1][1]
    names = ("rlvr/Arithmetic-v0#1", "rlvr/Arithmetic-v0#2")
    line = _metrics(out)[-1]
    for name in names:
        assert {f"env/{name}/reward", f"env/{name}/solved", f"eval/env/{name}/solved"} <= {*line}
    assert {name: count for name, (_, count) in found.environments.items()} == dict.fromkeys(
        names, 5
    )
    # the two number their tasks alike, and none of the ten may hide another
    assert len(before_and_after(Run(out))) == 10


def test_a_side_that_is_smaller_than_the_evaluation_is_taken_whole(
    folder: str, tmp_path: Path
) -> None:
    # of 100 sums of two digits from 0 to 9 a fifth is held out, fewer than the 200 asked for
    settings = _settings(folder, tmp_path / "run", eval_tasks=200)
    (first, *_) = train(env="rlvr/Arithmetic-v0 digits=1", **settings).evaluations
    assert 5 < first[1].tasks < 50


def test_objects_given_in_python_are_named_in_the_run_and_asked_for_again(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = [Task(id=f"t{i}", prompt=f"say {i}", truth="") for i in range(6)]
    whole, judged = tmp_path / "whole", tmp_path / "judged"
    settings = _settings(folder, whole)
    train(env=PromptEnv(tasks, never), **settings)
    assert TrainConfig.from_toml(whole / "config.toml").tasks.env == ("python:PromptEnv",)
    text = _said(capsys, ["train", "--resume", "--out", str(whole), "--steps", "2"])
    assert "env='python:PromptEnv' was given in Python" in text
    assert train(env=PromptEnv(tasks, never), resume=True, **{**settings, "steps": 2}).finished
    env = "rlvr/GCD-v0 size=20"
    train(env=env, verifier=never, **_settings(folder, judged))
    text = _said(capsys, ["train", "--resume", "--out", str(judged), "--steps", "2"])
    assert "verifier='python:never' was given in Python" in text
    with pytest.raises(UsageError, match=r"cannot resume .* with env="):
        train(env=env, resume=True, **_settings(folder, judged, steps=2))
    again = _settings(folder, judged, steps=2)
    assert train(env=env, verifier=never, resume=True, **again).finished


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["eval", "rlvr/GCD-v0", "--seed", "-1"], "seed must be at least 0, got -1"),
        (["eval", "rlvr/GCD-v0", "--tasks", "0"], "tasks must be at least 1, got 0"),
        (["eval", "rlvr/GCD-v0", "--out", "x.json"], "got 'x.json', use 'x.jsonl'"),
        (["sft", "--seed", "-1"], "seed must be at least 0, got -1"),
        (["chat", "rlvr/GCD-v0", "--seed", "-1"], "seed must be at least 0, got -1"),
        (["check", "rlvr/GCD-v0", "--tasks", "0"], "tasks must be at least 1, got 0"),
        (["train", "--env", "rlvr/GCD-v0 weight=Infinity", "--out", "nowhere"],
         "weight must be above 0 and finite, got inf"),
    ],
)  # fmt: skip
def test_a_number_out_of_range_is_refused_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert message in _said(capsys, words)


def test_a_configuration_that_is_no_text_or_has_no_texts_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(b'[run]\nout = "\xe9"\n')
    assert "is not TOML: 'utf-8' codec" in _said(capsys, ["train", "--config", str(file)])
    file.write_text("[rollout]\nstop = 5\n")
    assert "stop must be texts, got 5" in _said(capsys, ["train", "--config", str(file)])


def test_places_that_cannot_be_written_are_named_before_the_work(
    folder: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    model = ["--model", folder]
    inside = ["eval", "rlvr/GCD-v0", *model, "--out", str(file / "x.jsonl")]
    assert "choose another --out" in _said(capsys, inside)
    assert "is a file, and a model is a folder" in _said(capsys, ["sft", "--out", str(file)])
    monkeypatch.setenv("RLVR_CACHE", str(file / "cache"))
    words = ["train", "--env", "rlvr/GCD-v0 size=20", "--out", str(tmp_path / "run")]
    assert "set the environment variable RLVR_CACHE to another" in _said(capsys, words)
    assert file.read_text() == "mine"


def test_an_evaluation_outlives_a_verifier_that_hangs(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hangs.py").write_text(
        "import time\nfrom rlvr import envs, verifiers\n"
        "@verifiers.verifier\n"
        "def hangs(completion, truth):\n    time.sleep(600)\n"
        f"envs.register('acceptance/Hangs-v0', tasks=[{ROW}], verifier=hangs, replace=True)\n"
    )
    words = ["eval", "acceptance/Hangs-v0", "--import", str(tmp_path / "hangs.py"), "--tasks", "1",
             "--model", folder, "--max-tokens", "2", "--verifier-timeout", "0.5"]  # fmt: skip
    assert main(words) == 0
    assert "unscored samples │ 1" in " ".join(capsys.readouterr().out.split())


def test_a_model_that_is_neither_a_folder_nor_on_the_hub_is_named_with_both(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["train", "--model", "nobody/nothing", "--out", str(tmp_path / "run")]
    text = _said(capsys, [*words, "--env", "rlvr/GCD-v0 size=20"])
    assert "'nobody/nothing' is no folder here" in text
    assert "check the name and the connection" in text


def test_answers_of_any_bytes_are_taken_by_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = io.TextIOWrapper(io.BytesIO(b"\xff\xfe\n\n:quit\n"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", typed)
    assert main(["chat", "rlvr/GCD-v0 size=3", "--index", "0"]) == 0


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    code = "from rlvr.rl_core.cli import main; raise SystemExit(main(['explain', '--page']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_an_encoder_is_refused_by_name() -> None:
    # BERT loads as a causal model, and would be trained on logits that have seen the answer
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=262, intermediate_size=64, **size)
    model = transformers.BertLMHeadModel(config)
    with pytest.raises(ModelError, match=r"BertLMHeadModel cannot be run .* the tokens after it"):
        TransformersPolicy(model, byte_tokenizer(128))


def test_a_model_that_is_of_another_kind_is_refused_in_a_sentence(tmp_path: Path) -> None:
    transformers.T5Config(vocab_size=262, d_model=16, d_ff=16, num_layers=1).save_pretrained(
        tmp_path
    )
    byte_tokenizer(128).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"T5Config.* expected a decoder-only model") as refused:
        load_model(tmp_path)
    assert len(str(refused.value).splitlines()) == 1


def test_equal_rewards_are_said_where_a_penalty_still_moves_the_weights(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = _settings(folder, tmp_path / "run", algorithm="rloo", beta=0.5, steps=3)
    env = "rlvr/GCD-v0 size=20"
    train(env=env, verifier=never, **{**settings, "quiet": False, "lr": 1e-2})
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("every reward is equal within its group (mean 0.000)") == 1
    assert _metrics(tmp_path / "run")[-1]["dead_groups"] < 1  # the KL moves what rewards do not


@pytest.mark.slow
def test_a_run_remembers_the_files_that_it_imported(folder: str, tmp_path: Path) -> None:
    mine, out = tmp_path / "mine.py", tmp_path / "run"
    mine.write_text(
        "from rlvr import envs\n"
        f"envs.register('acceptance/Mine-v0', tasks=[{ROW}], verifier='math')\n"
    )
    words = ["train", "--env", "acceptance/Mine-v0", "--import", str(mine), "--model", folder,
             "--prompts-per-step", "2", "--group-size", "2", "--max-tokens", "2",
             "--eval-tasks", "0", "--out", str(out)]  # fmt: skip
    assert main([*words, "--steps", "1"]) == 0
    again = ["train", "--resume", "--out", str(out), "--steps", "2"]
    code = f"from rlvr.rl_core.cli import main; raise SystemExit(main({again}))"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert [line["step"] for line in _metrics(out)] == [1, 2]


def test_a_full_disk_before_the_first_checkpoint_says_how_to_begin_again(
    folder: str, tmp_path: Path
) -> None:
    def fill(trainer: Any, metrics: dict[str, float]) -> None:
        (trainer.run.folder / "metrics.jsonl").symlink_to("/dev/full")

    settings = _settings(folder, tmp_path / "run")
    with pytest.raises(TrainingStopped, match=r"No space left .* start again with --overwrite"):
        train(env="rlvr/GCD-v0 size=20", callbacks=[fill], **settings)


def test_a_terminal_of_80_columns_cuts_no_figure() -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=80, force_terminal=True, color_system=None)
    display = Display(12345, console=console)
    names = {**dict.fromkeys(COLUMNS, -0.12345), "time/tokens_per_second": 123456.0}
    display.start(0)
    display.step(12344, names)
    display.stop()
    shown = screen.getvalue()
    assert "…" not in shown
    for figure in ("12344/12345", "-0.123", "-12.3%", "-0.1235", "no gradient", "123456", "left"):
        assert figure in shown
