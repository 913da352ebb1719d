"""The command line, in this process unless the process is the point."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlvr.rl_core.cli import COMMANDS, main

pytestmark = pytest.mark.usefixtures("short_runs")
SMALL = ["--prompts-per-step", "4", "--group-size", "2", "--max-tokens", "3", "--steps", "2"]


def _out(capsys: pytest.CaptureFixture[str], words: list[str], code: int = 0) -> str:
    assert main(words) == code
    found = capsys.readouterr()
    return found.err if code else found.out


def test_no_command_prints_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    text = _out(capsys, [])
    assert all(name in text for name in COMMANDS)


def test_an_unknown_command_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "no command 'trian'; did you mean 'train'?" in _out(capsys, ["trian"], 2)


def test_list_shows_every_name(capsys: pytest.CaptureFixture[str]) -> None:
    text = _out(capsys, ["list"])
    assert all(name in text for name in ("rlvr/GCD-v0", "math", "dr-grpo"))
    assert "no list 'verifier'" in _out(capsys, ["list", "verifier"], 2)


def test_check_passes_a_good_environment_and_fails_a_bad_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "FAILED" not in _out(capsys, ["check", "rlvr/Arithmetic-v0 digits=1", "--tasks", "10"])
    (tmp_path / "bad_tasks.py").write_text(
        "from rlvr import envs, verifiers\n"
        "always = verifiers.verifier(lambda completion, truth: True)\n"
        "rows = [{'question': str(i), 'answer': str(i)} for i in range(5)]\n"
        "envs.register('test/Bad-v0', tasks=rows, verifier=always, replace=True)\n"
    )
    words = ["check", "test/Bad-v0", "--import", str(tmp_path / "bad_tasks.py")]
    assert main(words) == 1
    assert "FAILED" in capsys.readouterr().out


def test_train_from_a_file_with_flags_over_it(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        '[tasks]\nenv = ["rlvr/GCD-v0 size=30"]\n[optimizer]\nlr = 0.5\n'
        "[evaluation]\neval_tasks = 4\n"
    )
    out = tmp_path / "run"
    words = ["train", "--config", str(file), "--model", folder, "--out", str(out), "--lr", "1e-3"]
    text = _out(capsys, [*words, *SMALL])
    assert "step 2/2" in text
    assert "lr = 0.001" in text
    config = (out / "config.toml").read_text()
    assert "lr = 0.001" in config
    assert "rlvr/GCD-v0 size=30" in config
    assert "exists already" in _out(capsys, [*words, *SMALL], 2)
    resumed = _out(capsys, ["train", "--resume", "--out", str(out), "--steps", "4"])
    assert "resumed after step 2" in resumed
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 5  # step 0 is the evaluation


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optimizer\n", "is not TOML"),
        ("[optimiser]\nlr = 1.0\n", "no section in .* 'optimiser'; did you mean 'optimizer'"),
        ("[optimizer]\nrate = 1.0\n", r"no field of \[optimizer\] in .* 'rate'"),
        ("optimizer = 3\n", r"\[optimizer\] must be a table, got 3"),
        ('[optimizer]\nlr = "1"\n', "lr must be of type int or float, got '1'"),
    ],
)
def test_a_bad_configuration_file_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    import re

    (tmp_path / "c.toml").write_text(text)
    assert re.search(message, _out(capsys, ["train", "--config", str(tmp_path / "c.toml")], 2))
    assert "cannot read" in _out(capsys, ["train", "--config", str(tmp_path / "no.toml")], 2)


def test_an_unknown_flag_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--lrr", "1"])
    assert stopped.value.code == 2
    assert "lrr" in capsys.readouterr().err


def test_a_setting_that_the_algorithm_refuses_ends_with_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["train", "--algorithm", "grpo", "--group-size", "1"]
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert "group_size is 1; set group_size=2 or more" in " ".join(capsys.readouterr().err.split())


def test_a_file_that_cannot_be_imported_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    text = _out(capsys, ["list", "--import", str(tmp_path / "broken.py")], 2)
    assert "broken.py' cannot be imported: ZeroDivisionError" in text
    assert "is none" in _out(capsys, ["list", "--import", "nowhere.py"], 2)


def test_eval_writes_every_sample_and_the_figures(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "eval" / "samples.jsonl"
    words = ["eval", "rlvr/GCD-v0 split=test size=10", "--model", folder, "--tasks", "5"]
    text = _out(capsys, [*words, "--samples", "4", "--max-tokens", "3", "--out", str(out)])
    assert "pass@1" in text
    assert "pass@4" in text
    assert "majority" in text
    assert len(out.read_text().splitlines()) == 20
    figures = json.loads(out.with_suffix(".json").read_text())
    assert figures["samples"] == 20
    assert sum(figures["statuses"].values()) == 20


def test_sft_teaches_demonstrations_of_a_file(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "shown.jsonl"
    data.write_text('{"prompt": "say", "completion": "moo"}\n')
    out = tmp_path / "taught"
    words = ["sft", "--model", folder, "--data", str(data), "--steps", "60", "--batch", "4"]
    text = _out(capsys, [*words, "--lr", "1e-2", "--out", str(out)])
    assert "step 60/60" in text
    assert _greedy(out, "say") == "moo"
    assert "exists already" in _out(capsys, [*words, "--out", str(out)], 2)
    data.write_text('{"prompt": "say"}\n')
    again = [*words, "--out", str(tmp_path / "other")]
    assert "needs the texts 'prompt' and 'completion'" in _out(capsys, again, 2)


def _greedy(folder: Path, prompt: str) -> str:
    from rlvr.agents import Sampling, TransformersPolicy, load_model

    policy = TransformersPolicy(*load_model(folder))
    ids: Any = policy.format.prompt([{"role": "user", "content": prompt}])
    (found,) = policy.generate_batch([ids], [Sampling(max_tokens=8, temperature=0.0)])
    return policy.format.text(found.tokens)


def test_the_console_script_needs_no_torch_to_list_and_check() -> None:
    code = (
        "import sys\nfrom rlvr.rl_core.cli import main\n"
        "main(['list']); main(['check', 'rlvr/GCD-v0', '--tasks', '3'])\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
