"""Programs that try to get out, stay, take, spy or break: none gets anywhere, as root or not."""

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

from rlvr.verifiers.sandbox.places import default_python
from rlvr.verifiers.sandbox.process import DROPPED

HARNESS = Path(__file__).parent / "sandbox_harness.py"
AS_NOBODY = """
import os, sys
os.setgroups([]); os.setgid({gid}); os.setuid({uid})
os.execv(sys.argv[1], sys.argv[1:])
"""
USERS = ["root", "nobody"] if os.geteuid() == 0 else ["me"]


def _readable_python() -> str:
    """An interpreter that an ordinary user may run: this one may stand in root's home."""
    for path in (default_python(), shutil.which("python3", path="/usr/bin:/usr/local/bin")):
        if path and subprocess.run(_as_nobody([path, "-c", ""]), check=False).returncode == 0:
            return path
    raise AssertionError("no Python 3.11 that the user nobody can run")


def _as_nobody(words: list[str]) -> list[str]:
    user = pwd.getpwnam("nobody")
    return [sys.executable, "-P", "-c", AS_NOBODY.format(uid=user.pw_uid, gid=user.pw_gid), *words]


def _harness(user: str, tier: str, tmp_path: Path) -> dict[str, str]:
    """Run the harness as a user; what it imports is copied to where that user can read it."""
    root = tmp_path / "root"
    package = Path(__import__("rlvr.verifiers").verifiers.__file__).parent
    shutil.copytree(package, root / "rlvr" / "verifiers", ignore=shutil.ignore_patterns("*.pyc"))
    for name in (HARNESS.name, "sandbox_attacks.txt"):
        shutil.copy(HARNESS.parent / name, root / name)
    for place in (tmp_path, *tmp_path.parents):
        if place.is_relative_to("/tmp") and place != Path("/tmp"):
            place.chmod(place.stat().st_mode | 0o055)
    words = [_readable_python() if user == "nobody" else sys.executable, "-P", "-B"]
    words += [str(root / HARNESS.name), tier]
    done = subprocess.run(
        _as_nobody(words) if user == "nobody" else words,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "HOME": "/tmp"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _left_behind() -> set[str]:
    """What runs as any of the users may have left; root itself runs none of them."""
    runners = {DROPPED, pwd.getpwnam("nobody").pw_uid} if os.geteuid() == 0 else {os.geteuid()}
    found = [*Path("/tmp").glob("rlvr-sandbox-*")]
    for path in Path("/dev/shm").iterdir():
        with contextlib.suppress(FileNotFoundError):  # others come and go meanwhile
            if path.stat().st_uid in runners:
                found.append(path)
    return {str(path) for path in found}


def _check(user: str, tier: str, tmp_path: Path) -> None:
    before = _left_behind()
    found = _harness(user, tier, tmp_path)
    assert len(found) >= 100
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
    assert _left_behind() <= before


@pytest.mark.parametrize(
    "user", [USERS[0], *(pytest.param(user, marks=pytest.mark.slow) for user in USERS[1:])]
)
def test_no_attack_succeeds_in_namespaces(user: str, tmp_path: Path) -> None:
    _check(user, "ns", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("user", USERS)
def test_no_attack_succeeds_in_the_flat_tier(user: str, tmp_path: Path) -> None:
    _check(user, "flat", tmp_path)


def test_the_harness_notices_what_gets_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HARNESS.parent))
    import sandbox_harness as harness

    from rlvr.verifiers.sandbox import Pool

    found: dict[str, Any] = {}
    with Pool(size=1, unsafe_no_isolation=True) as pool:
        for name in ("looks into proc", "internet socket", "fork by system call"):
            how, program = harness.attacks()[name]
            program = program.replace("{parent}", str(os.getpid()))
            found[name] = harness.judge(name, how, program, pool)
    assert all(wrong.startswith("reached it") for wrong in found.values()), found
