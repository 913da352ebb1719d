"""What the tool environments of this package share: prompts that show how a call is written, and
solvers that write calls, both in the form that the environment was made with."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from ...verifiers import Message, Task, UsageError, Verifier
from .env import ToolEnv

S = TypeVar("S")
_TICKS = re.compile("`+")


class ShippedToolEnv(ToolEnv[S]):
    """A `ToolEnv` whose prompts end with an example of a call."""

    EXAMPLE: ClassVar[tuple[str, Mapping[str, Any]]]
    """A tool and its arguments, for the prompt."""
    END: ClassVar[str] = (
        "End with your final answer as <answer>…</answer>, in a turn without calls."
    )
    """The prompt's last sentence."""

    def __init__(
        self,
        tasks: Sequence[Task],
        verifier: Verifier | str | None = None,
        *,
        explain: bool = True,
        **settings: Any,
    ) -> None:
        """Make the environment.

        Args:
            tasks: The problems; at least one.
            verifier: As in `ToolEnv`.
            explain: Whether prompts say how a call is written; a policy that was taught it by
                demonstrations does not need the text.
            settings: As in `ToolEnv`.

        Raises:
            UsageError: An option is out of range.
        """
        if not isinstance(explain, bool):
            raise UsageError(f"explain must be true or false, got {explain!r:.100}")
        self.explain = explain
        """Whether prompts say how a call is written."""
        super().__init__(tasks, verifier, **settings)

    def opening(self, task: Task, state: S) -> list[Message]:
        """Return the task's prompt and how a call is written."""
        if not self.explain:
            return task.messages
        first, last = task.messages[:-1], task.messages[-1]
        name, arguments = self.EXAMPLE
        tools = " and ".join(self.toolbox)
        text = (
            f"{last['content']}\n\nTools: {tools}. A call looks like this, and its result comes "
            f"with the next message:\n{self.call(name, **arguments)}\n{self.END}"
        )
        return [*first, Message(role=last["role"], content=text)]

    def _settings(self) -> tuple[Any, ...]:
        return (*super()._settings(), self.explain)

    def call(self, tool: str, /, **arguments: Any) -> str:
        """Return a turn that calls one tool."""
        return self.calls([(tool, arguments)])

    def calls(self, calls: list[tuple[str, dict[str, Any]]]) -> str:
        """Return a turn that calls some tools, in the form of this environment."""
        if self.form == "openai":
            listed = [
                {
                    "id": f"call_{number}",
                    "type": "function",
                    "function": {"name": name, "arguments": json.dumps(arguments)},
                }
                for number, (name, arguments) in enumerate(calls)
            ]
            return json.dumps({"role": "assistant", "content": "", "tool_calls": listed})
        if self.form == "code":
            return "\n".join(
                fence(name, arguments[self._bodies[name]]) for name, arguments in calls
            )
        return "\n".join(
            "<tool_call>"
            + json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
            + "</tool_call>"
            for name, arguments in calls
        )


def fence(label: str, text: str) -> str:
    """Return a text in a fence that is longer than any backticks in it.

    Example:
        >>> fence("sql", "SELECT 1")
        '```sql\\nSELECT 1\\n```'
    """
    ticks = "`" * max(3, 1 + max((len(run) for run in _TICKS.findall(text)), default=0))
    return f"{ticks}{label}\n{text}\n{ticks}"
