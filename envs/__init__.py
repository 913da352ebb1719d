"""Environments: tasks with verifiable rewards as Gymnasium environments.

Importing this registers the ids of `tasks.TABLE` with gymnasium, as strings: a task's module, its
verifier and its data are imported when the environment is made.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .base import TaskEnv
from .contamination import Contamination, contamination
from .procedural import Problem, Procedural, Settings
from .prompt import PromptEnv
from .registration import load_tasks, make, make_vec, names, options, register
from .selection import filter_tasks, shuffled, split_tasks, subset
from .snapshots import Snapshot
from .spaces import AnyText
from .tasks import DIALOGUES, TABLE
from .vector import TextVectorEnv, Transition

if TYPE_CHECKING:
    from .conformance import EnvReport, check_env
    from .dialogue import DialogueEnv
    from .replies import Reply
    from .token_mdp import TokenMDP
    from .tools import Tool, ToolEnv, tool

_PLACES = {
    "DialogueEnv": "dialogue",
    "EnvReport": "conformance",
    "Reply": "replies",
    "TokenMDP": "token_mdp",
    "Tool": "tools",
    "ToolEnv": "tools",
    "check_env": "conformance",
    "tool": "tools",
}
"""What is imported when it is first named, and from where: most users need a few of these."""

for _id, (_tasks, _verifier, _description) in TABLE.items():
    register(_id, tasks=_tasks, verifier=_verifier, description=_description, replace=True)
for _id, (_tasks, _judge, _env, _description) in DIALOGUES.items():
    register(_id, tasks=_tasks, verifier=_judge, env=_env, description=_description, replace=True)

__all__ = [
    "AnyText",
    "Contamination",
    "DialogueEnv",
    "EnvReport",
    "Problem",
    "Procedural",
    "PromptEnv",
    "Reply",
    "Settings",
    "Snapshot",
    "TaskEnv",
    "TextVectorEnv",
    "TokenMDP",
    "Tool",
    "ToolEnv",
    "Transition",
    "check_env",
    "contamination",
    "filter_tasks",
    "load_tasks",
    "make",
    "make_vec",
    "names",
    "options",
    "register",
    "shuffled",
    "split_tasks",
    "subset",
    "tool",
]


def __getattr__(name: str) -> Any:
    """Import on first use."""
    if name in _PLACES:
        return getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
