"""Verdicts on a machine that has twice as much to do as it can: the same as on an idle one."""

import importlib.util
import os
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rlvr.verifiers import Status, verify
from rlvr.verifiers.programs import ProgramTests

ROOT = Path(__file__).parent.parent
REPEATED = 20
"""Verdicts of each program here; `benchmarks/programs.py --repeat` takes as many as it is told."""


def _benchmark() -> ModuleType:
    path = ROOT / "benchmarks" / "programs.py"
    spec = importlib.util.spec_from_file_location("programs_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_verdicts_are_the_same_on_oversubscribed_cores() -> None:
    found = _benchmark().repeat(REPEATED, load=2 * (os.cpu_count() or 1))
    assert found == {}


def test_the_programs_that_are_repeated_end_in_every_way() -> None:
    judge = ProgramTests(timeout=0.15, max_timeout=0.15, memory=512 << 20)
    chosen = _benchmark().programs_to_repeat()
    verdicts = {
        name: verify(judge, *given) for name, given in chosen.items() if name.endswith("(calls)")
    }
    assert {str(v.evidence["failed"]["end"]) for v in verdicts.values() if not v.reward} == {
        "wrong", "exception", "timeout", "memory", "output", "incomplete",
    }  # fmt: skip
    for name, verdict in verdicts.items():
        right = name.partition(" ")[0] in ("right", "a", "sleeps", "much")
        assert (verdict.status is Status.CORRECT) == right, verdict


@pytest.mark.slow
@pytest.mark.parametrize("form", ["calls", "code", "printing"])
def test_what_ran_out_of_time_without_using_it_gets_a_second_attempt(form: str) -> None:
    judge = ProgramTests(timeout=0.05)  # 2.1 s of wall time
    held_up = (
        "import time\ndef f(n):\n    time.sleep(60 if time.time() < {} else 0)\n    return n\n"
    )
    truth: dict[str, Any] = {
        "calls": {"function": "f", "tests": [{"args": [1], "output": 1}]},
        "code": {"tests": ["assert f(1) == 1"]},
        "printing": {"tests": [{"input": "1", "output": "1"}]},
    }[form]
    ending = "print(f(int(input())))" if form == "printing" else ""
    late = judge(held_up.format(time.time() + 1.5) + ending, truth)
    assert (late.reward, late.status) == (1.0, Status.CORRECT)
    never = judge(held_up.format(time.time() + 600) + ending, truth)
    assert (never.reward, never.status) == (0.0, Status.TIMEOUT)
