"""`rlvr check ENV`: what an environment promises, tried out and printed as a table."""

from typing import Any

import gymnasium

from .. import envs
from ..envs.judging import asked
from ..verifiers import check_verifier
from .progress import print_table
from .sources import EnvChoice


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

    report = envs.check_env(make, episodes=count)
    rows = [(row.check, "ok" if row.ok else "FAILED", row.detail) for row in report.rows]
    env: Any = make()
    rows += _verifier(env.unwrapped, count)
    env.close()
    print_table(f"rlvr check {text}", ["check", "", "detail"], rows)
    return all(row[1] == "ok" for row in rows)


def _verifier(env: Any, count: int) -> list[tuple[str, str, str]]:
    """Check the verifier by itself, if it judges answers alone."""
    tasks, verifier = getattr(env, "tasks", None), getattr(env, "verifier", None)
    if tasks is None or verifier is None or asked(verifier):
        return []
    report = check_verifier(verifier, [tasks[i] for i in range(min(count, len(tasks)))])
    detail = "exploits, garbage, determinism, JSON, time" if report.ok else str(report)
    return [("verifier's contract", "ok" if report.ok else "FAILED", detail)]
