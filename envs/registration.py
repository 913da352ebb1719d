"""Environments by id: `register` in one call, `make` with "did you mean".

What an environment is made of (tasks, verifier, defaults) stands in a table keyed by its id; the
`EnvSpec` of gymnasium holds the id alone, because it is copied at every `make`. Tasks are loaded at
the first `make` with the same options and shared by the environments made afterwards.

The table is this process's own: a child that is spawned (not forked) knows what its imports
register. Register in a module, and make `"module:id"`.
"""

import contextlib
import functools
import importlib
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gymnasium

from .. import verifiers
from ..verifiers import Task, UsageError, Verifier
from ..verifiers.errors import unknown
from .base import TaskEnv, check_truths
from .loading import Loader, Source, at_place, check_options, env_options, load_from, loader
from .prompt import PromptEnv

if TYPE_CHECKING:
    from .vector import TextVectorEnv

CACHED = 16
"""Loaded task sequences kept, the least recently used dropped; GSM8K takes some ten megabytes."""


@dataclass(kw_only=True)
class _Entry:
    """One environment: its parts, resolved when first needed."""

    source: Source
    verifier: Verifier | str | None
    env: type[TaskEnv] | str
    description: str
    defaults: Mapping[str, Any]
    loader: Loader | None = None
    judge: Verifier | None = None

    @property
    def kind(self) -> type[TaskEnv]:
        """The class of the environment, imported when first needed."""
        if isinstance(self.env, str):
            self.env = _env_class(at_place(self.env), self.env)
        return self.env


@dataclass(kw_only=True)
class _Loaded:
    """Tasks that environments share, and which verifiers have read their truths."""

    tasks: Sequence[Task]
    checked: list[Verifier | str | None] = field(default_factory=list)


_TABLE: dict[str, _Entry] = {}
_LOADED: OrderedDict[Any, _Loaded] = OrderedDict()
_LOCK = threading.RLock()


def register(
    id: str,
    *,
    tasks: Source,
    verifier: Verifier | str | None = None,
    env: type[TaskEnv] | str | None = None,
    description: str = "",
    replace: bool = False,
    **defaults: Any,
) -> None:
    """Make an environment of tasks and a verifier, known to `gymnasium.make`.

    Args:
        id: `"me/Task-v0"`.
        tasks: One of: a list (or generator) of `Task` or of rows; a path to `.jsonl`, `.json` or
            `.parquet`; `"hf:owner/name"`; a `Procedural` class; a function `(rng, **settings)` that
            draws one problem; a function `(**options)` that returns tasks or rows; the place of
            any of these, `"module:attribute"`.
        verifier: A verifier, a registered name, or a place; not needed where `env` judges itself.
        env: A class of environments, or its place; by default `ToolEnv` where `tools=` is given,
            else `PromptEnv`.
        description: One line for lists.
        replace: Whether an environment of that id may be replaced.
        defaults: Options of `make` that this environment sets: `split`, `size`, columns
            (`prompt="question"`, `truth="answer"`, `solution=`, `prompt_template=`), `config` of a
            Hub data set, settings of a generator, `system`, `template`; of several turns `turns`;
            with tools `tools=[function, …]`, `form`, `final`.

    Raises:
        UsageError: The id is taken or malformed, or `tasks`, `verifier` or an option is not one.

    Example:
        >>> from rlvr.verifiers import verifier
        >>> same = verifier(lambda completion, truth: completion == truth)
        >>> register("doc/Capitals-v0", tasks=[{"question": "France?", "answer": "Paris"}],
        ...          verifier=same, replace=True)
        >>> env = make("doc/Capitals-v0")
        >>> env.reset(seed=0)[0], env.step("Paris")[1]
        ('France?', 1.0)
    """
    if (id in _TABLE or id in gymnasium.registry) and not replace:
        raise UsageError(f"an environment '{id}' is registered already; pass replace=True")
    kind = _kind(id, env, defaults)
    _check_verifier(id, verifier, kind)
    entry = _Entry(
        source=tasks, verifier=verifier, env=kind, description=description, defaults=defaults
    )
    if not (isinstance(tasks, str) and ":" in tasks):
        entry.loader = loader(tasks, id)
        if not isinstance(kind, str):
            check_options(entry.loader, defaults, id, env_options(kind))
    with _LOCK:
        _to_gymnasium(id)
        _TABLE[id] = entry
        for key in [key for key in _LOADED if key[0] == id]:
            del _LOADED[key]


