"""How an episode of several turns is judged: what its verifier is told, what a failure says."""

import functools
import inspect
import os
from typing import Any

from ..verifiers import Composite, FunctionVerifier, Verdict

CONTEXT = ("messages", "state")
"""What a verifier is told if it names it among its parameters."""


def placed(verdict: Verdict, error: BaseException) -> Verdict:
    """Add to a failure's reason where it was raised: function and line."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return verdict
    code = trace.tb_frame.f_code
    place = f"{os.path.basename(code.co_filename)}:{trace.tb_lineno} in {code.co_name}"
    evidence = {**verdict.evidence, "place": place}
    return Verdict(reward=None, status=verdict.status, evidence=evidence)


@functools.lru_cache(maxsize=256)
def _asked_of(verifier: Any) -> tuple[str, ...]:
    names: set[str] = set()
    if isinstance(verifier, Composite):
        for _, component, _ in verifier.components:
            names |= set(asked(component))
        return tuple(sorted(names))
    inner = getattr(verifier, "verifier", None)
    if callable(inner):  # behind a limit
        return asked(inner)
    function = verifier.function if isinstance(verifier, FunctionVerifier) else verifier
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return ()
    return tuple(name for name in CONTEXT if name in parameters)


def asked(verifier: Any) -> tuple[str, ...]:
    """Return which of `CONTEXT` a verifier names among its parameters."""
    try:
        return _asked_of(verifier)
    except TypeError:  # not hashable
        return _asked_of.__wrapped__(verifier)
