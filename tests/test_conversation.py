"""The exact tokens of a conversation, over several families of chat templates."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rlvr.agents import ChatFormat
from rlvr.agents.conversation import (
    PLAIN_TEMPLATE,
    check_once,
    check_template,
    end_ids,
    new_messages,
)
from rlvr.agents.embedded import byte_tokenizer
from rlvr.verifiers import ModelError, UsageError

TEMPLATES = dict(
    re.findall(
        r"^=== (\w+)\n(.*?)(?=^=== |\Z)",
        (Path(__file__).parent / "cases" / "chat_templates.txt").read_text(),
        re.MULTILINE | re.DOTALL,
    )
)
"""They keep what matters of the families: where control tokens stand, what is trimmed, which roles
are refused, what depends on the place in the conversation."""

IM = ["<|im_end|>", "<|im_start|>"]
HEADERS = ["<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
INST = ["</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"]
DEEP = ["<｜User｜>", "<｜Assistant｜>", "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"]
STOP = "<｜end▁of▁sentence｜>"
WORDS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>"]
FAMILIES: dict[str, tuple[str, dict[str, bool], list[str], list[str], str | None]] = {
    "chatml": ("chatml", {}, IM, [], None),
    "llama": ("llama", {"DATED": False}, HEADERS, [], "<|begin_of_text|>"),
    "llama-dated": ("llama", {"DATED": True}, HEADERS, [], "<|begin_of_text|>"),
    "qwen": ("qwen", {"STRIPS": False}, IM, WORDS, None),
    "qwen-strips": ("qwen", {"STRIPS": True}, IM, WORDS, None),
    "mistral": ("mistral", {"SYSTEM": False}, INST, [], "<s>"),
    "mistral-moves": ("mistral", {"SYSTEM": True}, INST, [], "<s>"),
    "gemma": ("gemma", {}, ["<end_of_turn>"], ["<start_of_turn>"], "<bos>"),
    "deepseek": ("deepseek", {"THINKS": False}, [STOP], DEEP, "<｜begin▁of▁sentence｜>"),
    "deepseek-thinks": ("deepseek", {"THINKS": True}, [STOP], DEEP, "<｜begin▁of▁sentence｜>"),
}
"""Template, switches, special tokens (the end of a message first), added ones, the first token."""
PLAIN = ["chatml", "llama", "llama-dated", "qwen", "qwen-strips", "mistral", "gemma", "deepseek"]
TOOLS = ["chatml", "llama", "llama-dated", "qwen", "qwen-strips", "deepseek"]

CORPUS = [
    "What is 2 + 2? It is 4. Are you sure? Yes, I am sure.\n\nUse the tool, then answer briefly.",
    "user assistant system tool model\nthink result name arguments <x> </x> {'a': 1}",
    "The quick brown fox jumps over the lazy dog.",
]
SYSTEM = {"role": "system", "content": "Be brief."}
QUESTION = {"role": "user", "content": "What is 2 + 2?"}
MORE = {"role": "user", "content": "Are you sure?"}
RESULT = {"role": "tool", "content": '{"sum": 4}'}
SCHEMA = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
THOUGHT = "<think>\nTwo and two.\n</think>\n\nIt is 4."


@cache
def _tokenizer(name: str) -> Any:
    """Train a small tokenizer, of SentencePiece's kind for Mistral, and give it its template."""
    template, switches, special, added, bos = FAMILIES[name]
    backend = _spaced() if template == "mistral" else _byte_level()
    backend.add_tokens([AddedToken(one, special=False, normalized=False) for one in added])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=special[0],
        bos_token=bos,
        additional_special_tokens=special,
        clean_up_tokenization_spaces=False,
        name_or_path=f"test/{name}",
    )
    text = TEMPLATES[template]
    for switch, value in switches.items():
        text = text.replace(switch, str(value).lower())
    tokenizer.chat_template = text
    return tokenizer


def _byte_level() -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=360, initial_alphabet=letters, show_progress=False)
    backend.train_from_iterator(CORPUS * 4, trainer)
    return backend


