"""The exact tokens of a conversation: a list of ids that only grows.

The prompt is rendered once through the chat template. What the policy sampled is appended as the
ids that it sampled, never decoded and encoded again; what the environment says is appended as the
template's *delta*: the text that the template puts behind the assistant's message in this very
conversation, with these roles in this order. A template that rewrites what came before has no such
delta and is refused by name.

Pure formatting: a tokenizer is all that it takes, so that both the environments' own token view and
the policies build on it.
"""

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import zip_longest
from typing import Any

from ..verifiers import ModelError, UsageError
from .control_tokens import ControlTokens, texts_of

PLAIN_TEMPLATE = "{%- for message in messages -%}{{- message['content'] + '\\n' -}}{%- endfor -%}"
"""For base models without a chat template: the texts, a line each."""

TODAY = datetime.datetime(2024, 7, 26)
"""The day that every template is told it is: one that wrote the real date into the prompt would
give other tokens tomorrow. This is the day that Llama's templates name where there is no clock."""

THOUGHTS = ("refuse", "keep")
"""What to do where a template drops the thoughts of earlier turns: refuse it by name, or keep them
in the conversation as sampled."""

_THOUGHT_ENDS = "</think>"
_QUESTION = ({"role": "user", "content": "x"},)

Messages = Sequence[Mapping[str, Any]]