def _kind(
    id: str, env: type[TaskEnv] | str | None, defaults: Mapping[str, Any]
) -> type[TaskEnv] | str:
    """Return the class of an environment, or where it stands."""
    if env is None:
        if "tools" not in defaults:
            return PromptEnv
        from .tools import ToolEnv

        return ToolEnv
    if isinstance(env, str):
        if ":" not in env:
            raise UsageError(f"environment '{id}': env={env!r:.100} is no place 'module:Class'")
        return env
    return _env_class(env, id)


def _env_class(found: Any, name: str) -> type[TaskEnv]:
    if not (isinstance(found, type) and issubclass(found, TaskEnv)):
        raise UsageError(
            f"'{name}': an environment is a class made of PromptEnv, DialogueEnv or ToolEnv, got "
            f"{found!r:.100}"
        )
    return found


def _check_verifier(id: str, verifier: Verifier | str | None, kind: type[TaskEnv] | str) -> None:
    """Refuse what is no verifier, and none where the environment needs one."""
    if verifier is None:
        if kind is PromptEnv:
            raise UsageError(f"environment '{id}' needs a verifier: pass verifier=")
        return
    if isinstance(verifier, str):
        if ":" not in verifier and verifier not in verifiers.names():
            raise unknown("verifier", verifier, verifiers.names())
    elif not callable(verifier):
        raise UsageError(f"environment '{id}': a verifier is callable, got {verifier!r:.100}")


def _to_gymnasium(id: str) -> None:
    """Enter an id into gymnasium's registry."""
    if not isinstance(id, str) or ":" in id:
        raise UsageError(f"an environment's id is a text without ':', got {id!r}; use 'me/Task-v0'")
    before = gymnasium.registry.pop(id, None)
    try:
        gymnasium.register(
            id,
            entry_point="rlvr.envs.registration:build",
            vector_entry_point="rlvr.envs.registration:build_vector",
            order_enforce=False,
            kwargs={"env_id": id},
        )
    except gymnasium.error.Error as error:
        if before is not None:
            gymnasium.registry[id] = before
        raise UsageError(
            f"'{id}' cannot be registered: {error}; use an id like 'me/Task-v0'"
        ) from error


def names() -> dict[str, str]:
    """Return the id of every environment of ours, sorted, with its one-line description."""
    return {id: _TABLE[id].description for id in sorted(_TABLE)}


def options(id: str) -> dict[str, Any]:
    """Return every option that `make(id)` takes, with its default.

    Raises:
        UsageError: No such environment.
    """
    entry = _entry(id)
    known = _loader(id, entry).options
    return {"split": None, "size": None, **known, **_own_options(entry.kind), **entry.defaults}


def make(id: str, **options: Any) -> gymnasium.Env[str, str]:
    """Make an environment: `gymnasium.make` with errors that help.

    Args:
        id: `"rlvr/GCD-v0"`, or `"module:id"` to import `module` first.
        options: Those of the environment, and of `gymnasium.make`.

    Raises:
        UsageError: The id, the module or an option is unknown.

    Example:
        >>> make("rlvr/Arithmetic-v0", digits=1).reset(options={"index": 0})[0]
        '5 + 2 = ?'
    """
    return gymnasium.make(_known(id), **options)


def make_vec(id: str, num_envs: int = 1, **options: Any) -> gymnasium.vector.VectorEnv:
    """Make a vector environment: `gymnasium.make_vec` with errors that help.

    Raises:
        UsageError: The id, the module or an option is unknown.
    """
    return gymnasium.make_vec(_known(id), num_envs=num_envs, **options)


def _known(id: str) -> str:
    """Import the module before the colon; return the id, which must exist."""
    module, _, name = str(id).rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UsageError(f"'{id}': cannot import '{module}': {error}") from error
    if name not in gymnasium.registry:
        hint = (
            "Register yours first, in a file for --import, or write 'module:id' for the module "
            "that does."
        )
        raise unknown("environment", name, _TABLE, hint)
    return name


def load_tasks(id: str, **options: Any) -> Sequence[Task]:
    """Return the tasks that `make(id, **options)` would pose.

    Raises:
        UsageError: The id or an option is unknown.
        TaskError: A row cannot be read.
    """
    entry = _entry(_known(id))
    own = _own_options(entry.kind)
    chosen = {k: v for k, v in {**entry.defaults, **options}.items() if k not in own}
    return _loaded(id.rpartition(":")[2], entry, chosen).tasks


