"""What an environment of several turns says, and what it is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..verifiers import Message


@dataclass(slots=True)
class Reply:
    """What an environment answers to one action.

    Example:
        `Reply("higher")`, `Reply(done=True, answer="42")`, `Reply("a goal!", reward=0.1)`
    """

    messages: str | Sequence[Message] = ()
    """What is said to the policy: a text, or messages; something, unless the episode is over."""
    reward: float = 0.0
    """What the turn is paid, apart from the final verdict."""
    done: bool = False
    """Whether the episode is over, and is judged."""
    answer: str | None = None
    """What is judged; the action if not given."""
    info: Mapping[str, Any] | None = None
    """More entries for `info` of this step, as JSON values."""


def messages_of(said: str | Sequence[Message], role: str) -> list[Message]:
    """Return a text or messages as a fresh list of messages.

    Raises:
        TypeError: It is neither.
    """
    if type(said) is str:
        return [{"role": role, "content": said}] if said else []
    if not isinstance(said, list | tuple):
        raise TypeError(f"messages are a text or a list of messages, got {said!r:.100}")
    for one in said:
        if not isinstance(one, Mapping) or not isinstance(one.get("content"), str):
            raise TypeError(f"a message has a 'role' and a text 'content', got {one!r:.100}")
        if not isinstance(one.get("role"), str):
            raise TypeError(f"a message has a 'role', got {one!r:.100}")
    return [Message(**one) for one in said]


def lifted(reply: Any) -> Reply:
    """Return a reply that is a text as `Reply`."""
    if isinstance(reply, Reply):
        return reply
    if isinstance(reply, str):
        return Reply(reply)
    raise TypeError(f"answer() returns a Reply or a text, got {reply!r:.100}")