class ChatFormat:
    """A tokenizer's chat template as exact tokens.

    Example:
        With ChatML, `prompt([{"role": "user", "content": "2+2?"}])` are the ids of
        `<|im_start|>user\\n2+2?<|im_end|>\\n<|im_start|>assistant\\n`. Behind the sampled
        `4<|im_end|>` the delta of a further user message is `\\n<|im_start|>user\\n…<|im_end|>\\n`
        and the next `<|im_start|>assistant\\n`.
    """

    def __init__(self, tokenizer: Any, eos_ids: Sequence[int], *, thoughts: str = "refuse") -> None:
        """Take over a tokenizer; one without a chat template gets `PLAIN_TEMPLATE`.

        Args:
            tokenizer: A transformers tokenizer.
            eos_ids: The ids that end an assistant message.
            thoughts: One of `THOUGHTS`.

        Raises:
            UsageError: `thoughts` is neither.
        """
        if thoughts not in THOUGHTS:
            raise UsageError(f"thoughts must be one of {', '.join(THOUGHTS)}, got {thoughts!r}")
        self.tokenizer = tokenizer
        self.eos_ids = frozenset(eos_ids)
        self.thoughts = thoughts
        self.name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        if not tokenizer.chat_template:
            first = tokenizer("")["input_ids"][:1]
            starts = bool(first) and first[0] == tokenizer.bos_token_id
            tokenizer.chat_template = ("{{- bos_token -}}" if starts else "") + PLAIN_TEMPLATE
        self._prompts: dict[str, tuple[int, ...]] = {}
        self._control: tuple[Any, ControlTokens] | None = None

    @property
    def control(self) -> ControlTokens:
        """The control tokens: special ones, end tokens, and those that the template writes."""
        template = self.tokenizer.chat_template
        if self._control is None or self._control[0] != template:
            ends = {self.tokenizer.convert_ids_to_tokens(i) for i in self.eos_ids}
            self._control = template, ControlTokens(self.tokenizer, ends | self._written())
        return self._control[1]

    def prompt(self, messages: Messages, tools: Sequence[Any] = ()) -> tuple[int, ...]:
        """Return the ids of a conversation up to where the assistant begins.

        Raises:
            ModelError: The template cannot render these messages.
        """
        key = repr((messages, tools))
        if key not in self._prompts:
            if len(self._prompts) > 4096:
                self._prompts.clear()
            mark = self.control.mark([*texts_of(messages), *texts_of(tools)])
            if mark:
                messages, tools = self.control.guard((messages, tools), mark)
            text = self.render(messages, tools)
            self._prompts[key] = tuple(self.control.encode(text, mark))
        return self._prompts[key]

    def delta(
        self,
        messages: Messages,
        sampled: Sequence[int],
        *,
        history: Messages = _QUESTION,
        tools: Sequence[Any] = (),
    ) -> list[int]:
        """Return the ids that new messages add behind a sampled assistant message.

        Args:
            messages: What the environment says, at least one message.
            sampled: The assistant's ids. If the last one ends the message, the template's own
                ending is left out; if not (cut off by length, or stopped by a stop string), it is
                added.
            history: The conversation before the assistant's message.
            tools: The tools' schemas, as given to `prompt`.

        Raises:
            UsageError: There are no messages.
            ModelError: The template changes what came before, so that no delta exists, or cannot
                render these roles in this order.
        """
        if not messages:
            raise UsageError("the environment must say something for the conversation to go on")
        mark = self.control.mark(texts_of(messages))
        guarded = self.control.guard(messages, mark) if mark else messages
        text = self.behind(history, guarded, tools)
        if self.thoughts == "refuse":
            self._refuse_dropped(history, self.text(sampled), messages, tools)
        ids = self.control.encode(text, mark)
        if not sampled or sampled[-1] not in self.eos_ids:
            return ids
        end = next((at for at, one in enumerate(ids) if one in self.eos_ids), len(ids))
        return ids[end + 1 :] if not self.spell(ids[:end]).strip() else ids

    def behind(self, history: Messages, messages: Messages, tools: Sequence[Any] = ()) -> str:
        """Return the text that the template puts behind an assistant message when others follow.

        Args:
            history: The conversation before the assistant's message.
            messages: What follows it.
            tools: The tools' schemas.

        Raises:
            ModelError: The template rewrites the conversation before the assistant's message.
        """
        stand_in = _absent(texts_of([*history, *messages, *tools]))
        spoken = {"role": "assistant", "content": stand_in}
        before = self.render(history, tools)
        after = self.render([*history, spoken, *messages], tools)
        opening, found, rest = after.partition(stand_in)
        if not found or not (opening.startswith(before) or before.startswith(opening)):
            raise ModelError(
                f"the chat template of '{self.name}' rewrites earlier messages when one is added "
                f"({_difference(before, opening)}; roles {_roles([*history, spoken, *messages])}), "
                "so sampled tokens cannot be kept as they are; use a template that only appends"
            )
        return rest

    def keeps(
        self, text: str, history: Messages, messages: Messages, tools: Sequence[Any] = ()
    ) -> bool:
        """Whether an assistant's text still stands in the conversation when others have spoken.

        White space does not count: many templates trim it.
        """
        others = [{**message, "content": "x"} for message in messages]  # nobody quotes the text
        before = self.render(history, tools, answer=False)
        after = self.render([*history, {"role": "assistant", "content": text}, *others], tools)
        return _squeezed(text) in _squeezed(after[_shared(before, after) :])

    def text(self, sampled: Sequence[int]) -> str:
        """Return sampled ids as text, without a final end token, special tokens kept visible."""
        if sampled and sampled[-1] in self.eos_ids:
            sampled = sampled[:-1]
        return self.spell(sampled)

    def spell(self, ids: Sequence[int]) -> str:
        """Return any ids as text, special tokens kept visible."""
        return self.tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )

    def render(self, messages: Messages, tools: Sequence[Any] = (), *, answer: bool = True) -> str:
        """Return a conversation as the template writes it.

        Args:
            messages: The conversation.
            tools: The tools' schemas.
            answer: Whether the assistant is to go on.

        Raises:
            ModelError: The template cannot render these messages.
        """
        schemas, template = list(tools) or None, None
        try:
            if "strftime_now" in str(self.tokenizer.chat_template):
                template = _pinned(self.tokenizer.get_chat_template(None, schemas))
            return self.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tools=schemas,
                chat_template=template,
                add_generation_prompt=answer,
                tokenize=False,
            )
        except Exception as error:
            raise ModelError(
                f"the chat template of '{self.name}' cannot render messages with the roles "
                f"{_roles(messages)}: {error}"
            ) from error

    def _refuse_dropped(
        self, history: Messages, text: str, messages: Messages, tools: Sequence[Any]
    ) -> None:
        """Refuse a template that takes the thoughts out of a message that others follow."""
        if _THOUGHT_ENDS in text and not self.keeps(text, history, messages, tools):
            raise ModelError(
                f"the chat template of '{self.name}' drops the thoughts (…{_THOUGHT_ENDS}) of "
                f"earlier turns when a {messages[0]['role']} message follows, so the conversation "
                "would not keep its tokens; use a template that only appends, or give the policy "
                "thoughts='keep', which leaves them in as sampled"
            )

    def _written(self) -> set[str]:
        """Return the added tokens that the template itself puts around messages.

        Those that stand in an assistant's own message are not among them: `<think>` and
        `<tool_call>` are the policy's words, and a prompt may show how to use them.
        """
        added = [token.content for token in self.tokenizer.added_tokens_decoder.values()]
        mine, yours = {"role": "user", "content": ""}, {"role": "assistant", "content": "∎"}
        system, tool = {"role": "system", "content": ""}, {"role": "tool", "content": ""}
        found = ""
        for messages in ([mine], [system, mine], [mine, yours, mine], [mine, yours, tool]):
            with suppress(ModelError):
                text = self.render(messages, answer=False)
                found += text.rpartition("∎")[2] if tool in messages else text
        return {token for token in added if token in found and not token.isspace()}


