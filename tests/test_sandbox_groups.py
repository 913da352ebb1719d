"""Control groups: where they can be made, what they hold, and that they go."""

import subprocess
import sys
from pathlib import Path

import pytest

from rlvr.verifiers.sandbox import Ended, Limits, Options, Pool, cgroups

HUNGRY = """
import os, time
ready, done = os.pipe()
os.set_blocking(ready, False)
for _ in range(6):
    if os.fork() == 0:
        held = bytearray(80 << 20)
        os.write(done, b"r")
        time.sleep(99)
full = 0
while full < 6:
    if os.waitpid(-1, os.WNOHANG)[0]:
        print("killed", flush=True)
        os._exit(0)
    try:
        full += len(os.read(ready, 9))
    except BlockingIOError:
        time.sleep(0.01)
print("fine", flush=True)
os._exit(0)
"""


def _file(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _second(root: Path, handed_on: dict[str, str]) -> None:
    _file(root / "cgroup.controllers", "cpu memory pids")
    for folder, controllers in handed_on.items():
        _file(root / folder / "cgroup.subtree_control", controllers)


def test_the_nearest_group_that_hands_its_controllers_on_is_taken(tmp_path: Path) -> None:
    _second(tmp_path, {".": "memory pids", "user": "cpu memory pids", "user/me": "memory"})
    found = cgroups.look(tmp_path, "0::/user/me/job\n")
    assert (found.version, found.places) == (2, [tmp_path / "user"])


def test_a_group_that_hands_nothing_on_is_named(tmp_path: Path) -> None:
    _second(tmp_path, {".": "cpu", "user": ""})
    found = cgroups.look(tmp_path, "0::/user\n")
    assert (found.version, found.why_not) == (0, f"{tmp_path} does not hand on memory and pids")


def test_of_version_1_each_controller_has_its_own_place(tmp_path: Path) -> None:
    _file(tmp_path / "memory" / "job" / "cgroup.procs")
    _file(tmp_path / "memory" / "cgroup.procs")
    _file(tmp_path / "cpu,pids" / "cgroup.procs")
    found = cgroups.look(tmp_path, "9:cpu,pids:/inside/a/container\n4:memory:/job\n0::/\n")
    assert found.version == 1
    assert found.places == [tmp_path / "memory" / "job", tmp_path / "cpu,pids"]


@pytest.mark.parametrize("membership", ["", "0::/\n", "4:memory:/\n"])
def test_what_is_missing_of_version_1_is_named(tmp_path: Path, membership: str) -> None:
    found = cgroups.look(tmp_path, membership)
    assert (found.version, found.why_not) == (0, f"no controller 'memory' is mounted at {tmp_path}")


def _here() -> list[Path]:
    return [path for place in cgroups.here().places for path in place.glob(f"{cgroups.PREFIX}*")]


def test_the_table_says_whether_groups_hold_here() -> None:
    with Pool(size=1, require="ns") as pool:
        row = next(row for row in pool.describe().rows if row.name == "cgroup")
    groups = cgroups.here()
    assert row.active == bool(groups.version)
    assert groups.why_not in row.meaning


def test_processes_of_a_run_share_one_limit_of_memory() -> None:
    # 6 * 80 MiB, where 300 MiB, 1 MiB of files and 2 of output are allowed in all
    limits = Limits(memory=300 << 20, disk=1 << 20, output=1 << 20, wall=60.0)
    with Pool(size=1, require="ns") as pool:
        outcome = pool.run(HUNGRY, limits=limits, options=Options(processes=True))
        assert pool.run("print(1)").text == "1\n"
    if cgroups.here().version:
        assert outcome.text == "killed\n" or outcome.ended is Ended.MEMORY
    else:
        assert outcome.text == "fine\n"
    assert _here() == []


def test_groups_go_with_runs_that_are_broken_off() -> None:
    with Pool(size=1, require="ns") as pool:
        for _ in range(3):
            with pool.slot() as slot:
                slot.open("import time; time.sleep(99)", options=Options(processes=True))
                assert len(_here()) == len(cgroups.here().places)
        pool.run("print(1)", options=Options(processes=True))
    cgroups.remove_left()
    assert _here() == []


def test_what_a_killed_caller_left_is_removed() -> None:
    groups = cgroups.here()
    program = (
        "import os, signal\nfrom rlvr.verifiers.sandbox import Limits, cgroups\n"
        "groups = cgroups.here()\nif groups.version: cgroups.Group(groups, Limits())\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-P", "-c", program], check=False)
    assert len(_here()) == len(groups.places)
    cgroups.sweep(groups)
    assert _here() == []