def _spaced() -> Tokenizer:
    """Every text begins with ▁; characters without a token are spelt in bytes."""
    merges = [("▁", letter) for letter in "aistyuw"] + [("i", "s"), ("▁", "is"), ("y", "o")]
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    pieces += [*"abcdefghijklmnopqrstuvwxyz", *(a + b for a, b in merges)]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True)
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return backend


def _chat(name: str, thoughts: str = "refuse") -> ChatFormat:
    tokenizer = _tokenizer(name)
    return ChatFormat(tokenizer, end_ids(tokenizer), thoughts=thoughts)


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _ids(chat: ChatFormat, text: str) -> list[int]:
    """Encode what a policy might sample: without the space that begins a text of its own."""
    ids = chat.tokenizer("\n" + text, add_special_tokens=False)["input_ids"]
    return ids[len(chat.tokenizer("\n", add_special_tokens=False)["input_ids"]) :]


def _whole(chat: ChatFormat, messages: list[dict[str, str]], tools: list[Any]) -> list[int]:
    """Render a conversation from scratch, as transformers does it, and encode it in one go."""
    text = chat.render(messages, tools)
    return chat.tokenizer(text, add_special_tokens=False)["input_ids"]


FOLLOWS: list[tuple[str, list[dict[str, str]], list[dict[str, str]], list[Any]]] = [
    *((name, [QUESTION], [MORE], []) for name in PLAIN),
    *((name, [QUESTION, _said("Yes."), MORE], [MORE], []) for name in PLAIN),
    *((name, [SYSTEM, QUESTION], [MORE, MORE], []) for name in TOOLS),
    *((name, [QUESTION], [RESULT], []) for name in TOOLS),
    *((name, [QUESTION], [RESULT, RESULT, RESULT], []) for name in TOOLS),
    *((name, [QUESTION, _said("Yes."), RESULT], [RESULT, MORE], []) for name in TOOLS),
    *((name, [SYSTEM, QUESTION], [RESULT], [SCHEMA, SCHEMA]) for name in TOOLS),
]


@pytest.mark.parametrize(("name", "history", "messages", "tools"), FOLLOWS)
@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("text", ["It is 4.", "", "a\n\nb<x>"])
def test_the_grown_tokens_are_those_of_the_conversation_rendered_from_scratch(
    name: str,
    history: list[dict[str, str]],
    messages: list[dict[str, str]],
    tools: list[Any],
    ended: bool,
    text: str,
) -> None:
    chat = _chat(name)
    space = " " if "mistral" in name else ""  # which its template puts before an answer
    sampled = [*_ids(chat, space + text), *(end_ids(chat.tokenizer) if ended else ())]
    prompt = list(chat.prompt(history, tools))
    grown = prompt + sampled + chat.delta(messages, sampled, history=history, tools=tools)
    assert grown == _whole(chat, [*history, _said(text), *messages], tools)
    assert chat.text(sampled).strip() == text


@pytest.mark.parametrize("name", TOOLS)
def test_over_many_turns_the_ids_only_grow(name: str) -> None:
    chat, messages = _chat(name), [SYSTEM, QUESTION]
    ids = list(chat.prompt(messages, [SCHEMA]))
    for turn in range(5):
        sampled = [*_ids(chat, f"call {turn}"), *end_ids(chat.tokenizer)]
        news = [RESULT] * (turn % 3) or [MORE]
        before = list(ids)
        ids += sampled + chat.delta(news, sampled, history=messages, tools=[SCHEMA])
        messages = [*messages, _said(f"call {turn}"), *news]
        assert ids[: len(before)] == before
        assert ids == _whole(chat, messages, [SCHEMA])


@pytest.mark.parametrize("name", ["llama", "gemma", "mistral"])
def test_a_template_that_trims_leaves_the_sampled_tokens_alone(name: str) -> None:
    chat = _chat(name)
    sampled = [*_ids(chat, "  4 \n "), *end_ids(chat.tokenizer)]
    clean = [*_ids(chat, "4"), *end_ids(chat.tokenizer)]
    assert chat.delta([MORE], sampled, history=[QUESTION]) == chat.delta(
        [MORE], clean, history=[QUESTION]
    )
    assert chat.text(sampled).rstrip("\n ") == "  4"


