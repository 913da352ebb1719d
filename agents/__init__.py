"""Agents: language-model policies, the exact tokens of a conversation, and rollouts.

Nothing heavy is imported before it is used: `TransformersPolicy` and `load_model` bring torch and
transformers in when they are first named.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .types import Completion, Policy, Sampling, StopReason, Trajectory, Turn

if TYPE_CHECKING:
    from .conversation import ChatFormat
    from .loading import load_model
    from .rollouts import Episode, rollout
    from .scripted import ScriptedPolicy
    from .transformers_policy import TransformersPolicy

_PLACES = {
    "ChatFormat": "conversation",
    "Episode": "rollouts",
    "ScriptedPolicy": "scripted",
    "TransformersPolicy": "transformers_policy",
    "load_model": "loading",
    "rollout": "rollouts",
}

__all__ = [
    "ChatFormat",
    "Completion",
    "Episode",
    "Policy",
    "Sampling",
    "ScriptedPolicy",
    "StopReason",
    "Trajectory",
    "TransformersPolicy",
    "Turn",
    "load_model",
    "rollout",
]


def __getattr__(name: str) -> Any:
    """Import on first use."""
    if name in _PLACES:
        return getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
