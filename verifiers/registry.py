"""Verifiers by name: one table of strings, so that registering imports nothing.

A factory takes the verifier's options as keywords and returns a verifier. Adding one is a new file
and one line in `_TABLE`; a user's own verifier is added with `register`.
"""

import functools
import importlib
import inspect
import json
import shlex
from collections.abc import Callable
from typing import Any, cast

from .errors import UsageError, unknown
from .protocol import FunctionVerifier, Verifier

Factory = Callable[..., Verifier]

_TABLE: dict[str, str | Factory | Verifier] = {
    "exact": "rlvr.verifiers.text:Exact",
    "choice": "rlvr.verifiers.text:Choice",
    "number": "rlvr.verifiers.text:Number",
    "regex": "rlvr.verifiers.forms:Regex",
    "json": "rlvr.verifiers.forms:Json",
    "format": "rlvr.verifiers.forms:Format",
    "math": "rlvr.verifiers.mathematics:MathAnswer",
    "program": "rlvr.verifiers.programs:ProgramTests",
    "sql": "rlvr.verifiers.sql:SqlResult",
    "judge": "rlvr.verifiers.judging:Judge",
}


def register(name: str, factory: str | Factory | Verifier, *, replace: bool = False) -> None:
    """Add a verifier to the table.

    Args:
        name: `"me/name"`: your namespace, a slash, the name.
        factory: A class or function that makes the verifier from options, its place as
            `"module:attribute"`, or a finished verifier that takes no options.
        replace: Whether a verifier of that name may be replaced.

    Raises:
        UsageError: The name is taken, or the factory is neither callable nor a place.
    """
    if name in _TABLE and not replace:
        raise UsageError(
            f"a verifier '{name}' is registered already; pass replace=True to replace it"
        )
    if not callable(factory) and not (isinstance(factory, str) and ":" in factory):
        raise UsageError(
            f"verifier '{name}' needs a callable or 'module:attribute', got {factory!r:.100}"
        )
    _TABLE[name] = factory


def names() -> list[str]:
    """Return every registered name, sorted."""
    return sorted(_TABLE)


def describe(name: str) -> str:
    """Return the first sentence of a verifier's documentation.

    Raises:
        UsageError: No verifier has that name.

    Example:
        >>> describe("exact")
        'Judge whether the answer is the truth, character for character.'
    """
    text = inspect.getdoc(load(name)) or ""
    return " ".join(text.split("\n\n")[0].split())


def load(name: str) -> Factory | Verifier:
    """Return what stands in the table under `name`, imported.

    Raises:
        UsageError: Nothing does, or its place does not exist.
    """
    if name not in _TABLE:
        raise unknown("verifier", name, _TABLE, "Add your own with rlvr.verifiers.register.")
    entry = _TABLE[name]
    if not isinstance(entry, str):
        return entry
    module, _, attribute = entry.partition(":")
    try:
        return cast(Factory, getattr(importlib.import_module(module), attribute))
    except (ModuleNotFoundError, AttributeError) as error:
        raise UsageError(f"verifier '{name}' is registered at '{entry}': {error}") from error


def make(name: str | Verifier, **options: Any) -> Verifier:
    """Make a verifier from its name and options; a verifier is returned as it is.

    A plain function `(completion, truth)` is lifted as by `@verifier`.

    Args:
        name: A name in the table, perhaps with options behind it, as where a text is all that can
            be given: `"exact case=false"`; or a verifier.
        options: Its options.

    Raises:
        UsageError: The name or an option is unknown, or an option that is needed is missing.

    Example:
        >>> make("exact case=false")("Paris", "PARIS").reward
        1.0
    """
    if not isinstance(name, str):
        if options:
            raise UsageError(f"options {sorted(options)} need a verifier's name, got {name!r:.100}")
        return _as_verifier(name)
    if name not in _TABLE:
        name, in_words = worded(name)
        options = {**in_words, **options}
    factory = load(name)
    if not _makes(factory):
        if options:
            raise UsageError(f"verifier '{name}' takes no options, got {sorted(options)}")
        return _as_verifier(cast(Verifier, factory))
    return _as_verifier(built(f"verifier '{name}'", factory, options))


def worded(text: str) -> tuple[str, dict[str, Any]]:
    """Read a name with options behind it; a value is JSON where it can be, else the text itself.

    Raises:
        UsageError: An option is not `name=value`, or stands twice.

    Example:
        >>> worded("number absolute=0.01 extract='[\\"boxed\\"]'")
        ('number', {'absolute': 0.01, 'extract': ['boxed']})
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{text!r:.200} is no name with options: {error}") from None
    name = words[0] if words else text
    options: dict[str, Any] = {}
    for word in words[1:]:
        option, equals, value = word.partition("=")
        if not equals or not option.isidentifier() or option in options:
            raise UsageError(
                f"'{name}': an option is name=value, given once, got '{word}'; for example "
                '"exact case=false"'
            )
        try:
            options[option] = json.loads(value)
        except json.JSONDecodeError:
            options[option] = value
    return name, options


def _as_verifier(given: object) -> Verifier:
    if inspect.isclass(given) or not callable(given):
        raise UsageError(
            f"a verifier is a name or a callable (completion, truth), got {given!r:.100}"
        )
    if inspect.isroutine(given):
        return FunctionVerifier(given, getattr(given, "__name__", "verifier"))
    return cast(Verifier, given)


def _makes(entry: Factory | Verifier) -> bool:
    """Return whether an entry makes verifiers (a class, a function of options) or is one."""
    if inspect.isclass(entry) or isinstance(entry, functools.partial):
        return True
    if not inspect.isroutine(entry):
        return False
    return list(inspect.signature(entry).parameters)[:2] != ["completion", "truth"]


def built(what: str, factory: Callable[..., Any], options: dict[str, Any]) -> Any:
    """Call a factory with its options, checked against its signature.

    Args:
        what: Kind and name of what is made, for errors: `"verifier 'math'"`.
        factory: A class or function.
        options: Its keywords.

    Raises:
        UsageError: An option is unknown, or one that is needed is missing.
    """
    parameters = inspect.signature(factory).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for option in options:
            if option not in parameters:
                raise unknown(f"option of {what}", option, parameters)
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        raise UsageError(f"{what} cannot be made: {error}") from None
    return factory(**options)
