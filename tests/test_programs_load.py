"""Verdicts on a machine that has twice as much to do as it can: the same as on an idle one."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

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
