"""The report's token viewer: what it shows, and that no text of a policy becomes markup."""

import json
from pathlib import Path
from typing import Any

from rlvr.rl_core.attribution import FIELDS
from rlvr.rl_core.config import TrainConfig
from rlvr.rl_core.records import Run
from rlvr.rl_core.report import write_report
from rlvr.rl_core.token_view import EPISODES, TOKENS, token_view


def _row(step: int, text: list[str], coefficient: Any, **columns: Any) -> dict[str, Any]:
    record = dict.fromkeys(FIELDS, 0.5) | {"mask": 1, "clipped": 0} | columns
    record |= {"text": text, "coefficient": coefficient}
    return {"step": step, "prompt": "p", "reward": 1.0, "status": "correct",
            "token_records": record}  # fmt: skip


def _run(folder: Path, rows: list[dict[str, Any]]) -> Run:
    run = Run(folder)
    steps = sorted({row["step"] for row in rows})
    run.append("metrics.jsonl", [{"step": step, "reward": 0.5, "solved": 0.5} for step in steps])
    run.append("rollouts.jsonl", rows)
    return run


def test_the_first_a_middle_and_the_last_step_are_shown(tmp_path: Path) -> None:
    rows = [_row(step, ["a"], -1.0) for step in range(1, 12) for _ in range(EPISODES + 2)]
    found = token_view(_run(tmp_path, rows))
    assert [step["step"] for step in found] == [1, 6, 11]
    assert all(len(step["episodes"]) == EPISODES for step in found)


def test_colour_says_which_way_and_how_strongly(tmp_path: Path) -> None:
    rows = [_row(1, ["a", "b", "c"], [-0.4, 0.1, 0.0]), _row(1, ["d"], 0.2)]
    (step,) = token_view(_run(tmp_path, rows))
    styles = [[t["style"] for t in episode["tokens"]] for episode in step["episodes"]]
    assert step["scale"] == 0.4
    # opacity ¾·√(|c|/0.4): 0.75, 0.375, none; √½ · 0.75 = 0.53
    assert styles[0] == ["background:rgba(33,102,172,0.75)", "background:rgba(214,96,16,0.38)", ""]
    assert styles[1] == ["background:rgba(214,96,16,0.53)"]


def test_tokens_outside_the_loss_say_only_that(tmp_path: Path) -> None:
    row = _row(1, ["a", "b"], [0.0, 1.0], mask=[0, 1], clipped=[0, 1], kl=None)
    (step,) = token_view(_run(tmp_path, [row]))
    outside, inside = step["episodes"][0]["tokens"]
    assert (outside["kind"], json.loads(outside["facts"])) == ("out", {"mask": 0})
    assert inside["kind"] == "clip"
    assert json.loads(inside["facts"])["kl"] is None


def test_long_episodes_are_cut_and_say_so(tmp_path: Path) -> None:
    (step,) = token_view(_run(tmp_path, [_row(1, ["a"] * (TOKENS + 7), 1.0)]))
    assert len(step["episodes"][0]["tokens"]) == TOKENS
    assert step["episodes"][0]["cut"] == 7


def test_a_run_without_records_has_no_viewer(tmp_path: Path) -> None:
    row = _row(1, ["a"], 1.0)
    row["token_records"] = None
    assert token_view(_run(tmp_path, [row])) == []
    assert token_view(Run(tmp_path / "nowhere")) == []


def test_what_a_policy_writes_stays_text(tmp_path: Path) -> None:
    attack = '"><script>alert(1)</script>'
    run = _run(tmp_path, [_row(1, [attack, "\ud800", "\n"], [1.0, -1.0, 0.5])])
    page = write_report(run, TrainConfig()).read_text()
    assert "<script>alert" not in page
    assert page.count("<script") == 1  # the viewer's own
    assert "src=" not in page.replace('src="curve.png"', "")
    assert "⏎" in page
