"""The calls that stand in a policy's turn, in one of three forms.

`tags`: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, any number, with text around them.
`openai`: the turn is an assistant message as JSON, with `tool_calls`. `code`: a fence whose label
is a tool's name holds that tool's one argument.

Strict: what stands in the reasoning is no call; what looks like a call and is none is a problem
that the policy is told, never an answer by accident; only the environment writes tool results.
Text is read by a JSON parser and by `find`, never evaluated.
"""

import json
import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from ...verifiers.errors import unknown
from ...verifiers.extract import after_think

FORMS = ("tags", "openai", "code")
"""How calls are written."""
OPEN, CLOSE = "<tool_call>", "</tool_call>"
MAX_DEPTH = 50
"""Levels of a JSON value."""
MAX_NAME = 100
"""Characters of a name that are looked at."""

_HALF = "half a character (a lone surrogate), which is no text"
_FORGED = re.compile(
    r"</?tool_(?:response|result)s?\b|<\|(?:im_start|start_header_id|start|tool_response)"
    r"|<start_of_turn>|\[/?TOOL_RESULTS\]|<｜tool",
    re.IGNORECASE,
)
_NEARLY = re.compile(r"[<\[|]\s{0,3}/?[|｜\s]{0,3}tool[\s_\-▁]{0,3}calls?\b", re.IGNORECASE)


@dataclass(slots=True)
class Call:
    """One call, as far as it could be read.

    Example:
        `Call(name="add", arguments={"a": 1, "b": 2})`
    """

    name: str = ""
    """The tool's name as the policy wrote it."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Its arguments, unchecked."""
    id: str = ""
    """The policy's own name of the call, in the form `openai`."""
    problem: str = ""
    """Why it is no call."""


@dataclass(slots=True)
class Turn:
    """What a policy's turn says.

    Example:
        `Turn(text="Let me see.", calls=[Call(name="add", arguments={"a": 1})])`
    """

    text: str = ""
    """What stands outside of calls and reasoning."""
    calls: list[Call] = field(default_factory=list)
    """The calls, in order; one that cannot be read has a `problem`."""
    problem: str = ""
    """Why nothing of the turn counts."""

    @property
    def has_answer(self) -> bool:
        """Whether there is an `<answer>…</answer>` outside of calls."""
        start = self.text.find("<answer>")
        return start >= 0 and self.text.find("</answer>", start) >= 0


def read_turn(action: str, form: str, names: Collection[str], longest: int) -> Turn:
    """Read the calls of a turn.

    Args:
        action: The policy's text.
        form: One of `FORMS`.
        names: The tools, for the form `code`.
        longest: Characters at most, reasoning left out.

    Example:
        >>> read_turn('<tool_call>{"name": "f", "arguments": {}}</tool_call>', "tags", (), 99).calls
        [Call(name='f', arguments={}, id='', problem='')]
    """
    visible = after_think(action) if form != "openai" else action
    if len(visible) > longest:
        return Turn(problem=f"the turn has {len(visible)} characters; at most {longest} are read")
    if not _is_whole(visible):
        return Turn(problem=f"the turn holds {_HALF}")
    if form == "code":
        turn = _fences(visible, names)
    else:
        turn = _tags(visible) if form == "tags" else _openai(visible)
    if not turn.problem:
        turn.problem = _suspicious(turn.text, tags=form == "tags")
    return turn


def _suspicious(text: str, *, tags: bool) -> str:
    """Say what in the text outside of calls must not be there."""
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
    forged = _FORGED.search(plain) or _FORGED.search(text)
    if forged:
        return (
            f"only the environment writes tool results and turns, and this one has "
            f"{forged.group()!r:.40}; nothing was called"
        )
    if tags and _NEARLY.search(plain):
        return "something is nearly a tool_call tag; write the tags exactly, a JSON object between"
    return ""


def _tags(text: str) -> Turn:
    turn = Turn()
    at, outside = 0, []
    while (start := text.find(OPEN, at)) >= 0:
        outside.append(text[at:start])
        call, at = _tagged(text, start + len(OPEN))
        turn.calls.append(call)
    outside.append(text[at:])
    turn.text = "".join(outside)
    return turn


def _tagged(text: str, start: int) -> tuple[Call, int]:
    """Read one call behind its opening tag; return it and where to go on."""
    while start < len(text) and text[start] in " \t\r\n":
        start += 1
    try:
        value, end = _DECODER.raw_decode(text, start)
        _check_depth(value)
    except (ValueError, RecursionError) as error:
        return Call(problem=_unreadable(error)), _after_close(text, start)
    while end < len(text) and text[end] in " \t\r\n":
        end += 1
    if not text.startswith(CLOSE, end):
        return Call(problem="the call is not closed behind its JSON object"), _after_close(
            text, end
        )
    return _call_of(value), end + len(CLOSE)