def test_tool_results_in_a_row_stand_in_one_message_of_qwen() -> None:
    chat = _chat("qwen")
    sampled = [*_ids(chat, "x"), *end_ids(chat.tokenizer)]
    text = chat.spell(chat.delta([RESULT, RESULT], sampled, history=[QUESTION]))
    one = '<tool_response>\n{"sum": 4}\n</tool_response>'
    assert text == f"\n<|im_start|>user\n{one}\n{one}<|im_end|>\n<|im_start|>assistant\n"


def test_thoughts_that_a_template_drops_are_refused_by_name_or_kept() -> None:
    chat, kept = _chat("qwen-strips"), _chat("qwen-strips", thoughts="keep")
    sampled = [*_ids(chat, THOUGHT), *end_ids(chat.tokenizer)]
    with pytest.raises(ModelError, match=r"'test/qwen-strips' drops the thoughts .*='keep'"):
        chat.delta([MORE], sampled, history=[QUESTION])
    delta = kept.delta([MORE], sampled, history=[QUESTION])
    assert kept.spell(delta) == (
        "\n<|im_start|>user\nAre you sure?<|im_end|>\n<|im_start|>assistant\n"
    )
    grown = [*chat.prompt([QUESTION]), *sampled]
    grown += chat.delta([RESULT], sampled, history=[QUESTION])  # a tool's result drops nothing
    assert grown == _whole(chat, [QUESTION, _said(THOUGHT), RESULT], [])


def test_a_quoted_thought_does_not_hide_that_the_thought_is_dropped() -> None:
    chat = _chat("qwen-strips")
    sampled = [*_ids(chat, THOUGHT), *end_ids(chat.tokenizer)]
    with pytest.raises(ModelError, match="drops the thoughts"):
        chat.delta([{"role": "user", "content": THOUGHT}], sampled, history=[QUESTION])


def test_a_prompt_that_opens_a_thought_is_kept_with_it() -> None:
    chat, kept = _chat("deepseek-thinks"), _chat("deepseek-thinks", thoughts="keep")
    prompt = list(chat.prompt([QUESTION]))
    assert chat.spell(prompt).endswith("<｜Assistant｜><think>\n")
    sampled = [*_ids(chat, "Two and two.</think>It is 4."), *end_ids(chat.tokenizer)]
    with pytest.raises(ModelError, match="drops the thoughts"):
        chat.delta([MORE], sampled, history=[QUESTION])
    delta = kept.delta([MORE], sampled, history=[QUESTION])
    assert kept.spell(delta) == "<｜User｜>Are you sure?<｜Assistant｜><think>\n"
    cut = sampled[:4]  # by length, in the middle of the thought
    assert chat.spell(chat.delta([MORE], cut, history=[QUESTION])).startswith(f"{STOP}<｜User｜>")


@pytest.mark.parametrize(
    ("history", "tools", "became"),
    [([SYSTEM, QUESTION], [], "Be brief."), ([QUESTION], [SCHEMA], "AVAILABLE_TOOLS")],
)
def test_a_template_that_moves_something_to_the_newest_message_is_refused_with_the_place(
    history: list[dict[str, str]], tools: list[Any], became: str
) -> None:
    chat = _chat("mistral-moves")
    with pytest.raises(ModelError, match=rf"'test/mistral-moves' rewrites earlier .*{became}"):
        chat.delta([MORE], [1], history=history, tools=tools)
    assert chat.delta([MORE], [1], history=[QUESTION])


@pytest.mark.parametrize(
    ("name", "messages", "reason"),
    [
        ("gemma", [MORE, MORE], "must alternate"),
        ("mistral", [RESULT, RESULT], "must alternate"),
        ("mistral", [SYSTEM, MORE], "only user and assistant"),
        ("gemma", [SYSTEM], "System role not supported"),
    ],
)
def test_roles_that_a_template_refuses_are_named(
    name: str, messages: list[dict[str, str]], reason: str
) -> None:
    chat = _chat(name)
    with pytest.raises(ModelError, match=rf"'test/{name}' cannot render .*{reason}"):
        chat.delta(messages, [1], history=[QUESTION])


