"""A typed Python function as a tool: its JSON schema, its checked arguments, its limits.

The schema and the check of the arguments come from pydantic, the descriptions from the docstring;
both are imported when a tool is made. The check coerces what is plainly meant (`"3"` for an
integer) and refuses the rest in words that a policy can act on.

A tool runs in this process, unless it asks for a time limit: then it runs in a worker process that
is killed when the time is over. What is done to an episode's state there would be lost, so that a
tool with a limit may read the state and not change it.
"""

import functools
import inspect
import json
import pickle
import typing
from collections.abc import Callable, Mapping
from typing import Any

from ...verifiers import ModelError, Status, UsageError, Verdict, WorkerError, WorkerPool
from ...verifiers.errors import unknown
from ...verifiers.workers import MEMORY, check_timeout
from ..replies import Reply

STATE = "state"
"""A first parameter of this name is given the episode's state and hidden from the policy."""
MAX_PROBLEMS = 5
"""Wrong arguments that one refusal names."""
MAX_SHOWN = 80
"""Characters of a wrong value that a refusal shows."""
MAX_REASON = 500
"""Characters of an exception's text that a policy is shown."""
MAX_CHARS = 80_000
"""Characters that a worker sends back at most, whatever the environment then shows of them: with
twelve bytes for the longest escape they fit into a reply of the worker."""


class Refused(Exception):
    """A call that cannot be made or has failed; the text is for the policy."""


