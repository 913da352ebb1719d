"""Policies that answer messages with messages and show no tokens: endpoints, people at a keyboard.

Such a policy can be evaluated and not trained. What it says is kept twice: as the text that the
environment reads, its calls written the way the environment reads them, and as the messages that a
chat interface wants to see again, where every call is answered under its name.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .types import Sampling, StopReason

UNANSWERED = "Error: nothing was called"
"""What a call is told that the environment did not answer."""


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """A call that a chat interface reports apart from the text.

    Example:
        `ToolCall(id="call_1", name="add", arguments='{"a": 1, "b": 2}')`
    """

    id: str
    """Under which its result is to be sent."""
    name: str
    """The tool's."""
    arguments: str
    """JSON, or what the model wrote instead."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a message policy said.

    Example:
        `Answer(text="4", stop_reason=StopReason.EOS, tokens=2)`
    """

    text: str
    """The message's content."""
    calls: Sequence[ToolCall] = ()
    """Its calls."""
    stop_reason: StopReason
    """Why it ended."""
    tokens: int = 0
    """How many tokens it has, as the other side counts them; 0 where it does not."""


class MessagePolicy(Protocol):
    """A language model behind messages."""

    async def reply(
        self,
        messages: Sequence[Mapping[str, Any]],
        sampling: Sampling,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Answer:
        """Answer a conversation.

        Raises:
            EndpointError: There is no answer.
        """
        ...


def action_of(answer: Answer, form: str) -> str:
    """Return an answer as the text that a tool environment reads.

    Args:
        answer: What was said.
        form: How the environment reads calls: a member of `rlvr.envs.tools.FORMS`.

    Example:
        >>> call = ToolCall(id="1", name="add", arguments='{"a": 1}')
        >>> action_of(Answer(text="", calls=[call], stop_reason=StopReason.EOS), "tags")
        '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
    """
    if form == "openai":
        if not answer.calls and not answer.text.lstrip().startswith("{"):
            return answer.text
        return json.dumps(message_of(answer), ensure_ascii=False)
    write = _fence if form == "code" else _tag
    return "\n".join([*([answer.text] if answer.text else []), *map(write, answer.calls)])


def message_of(answer: Answer) -> dict[str, Any]:
    """Return an answer as a chat interface writes it."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in answer.calls
        ]
    return message


def _arguments(call: ToolCall) -> Any:
    """Return a call's arguments as a value, or as the text that is none."""
    try:
        return json.loads(call.arguments)
    except (ValueError, RecursionError):
        return call.arguments


def _tag(call: ToolCall) -> str:
    said = {"name": call.name, "arguments": _arguments(call)}
    return f"<tool_call>{json.dumps(said, ensure_ascii=False)}</tool_call>"


def _fence(call: ToolCall) -> str:
    """Write a call as a fence; its tool takes one text."""
    found = _arguments(call)
    texts = [one for one in found.values() if isinstance(one, str)] if type(found) is dict else []
    body = texts[0] if len(texts) == 1 else call.arguments
    ticks = "```"
    while ticks in body:
        ticks += "`"
    return f"{ticks}{call.name}\n{body}\n{ticks}"


@dataclass(eq=False)
class Transcript:
    """A conversation as chat interfaces take it: every call has its result, no result is alone."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    """Role, content, and what belongs to calls."""
    _open: list[ToolCall] = field(default_factory=list)

    def say(self, answer: Answer) -> None:
        """Add what the policy said."""
        self.messages.append(message_of(answer))
        self._open = list(answer.calls)

    def hear(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """Add what the environment said.

        Results go to the calls in their order, or to the call that they name; those without a call
        are the user's words. A call without a result is told so.
        """
        results, others = [], []
        for message in messages:
            call = self._called(message)
            if call is None:
                role = "user" if message["role"] == "tool" else message["role"]
                others.append({"role": role, "content": message["content"]})
            else:
                results.append(_result(call, message["content"]))
        results += [_result(call, UNANSWERED) for call in self._open]
        self._open = []
        self.messages += [*results, *others]

    def _called(self, message: Mapping[str, Any]) -> ToolCall | None:
        """Take the call that a message answers."""
        if message["role"] != "tool" or not self._open:
            return None
        named = [call for call in self._open if call.id == message.get("tool_call_id")]
        call = (named or self._open)[0]
        self._open.remove(call)
        return call


def _result(call: ToolCall, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call.id, "content": content}
