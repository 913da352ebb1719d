"""From what a user has (a list, a function, a file, a Hub id) to a loader of tasks.

A loader is a callable that takes options by keyword and returns tasks. Every source becomes one, so
that `gymnasium.make(id, **options)` means the same for all of them: what the loader does not take
itself, `split` and `size`, is applied to its tasks.
"""

import functools
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..verifiers import Task, UsageError
from ..verifiers.errors import unknown
from .procedural import Drawn, Procedural, Settings, check_range, settings_of
from .selection import split_tasks, subset
from .sources import (
    COLUMNS,
    MAX_ROWS,
    RowReader,
    collect,
    file_tasks,
    hub_tasks,
    list_tasks,
    numbered,
)

Source = str | Path | Iterable[Any] | Callable[..., Any]
"""A list of tasks or rows, a generator class or function, a path, or the id of a Hub data set."""

FILE_ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".parquet")
ENV_OPTIONS: Mapping[str, Any] = {
    "verifier": None,
    "system": None,
    "template": None,
    "render_mode": None,
}
"""Options of every environment, with their defaults; the others are the loader's."""
_NO_OPTIONS = ("self", "tasks", "check")


def env_options(kind: type[Any]) -> dict[str, Any]:
    """Return the options that a class of environments takes, with their defaults.

    Raises:
        UsageError: One without a default is not among `tasks` and `verifier`.
    """
    found: dict[str, Any] = {}
    for base in kind.__mro__:
        made = vars(base).get("__init__")
        parameters = inspect.signature(made).parameters.values() if made else ()
        for one in parameters:
            if one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL) or one.name in _NO_OPTIONS:
                continue
            found.setdefault(one.name, one.default)
        if made and not any(one.kind is one.VAR_KEYWORD for one in parameters):
            break
    found["verifier"] = None
    missing = [name for name, default in found.items() if default is inspect.Parameter.empty]
    if missing:
        raise UsageError(
            f"{kind.__name__} cannot be registered: its options {missing} have no defaults; only "
            "tasks and verifier come from register()"
        )
    return {**ENV_OPTIONS, **found}


@dataclass(frozen=True, kw_only=True)
class Loader:
    """A callable that loads tasks, and the options that it takes.

    Example:
        `Loader(load=Arithmetic, options={"size": 1000, "digits": None})`
    """

    load: Callable[..., Any]
    """Returns tasks or rows, as a sequence or an iterator."""
    options: Mapping[str, Any]
    """Its options with their defaults; `inspect.Parameter.empty` for one that must be given."""
    any_option: bool = False
    """Whether it takes options that are not named."""


def loader(source: Source, name: str) -> Loader:
    """Make a loader of a source; `name` is the environment's, for ids and errors.

    Raises:
        UsageError: It is none of the kinds.
    """
    if isinstance(source, Path):
        return _of_file(source)
    if isinstance(source, str):
        return _of_text(source, name)
    if isinstance(source, type) and issubclass(source, Procedural):
        return Loader(load=source, options=settings_of(source))
    if isinstance(source, Procedural):
        return Loader(load=lambda: source, options={})
    if isinstance(source, Sequence):
        return _of_list(source, name)
    if callable(source):
        draws = next(iter(_parameters(source, name)), "") == "rng"
        return _of_drawing(source, name) if draws else _of_function(source, name)
    if isinstance(source, Iterable):
        return _of_list(tuple(item for _, item in _bounded(source, name)), name)
    raise UsageError(
        f"environment '{name}': tasks must be a list of tasks or rows, a generator, a path "
        f"({', '.join(FILE_ENDINGS)}) or 'hf:owner/name', got {source!r:.100}"
    )


def _of_text(source: str, name: str) -> Loader:
    if source.endswith(FILE_ENDINGS):
        return _of_file(source)
    if source.startswith("hf:"):
        return _of_hub(source.removeprefix("hf:"))
    if ":" in source:
        return loader(at_place(source), name)
    if source.count("/") == 1:
        return _of_hub(source)
    raise UsageError(
        f"environment '{name}': tasks={source!r:.100} is no path ({', '.join(FILE_ENDINGS)}), no "
        "Hub data set ('hf:owner/name') and no place ('module:attribute')"
    )


def at_place(place: str) -> Any:
    """Import what stands at `"module:attribute"`.

    Raises:
        UsageError: Nothing does.
    """
    module, _, attribute = place.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"nothing at '{place}': {error}; expected 'module:attribute'") from error


