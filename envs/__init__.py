"""Environments: tasks with verifiable rewards as Gymnasium environments.

Importing this registers the ids of `tasks.TABLE` with gymnasium, as strings: a task's module, its
verifier and its data are imported when the environment is made.
"""

from .contamination import Contamination, contamination
from .procedural import Problem, Procedural, Settings
from .prompt import PromptEnv
from .registration import load_tasks, make, make_vec, names, options, register
from .selection import filter_tasks, shuffled, split_tasks, subset
from .spaces import AnyText
from .tasks import TABLE
from .vector import TextVectorEnv, Transition

for _id, (_tasks, _verifier, _description) in TABLE.items():
    register(_id, tasks=_tasks, verifier=_verifier, description=_description, replace=True)

__all__ = [
    "AnyText",
    "Contamination",
    "Problem",
    "Procedural",
    "PromptEnv",
    "Settings",
    "TextVectorEnv",
    "Transition",
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
]
