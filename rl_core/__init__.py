"""Training: algorithms as rows of a table over pure stages, the learner, the loop, the reports.

Nothing heavy is imported before it is used: `train` brings torch in.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .algorithms import TABLE, Algorithm, algorithm, explain
from .config import TrainConfig

if TYPE_CHECKING:
    from .evaluation import Evaluation, evaluate
    from .training import Result, train

_PLACES = {
    "Evaluation": "evaluation",
    "Result": "training",
    "evaluate": "evaluation",
    "train": "training",
}

__all__ = [
    "TABLE",
    "Algorithm",
    "Evaluation",
    "Result",
    "TrainConfig",
    "algorithm",
    "evaluate",
    "explain",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import on first use."""
    if name in _PLACES:
        return getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
