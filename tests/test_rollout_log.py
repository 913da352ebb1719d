"""Which steps of a run tell of every token, and what their records hold."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlvr.rl_core.records import Run
from rlvr.rl_core.rollout_log import RolloutLog
from rlvr.rl_core.settings import RunConfig
from rlvr.rl_core.token_records import column, rounded
from rlvr.rl_core.token_view import token_view


def _log(folder: Path, steps: int, every: int) -> RolloutLog:
    return RolloutLog(RunConfig(steps=steps, token_records_every=every), Run(folder), None, None)


@pytest.mark.parametrize(
    ("every", "told"),
    [(1, [1, 2, 3, 4, 5, 6, 7]), (3, [1, 3, 6, 7]), (100, [1, 7]), (0, [])],
)
def test_the_first_the_last_and_every_so_many_steps_tell_of_their_tokens(
    tmp_path: Path, every: int, told: list[int]
) -> None:
    log = _log(tmp_path, 7, every)
    assert [step for step in range(1, 8) if log.told(step)] == told


def test_numbers_have_four_digits_and_json_writes_no_more() -> None:
    given = [0.0, 1.0, -0.123456, 123456.0, 3.33333e-9, 9.9996, -2.5e30, 7e-31]
    # 9.9996 → 10.00; 7e-31 is below the least size that is told from 0.
    wanted = [0.0, 1.0, -0.1235, 123500.0, 3.333e-09, 10.0, -2.5e30, 0.0]
    assert rounded(torch.tensor(given).double()).tolist() == pytest.approx(wanted, rel=1e-15)
    generator = np.random.default_rng(0)
    many = generator.normal(size=2000) * 10.0 ** generator.integers(-12, 12, size=2000)
    for value in rounded(torch.tensor(many)).tolist():
        assert value == float(f"{value:.4g}")
        assert len(json.dumps(value)) <= 16


def test_what_is_not_finite_becomes_none_and_equal_numbers_become_one() -> None:
    assert column(rounded(torch.tensor([math.nan, math.nan]))) is None
    assert column(rounded(torch.tensor([0.5, math.inf]))) == [0.5, None]
    assert column(rounded(torch.tensor([True, True]))) == 1
    assert column(rounded(torch.tensor([True, False]))) == [1, 0]
    assert column(np.zeros(0)) == []


def test_the_viewer_takes_the_steps_that_have_records(tmp_path: Path) -> None:
    run = Run(tmp_path)
    record: dict[str, Any] = {"text": ["a"], "mask": 1, "coefficient": 0.5}
    names = ("reward", "return", "value", "baseline", "advantage", "ratio", "clipped", "weight")
    record |= dict.fromkeys((*names, "kl"), 0)
    forged = '"token_records": {'
    for step in range(1, 9):
        told = record if step in (1, 3, 6, 8) else None
        row = {"step": step, "prompt": forged, "reward": 1.0, "status": "correct"}
        run.append("rollouts.jsonl", [row | {"token_records": told}])
    assert [step["step"] for step in token_view(run)] == [1, 6, 8]
