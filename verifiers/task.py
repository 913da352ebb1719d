"""One problem, as every layer sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from .errors import TaskError


class Message(TypedDict):
    """One chat message: `{"role": "user", "content": "What is 2 + 2?"}`."""

    role: str
    content: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """One problem with what is needed to check an answer to it.

    Example:
        `Task(id="sum-0", prompt="2 + 2 = ?", truth=4, solution="4")`
    """

    id: str
    """Unique within its environment and the same on every run."""
    prompt: str | tuple[Message, ...]
    """A user's text, or a whole chat; all that the policy is shown."""
    truth: Any
    """What the verifier needs, as JSON values; never shown to the policy."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else is known (difficulty, source); not shown to the policy."""
    solution: str | None = None
    """A completion known to be right: for checks and demonstrations, never shown to the policy."""

    def __post_init__(self) -> None:
        """Check the prompt, the one part that a policy would silently take wrong."""
        if isinstance(self.prompt, list):
            object.__setattr__(self, "prompt", tuple(self.prompt))
        if not self.prompt:
            raise TaskError(f"task '{self.id}' has an empty prompt; give a text or chat messages")
        if isinstance(self.prompt, str):
            return
        for message in self.prompt:
            if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
                raise TaskError(
                    f"task '{self.id}': a prompt is a text or a list of messages with 'role' and "
                    f"'content', got {message!r}"
                )

    @property
    def messages(self) -> list[Message]:
        """The prompt as chat messages."""
        if isinstance(self.prompt, str):
            return [Message(role="user", content=self.prompt)]
        return [Message(**message) for message in self.prompt]

    @property
    def text(self) -> str:
        """The newest message's text: what `reset` returns as the observation."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[-1]["content"]
