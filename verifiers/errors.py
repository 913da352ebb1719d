"""The exceptions of the project, split by whose fault it is.

Every message says what was given, what was expected and what to do. A failure of a verifier is
not in this tree: it is a `Verdict` with the status `error`, because training goes on without it.
"""

import difflib
from collections.abc import Iterable


class RlvrError(Exception):
    """Base of every exception that the project raises on purpose."""


class UsageError(RlvrError, ValueError):
    """The caller's fault: an unknown name, an option out of range, a folder that exists."""


class TaskError(RlvrError, ValueError):
    """The row's fault: a malformed line, a missing column, a truth that cannot be read."""


class Unscored(RlvrError):
    """A verdict without a reward reached code that needs a number."""


class WorkerError(RlvrError, RuntimeError):
    """The machinery's fault: a worker process could not be started or kept alive."""


class ModelError(RlvrError, RuntimeError):
    """The model's (or its server's) fault: no tokenizer, an architecture that cannot be run."""


class TrainingStopped(RlvrError, RuntimeError):
    """Training ended early, for the reason in the message; what was saved is named there."""


def unknown(kind: str, given: str, known: Iterable[str], hint: str = "") -> UsageError:
    """Build the error for a name that is in no table, with the nearest known names.

    Args:
        kind: What the name was to be, in the singular (`"environment"`).
        given: The name as the caller wrote it.
        known: The names that exist.
        hint: What else to do, as a sentence; put last.

    Returns:
        The error, to be raised by the caller.

    Example:
        >>> str(unknown("verifier", "maths", ["math", "number"]))
        "no verifier 'maths'; did you mean 'math'? Known: math, number."
    """
    names = sorted(known)
    folded = {name.casefold(): name for name in names}
    close = difflib.get_close_matches(given.casefold(), folded, n=1, cutoff=0.6)
    guess = f"did you mean '{folded[close[0]]}'? " if close else ""
    tail = f" {hint}" if hint else ""
    return UsageError(f"no {kind} '{given}'; {guess}Known: {', '.join(names) or 'none'}.{tail}")
