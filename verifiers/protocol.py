"""The contract of a verifier, and the one function through which it is called.

A verifier is any callable `(completion, truth, **context) -> Verdict`. `verify` is the seam that
environments use: whatever the callable does (raise, return NaN, return nothing), a `Verdict` comes
out, and a failure of the verifier is `error`, never a score.

Context passed by environments: `task` (the `Task`), so that a verifier may look at the prompt.
"""

import inspect
import os
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, overload, runtime_checkable

from .errors import TaskError, UsageError
from .verdict import Verdict

if TYPE_CHECKING:
    import asyncio


@runtime_checkable
class Verifier(Protocol):
    """Judges a completion against a truth.

    A verifier may also have `check_truth(truth) -> None`, raising `TaskError` for a truth that it
    cannot read: it is called once per task when an environment is made.
    """

    def __call__(self, completion: str, truth: Any, **context: Any) -> Verdict | Awaitable[Verdict]:
        """Judge one completion."""
        ...


MAX_REASON = 1000
"""Characters of an exception's text that are kept as evidence."""

VerifierFunction = Callable[..., bool | float | Verdict | Awaitable[bool | float | Verdict]]
"""What `verifier` lifts: `(completion, truth)`, with any of the context as further parameters."""


def as_verdict(value: object) -> Verdict:
    """Turn what a verifier function returned into a verdict.

    Raises:
        TypeError: It is neither a bool, a number nor a `Verdict`.
        ValueError: It is a number that is not finite.
    """
    if isinstance(value, Verdict):
        return value
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()  # pyright: ignore  (a NumPy or torch scalar)
    if isinstance(value, bool | int | float):
        return Verdict.score(float(value))
    raise TypeError(f"a verifier returns a bool, a number or a Verdict, got {value!r:.200}")


def verify(verifier: Verifier, completion: str, truth: Any, **context: Any) -> Verdict:
    """Call a verifier so that a verdict always comes out.

    Args:
        verifier: Any verifier, `async` or not.
        completion: The decoded text of the policy, without its stop token.
        truth: The task's truth.
        context: Passed on (`task=`).

    Returns:
        The verdict; of status `bad_truth` if a `TaskError` was raised and `error` for every other
        exception or for a result that is no verdict, with the reason in the evidence.
    """
    try:
        value = verifier(completion, truth, **context)
        if type(value) is Verdict:
            return value
        return as_verdict(awaited(value) if inspect.isawaitable(value) else value)
    except BaseException as error:
        return failure(error)


def failure(error: BaseException) -> Verdict:
    """Turn what a verifier raised into an unscored verdict; Ctrl-C is raised again."""
    if isinstance(error, KeyboardInterrupt):
        raise error
    try:
        text = str(error)[:MAX_REASON]
    except BaseException:  # an exception whose own text raises
        text = "(its message cannot be shown)"
    if isinstance(error, TaskError):
        return Verdict.bad_truth(text)
    if isinstance(error, SystemExit):
        return Verdict.error(f"the verifier called exit: {text}")
    return Verdict.error(f"{type(error).__name__}: {text}")


def finished(value: object) -> Verdict:
    """Turn what a verifier returned into a verdict; what is none becomes an error."""
    try:
        return as_verdict(value)
    except Exception as error:
        return failure(error)


class FunctionVerifier:
    """A plain function as a verifier; made by `verifier`."""

    def __init__(self, function: VerifierFunction, name: str) -> None:
        """Wrap the function; `name` is what errors and metrics call it."""
        self.function = function
        self.name = name
        self.__doc__ = function.__doc__
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError) as error:
            raise UsageError(f"verifier '{name}' is a function with a signature: {error}") from None
        self._all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        positional = [
            p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        star = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        if len(positional) < 2 and not star:
            raise UsageError(
                f"verifier '{name}' must take (completion, truth), its signature is "
                f"{inspect.signature(function)}"
            )
        self._context = {p.name for p in parameters if p.kind is not p.VAR_POSITIONAL}
        self._context -= {p.name for p in positional[:2]}

    def __call__(self, completion: str, truth: Any, **context: Any) -> Verdict | Awaitable[Verdict]:
        """Judge one completion, passing on the context that the function asks for."""
        if not self._all:
            context = (
                {key: value for key, value in context.items() if key in self._context}
                if self._context
                else {}
            )
        value = self.function(completion, truth, **context)
        if type(value) in (bool, float, int):
            return Verdict.score(float(value))  # pyright: ignore
        return _lifted(value) if inspect.isawaitable(value) else as_verdict(value)

    def __repr__(self) -> str:
        """Show the name."""
        return f"verifier({self.name!r})"


async def _lifted(value: Awaitable[Any]) -> Verdict:
    return as_verdict(await value)


@overload
def verifier(function: VerifierFunction) -> FunctionVerifier: ...
@overload
def verifier(*, name: str) -> Callable[[VerifierFunction], FunctionVerifier]: ...
def verifier(
    function: VerifierFunction | None = None, *, name: str = ""
) -> FunctionVerifier | Callable[[VerifierFunction], FunctionVerifier]:
    """Lift a function that returns a bool, a number or a `Verdict` into a verifier.

    Args:
        function: Takes `(completion, truth)` and, by name, whatever of the context it wants.
        name: What errors and metrics call it; the function's name if not given.

    Raises:
        UsageError: The function does not take a completion and a truth.

    Example:
        >>> @verifier
        ... def mentions(completion, truth):
        ...     return truth in completion
        >>> mentions("the cat sat", "cat").reward
        1.0
    """

    def lift(given: VerifierFunction) -> FunctionVerifier:
        return FunctionVerifier(given, name or getattr(given, "__name__", "verifier"))

    return lift if function is None else lift(function)


class _Loop:
    """One event loop on a thread of its own, so that `verify` works inside a running loop too."""

    lock = threading.Lock()
    loop: "asyncio.AbstractEventLoop | None" = None
    thread: threading.Thread | None = None

    @classmethod
    def forget(cls) -> None:
        """Begin anew in a forked child, where the thread is gone and the lock may be held."""
        cls.lock, cls.loop, cls.thread = threading.Lock(), None, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Loop.forget)


def awaited(value: Awaitable[Any]) -> Any:
    """Wait for an awaitable from any thread, whether or not an event loop runs there."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    if threading.current_thread() is _Loop.thread:
        # an `async` verifier that calls `verify`: its own loop cannot run while it waits here
        with ThreadPoolExecutor(1) as executor:
            return executor.submit(asyncio.run, _coroutine(value)).result()
    with _Loop.lock:
        if _Loop.loop is None or _Loop.thread is None or not _Loop.thread.is_alive():
            _Loop.loop = asyncio.new_event_loop()
            _Loop.thread = threading.Thread(
                target=_Loop.loop.run_forever, name="rlvr-async-verifiers", daemon=True
            )
            _Loop.thread.start()
    return asyncio.run_coroutine_threadsafe(_coroutine(value), _Loop.loop).result()


async def _coroutine(value: Awaitable[Any]) -> Any:
    return await value
