"""Trying an environment by hand, through the standard input."""

import io
from pathlib import Path

import pytest

from rlvr.rl_core.cli import main

GAME = "rlvr/GuessNumber-v0 numbers=3 high=3"


def _chat(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> str:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert main(["chat", *words]) == 0
    return capsys.readouterr().out


def test_a_game_is_played_to_its_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = _chat("1\n\n3\n.\n2\n\n:quit\n", monkeypatch, capsys, GAME, "--index", "0")
    assert "[user] I am thinking of a whole number from 1 to 3." in told
    assert "verdict " in told
    assert "reward " in told
    assert "over; :next" in told  # two guesses are all


def test_the_solver_says_what_it_would_do_and_wins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = _chat(":solve\n2\n\n:solve\n:next\n:solve\n", monkeypatch, capsys, GAME)
    assert told.count("[solver] 2") == 2
    assert told.count("\ntask ") == 2


def test_tools_are_listed_and_an_answer_may_have_several_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "```calculate\n2 + 3\n```\n\n<answer>1</answer>\n"
    env = "rlvr/Calculator-v0 form=code"
    told = _chat(text, monkeypatch, capsys, env)
    assert "[tool offered] calculate(expression: string): Work out" in told
    assert "[tool] 5" in told
    assert "verdict wrong" in told
    assert "reward 0" in told


def test_environments_of_one_turn_and_empty_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = _chat(".\n:next\n:solve\n", monkeypatch, capsys, "rlvr/GCD-v0 size=5", "--index", "4")
    assert "verdict unparsed" in told
    assert "task gcd-train-0-4" in told
    assert "task gcd-train-0-0" in told  # it begins again behind the last
    assert "[solver] " in told


def test_unknown_commands_and_control_characters_do_no_harm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = _chat(":solv\n:help\n\x1b[2J\n\n", monkeypatch, capsys, "rlvr/GridPuzzle-v0")
    assert "no command ':solv'" in told
    assert told.count("An answer ends with") == 2
    assert "\x1b" not in told


def test_an_unknown_environment_is_an_error_and_no_trace(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["chat", "rlvr/GuesNumber-v0"]) == 2
    assert "did you mean 'rlvr/GuessNumber-v0'" in capsys.readouterr().err
