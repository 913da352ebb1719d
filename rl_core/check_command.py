"""`rlvr check ENV`: what an environment promises, tried out and printed as a table."""

import time
from typing import Any

import gymnasium

from .. import envs
from ..envs.judging import asked
from ..verifiers import check_verifier, verify
from .progress import print_table
from .sources import EnvChoice, Source

TIMEOUT = 10.0
"""Seconds that a verifier of the user's may take per completion."""


def run_check(text: str, count: int) -> bool:
    """Check an environment and print what was found.

    Args:
        text: Its id with options.
        count: Tasks to look at.

    Returns:
        Whether everything held.
    """
    choice = EnvChoice.parse(text)

    def make() -> "gymnasium.Env[str, str]":
        return envs.make(choice.id, disable_env_checker=True, **choice.options)

    source = Source(choice.id, make)
    try:
        unlimited = source.guard(TIMEOUT)
        if unlimited:
            print(f"warning: {unlimited}")
        env: Any = source.instances(1)[0].unwrapped
        rows = _hanging(env)
        if not rows:
            report = envs.check_env(source.fresh, episodes=count)
            rows = [(row.check, "ok" if row.ok else "FAILED", row.detail) for row in report.rows]
            rows += _verifier(env, count)
    finally:
        source.close()
    print_table(f"rlvr check {text}", ["check", "", "detail"], rows)
    return all(row[1] == "ok" for row in rows)


def _hanging(env: Any) -> list[tuple[str, str, str]]:
    """Judge one completion: a verifier that never ends would keep every other check waiting."""
    tasks, verifier = getattr(env, "tasks", None), getattr(env, "verifier", None)
    if tasks is None or verifier is None or asked(verifier):
        return []
    began = time.monotonic()
    verdict = verify(verifier, tasks[0].solution or "", tasks[0].truth, task=tasks[0])
    if verdict.reward is not None or time.monotonic() - began < TIMEOUT:
        return []
    why = f"no verdict within {TIMEOUT:g} s on task '{tasks[0].id}'; nothing else was checked"
    return [("verifier answers", "FAILED", why)]


def _verifier(env: Any, count: int) -> list[tuple[str, str, str]]:
    """Check the verifier by itself, if it judges answers alone."""
    tasks, verifier = getattr(env, "tasks", None), getattr(env, "verifier", None)
    if tasks is None or verifier is None or asked(verifier):
        return []
    report = check_verifier(verifier, [tasks[i] for i in range(min(count, len(tasks)))])
    detail = "exploits, garbage, determinism, JSON, time" if report.ok else str(report)
    return [("verifier's contract", "ok" if report.ok else "FAILED", detail)]