def _of_file(path: str | Path) -> Loader:
    load = functools.partial(file_tasks, path=path)
    return Loader(load=load, options={"path": path, **COLUMNS})


def _of_hub(dataset: str) -> Loader:
    options = {"config": None, "split": "train", **COLUMNS}
    return Loader(load=functools.partial(hub_tasks, dataset), options=options)


def _of_list(items: Sequence[Any], name: str) -> Loader:
    return Loader(load=functools.partial(list_tasks, tuple(items), name), options=COLUMNS)


def _parameters(function: Callable[..., Any], name: str) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"environment '{name}': {function!r:.100} is no loader: {error}"
        ) from error


def _of_drawing(function: Callable[..., Any], name: str) -> Loader:
    """Make a loader of a function `(rng, **settings)` that draws one problem."""
    reader = RowReader()
    load = functools.partial(
        Drawn, function, lambda row: reader.task(row, f"{name}: a drawn row", name), name
    )
    inner = _of_function(functools.partial(function, None), name)
    options = {"size": Settings.size, "seed": Settings.seed, "split": Settings.split}
    return Loader(load=load, options={**options, **inner.options}, any_option=inner.any_option)


def _of_function(function: Callable[..., Any], name: str) -> Loader:
    """Make a loader of a callable, its options read off its signature."""
    options: dict[str, Any] = {}
    any_option = False
    for parameter in _parameters(function, name).values():
        if parameter.kind is parameter.VAR_KEYWORD:
            any_option = True
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise UsageError(
                f"environment '{name}': a loader takes its options by keyword, "
                f"'{parameter}' of {function!r:.100} cannot be"
            )
        else:
            options[parameter.name] = parameter.default
    taken = sorted(set(options) & set(ENV_OPTIONS))
    if taken:
        raise UsageError(
            f"environment '{name}': the options {taken} belong to the environment; rename them"
        )
    return Loader(load=function, options=options, any_option=any_option)


def check_options(
    found: Loader,
    options: Iterable[str],
    name: str,
    own: Iterable[str] = ENV_OPTIONS,
) -> None:
    """Refuse an option that neither the loader nor the environment (`own`) takes.

    Raises:
        UsageError: Lists what there is.
    """
    known = {*found.options, *own, "split", "size"}
    for option in options:
        if option not in known and not found.any_option:
            raise unknown(f"option of environment '{name}'", option, known)


def load_from(found: Loader, options: Mapping[str, Any], name: str) -> Sequence[Task]:
    """Call a loader and bring what it returns into form.

    Args:
        found: The loader.
        options: Its options, `split` and `size`; checked against what it takes.
        name: The environment's id, for ids of rows and errors.

    Raises:
        UsageError: An option is unknown, missing or out of range.
        TaskError: A row cannot be read.
    """
    check_options(found, options, name)
    for option, default in found.options.items():
        if default is inspect.Parameter.empty and option not in options:
            raise UsageError(f"environment '{name}' needs the option {option}=…")
    given = dict(options)
    own = {"split", "size"} - ({*found.options} if not found.any_option else {"split", "size"})
    rest = {option: given.pop(option, None) for option in own}
    size = rest.get("size")
    if size is not None:
        check_range("size", size, 1)
    result = found.load(**given)
    split = rest.get("split")
    tasks = _in_form(result, name, size if split is None else None)
    if split is not None:
        tasks = split_tasks(tasks, split)
    return tasks if size is None else subset(tasks, size)


def _in_form(result: Any, name: str, size: int | None) -> Sequence[Task]:
    """Return a sequence of tasks as it is, and anything else as a tuple of tasks."""
    if isinstance(result, Procedural | tuple) and len(result) and isinstance(result[0], Task):
        return result
    if isinstance(result, str) or not isinstance(result, Iterable):
        raise UsageError(
            f"environment '{name}': its loader must return tasks or rows, got {result!r:.100}"
        )
    return collect(numbered(result, name), RowReader(), name, size)


def _bounded(items: Iterable[Any], name: str) -> Iterable[tuple[int, Any]]:
    """Number the items of an iterator, and stop one that does not end."""
    for number, item in enumerate(items):
        if number >= MAX_ROWS:
            raise UsageError(
                f"environment '{name}': the generator has more than {MAX_ROWS} items; pass a "
                "function that draws one, `def draw(rng): ...`"
            )
        yield number, item