def test_every_day_is_the_same_day_to_a_template() -> None:
    chat = _chat("llama-dated")
    assert "Today: 26 Jul 2024<|eot_id|>" in chat.spell(chat.prompt([QUESTION]))
    assert check_template(chat.tokenizer).dated
    assert not check_template(_tokenizer("chatml")).dated
    with pytest.raises(ModelError, match="date in a form that cannot be read off"):
        _format("{% set f = '%Y' %}{{ strftime_now(f) }}").prompt([QUESTION])


def test_other_fields_of_a_message_reach_the_template_and_its_cache() -> None:
    chat = _format("{% for m in messages %}{{ m.name or '' }}:{{ m.content }}{% endfor %}")
    named = [{**QUESTION, "name": "Ada"}]
    assert chat.spell(chat.prompt([QUESTION])) == ":What is 2 + 2?"
    assert chat.spell(chat.prompt(named)) == "Ada:What is 2 + 2?"


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("chatml", ()),
        ("qwen", ()),
        ("llama-dated", ()),
        ("qwen-strips", ("thoughts, user",)),
        (
            "gemma",
            (
                "several messages", "system", "tool", "several tool results", "tool, then user",
                "tool schemas, tool", "thoughts, tool",
            ),
        ),
    ],
)  # fmt: skip
def test_the_check_says_what_a_template_cannot_do(name: str, refused: tuple[str, ...]) -> None:
    found = check_template(_tokenizer(name))
    assert found.refused == refused
    assert all(f"'test/{name}'" in found.cases[case] for case in refused)
    kept = check_template(_tokenizer(name), thoughts="keep")
    assert "thoughts, user" not in kept.refused


def test_the_check_refuses_a_template_without_turns_and_is_made_once() -> None:
    chat = _format("{% for m in messages[-1:] %}{{ m['content'] }}{% endfor %}")
    chat.name = "my-model"
    with pytest.raises(ModelError, match=r"'my-model' rewrites earlier messages .* only appends"):
        check_once(chat)
    good = _chat("chatml")
    assert check_once(good) is check_once(good)


def _format(template: str | None) -> ChatFormat:
    tokenizer = byte_tokenizer()
    if template is not None:
        tokenizer.chat_template = template
    return ChatFormat(tokenizer, [1])


def test_the_text_of_a_completion_leaves_out_the_stop_token_and_keeps_special_ones() -> None:
    chat = _format(None)
    ids = [*_ids(chat, "a<|tool|>é "), 1]
    assert chat.text(ids) == "a<|tool|>é "
    assert chat.text(ids[:-1]) == "a<|tool|>é "
    assert chat.text([]) == ""


def test_a_template_that_refuses_a_role_is_named_with_the_roles() -> None:
    chat = _format("{{ raise_exception('no system') }}")
    with pytest.raises(ModelError, match=r"cannot render messages with the roles \['user'\]"):
        chat.prompt([QUESTION])


def test_a_base_model_without_a_template_gets_plain_text() -> None:
    tokenizer: Any = byte_tokenizer()
    tokenizer.chat_template = None
    chat = ChatFormat(tokenizer, [1])
    assert tokenizer.chat_template == PLAIN_TEMPLATE
    assert chat.spell(chat.prompt([QUESTION])) == "What is 2 + 2?\n"
    assert chat.spell(chat.delta([MORE], _ids(chat, "4"))) == "\nAre you sure?\n"


def test_nothing_said_and_an_unknown_choice_are_refused() -> None:
    with pytest.raises(UsageError, match="must say something"):
        _format(None).delta([], [1])
    with pytest.raises(UsageError, match=r"refuse, keep, got 'drop'"):
        ChatFormat(byte_tokenizer(), [1], thoughts="drop")
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="names no end token"):
        check_template(tokenizer)


def test_what_an_environment_said_is_found_in_either_form() -> None:
    known = [QUESTION, _said("4")]
    assert new_messages({"messages": [MORE]}, known, "x") == [MORE]
    assert new_messages({"messages": [*known, MORE, MORE]}, known, "x") == [MORE, MORE]
    assert new_messages({"messages": known}, known, "x") == [{"role": "user", "content": "x"}]
    assert new_messages({"messages": [QUESTION]}, known, "x") == [QUESTION]


def test_every_text_survives_the_byte_tokenizer() -> None:
    tokenizer = byte_tokenizer()
    for text in ("", "x", " a  b ", "\n\t", "é∎漢字🎲", "a\u0301"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
