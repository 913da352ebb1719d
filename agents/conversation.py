"""The exact tokens of a conversation: a list of ids that only grows.

The prompt is rendered once through the chat template. What the policy sampled is appended as the
ids that it sampled, never decoded and encoded again; what the environment says is appended as the
template's *delta*: the text that the template adds behind a finished assistant message. A template
that rewrites what came before has no such delta and is refused by name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..verifiers import ModelError

PLAIN_TEMPLATE = "{%- for message in messages -%}{{- message['content'] + '\\n' -}}{%- endfor -%}"
"""For base models without a chat template: the texts, a line each."""

_PROBE = "∎"
"""The text of a stand-in assistant message, searched for in the rendered conversation."""

Messages = Sequence[Mapping[str, Any]]


class ChatFormat:
    """A tokenizer's chat template, checked for keeping prefixes."""

    def __init__(self, tokenizer: Any, eos_ids: Sequence[int]) -> None:
        """Take over a tokenizer; one without a chat template gets `PLAIN_TEMPLATE`.

        Args:
            tokenizer: A transformers tokenizer.
            eos_ids: The ids that end an assistant message.
        """
        self.tokenizer = tokenizer
        self.eos_ids = frozenset(eos_ids)
        self.name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        if not tokenizer.chat_template:
            first = tokenizer("")["input_ids"][:1]
            starts = bool(first) and first[0] == tokenizer.bos_token_id
            tokenizer.chat_template = ("{{- bos_token -}}" if starts else "") + PLAIN_TEMPLATE
        self._prompts: dict[Any, tuple[int, ...]] = {}

    def prompt(self, messages: Messages, tools: Sequence[Any] = ()) -> tuple[int, ...]:
        """Return the ids of a conversation up to where the assistant begins.

        Raises:
            ModelError: The template cannot render these messages.
        """
        key = (tuple((m["role"], m["content"]) for m in messages), repr(tools) if tools else "")
        if key not in self._prompts:
            if len(self._prompts) > 4096:
                self._prompts.clear()
            self._prompts[key] = tuple(self._encode(self._render(messages, tools, start=True)))
        return self._prompts[key]

    def delta(self, messages: Messages, sampled: Sequence[int]) -> list[int]:
        """Return the ids that new messages add behind a sampled assistant message.

        Args:
            messages: What the environment says, at least one message.
            sampled: The assistant's ids; whether the last one ends the message decides whether
                the template's own ending is added.

        Raises:
            ModelError: The template changes what came before, so that no delta exists.
        """
        base: list[Mapping[str, str]] = [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": _PROBE},
        ]
        before = self._render(base, (), start=False)
        after = self._render([*base, *messages], (), start=True)
        cut = after.rfind(_PROBE, 0, len(before)) + len(_PROBE)
        kept = before.rstrip()
        if _PROBE not in before or not after.startswith(kept):
            raise ModelError(
                f"the chat template of '{self.name}' rewrites earlier messages when one is added, "
                "so sampled tokens cannot be kept as they are; use a template that only appends"
            )
        ids = self._encode(after[cut:])
        ended = bool(sampled) and sampled[-1] in self.eos_ids
        if ended and ids and ids[0] in self.eos_ids:
            return ids[1:]
        return ids

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

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _render(self, messages: Messages, tools: Sequence[Any], *, start: bool) -> str:
        try:
            return self.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tools=list(tools) or None,
                add_generation_prompt=start,
                tokenize=False,
            )
        except Exception as error:
            roles = [message["role"] for message in messages]
            raise ModelError(
                f"the chat template of '{self.name}' cannot render messages with the roles "
                f"{roles}: {error}"
            ) from error
