"""The exact tokens of a conversation."""

from typing import Any

import pytest

from rlvr.agents import ChatFormat
from rlvr.agents.conversation import PLAIN_TEMPLATE
from rlvr.agents.embedded import byte_tokenizer
from rlvr.verifiers import ModelError

CHATML = (
    "{% for m in messages %}<|system|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|system|>assistant\n{% endif %}"
)
QUESTION = [{"role": "user", "content": "2 + 2 = ?"}]
MORE = [{"role": "user", "content": "sure?"}, {"role": "user", "content": "really?"}]


def _format(template: str | None) -> ChatFormat:
    tokenizer = byte_tokenizer()
    if template is not None:
        tokenizer.chat_template = template
    return ChatFormat(tokenizer, [1])


def _ids(chat: ChatFormat, text: str) -> list[int]:
    return chat.tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("template", [None, CHATML])
@pytest.mark.parametrize("ended", [True, False])
def test_prompt_sampled_tokens_and_delta_are_the_rendered_conversation(
    template: str | None, ended: bool
) -> None:
    chat = _format(template)
    sampled = [*_ids(chat, "4"), *([1] if ended else [])]
    grown = [*chat.prompt(QUESTION), *sampled, *chat.delta(MORE, sampled)]
    whole = [*QUESTION, {"role": "assistant", "content": "4"}, *MORE]
    assert grown == list(chat.prompt(whole))


def test_the_text_of_a_completion_leaves_out_the_stop_token_and_keeps_special_ones() -> None:
    chat = _format(None)
    ids = [*_ids(chat, "a<|tool|>é "), 1]
    assert chat.text(ids) == "a<|tool|>é "
    assert chat.text(ids[:-1]) == "a<|tool|>é "
    assert chat.text([]) == ""


def test_a_template_that_rewrites_earlier_messages_is_refused_by_name() -> None:
    last_only = "{% for m in messages[-1:] %}{{ m['content'] }}{% endfor %}"
    chat = _format(last_only)
    chat.name = "my-model"
    with pytest.raises(ModelError, match=r"'my-model' rewrites earlier messages .* only appends"):
        chat.delta(MORE, [1])


def test_a_template_that_refuses_a_role_is_named_with_the_roles() -> None:
    chat = _format("{{ raise_exception('no system') }}")
    with pytest.raises(ModelError, match=r"cannot render messages with the roles \['user'\]"):
        chat.prompt(QUESTION)


def test_a_base_model_without_a_template_gets_plain_text() -> None:
    tokenizer: Any = byte_tokenizer()
    tokenizer.chat_template = None
    chat = ChatFormat(tokenizer, [1])
    assert tokenizer.chat_template == PLAIN_TEMPLATE
    assert chat.tokenizer.decode(chat.prompt(QUESTION)) == "2 + 2 = ?\n"


def test_every_text_survives_the_byte_tokenizer() -> None:
    tokenizer = byte_tokenizer()
    for text in ("", "x", " a  b ", "\n\t", "é∎漢字🎲", "a\u0301"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
