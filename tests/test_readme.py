"""Every code block of the README is run: Python here, shell commands here or in `.ci/run`."""

import re
import shlex
from pathlib import Path

import pytest

from rlvr.rl_core.cli import main

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("short_runs")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)
ROWS = "".join(
    f'{{"question": "{n} + 1?", "answer": "one more #### {n + 1}"}}\n' for n in range(1, 4)
)


def test_every_block_is_of_a_language_that_is_run() -> None:
    assert {language for language, _ in BLOCKS} == {"bash", "python"}


@pytest.mark.parametrize("code", [code for language, code in BLOCKS if language == "python"])
def test_python_blocks_run(code: str, folder: str, tmp_path: Path) -> None:
    names = {"model_folder": folder, "run_folder": tmp_path / "run"}
    assert "assert" in code or "print" in code
    exec(compile(code, "README.md", "exec"), names)


@pytest.mark.parametrize("code", [code for language, code in BLOCKS if language == "bash"])
def test_shell_blocks_run(
    code: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("gsm8k_train.jsonl", "gsm8k_test.jsonl"):
        (tmp_path / name).write_text(ROWS)
    for command in code.replace("\\\n", " ").strip().splitlines():
        words = shlex.split(command)
        if words[0] == "make":
            assert f"\n{command}\n" in (ROOT / ".ci" / "run").read_text()
            continue
        assert words[0] == "rlvr"
        # The hub is out of reach for a test, and it has seconds: a small model, a few steps.
        short = [folder if word == "Qwen/Qwen3-0.6B" else word for word in words[1:]]
        if words[1] == "train":
            short += ["--steps", "3" if "--resume" in words else "2", "--prompts-per-step", "2"]
            short += ["--max-tokens", "4", "--eval-tasks", "0"]
        assert main(short) == 0
