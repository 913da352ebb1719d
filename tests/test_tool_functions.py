"""A typed function as a tool: its schema, its arguments, its limits."""

import enum
import json
import time
from datetime import date
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from rlvr.envs import Reply, Tool, tool
from rlvr.envs.tools import Refused
from rlvr.verifiers import UsageError, WorkerError


class Colour(enum.Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


class Point(BaseModel):
    """A place."""

    x: int
    title: str = ""


def paint(
    colour: Colour,
    at: Point,
    size: Annotated[int, Field(ge=1)] = 2,
    mode: Literal["fill", "line"] = "fill",
    days: list[date] | None = None,
    ratio: float = 0.5,
    model_json: str = "",
    copy: bool = False,
) -> str:
    """Paint a point.

    It stays painted.

    Args:
        colour: Which colour.
        at: Where.
        size: How thick,
            in pixels.
    """
    return f"{colour} {at} {size} {mode} {days} {ratio} {model_json} {copy}"


def test_the_schema_comes_from_signature_and_docstring() -> None:
    function = Tool(paint).schema["function"]
    assert function["name"] == "paint"
    assert function["description"] == "Paint a point.\nIt stays painted."
    parameters = function["parameters"]
    assert parameters["required"] == ["colour", "at"]
    assert parameters["additionalProperties"] is False
    assert parameters["properties"]["size"] == {
        "default": 2, "description": "How thick,\nin pixels.", "minimum": 1, "type": "integer",
    }  # fmt: skip
    assert parameters["properties"]["mode"]["enum"] == ["fill", "line"]
    assert "title" in parameters["$defs"]["Point"]["properties"]
    assert "title" not in parameters
    assert json.loads(json.dumps(function)) == function


def test_what_is_plainly_meant_is_coerced() -> None:
    made = Tool(paint)
    given = {"colour": "red", "at": {"x": "3"}, "size": "4", "days": ["2024-02-29"], "copy": "true"}
    found = made.checked(given)
    assert found == {
        "colour": Colour.RED, "at": Point(x=3), "size": 4, "days": [date(2024, 2, 29)],
        "copy": True,
    }  # fmt: skip
    assert made.checked({"colour": "red", "at": {"x": 1}, "model_json": 5})["model_json"] == "5"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "the argument 'colour' is missing; the argument 'at' is missing"),
        ({"colour": "green", "at": {"x": 1}}, "'colour': Input should be 'red' or 'blue'"),
        ({"colour": "red", "at": {"x": "y"}}, "argument 'at.x': Input should be a valid integer"),
        ({"colour": "red", "at": {}}, "the argument 'at.x' is missing"),
        ({"colour": "red", "at": {"x": 1}, "sise": 3}, "no argument 'sise'; did you mean 'size'?"),
        ({"colour": "red", "at": {"x": 1}, "size": 0}, "greater than or equal to 1, got 0"),
        ({"colour": "red", "at": {"x": 1}, "size": 1.5}, "valid integer, got a number with a frac"),
        ({"colour": "red", "at": {"x": 1}, "ratio": float("inf")}, "finite number, got inf"),
        ({"colour": "red", "at": {"x": 1}, "а0": 1}, "no argument 'а0'"),
        ({"colour": "red", "at": {"x": 1}, "copy": "perhaps"}, "valid boolean"),
        ({"colour": "red", "at": "9" * 10_000}, "argument 'at'"),
        ({f"k{i}": 1 for i in range(50)}, "and 47 more"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_message(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(Refused) as caught:
        Tool(paint).checked(arguments)
    text = str(caught.value)
    assert message in text
    assert text.startswith("paint was not called: ")
    assert len(text) < 2000


def test_defaults_are_the_functions_own() -> None:
    def extend(items: list[int], more: int = 7) -> list[int]:
        """Extend a list."""
        return [*items, more]

    made = Tool(extend)
    assert made.checked({"items": ["1"]}) == {"items": [1]}
    assert made.run({"items": [1]}, None) == "[1, 7]"


def test_a_first_parameter_named_state_is_given_and_hidden() -> None:
    def put(state: dict[str, int], key: str, value: int) -> None:
        """Put a value."""
        state[key] = value

    made, box = Tool(put), {}
    assert list(made.parameters) == ["key", "value"]
    assert made.run({"key": "a", "value": 1}, box) == "null"
    assert box == {"a": 1}
    with pytest.raises(Refused, match="no argument 'state'"):
        made.checked({"state": {}, "key": "a", "value": 1})


def _no_docstring(x: int) -> int:
    return x


def _no_type(x) -> int:  # noqa: ANN001
    """Miss a type."""
    return x


def _stars(*x: int) -> int:
    """Take any number."""
    return sum(x)


def _positional(x: int, /) -> int:
    """Take by place."""
    return x


def _late_state(x: int, state: int) -> int:
    """Ask for the state late."""
    return x


def _no_json(x: object, y: Tool) -> int:
    """Take what no JSON value is."""
    return 0


async def _async(x: int) -> int:
    """Wait."""
    return x


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_no_docstring, "'_no_docstring' has no docstring"),
        (_no_type, "'x' has no type"),
        (_stars, r"'\*x: int' cannot be given by name"),
        (_positional, "cannot be given by name"),
        (_late_state, "'state' must be the first"),
        (_no_json, "no JSON value can be"),
        (_async, "is async"),
        (lambda x: x, "a tool's name is an identifier, got '<lambda>'"),
    ],
)
def test_what_is_no_tool_is_refused_when_it_is_made(function: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Tool(function)


def test_what_a_tool_raises_is_for_the_policy() -> None:
    class Bad(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    errors: list[tuple[BaseException, str]] = [
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (UsageError("no file 'x'"), "no file 'x'"),
        (SystemExit(3), "SystemExit: 3"),
        (Bad(), "Bad: (its message cannot be shown)"),
        (RecursionError("x" * 9999), "RecursionError: " + "x" * 500),
    ]

    def fail(number: int) -> None:
        """Fail."""
        raise errors[number][0]

    for number, (_, message) in enumerate(errors):
        with pytest.raises(Refused) as caught:
            Tool(fail).run({"number": number}, None)
        assert str(caught.value) == message


def test_machinery_and_ctrl_c_are_not_the_policys() -> None:
    def broken(stop: bool) -> None:
        """Fail."""
        raise KeyboardInterrupt if stop else WorkerError("no process")

    for stop, kind in ((True, KeyboardInterrupt), (False, WorkerError)):
        with pytest.raises(kind):
            Tool(broken).run({"stop": stop}, None)


def test_results_are_texts_or_json() -> None:
    def give(which: int) -> Any:
        """Give something."""
        nested: Any = []
        nested.append(nested)
        return ["text", {"é": [1.5, None]}, None, (1, 2), {1: date(2024, 1, 2)}, nested][which]

    made = Tool(give)
    texts = [made.run({"which": i}, None) for i in range(6)]
    assert texts == [
        "text",
        '{"é": [1.5, null]}',
        "null",
        "[1, 2]",
        '{"1": "2024-01-02"}',
        "[[...]]",
    ]


def test_a_reply_is_passed_on() -> None:
    def submit(answer: str) -> Reply:
        """Submit."""
        return Reply(done=True, answer=answer)

    assert Tool(submit).run({"answer": "4"}, None) == Reply(done=True, answer="4")


def spin(seconds: float) -> str:
    """Use the processor."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "done"


def grab(state: list[int], change: bool) -> str:
    """Read the state, or change it."""
    if change:
        state.append(1)
    return str(sum(state))


def hog(megabytes: int) -> str:
    """Take memory."""
    return str(len(bytearray(megabytes << 20)))


def flood(count: int) -> str:
    """Say much."""
    return "\U0001f600" * count


def end(status: int) -> None:
    """End the process."""
    import os

    os._exit(status)


def test_a_tool_over_its_time_is_stopped_and_the_next_call_works() -> None:
    made = tool(spin, seconds=0.5, workers=1)
    with pytest.raises(Refused, match=r"spin took longer than 0.5 s and was stopped"):
        made.run(made.checked({"seconds": 600}), None)
    assert made.run({"seconds": 0.0}, None) == "done"
    made.close()


def test_a_tool_with_a_limit_reads_a_copy_of_the_state() -> None:
    made = tool(grab, seconds=5.0, workers=1)
    state = [2, 3]
    assert made.run({"change": False}, state) == "5"
    with pytest.raises(WorkerError, match="works on a copy of the state, and this one changed it"):
        made.run({"change": True}, state)
    with pytest.raises(WorkerError, match="cannot be sent to a worker"):
        made.run({"change": False}, (i for i in range(3)))
    made.close()


def test_a_tool_that_takes_memory_floods_or_ends_its_process_is_refused() -> None:
    made = tool(hog, seconds=20.0, workers=1, memory=512 << 20)
    with pytest.raises(Refused, match="MemoryError"):
        made.run({"megabytes": 4000}, None)
    made.close()
    made = tool(flood, seconds=20.0, workers=1)
    assert len(made.run({"count": 5_000_000}, None)) == 80_000  # pyright: ignore
    made.close()
    made = tool(end, seconds=20.0, workers=1)
    with pytest.raises(Refused, match="end ended its process"):
        made.run({"status": 0}, None)
    made.close()
