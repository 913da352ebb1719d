"""Verifiers that see all completions of a prompt at once.

What is good in a group, such as being different from the rest or being preferred to it, is no
property of one completion. A group verifier returns one verdict per member; what that is worth
beside the verdict that each completion got by itself says `group_rewards`.
"""

import functools
import importlib
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, overload, runtime_checkable

from .errors import UsageError, unknown
from .isolation import bounds_itself
from .protocol import awaited, failure, finished
from .registry import built, worded
from .task import Task
from .verdict import Status, Verdict
from .workers import WorkerPool, verdict_of


@runtime_checkable
class GroupVerifier(Protocol):
    """Judges the completions of one prompt beside one another."""

    def judge_group(
        self, completions: Sequence[str], truth: Any, *, task: Task | None = None
    ) -> Sequence[Verdict] | Awaitable[Sequence[Verdict]]:
        """Return a verdict for each completion, in their order."""
        ...


class FunctionGroupVerifier:
    """A plain function as a group verifier; made by `group_verifier`."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        """Wrap the function; `name` is what errors and metrics call it."""
        self.function = function
        self.name = name
        self.__doc__ = function.__doc__
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError) as error:
            raise UsageError(f"group verifier '{name}' has no signature: {error}") from None
        places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if len(places) < 2:
            raise UsageError(
                f"group verifier '{name}' must take (completions, truth), its signature is "
                f"{inspect.signature(function)}"
            )
        self._task = any(p.name == "task" or p.kind is p.VAR_KEYWORD for p in parameters)

    def judge_group(self, completions: Sequence[str], truth: Any, *, task: Any = None) -> Any:
        """Call the function, with the task if it takes one."""
        if self._task:
            return self.function(completions, truth, task=task)
        return self.function(completions, truth)

    def __repr__(self) -> str:
        """Show the name."""
        return f"group_verifier({self.name!r})"


@overload
def group_verifier(function: Callable[..., Any]) -> FunctionGroupVerifier: ...
@overload
def group_verifier(*, name: str) -> Callable[[Callable[..., Any]], FunctionGroupVerifier]: ...
def group_verifier(
    function: Callable[..., Any] | None = None, *, name: str = ""
) -> FunctionGroupVerifier | Callable[[Callable[..., Any]], FunctionGroupVerifier]:
    """Lift a function that returns a bool, a number or a `Verdict` for each of several completions.

    Args:
        function: Takes `(completions, truth)` and, if it wants, `task`; may be `async`.
        name: What errors and metrics call it; the function's name if not given.

    Raises:
        UsageError: The function does not take completions and a truth.

    Example:
        >>> @group_verifier
        ... def shortest(completions, truth):
        ...     return [len(one) == min(map(len, completions)) for one in completions]
        >>> [verdict.reward for verdict in verify_group(shortest, ["four", "4"], None)]
        [0.0, 1.0]
    """

    def lift(given: Callable[..., Any]) -> FunctionGroupVerifier:
        return FunctionGroupVerifier(given, name or getattr(given, "__name__", "group"))

    return lift if function is None else lift(function)


def verify_group(
    verifier: GroupVerifier, completions: Sequence[str], truth: Any, *, task: Task | None = None
) -> list[Verdict]:
    """Call a group verifier so that one verdict per completion always comes out.

    Args:
        verifier: Any group verifier, `async` or not.
        completions: The group; none is judged without a call.
        truth: The task's truth.
        task: The task itself, where it is known.

    Returns:
        The verdicts. If the verifier raised, or did not return one for each completion, all are
        unscored, with the reason; one that is no verdict is unscored by itself.
    """
    if not completions:
        return []
    try:
        value: Any = verifier.judge_group(list(completions), truth, task=task)
        found = list(awaited(value) if inspect.isawaitable(value) else value)
    except BaseException as error:
        return [failure(error)] * len(completions)
    if len(found) != len(completions):
        reason = f"{len(found)} verdicts for {len(completions)} completions"
        return [Verdict.error(reason)] * len(completions)
    return [finished(one) for one in found]


class GuardedGroup:
    """A group verifier of unknown habits, in processes that are killed after a limit."""

    def __init__(self, verifier: GroupVerifier, timeout: float) -> None:
        """Wrap it; `timeout` in seconds for each completion of a group."""
        import cloudpickle

        self.verifier = verifier
        self.timeout = timeout
        self.name = name_of(verifier)
        try:
            cloudpickle.dumps(verifier)
        except Exception as error:
            raise UsageError(
                f"the group verifier {self.name} cannot be sent to a process that could be killed "
                f"({type(error).__name__}: {error}); open what it holds in its first call"
            ) from error
        self.pool = WorkerPool(
            functools.partial(_judged, verifier), late=Verdict.error, name=self.name
        )

    def judge_group(
        self, completions: Sequence[str], truth: Any, *, task: Task | None = None
    ) -> list[Verdict]:
        """Judge a group in a worker."""
        limit = self.timeout * len(completions)
        answer = self.pool.call_within(limit, list(completions), truth, task)
        if answer.status is not Status.CORRECT:
            return [answer] * len(completions)
        return [verdict_of(verdict) for verdict in answer.evidence["verdicts"]]

    def close(self) -> None:
        """End the worker."""
        self.pool.close()

    def __repr__(self) -> str:
        """Show the verifier and the limit."""
        return f"guarded({self.verifier!r}, timeout={self.timeout:g})"


def _judged(verifier: GroupVerifier, completions: list[str], truth: Any, task: Any) -> Any:
    """Judge a group, in the worker."""
    found = verify_group(verifier, completions, truth, task=task)
    return Verdict.correct(verdicts=[verdict.to_json() for verdict in found]).to_json()


def guarded_group(verifier: GroupVerifier, timeout: float) -> GroupVerifier:
    """Put a group verifier behind a limit, over which it is the verifier that failed.

    Those of this project keep their own time and are returned as they are.

    Args:
        verifier: The group verifier.
        timeout: Seconds for each completion of a group; 0 sets no limit.

    Raises:
        UsageError: It cannot be sent to a process.
    """
    return verifier if not timeout or bounds_itself(verifier) else GuardedGroup(verifier, timeout)


def name_of(verifier: Any) -> str:
    """Return what errors and metrics call a group verifier."""
    return str(getattr(verifier, "name", "") or type(verifier).__name__.lower())


_TABLE: dict[str, str | Callable[..., Any] | GroupVerifier] = {
    "diversity": "rlvr.verifiers.diversity:Diversity",
    "pairwise": "rlvr.verifiers.pairwise:Pairwise",
}


def register_group(
    name: str, factory: "str | Callable[..., Any] | GroupVerifier", *, replace: bool = False
) -> None:
    """Add a group verifier to the table.

    Args:
        name: `"me/name"`.
        factory: A class or function that makes one from options, its place as
            `"module:attribute"`, or a finished group verifier.
        replace: Whether one of that name may be replaced.

    Raises:
        UsageError: The name is taken, or the factory is none of these.
    """
    if name in _TABLE and not replace:
        raise UsageError(
            f"a group verifier '{name}' is registered already; pass replace=True to replace it"
        )
    place = isinstance(factory, str) and ":" in factory
    if not place and not callable(factory) and not isinstance(factory, GroupVerifier):
        raise UsageError(
            f"group verifier '{name}' needs a factory, a group verifier or 'module:attribute', got "
            f"{factory!r:.100}"
        )
    _TABLE[name] = factory


def group_names() -> list[str]:
    """Return the name of every group verifier, sorted."""
    return sorted(_TABLE)


def make_group(name: "str | GroupVerifier", **options: Any) -> GroupVerifier:
    """Make a group verifier from its name and options; a group verifier is returned as it is.

    Args:
        name: A name in the table, perhaps with options behind it: `"diversity n=3"`; or a place
            `"module:attribute"`.
        options: Its options.

    Raises:
        UsageError: The name or an option is unknown, or what was given is no group verifier.

    Example:
        >>> make_group("diversity n=3").n
        3
    """
    if not isinstance(name, str):
        if options:
            raise UsageError(f"options {sorted(options)} need a name, got {name!r:.100}")
        return check_group(name)
    key, worded_options = worded(name)
    found = _load(key)
    options = {**worded_options, **options}
    if not inspect.isclass(found) and isinstance(found, GroupVerifier):
        if options:
            raise UsageError(f"group verifier '{key}' takes no options, got {sorted(options)}")
        return found
    return check_group(built(f"group verifier '{key}'", found, options))


def describe_group(name: str) -> str:
    """Return the first sentence of a group verifier's documentation.

    Raises:
        UsageError: No group verifier has that name.

    Example:
        >>> describe_group("diversity")
        'Reward what a completion has that the others of its group do not.'
    """
    text = inspect.getdoc(_load(name)) or ""
    return " ".join(text.split("\n\n")[0].split())


def _load(name: str) -> Any:
    """Return what stands in the table under a name, or at a place."""
    found: Any = _TABLE.get(name) if name in _TABLE or ":" not in name else name
    if found is None:
        raise unknown("group verifier", name, _TABLE, "Add your own with register_group.")
    if not isinstance(found, str):
        return found
    module, _, attribute = found.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"no group verifier at '{found}': {error}") from error


def check_group(given: Any) -> GroupVerifier:
    """Return a group verifier as it is.

    Raises:
        UsageError: It is none.
    """
    if inspect.isclass(given) or not callable(getattr(given, "judge_group", None)):
        raise UsageError(
            "a group verifier has a method judge_group(completions, truth, *, task), or is a "
            f"function lifted by @group_verifier; got {given!r:.100}"
        )
    return given
