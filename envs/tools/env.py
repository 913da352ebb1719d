"""`ToolEnv`: a policy that calls tools until it gives its final answer."""

import json
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

from ...verifiers import Message, Task, UsageError, Verifier
from ...verifiers.errors import unknown
from ..dialogue import DialogueEnv
from ..replies import Reply, messages_of
from .calls import FORMS, Call, Turn, read_turn
from .describing import description
from .functions import Refused, Tool

S = TypeVar("S")
FINALS = ("turn", "tag")
"""What ends an episode: a turn without calls, or only one with `<answer>…</answer>`."""


class ToolEnv(DialogueEnv[S]):
    """A chat in which the policy may call functions; its final answer is judged.

    As `DialogueEnv`, and: **tools** are `TOOLS` of the class or `tools=`; `info["tools"]` of
    `reset` has their JSON schemas. A turn with calls is answered by one `tool` message per call, in
    order. A turn without calls is the final answer (with `final="tag"`: one with an
    `<answer>…</answer>`). What goes wrong with a call (unknown tool, wrong arguments, an exception,
    the time limit) is its result, beginning with `Error:`; a turn that is malformed as a whole, or
    that forges a result, is refused with a message and counts as a turn.

    `info` of `step` also has `calls` and `bad_calls`: how many there were, and how many failed.

    Example:
        >>> def add(a: int, b: int) -> int:
        ...     '''Add two numbers.'''
        ...     return a + b
        >>> env = ToolEnv([Task(id="a", prompt="2 + 2 = ?", truth=4)], "number", tools=[add])
        >>> _ = env.reset(seed=0)
        >>> call = '{"name": "add", "arguments": {"a": 2, "b": 2}}'
        >>> env.step(f"<tool_call>{call}</tool_call>")[:3]
        ('4', 0.0, False)
        >>> env.step("4")[:3]
        ('', 1.0, True)
    """

    TOOLS: ClassVar[Sequence[Callable[..., Any]]] = ()
    """The tools where `tools=` is not given: functions, or made by `tool`."""
    ROLE = "tool"

    def __init__(
        self,
        tasks: Sequence[Task],
        verifier: Verifier | str | None = None,
        *,
        tools: Sequence[Callable[..., Any] | Tool] | None = None,
        form: str = "tags",
        final: str = "turn",
        result_chars: int = 4000,
        action_chars: int = 100_000,
        calls_per_turn: int = 8,
        describe: bool = False,
        turns: int | None = None,
        system: str | None = None,
        template: str | None = None,
        render_mode: str | None = None,
        check: bool = True,
        keep_markers: bool = False,
        debug: bool = False,
    ) -> None:
        """Make the environment; `DialogueEnv` says what is not said here.

        Args:
            tasks: The problems; at least one.
            verifier: Judges the final answer.
            tools: Typed functions with docstrings, or made by `tool`.
            form: How calls are written: `"tags"`, `"openai"` or `"code"`.
            final: `"turn"`: a turn without calls is the final answer; `"tag"`: one with
                `<answer>…</answer>` is, and others are told so.
            result_chars: Characters of a result that are shown.
            action_chars: Characters of a turn, reasoning left out, that are read.
            calls_per_turn: Calls in a turn at most.
            describe: Whether the tools are described in a system message instead of
                `info["tools"]`, for chat templates that know no tools.
            turns: Actions per episode at most.
            system: A system message put before every prompt.
            template: What to make of the newest message of the opening.
            render_mode: `"ansi"` makes `render` return the chat as text.
            check: Whether truths are shown to the verifier first.
            keep_markers: Whether results may spell control tokens of chat templates.
            debug: Whether errors of the environment's own code are raised.

        Raises:
            UsageError: A tool or an option is none.
        """
        self.toolbox = _toolbox(self.TOOLS if tools is None else tools, type(self).__name__)
        """The tools by name."""
        for name, given, known in (("form", form, FORMS), ("final", final, FINALS)):
            if given not in known:
                raise unknown(name, str(given), known)
        caps = {"result_chars": result_chars, "action_chars": action_chars}
        for name, cap in {**caps, "calls_per_turn": calls_per_turn}.items():
            if isinstance(cap, bool) or not isinstance(cap, int) or cap < 1:
                raise UsageError(f"{name} must be an integer from 1 up, got {cap!r:.100}")
        self.form, self.final, self.describe = form, final, describe
        self.result_chars, self.action_chars = result_chars, action_chars
        self.calls_per_turn = calls_per_turn
        self._bodies = _bodies(self.toolbox) if form == "code" else {}
        self._schemas = [made.schema for made in self.toolbox.values()]
        super().__init__(
            tasks,
            verifier,
            turns=turns,
            system=system,
            template=template,
            render_mode=render_mode,
            check=check,
            keep_markers=keep_markers,
            debug=debug,
        )

    def answer(self, action: str, state: S) -> Reply:
        """Make the calls of a turn, or take it as the final answer."""
        turn = self._read(action)
        if turn.problem:
            return self._refused(turn.problem)
        if len(turn.calls) > self.calls_per_turn:
            return self._refused(
                f"a turn has at most {self.calls_per_turn} calls, this one {len(turn.calls)}; "
                "nothing was called"
            )
        if not turn.calls:
            return self._final(action, turn)
        if self.final == "tag" and turn.has_answer:
            return self._refused(
                "a turn calls tools or gives the answer, not both; nothing was called"
            )
        return self._results(turn.calls, state)

    def message(self, action: str) -> Message:
        """Return a turn as a message; in the form `openai` with its calls apart."""
        turn = self._read(action) if self.form == "openai" else Turn()
        if turn.problem or not turn.calls:
            content = turn.text if self.form == "openai" and not turn.problem else action
            return {"role": "assistant", "content": content}
        calls = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for call in turn.calls
        ]
        return {"role": "assistant", "content": turn.text, "tool_calls": calls}  # pyright: ignore

    def _read(self, action: str) -> Turn:
        return read_turn(action, self.form, self.toolbox, self.action_chars)

    def _final(self, action: str, turn: Turn) -> Reply:
        if self.final == "tag" and not turn.has_answer:
            return self._refused(
                "no call and no final answer; call a tool or end with the answer tag"
            )
        counts = {"calls": 0, "bad_calls": 0}
        return Reply(done=True, answer=turn.text if self.form == "openai" else action, info=counts)

    def _refused(self, problem: str) -> Reply:
        """Answer a turn of which nothing counts."""
        role = "user" if self.form == "openai" else self.ROLE
        message = Message(role=role, content=f"Error: {problem}")
        return Reply([message], info={"calls": 0, "bad_calls": 1})

    def _results(self, calls: Sequence[Call], state: S) -> Reply:
        """Make the calls, one after the other, until one ends the episode."""
        said: list[Message] = []
        whole, bad = Reply(), 0
        for call in calls:
            try:
                result = self._called(call, state)
            except Refused as problem:
                bad += 1
                result = Reply(f"Error: {problem}")
            text = "\n".join(m["content"] for m in messages_of(result.messages, self.ROLE))
            said.append(self._result(call, text))
            whole.reward += result.reward
            whole.done, whole.answer = result.done, result.answer
            if whole.done:
                whole.answer = result.answer or ""
                break
        whole.messages, whole.info = said, {"calls": len(said), "bad_calls": bad}
        return whole

    def _called(self, call: Call, state: S) -> Reply:
        """Make one call.

        Raises:
            Refused: It cannot be made, or failed.
        """
        if call.problem:
            raise Refused(call.problem)
        made = self.toolbox.get(call.name)
        if made is None:
            raise Refused(str(unknown("tool", call.name, self.toolbox)))
        body = self._bodies.get(call.name)
        arguments = {body: call.arguments[""]} if body else call.arguments
        result = made.run(made.checked(arguments), state)
        return result if isinstance(result, Reply) else Reply(result)

    def _result(self, call: Call, text: str) -> Message:
        """Return a result as a message, cut at the cap."""
        over = len(text) - self.result_chars
        if over > 0:
            text = f"{text[: self.result_chars]}\n[cut here: {over} more characters]"
        message = Message(role=self.ROLE, content=text or "(nothing)")
        if call.name in self.toolbox:
            message["name"] = call.name  # pyright: ignore
        if self.form == "openai":
            message["tool_call_id"] = call.id  # pyright: ignore
        return message

    def _tools(self) -> list[dict[str, Any]]:
        return [] if self.describe else [json.loads(json.dumps(one)) for one in self._schemas]

    def _chat(self, messages: list[Message]) -> list[Message]:
        chat = super()._chat(messages)
        if not self.describe:
            return chat
        text = description(self._schemas, self.form, self.final, self._bodies)
        if chat[0]["role"] == "system":
            first = Message(role="system", content=f"{chat[0]['content']}\n\n{text}")
            return [first, *chat[1:]]
        return [Message(role="system", content=text), *chat]

    def _settings(self) -> tuple[Any, ...]:
        caps = (self.form, self.final, self.result_chars, self.action_chars, self.calls_per_turn)
        return (*super()._settings(), *caps, self.describe, json.dumps(self._schemas))


