"""Runs the attacks of `sandbox_attacks.txt` in one tier and prints, as JSON, what each achieved.

A program of its own, so that it can be run as another user.
"""

import json
import os
import re
import socket
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from rlvr.verifiers.sandbox import Ended, Job, Limits, Pool, Tier

LIMITS = Limits(
    cpu=0.4, wall=0.5, memory=256 << 20, disk=8 << 20, inodes=512, output=1 << 20, open_files=128
)
NEXT = replace(LIMITS, wall=30.0)
"""Of the run after it: its time is looked at here, where a loaded machine may hold it up."""
FIRST = "secret = 'EARLIER-' 'PROGRAM-SECRET'; held = 'EARLIER-PROGRAM-SECRET' * 100"


def attacks() -> dict[str, tuple[str, str]]:
    """Name → (how it must end, program)."""
    text = (Path(__file__).parent / "sandbox_attacks.txt").read_text()
    found = {}
    for section in re.split(r"^=== ", text, flags=re.MULTILINE)[1:]:
        head, _, program = section.partition("\n")
        name, _, how = head.partition(" | ")
        found[name] = (how, program)
    return found


def judge(name: str, how: str, program: str, pool: Pool) -> str:
    """Run one attack and the run after it; returns what went wrong."""
    outcome = pool.run(program, limits=LIMITS)
    if b"GOT" in outcome.stdout or b"GOT" in outcome.stderr:
        return f"reached it: {outcome.stdout[:300]!r} {outcome.stderr[-300:]!r}"
    words = how.split()[0].split("/")
    if outcome.ended is Ended.INFRA or ("any" not in words and outcome.ended not in words):
        return f"ended '{outcome.ended}' ({outcome.reason}): {outcome.errors[-300:]}"
    start = time.monotonic()
    after = pool.run("import os, math; print(6 * 7, sorted(os.listdir('.')))", limits=NEXT)
    if after.text != "42 []\n":
        return f"the next run said {after!r}"
    return "the next run was slow" if time.monotonic() - start > 5 else ""


def main(tier: Tier) -> dict[str, str]:
    """Run all attacks in a tier; name → what went wrong, empty if nothing."""
    listening = socket.create_server(("127.0.0.1", 0))
    with tempfile.TemporaryDirectory() as folder, Pool(size=1, tier=tier) as pool:
        secret = Path(folder, "secret")
        secret.write_text("the secret")
        os.chmod(folder, 0o777)
        os.chmod(secret, 0o666)
        places = {"{secret}": str(secret), "{parent}": str(os.getpid())}
        places["{port}"] = str(listening.getsockname()[1])
        found = {}
        pool.run_job(Job(program=FIRST))
        for name, (how, program) in attacks().items():
            if f"!{tier}" in how:
                continue
            for mark, value in places.items():
                program = program.replace(mark, value)
            found[name] = judge(name, how, program, pool)
            if secret.read_text() != "the secret":
                found[name] = "changed the file outside"
                secret.write_text("the secret")
    return found


if __name__ == "__main__":
    print(json.dumps(main("flat" if sys.argv[1] == "flat" else "ns")))
