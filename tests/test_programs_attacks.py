"""Programs that would be paid without solving anything: none is, in any tier, as root or not.

The attacks are rows of `cases/program_attacks.txt`; `programs_harness` runs them.
"""

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from programs_harness import HONEST, TRUTHS, attacks, judge_all

from rlvr.verifiers import Status, verify
from rlvr.verifiers.programs import ProgramTests
from rlvr.verifiers.sandbox.places import default_python

HERE = Path(__file__).parent
USERS = ["root", "nobody"] if os.geteuid() == 0 else ["me"]
SAMPLE = 17
"""One attack in so many is tried in the quick tests as another user and in another tier."""


def test_there_are_attacks_of_many_kinds() -> None:
    assert len({attack.name for attack in attacks()}) >= 180


def test_no_attack_is_paid_and_none_slows_the_next_run() -> None:
    """Each in one of its modes, in turn; those that sleep are among the slow tests."""
    modes: dict[str, list[Any]] = {}
    for attack in attacks():
        modes.setdefault(attack.name, []).append(attack)
    chosen = [kinds[place % len(kinds)] for place, kinds in enumerate(modes.values())]
    assert judge_all([attack for attack in chosen if not attack.slow]) == {}


@pytest.mark.slow
def test_no_attack_is_paid_in_any_mode() -> None:
    assert judge_all(attacks()) == {}


def _place(tmp_path: Path) -> Path:
    """Copy what the harness needs to where any user can read it."""
    root = tmp_path / "root"
    package = Path(__import__("rlvr.verifiers").verifiers.__file__).parent
    shutil.copytree(package, root / "rlvr" / "verifiers", ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copy(HERE / "programs_harness.py", root)
    (root / "cases").mkdir()
    shutil.copy(HERE / "cases" / "program_attacks.txt", root / "cases")
    for place in (tmp_path, *tmp_path.parents):
        if place.is_relative_to("/tmp") and place != Path("/tmp"):
            place.chmod(place.stat().st_mode | 0o055)
    return root


def _run_as(user: str, words: list[str], **more: Any) -> "subprocess.CompletedProcess[str]":
    if user == "nobody":
        entry = pwd.getpwnam(user)
        more |= {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd="/", **more)


def _python(user: str) -> str:
    """An interpreter that the user may run: this one may stand in root's home."""
    if user != "nobody":
        return sys.executable
    for path in (default_python(), shutil.which("python3", path="/usr/bin:/usr/local/bin")):
        with contextlib.suppress(PermissionError):
            if path and _run_as(user, [path, "-c", ""]).returncode == 0:
                return path
    raise AssertionError("no Python 3.11 that the user nobody can run")


def _found(user: str, tier: str, every: int, tmp_path: Path) -> dict[str, Any]:
    root = _place(tmp_path)
    words = [_python(user), "-P", "-B", str(root / "programs_harness.py"), tier, str(every)]
    env = {"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "HOME": "/tmp"}
    done = _run_as(user, words, env=env, timeout=550)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("user", "tier"), [(USERS[-1], "ns"), (USERS[0], "flat")])
def test_a_sample_of_the_attacks_is_not_paid_elsewhere(
    user: str, tier: str, tmp_path: Path
) -> None:
    found = _found(user, tier, SAMPLE, tmp_path)
    assert found["count"] >= 20
    assert found["wrong"] == {}


@pytest.mark.slow
@pytest.mark.parametrize(("user", "tier"), [(USERS[-1], "ns"), *((user, "flat") for user in USERS)])
def test_no_attack_is_paid_as_any_user_in_any_tier(user: str, tier: str, tmp_path: Path) -> None:
    found = _found(user, tier, 1, tmp_path)
    assert found["count"] == len(attacks())
    assert found["wrong"] == {}


@pytest.mark.parametrize("mode", list(TRUTHS))
def test_attacks_earn_nothing_where_shares_are_paid(mode: str) -> None:
    shares = ProgramTests(reward="fraction", timeout=0.3, max_timeout=0.3)
    for program in ("import os; os._exit(0)", "def f(n): raise SystemExit(0)", "raise SystemExit"):
        assert verify(shares, program, TRUTHS[mode]).reward == 0.0


@pytest.mark.parametrize(
    "program",
    [
        "def f(n): raise StopIteration",
        "def f(n): raise StopIteration(770)",
        "async def g(): raise StopAsyncIteration\ndef f(n): g().send(None)",
        "import os\ndef f(n): os.write(3, b'[1,\"stop\"]\\n'); return 0",
        "import os\ndef f(n): os.write(3, b' [1,\"value\",0]\\n'); return 0",
        'import os\ndef f(n): os.write(3, b\'[1,"raised","StopIteration",""]\\n\'); return 0',
    ],
)
def test_an_end_of_an_iteration_does_not_end_the_loop_of_a_test(program: str) -> None:
    """`all(map(g, rows))` takes a `StopIteration` of `g` for the end of the rows."""
    truth = {
        "tests": [
            "def same(pair): return f(pair[0]) == pair[1]\nassert all(map(same, [(3, 770)]))",
            "assert all(map(lambda n: f(n) == 203, [10]))",
        ]
    }
    strict = ProgramTests(timeout=0.5)
    assert verify(strict, program, truth).reward == 0.0
    assert verify(strict, HONEST["c"], truth).status is Status.CORRECT