def _toolbox(tools: Sequence[Callable[..., Any] | Tool], owner: str) -> dict[str, Tool]:
    """Make tools of functions, by name."""
    if isinstance(tools, str) or not isinstance(tools, Sequence) or not tools:
        raise UsageError(f"{owner} needs tools: a list of typed functions, got {tools!r:.100}")
    found: dict[str, Tool] = {}
    for one in tools:
        if not callable(one) and not isinstance(one, Tool):
            raise UsageError(f"{owner}: a tool is a typed function, got {one!r:.100}")
        made = one if isinstance(one, Tool) else Tool(one)
        if made.name in found:
            raise UsageError(f"{owner} has two tools named '{made.name}'; pass name= to one")
        found[made.name] = made
    return found


def _bodies(tools: dict[str, Tool]) -> dict[str, str]:
    """Return the one argument of each tool, which a fence holds."""
    found = {}
    for name, made in tools.items():
        texts = [key for key, one in made.parameters.items() if one.get("type") == "string"]
        required = made.schema["function"]["parameters"].get("required", [])
        if len(texts) != 1 or not set(required) <= set(texts):
            raise UsageError(
                f"form='code' calls a tool with the text of a fence, and '{name}' does not take "
                f"one text: {made!r}; use form='tags'"
            )
        found[name] = texts[0]
    return found