class Tool:
    """A function that a policy may call; made by `tool`, or of a plain function by a `ToolEnv`."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str = "",
        seconds: float | None = None,
        memory: int | None = MEMORY,
        workers: int | None = None,
    ) -> None:
        """Read signature and docstring; the arguments are those of `tool`."""
        self.function = function
        self.name = name or getattr(function, "__name__", "")
        if not self.name.isidentifier():
            raise UsageError(f"a tool's name is an identifier, got {self.name!r:.100}; pass name=")
        if inspect.iscoroutinefunction(function):
            raise UsageError(f"tool '{self.name}' is async; write a plain function")
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"tool '{self.name}' is a function with a signature: {error}"
            ) from error
        self.takes_state = bool(parameters) and parameters[0].name == STATE
        """Whether the episode's state is its first argument."""
        self._model = _model(self, parameters[self.takes_state :])
        self.schema: dict[str, Any] = {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self._description,
                "parameters": _untitled(self._model.model_json_schema(by_alias=True)),
            },
        }
        """What the policy is told, as chat templates and the OpenAI interface take it."""
        self.seconds = seconds
        """Seconds that a call may take, or `None`."""
        self._pool: WorkerPool | None = None
        if seconds is not None:
            check_timeout(seconds)
            self._pool = WorkerPool(
                functools.partial(_serve, function),
                timeout=seconds,
                size=workers,
                memory=memory,
                died=Verdict.limit,
                copies=True,  # a policy finds out soon what hangs: the next worker is there at once
                name=f"tool '{self.name}'",
            )

    _description = ""

    @property
    def parameters(self) -> dict[str, Any]:
        """The JSON schema of each parameter, by name."""
        return self.schema["function"]["parameters"].get("properties", {})

    def checked(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments in the types that the function declares.

        Raises:
            Refused: One is missing, unknown or of a type that cannot be meant.
        """
        from pydantic import ValidationError

        try:
            found = self._model.model_validate(arguments)
        except ValidationError as error:
            raise Refused(self._problems(error)) from None
        return {
            field.alias or name: getattr(found, name)
            for name, field in type(found).model_fields.items()
            if name in found.model_fields_set
        }

    def run(self, arguments: Mapping[str, Any], state: Any) -> "str | Reply":
        """Call the function with checked arguments.

        Returns:
            Its result as text; a `Reply` as it is.

        Raises:
            Refused: It raised, took too long or ended its process.
            WorkerError: The machinery failed.
        """
        given = (state,) if self.takes_state else ()
        if self._pool is not None:
            return self._outcome(self._pool.call(dict(arguments), *given))
        try:
            result = self.function(*given, **arguments)
            return result if isinstance(result, Reply) else shown(result)
        except (KeyboardInterrupt, WorkerError, ModelError):
            raise
        except BaseException as error:
            raise Refused(reason_of(error)) from error

    def close(self) -> None:
        """End the idle workers."""
        if self._pool is not None:
            self._pool.close()

    def __repr__(self) -> str:
        """Show the signature as the policy sees it."""
        return f"tool({self.name}({', '.join(self.parameters)}))"

    def _outcome(self, verdict: Verdict) -> str:
        """Turn what a worker sent into a result."""
        text = str(verdict.evidence.get("text", ""))
        if verdict.status is Status.CORRECT:
            return text
        if verdict.status is Status.WRONG:
            raise Refused(text)
        if verdict.status is Status.TIMEOUT:
            raise Refused(f"{self.name} took longer than {self.seconds:g} s and was stopped")
        reason = str(verdict.evidence.get("reason", ""))
        if verdict.status is Status.LIMIT:
            raise Refused(f"{self.name} ended its process (out of memory?): {reason}")
        raise WorkerError(f"tool '{self.name}': {reason}")

    def _problems(self, error: Any) -> str:
        """Say what is wrong with the arguments."""
        found = error.errors(include_url=False, include_context=False)
        lines = [self._problem(one) for one in found[:MAX_PROBLEMS]]
        if len(found) > MAX_PROBLEMS:
            lines.append(f"and {len(found) - MAX_PROBLEMS} more")
        return f"{self.name} was not called: " + "; ".join(lines)

    def _problem(self, one: Mapping[str, Any]) -> str:
        place = ".".join(str(part) for part in one["loc"])[:MAX_SHOWN]
        if one["type"] == "missing":
            return f"the argument '{place}' is missing"
        if one["type"] == "extra_forbidden" and len(one["loc"]) == 1:
            return str(unknown("argument", place, self.parameters))
        value = repr(one["input"])
        value = value if len(value) <= MAX_SHOWN else f"{value[:MAX_SHOWN]}…"
        return f"argument '{place}': {one['msg']}, got {value}"


def tool(
    function: Callable[..., Any] | None = None,
    *,
    name: str = "",
    seconds: float | None = None,
    memory: int | None = MEMORY,
    workers: int | None = None,
) -> Any:
    """Make a tool of a typed function with a docstring.

    Args:
        function: Its first parameter, if called `state`, is given the episode's state; the others
            have types and stand, by preference, in the docstring's `Args:`. It returns a text or
            JSON values, or a `Reply`, which may end the episode. What it raises is told to the
            policy, a `UsageError` in its own words.
        name: What the policy calls it; the function's name if not given.
        seconds: Of work per call, after which it is killed. It then runs in a worker process, on a
            copy of the state which it must not change.
        memory: Bytes of address space of such a worker.
        workers: Such workers at most; the number of cores if not given.

    Raises:
        UsageError: It has no docstring, a parameter has no type, or cannot be given by name.

    Example:
        >>> @tool
        ... def add(a: int, b: int = 1) -> int:
        ...     '''Add two numbers.
        ...
        ...     Args:
        ...         a: The first.
        ...         b: The second.
        ...     '''
        ...     return a + b
        >>> add.schema["function"]["parameters"]["properties"]["a"]
        {'description': 'The first.', 'type': 'integer'}
        >>> add.run(add.checked({"a": "2"}), None)
        '3'
    """
    options: dict[str, Any] = {"name": name, "seconds": seconds, "memory": memory}
    if function is None:
        return lambda given: Tool(given, workers=workers, **options)
    return Tool(function, workers=workers, **options)


def shown(result: Any) -> str:
    """Return a tool's result as text: a text as it is, other values as JSON."""
    if isinstance(result, str):
        return result
    try:
        return json.dumps(result, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return str(result)


def reason_of(error: BaseException) -> str:
    """Say what a tool raised."""
    try:
        text = str(error)[:MAX_REASON]
    except BaseException:  # an exception whose own text raises
        text = "(its message cannot be shown)"
    if isinstance(error, UsageError):
        return text
    return f"{type(error).__name__}: {text}"


def _serve(function: Callable[..., Any], arguments: dict[str, Any], *state: Any) -> Verdict:
    """Call a tool's function, in a worker."""
    before = pickle.dumps(state)
    try:
        result = function(*state, **arguments)
        text = shown(result)
    except Exception as error:
        return Verdict.wrong(text=reason_of(error))
    if isinstance(result, Reply):
        return Verdict.error("a tool with a time limit returns its result, not a Reply")
    if pickle.dumps(state) != before:
        return Verdict.error(
            "a tool with a time limit works on a copy of the state, and this one changed it; take "
            "the limit off, or bound the work inside the tool"
        )
    return Verdict.correct(text=text[:MAX_CHARS])


def _model(made: Tool, parameters: list[inspect.Parameter]) -> Any:
    """Make the pydantic model of a function's parameters, and read its docstring."""
    import docstring_parser
    from pydantic import ConfigDict, Field, create_model
    from pydantic.errors import PydanticUserError

    parsed = docstring_parser.parse(inspect.getdoc(made.function) or "")
    if not parsed.short_description:
        raise UsageError(
            f"tool '{made.name}' has no docstring; its first sentence is what the policy is told"
        )
    made._description = "\n".join(
        part for part in (parsed.short_description, parsed.long_description) if part
    )
    described = {one.arg_name: one.description for one in parsed.params}
    target = inspect.unwrap(made.function)
    target = getattr(target, "func", target)
    hints = typing.get_type_hints(
        target if inspect.isroutine(target) else type(target).__call__, include_extras=True
    )
    fields: dict[str, Any] = {}
    for number, parameter in enumerate(parameters):
        _check_parameter(made.name, parameter, hints)
        default = ... if parameter.default is parameter.empty else parameter.default
        field = Field(default, alias=parameter.name, description=described.get(parameter.name))
        fields[f"a{number}"] = (hints[parameter.name], field)
    config = ConfigDict(extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)
    try:
        model = create_model(made.name, __config__=config, **fields)
        model.model_json_schema()
    except PydanticUserError as error:
        raise UsageError(
            f"tool '{made.name}' has a parameter that no JSON value can be: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return model


def _check_parameter(name: str, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> None:
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise UsageError(f"tool '{name}': '{parameter}' cannot be given by name; name every one")
    if parameter.name not in hints:
        raise UsageError(
            f"tool '{name}': the parameter '{parameter.name}' has no type; write "
            f"`{parameter.name}: int` or the like"
        )
    if parameter.name == STATE:
        raise UsageError(f"tool '{name}': the parameter '{STATE}' must be the first")


def _untitled(schema: Any) -> Any:
    """Return a schema without the titles that pydantic makes of names."""
    if isinstance(schema, list):
        return [_untitled(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key != "title"}
    for key, value in kept.items():
        if key in ("properties", "$defs"):
            kept[key] = {name: _untitled(one) for name, one in value.items()}
        elif key not in ("default", "examples", "enum", "const"):
            kept[key] = _untitled(value)
    return kept
