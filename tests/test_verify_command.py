"""`rlvr verify`: counts, disagreements, files, bad input."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlvr.rl_core.cli import main

ROWS: list[dict[str, Any]] = [
    {"completion": "4", "truth": "4", "label": True},
    {"completion": "5", "truth": "4", "label": True},
    {"completion": "6", "truth": "6", "label": False},
    {"completion": "7", "truth": "8", "label": False},
    {"completion": "", "truth": "8", "label": None},
    {"completion": "9", "truth": None, "label": 1},
]


def _file(place: Path, rows: list[Any]) -> str:
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(place)


@pytest.fixture
def data(tmp_path: Path) -> str:
    return _file(tmp_path / "data.jsonl", ROWS)


def _verify(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> str:
    assert main(["verify", *words, "--workers", "1"]) == code
    found = capsys.readouterr()
    return found.err if code == 2 else found.out


def _cells(text: str) -> list[list[str]]:
    """Return the lines of all tables as cells."""
    return [
        [cell.strip() for cell in re.split("[│┃]", line)[1:-1]]
        for line in text.splitlines()
        if line.startswith(("│", "┃"))
    ]


def test_statuses_and_reasons_are_counted(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    cells = _cells(_verify(capsys, 0, data, "--verifier", "exact"))
    # rows 1 and 3 are right, 2, 4 and the empty one wrong: 2 of 5 scored; a truth of null is none
    assert ["mean reward", "0.4000"] in cells
    assert ["status correct", "2  (33.3%)"] in cells
    assert ["status bad_truth", "1  (16.7%)"] in cells
    assert sum(int(row[3]) for row in cells if len(row) == 4 and row[3].isdigit()) == len(ROWS)
    assert not any("label" in cell for row in cells for cell in row)


def test_disagreements_with_the_label_are_listed_with_their_line(
    data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = _verify(capsys, 0, data, "--verifier", "exact", "--label", "label")
    cells = _cells(text)
    assert "2 disagreements" in text
    listed = [row[:4] for row in cells if len(row) == 7]
    assert listed[1:] == [["line 2", "1", "0", "wrong"], ["line 3", "0", "1", "correct"]]
    for row in (["0", "agrees", "1"], ["0", "differs", "1"], ["1", "agrees", "1"]):
        assert row in cells
    for row in (["1", "differs", "1"], ["1", "unscored", "1"], ["none", "not compared", "1"]):
        assert row in cells


def test_the_list_of_disagreements_is_capped(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = (data, "--verifier", "exact", "--label", "label", "--show")
    text = _verify(capsys, 0, *words, "1")
    assert "2 disagreements (the first 1)" in text
    assert _listed(text) == ["line 2"]
    assert _listed(_verify(capsys, 0, *words, "0")) == []


def _listed(text: str) -> list[str]:
    """Return the rows of the disagreements; another table names the row of the slowest check."""
    return [row[0] for row in _cells(text) if row[0].startswith("line ")]


@pytest.mark.parametrize(
    ("rows", "code"),
    [(ROWS[:1], 0), (ROWS[3:5], 0), (ROWS[:2], 1), (ROWS[5:], 1)],
    ids=["agrees", "agrees or has no label", "differs", "is unscored"],
)
def test_only_must_agree_changes_the_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[Any], code: int
) -> None:
    file = _file(tmp_path / "data.jsonl", rows)
    _verify(capsys, 0, file, "--verifier", "exact", "--label", "label")
    _verify(capsys, code, file, "--verifier", "exact", "--label", "label", "--must-agree")


def test_columns_are_found_or_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _file(tmp_path / "a.jsonl", [{"response": "4", "answer": "4", "other": "5"}])
    assert "status correct" in _verify(capsys, 0, file, "--verifier", "exact")
    named = ("--completion", "other", "--truth", "response")
    assert "status wrong" in _verify(capsys, 0, file, "--verifier", "exact", *named)


@pytest.mark.parametrize(
    ("label", "verdict"),
    [("correct", "differs"), (" False ", "agrees"), (0.25, "differs"), ("0", "agrees")],
)
def test_labels_may_be_words_or_rewards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], label: Any, verdict: str
) -> None:
    row = {"completion": "4", "truth": "5", "ok": label}
    text = _verify(
        capsys, 0, _file(tmp_path / "a.jsonl", [row]), "--verifier", "exact", "--label", "ok"
    )
    assert [verdict, "1"] in [row[1:] for row in _cells(text)]


def test_options_reach_the_verifier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _file(tmp_path / "a.jsonl", [{"completion": "4.05", "truth": "4"}])
    assert "status wrong" in _verify(capsys, 0, file, "--verifier", "number")
    loose = ("--option", "absolute=0.1", "--option", "relative=0")
    assert "status correct" in _verify(capsys, 0, file, "--verifier", "number", *loose)


def test_the_verdicts_are_written_one_per_row(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "verdicts.jsonl"
    _verify(capsys, 0, data, "--verifier", "exact", "--out", str(out))
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["row"] for row in rows] == [f"line {n}" for n in range(1, 7)]
    assert [row["reward"] for row in rows] == [1.0, 0.0, 1.0, 0.0, 0.0, None]
    assert [path.name for path in out.parent.iterdir()] == ["verdicts.jsonl"]


def test_a_run_that_fails_leaves_no_half_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _file(tmp_path / "a.jsonl", [*ROWS, {"truth": "4"}])
    out = tmp_path / "out" / "verdicts.jsonl"
    assert "line 7: no column" in _verify(capsys, 2, file, "--verifier", "exact", "--out", str(out))
    assert list(out.parent.iterdir()) == []


def test_compressed_files_and_surrogates_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "a.jsonl.gz", tmp_path / "out.jsonl"
    file.write_bytes(gzip.compress(b'{"completion": "\\ud800", "truth": "4"}\n'))
    _verify(capsys, 0, str(file), "--verifier", "exact", "--out", str(out))
    assert json.loads(out.read_bytes().decode("utf-8", "surrogatepass"))["reward"] == 0.0


def test_a_verifier_of_a_file_is_used(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(
        "from rlvr.verifiers import register\n"
        "register('me/odd', lambda completion, truth: completion in ('5', '7'), replace=True)\n"
    )
    words = ("--verifier", "me/odd", "--import", str(tmp_path / "mine.py"))
    assert ["status correct", "2  (33.3%)"] in _cells(_verify(capsys, 0, data, *words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--verifier", "maths"], "no verifier 'maths'; did you mean 'math'?"),
        (["--verifier", "exact", "--option", "cases=1"], "no option of verifier 'exact' 'cases'"),
        (["--option", "percent"], "--option is name=value, such as percent=either; got 'percent'"),
        (["--option", "a=1", "--option", "a=2"], "--option a is given twice"),
        (["--verifier", "exact", "--label", "gold"], "no column 'gold' for the label"),
        (["--verifier", "exact", "--label", "completion"], "holds '4'"),
        (["--verifier", "exact", "--truth", "gold"], "name the right one with --truth"),
        (["--verifier", "exact", "--completion", "label"], "the completion is a text, got True"),
        (["--verifier", "exact", "--show", "-1"], "--show is a number of rows from 0 up, got -1"),
        (["--verifier", "exact", "--timeout", "0"], "timeout= is a number of seconds above 0"),
    ],
)
def test_bad_input_is_explained(
    data: str, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert message in _verify(capsys, 2, data, *words)


def test_a_file_that_cannot_be_used_is_explained(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exact = ("--verifier", "exact")
    assert "does not exist" in _verify(capsys, 2, str(tmp_path / "no.jsonl"), *exact)
    assert "got '.txt'" in _verify(capsys, 2, "a.txt", *exact)
    (tmp_path / "broken.jsonl").write_text('{"completion": "4", "truth": "4"}\n{"compl')
    text = _verify(capsys, 2, str(tmp_path / "broken.jsonl"), *exact)
    assert "broken.jsonl, line 2: not JSON" in text
    assert "has no rows" in _verify(capsys, 2, _file(tmp_path / "empty.jsonl", []), *exact)
    assert "is the file that is read" in _verify(capsys, 2, data, *exact, "--out", data)
    assert "cannot write" in _verify(capsys, 2, data, *exact, "--out", f"{data}/x.jsonl")


def test_it_runs_without_torch_and_math_is_the_default(data: str) -> None:
    code = (
        "import sys\nfrom rlvr.rl_core.cli import main\n"
        f"status = main(['verify', {data!r}, '--workers', '1'])\n"
        "heavy = {'torch', 'transformers', 'sympy'} & set(sys.modules)\n"
        "assert not heavy, heavy\nsys.exit(status)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "math on" in done.stdout
