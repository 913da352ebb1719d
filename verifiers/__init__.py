"""Verifiers: `(completion, truth) -> Verdict`.

The ground floor: knows nothing of gymnasium or torch, and imports neither sympy nor jsonschema
before a verifier needs it.
"""

from .bulk import verify_each, verify_many
from .check import Finding, Report, check_verifier
from .compose import Composite, all_of, any_of, best_of, gates, weighted
from .errors import (
    ModelError,
    RlvrError,
    TaskError,
    TrainingStopped,
    Unscored,
    UsageError,
    WorkerError,
)
from .exploits import EXPLOITS, Exploit
from .group_rewards import GroupReward
from .groups import (
    GroupVerifier,
    describe_group,
    group_names,
    group_verifier,
    make_group,
    register_group,
    verify_group,
)
from .isolation import Isolated, guarded, isolated
from .protocol import FunctionVerifier, Verifier, verifier, verify
from .reasons import class_counts, explain, reason_class
from .registry import describe, make, names, register
from .task import Message, Task
from .verdict import Status, Verdict
from .workers import WorkerPool

__all__ = [
    "EXPLOITS",
    "Composite",
    "Exploit",
    "Finding",
    "FunctionVerifier",
    "GroupReward",
    "GroupVerifier",
    "Isolated",
    "Message",
    "ModelError",
    "Report",
    "RlvrError",
    "Status",
    "Task",
    "TaskError",
    "TrainingStopped",
    "Unscored",
    "UsageError",
    "Verdict",
    "Verifier",
    "WorkerError",
    "WorkerPool",
    "all_of",
    "any_of",
    "best_of",
    "check_verifier",
    "class_counts",
    "describe",
    "describe_group",
    "explain",
    "gates",
    "group_names",
    "group_verifier",
    "guarded",
    "isolated",
    "make",
    "make_group",
    "names",
    "reason_class",
    "register",
    "register_group",
    "verifier",
    "verify",
    "verify_each",
    "verify_group",
    "verify_many",
    "weighted",
]
