"""Agents: language-model policies, the exact tokens of a conversation, and rollouts.

Nothing heavy is imported before it is used: `TransformersPolicy` and `load_model` bring torch and
transformers in when they are first named.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ..verifiers import names, register
from .types import Completion, Policy, Sampling, StopReason, Trajectory, Turn, WeightSpan

if TYPE_CHECKING:
    from .conversation import ChatFormat, TemplateReport, check_template
    from .judges import policy_judge
    from .loading import load_model
    from .reward_models import RewardModel
    from .rollouts import Episode, rollout
    from .scripted import ScriptedPolicy
    from .transformers_policy import TransformersPolicy

_PLACES = {
    "ChatFormat": "conversation",
    "Episode": "rollouts",
    "ScriptedPolicy": "scripted",
    "TemplateReport": "conversation",
    "TransformersPolicy": "transformers_policy",
    "RewardModel": "reward_models",
    "check_template": "conversation",
    "load_model": "loading",
    "policy_judge": "judges",
    "rollout": "rollouts",
}

__all__ = [
    "ChatFormat",
    "Completion",
    "Episode",
    "Policy",
    "RewardModel",
    "Sampling",
    "ScriptedPolicy",
    "StopReason",
    "TemplateReport",
    "Trajectory",
    "TransformersPolicy",
    "Turn",
    "WeightSpan",
    "check_template",
    "load_model",
    "policy_judge",
    "rollout",
]


if "reward-model" not in names():  # a verifier that the ground floor cannot hold: it needs torch
    register("reward-model", "rlvr.agents.reward_models:RewardModel")


def __getattr__(name: str) -> Any:
    """Import on first use."""
    if name in _PLACES:
        return getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