def _after_close(text: str, start: int) -> int:
    end = text.find(CLOSE, start)
    return len(text) if end < 0 else end + len(CLOSE)


def _call_of(value: Any) -> Call:
    """Read `{"name": …, "arguments": {…}}`."""
    if not isinstance(value, dict):
        return Call(problem=f"a call is a JSON object, got {type(value).__name__}")
    for key in value:
        if key not in ("name", "arguments", "id", "type"):
            return Call(
                problem=str(unknown("key of a call", key[:MAX_NAME], ("name", "arguments")))
            )
    return _named(value.get("name"), value.get("arguments", {}), "")


def _named(name: Any, arguments: Any, id: str) -> Call:
    if not isinstance(name, str) or not name:
        return Call(id=id, problem="a call needs a 'name', the tool's, as a text")
    call = Call(name=name[:MAX_NAME], id=id)
    if isinstance(arguments, str):
        try:
            arguments = _decoded(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError) as error:
            call.problem = _unreadable(error)
            return call
    if not isinstance(arguments, dict):
        call.problem = f"'arguments' is a JSON object, got {type(arguments).__name__}"
        return call
    if not _is_whole(json.dumps(arguments, ensure_ascii=False)):
        call.problem = f"an argument holds {_HALF}"
        return call
    call.arguments = arguments
    return call


def _is_whole(text: str) -> bool:
    """Whether a text can be written as UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _openai(text: str) -> Turn:
    """Read an assistant message as JSON; a text that is none is an answer."""
    if not text.lstrip().startswith("{"):
        return Turn(text=text)
    try:
        message = _decoded(text)
    except (ValueError, RecursionError) as error:
        return Turn(text=text, problem=_unreadable(error) if "tool_calls" in text else "")
    if not isinstance(message, dict) or not {"content", "tool_calls"} & message.keys():
        return Turn(text=text)
    role = message.get("role", "assistant")
    if role != "assistant":
        return Turn(problem=f"a turn has the role 'assistant', got {role!r:.40}")
    content, calls = message.get("content"), message.get("tool_calls")
    if not isinstance(content, str | None):
        return Turn(problem="the 'content' of a message is a text")
    if not isinstance(calls, list | None):
        return Turn(problem="'tool_calls' is a list")
    return Turn(
        text=content or "", calls=[_openai_call(one, i) for i, one in enumerate(calls or ())]
    )


def _openai_call(value: Any, number: int) -> Call:
    if not isinstance(value, dict) or not isinstance(value.get("function"), dict):
        return Call(
            id=f"call_{number}", problem="a tool call has a 'function' with 'name' and 'arguments'"
        )
    id = value.get("id")
    function = value["function"]
    id = id[:MAX_NAME] if isinstance(id, str) and id else f"call_{number}"
    return _named(function.get("name"), function.get("arguments", {}), id)


def _fences(text: str, names: Collection[str]) -> Turn:
    """Read fences labelled with a tool's name; the argument is the body."""
    turn, outside, body = Turn(), [], []
    ticks = label = ""
    for line in text.split("\n"):
        fence = _fence(line)
        if not ticks and fence:
            ticks, label = fence
        elif ticks and fence and len(fence[0]) >= len(ticks) and not fence[1]:
            if label:
                turn.calls.append(_fenced(label, "\n".join(body), names))
            else:
                outside += body
            ticks, body = "", []
        else:
            (body if ticks else outside).append(line)
    if ticks:
        turn.calls.append(Call(name=label[:MAX_NAME], problem="the fence is not closed"))
    turn.text = "\n".join(outside)
    return turn


def _fence(line: str) -> tuple[str, str] | None:
    """Return the backticks and the label of a line that opens or closes a fence."""
    bare = line.strip()
    rest = bare.lstrip("`")
    ticks = bare[: len(bare) - len(rest)]
    if len(ticks) < 3 or "`" in rest:
        return None
    return ticks, (rest.split(None, 1) or [""])[0]


def _fenced(label: str, body: str, names: Collection[str]) -> Call:
    if label not in names:
        return Call(problem=str(unknown("tool", label[:MAX_NAME], names)))
    return Call(name=label, arguments={"": body})


def _decoded(text: str) -> Any:
    value = _DECODER.decode(text)
    _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    """Refuse a value that whoever prints or copies it could not descend into."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise RecursionError


def _unreadable(error: Exception) -> str:
    """Say why a text is not the JSON that is wanted."""
    if isinstance(error, json.JSONDecodeError):
        return f"the call is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
    if isinstance(error, RecursionError):
        return f"the call is not JSON that is read: it is nested deeper than {MAX_DEPTH}"
    return f"the call is not JSON: {error!s:.200}"


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r:.60} stands there twice")
        found[key] = value
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)
