"""What tests of training share: a task that is quickly learned, and what a run has left behind.

Worker processes import this file for its verifier, so that it imports nothing heavy.
"""

import json
from pathlib import Path
from typing import Any

from rlvr.verifiers import Task, verifier


@verifier
def starts_low(completion: str, truth: str) -> float:
    """Reward 1 for a first character in the lower half of the alphabet."""
    return float(bool(completion) and ord(completion[0]) < 0x50)


def tasks(count: int = 12) -> list[Task]:
    """Tasks that only their prompts tell apart."""
    return [Task(id=f"t{i}", prompt=f"say {i}", truth="", solution="A") for i in range(count)]


def lines(out: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """Read a file of a run, less what the clock said."""
    rows = [json.loads(line) for line in (out / name).read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def weights(out: Path) -> dict[str, Any]:
    """Load the weights that a run has left."""
    from rlvr.agents import load_model

    return load_model(out / "model")[0].state_dict()