def build(env_id: str, **options: Any) -> TaskEnv:
    """Make the environment `env_id`; gymnasium's entry point.

    Raises:
        UsageError: An option is unknown or out of range.
        TaskError: A row or its truth cannot be read.
    """
    entry = _entry(env_id)
    kind: Any = entry.kind
    chosen = {**entry.defaults, **options}
    known = _own_options(kind)
    check_options(_loader(env_id, entry), chosen, env_id, known)
    own = {option: chosen.pop(option) for option in known if option in chosen}
    with _LOCK:
        loaded = _loaded(env_id, entry, chosen)
        given = own.pop("verifier", None)
        judge = _judge(entry) if given is None else _resolve(given)
        mark = entry.verifier if given is None else given
        if isinstance(loaded.tasks, list | tuple) or not _generated(loaded.tasks):
            if not any(mark is known or mark == known for known in loaded.checked):
                check_truths(loaded.tasks, judge)
                loaded.checked.append(mark)
            return kind(loaded.tasks, judge, check=False, **own)
    return kind(loaded.tasks, judge, **own)


def build_vector(num_envs: int, env_id: str, **options: Any) -> "TextVectorEnv":
    """Make `num_envs` environments that run side by side; gymnasium's vector entry point.

    Args:
        num_envs: How many.
        env_id: Which.
        options: `autoreset_mode` and `threads` of `TextVectorEnv`, `max_episode_steps`,
            `transforms` (functions from an environment to a wrapped one, the innermost first), and
            the environment's own.
    """
    from .vector import TextVectorEnv

    steps = options.pop("max_episode_steps", None)
    settings = {key: options.pop(key) for key in ("autoreset_mode", "threads") if key in options}
    transforms = tuple(options.pop("transforms", ()))

    def one() -> gymnasium.Env[str, str]:
        env = build(env_id, **options)
        for transform in transforms:
            env = transform(env)
        return env if steps is None or steps == -1 else gymnasium.wrappers.TimeLimit(env, steps)

    return TextVectorEnv([one] * num_envs, **settings)


def _entry(id: str) -> _Entry:
    if id not in _TABLE:
        hint = "In a spawned process, make 'module:id' so that it is registered there too."
        raise unknown("environment", id, _TABLE, hint)
    return _TABLE[id]


def _loader(id: str, entry: _Entry) -> Loader:
    if entry.loader is None:
        entry.loader = loader(entry.source, id)
    return entry.loader


def _resolve(verifier: Verifier | str) -> Verifier:
    """Make a verifier of a name or a place."""
    # "judge ask=module:function" is a name with options, not a place
    place = isinstance(verifier, str) and ":" in verifier.partition(" ")[0]
    found = at_place(verifier) if place else verifier  # pyright: ignore
    return verifiers.make(found)


def _judge(entry: _Entry) -> Verifier | None:
    if entry.judge is None and entry.verifier is not None:
        entry.judge = _resolve(entry.verifier)
    return entry.judge


@functools.cache
def _own_options(kind: type[TaskEnv]) -> dict[str, Any]:
    """Return `env_options`, found once."""
    return env_options(kind)


def _generated(tasks: Sequence[Task]) -> bool:
    """Whether looking at every task would draw every task."""
    from .procedural import Procedural

    return isinstance(tasks, Procedural)


def _loaded(id: str, entry: _Entry, options: Mapping[str, Any]) -> _Loaded:
    """Return the tasks for the options, loaded once."""
    found = _loader(id, entry)
    with _LOCK:
        key = None
        with contextlib.suppress(TypeError):
            key = (id, *sorted((k, type(v).__name__, v) for k, v in options.items()))
            key = (*key, _stamp(found, options))
            hash(key)
        if key is not None and key in _LOADED:
            _LOADED.move_to_end(key)
            return _LOADED[key]
        loaded = _Loaded(tasks=load_from(found, options, id))
        if key is not None:
            _LOADED[key] = loaded
            while len(_LOADED) > CACHED:
                _LOADED.popitem(last=False)
        return loaded


def _stamp(found: Loader, options: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return what changes when the file behind the tasks does."""
    path = options.get("path", found.options.get("path"))
    try:
        state = os.stat(path) if isinstance(path, str | os.PathLike) else None
    except OSError:
        return None
    return None if state is None else (state.st_mtime_ns, state.st_size)
