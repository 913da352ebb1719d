"""`rlvr sandbox`: which walls stand around programs on this machine, and what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import tyro

from ..verifiers.sandbox import Pool, Survey
from .progress import print_table


@dataclass(frozen=True, kw_only=True)
class SandboxCommand:
    """Test the sandbox and print what is active, what is not, and what that means."""

    require: Literal["any", "ns", "flat"] = "any"
    """End with status 2 if nothing as strong as this can be had."""
    python: str = ""
    """The interpreter that programs run under; this one if not given."""


def run_sandbox(words: Sequence[str]) -> int:
    """Run the self-test and print its table; 0 if the strongest tier stands, 1 if a weaker one."""
    given = tyro.cli(SandboxCommand, prog="rlvr sandbox", args=list(words))
    require = None if given.require == "any" else given.require
    with Pool(size=1, require=require, python=given.python or None) as pool:
        print_survey(pool.describe())
    return 0 if pool.tier == "ns" else 1


def print_survey(survey: Survey) -> None:
    """Print one table."""
    rows = [(row.name, "yes" if row.active else "no", row.meaning) for row in survey.rows]
    rows.insert(0, ("tier", survey.tier, survey.why_not or "the strongest there is"))
    rows.append(("python", "", survey.python))
    print_table("rlvr sandbox", ["wall", "active", "what it means"], rows)