def end_ids(tokenizer: Any) -> tuple[int, ...]:
    """Return the ids that end an assistant message, as far as the tokenizer alone knows.

    Raises:
        ModelError: There is none.
    """
    if tokenizer.eos_token_id is None:
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        raise ModelError(f"the tokenizer '{name}' names no end token; set tokenizer.eos_token")
    return (int(tokenizer.eos_token_id),)


def new_messages(info: Mapping[str, Any], known: Messages, observation: str) -> Messages:
    """Return what an environment said in answer to the newest message.

    Args:
        info: What `step` returned with the observation; its `messages` may be the new ones or the
            whole conversation, whose beginning is then `known`.
        known: All messages so far, the assistant's included.
        observation: The newest text; where `info` adds no messages, it is what the user said.

    Example:
        >>> asked = {"role": "user", "content": "2+2?"}
        >>> answer, more = {"role": "assistant", "content": "5"}, {"role": "tool", "content": "no"}
        >>> new_messages({"messages": [asked, answer, more]}, [asked, answer], "no")
        [{'role': 'tool', 'content': 'no'}]
        >>> new_messages({}, [asked, answer], "no")
        [{'role': 'user', 'content': 'no'}]
    """
    given = list(info.get("messages") or ())
    if len(given) >= len(known) and all(
        all(mine.get(key) == theirs.get(key) for key in ("role", "content"))
        for mine, theirs in zip(known, given, strict=False)
    ):
        given = given[len(known) :]
    return given or [{"role": "user", "content": str(observation)}]


@cache
def _pinned(template: str) -> str:
    """Return a template that is told `TODAY` where it asks for the date.

    Raises:
        ModelError: It asks for a format that is not written out.
    """
    asks = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
    pinned = asks.sub(lambda found: repr(TODAY.strftime(found[2])), template)
    if "strftime_now(" in pinned:
        raise ModelError(
            "it asks for today's date in a form that cannot be read off, so its tokens would be "
            "others tomorrow; write a fixed date into the template"
        )
    return pinned


def _absent(texts: Iterable[str]) -> str:
    """Return a text that occurs in none of the others, nor where one of them ends and it begins."""
    given, stand_in = "\0".join(texts), "∎"
    while stand_in in given:
        stand_in += "∎"
    return f"{stand_in}."


def _roles(messages: Messages) -> list[str]:
    return [str(message.get("role")) for message in messages]


def _shared(one: str, other: str) -> int:
    """Return how many first characters two texts have in common."""
    pairs = enumerate(zip_longest(one, other))
    return next((at for at, (a, b) in pairs if a != b), len(one))


def _difference(before: str, after: str) -> str:
    """Say where two renderings part."""
    at = _shared(before, after)
    begun, was, became = before[max(0, at - 20) : at], before[at : at + 20], after[at : at + 20]
    return f"after {begun!r}: {was!r} became {became!r}"


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)
