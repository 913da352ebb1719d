"""Does a chat template keep the tokens of a conversation? A check that users run on their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from ..verifiers import ModelError
from .conversation import ChatFormat, Messages, end_ids

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "What is 2 + 2?"}
MORE = {"role": "user", "content": "Are you sure?"}
TOOL = {"role": "tool", "content": '{"result": 4}'}
ANSWER = "It is 4."
THOUGHT = "<think>\nTwo and two.\n</think>\n\nIt is 4."
SCHEMA = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {"type": "object", "properties": {"a": {"type": "number"}}},
    },
}

CASES: Mapping[str, tuple[Messages, str, Messages, Sequence[Any]]] = {
    "user": ([USER], ANSWER, [MORE], ()),
    "later turns": ([USER, {"role": "assistant", "content": ANSWER}, MORE], ANSWER, [MORE], ()),
    "several messages": ([USER], ANSWER, [MORE, MORE], ()),
    "system": ([SYSTEM, USER], ANSWER, [MORE], ()),
    "tool": ([USER], ANSWER, [TOOL], ()),
    "several tool results": ([USER], ANSWER, [TOOL, TOOL], ()),
    "tool, then user": (
        [USER, {"role": "assistant", "content": ANSWER}, TOOL], ANSWER, [MORE], (),
    ),
    "tool schemas": ([USER], ANSWER, [MORE], [SCHEMA]),
    "tool schemas, tool": ([USER], ANSWER, [TOOL], [SCHEMA]),
    "thoughts, user": ([USER], THOUGHT, [MORE], ()),
    "thoughts, tool": ([USER], THOUGHT, [TOOL], ()),
}  # fmt: skip
"""Kinds of conversation: what came first, the assistant's text, what follows, the tools."""


_FOUND: "WeakKeyDictionary[ChatFormat, tuple[str, TemplateReport]]" = WeakKeyDictionary()


@dataclass(frozen=True, kw_only=True)
class TemplateReport:
    """What a chat template can do over several turns.

    Example:
        `TemplateReport(name="me/model", cases={"user": "", "tool": "… cannot render …"}, …)`
    """

    name: str
    """The tokenizer's name."""
    cases: Mapping[str, str]
    """Per kind of conversation (a key of `CASES`), why it is refused; empty where its tokens only
    grow."""
    dated: bool
    """Whether the template asks for today's date; it is told a fixed one."""
    control: tuple[str, ...]
    """The control tokens, which no text of an environment can spell."""

    @property
    def refused(self) -> tuple[str, ...]:
        """The kinds of conversation that this template cannot hold."""
        return tuple(case for case, reason in self.cases.items() if reason)


def check_template(
    tokenizer: Any, eos_ids: Sequence[int] | None = None, *, thoughts: str = "refuse"
) -> TemplateReport:
    """Try a tokenizer's chat template on every kind of conversation.

    Args:
        tokenizer: A transformers tokenizer; one without a chat template gets the plain one.
        eos_ids: The ids that end an assistant message; by default the tokenizer's end token.
        thoughts: As for `ChatFormat`.

    Returns:
        What it can do.

    Raises:
        ModelError: It cannot be used over several turns at all, not even for texts of a user in
            turns, or control tokens in a text cannot be told from the template's; with the reason.
    """
    ends = end_ids(tokenizer) if eos_ids is None else eos_ids
    return report(ChatFormat(tokenizer, ends, thoughts=thoughts))


def check_once(chat: ChatFormat) -> TemplateReport:
    """Check the template of a `ChatFormat`, or return what was found before."""
    template = str(chat.tokenizer.chat_template)
    if chat not in _FOUND or _FOUND[chat][0] != template:
        _FOUND[chat] = template, report(chat)
    return _FOUND[chat][1]


def report(chat: ChatFormat) -> TemplateReport:
    """Check the template of a `ChatFormat`; see `check_template`."""
    cases = {name: _reason(chat, *case) for name, case in CASES.items()}
    problem = cases["user"] or cases["later turns"] or _leak(chat)
    if problem:
        raise ModelError(problem)
    return TemplateReport(
        name=chat.name,
        cases=cases,
        dated="strftime_now" in str(chat.tokenizer.chat_template),
        control=chat.control.spellings,
    )


def _reason(
    chat: ChatFormat, history: Messages, text: str, messages: Messages, tools: Sequence[Any]
) -> str:
    """Say why a conversation's tokens would not be those of the template; empty if they are."""
    spoken = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
    try:
        prompt = chat.spell(chat.prompt(history, tools))
        delta = chat.spell(chat.delta(messages, spoken, history=history, tools=tools))
        whole = chat.render(history, tools), chat.behind(history, messages, tools)
        kept = chat.thoughts == "keep" or chat.keeps(text, history, messages, tools)
    except ModelError as error:
        return str(error)
    if not kept:
        return (
            f"the chat template of '{chat.name}' changes what the assistant said ({text!r}) when "
            f"a {messages[0]['role']} message follows; use a template that only appends"
        )
    for found, wanted in zip((prompt, delta), whole, strict=True):
        if "".join(found.split()) != "".join(wanted.split()):
            return (
                f"the tokenizer '{chat.name}' does not spell what it reads: {wanted!r:.300} came "
                f"back as {found!r:.300}"
            )
    return ""


def _leak(chat: ChatFormat) -> str:
    """Say which control token a text could smuggle in; empty if none."""
    ids = {chat.tokenizer.convert_tokens_to_ids(one): one for one in chat.control.spellings}
    empty = chat.prompt([{**USER, "content": "ab"}])
    for one in chat.control.spellings:
        got = chat.prompt([{**USER, "content": f"a{one}b"}])
        more = [ids[i] for i in set(got) & ids.keys() if got.count(i) > empty.count(i)]
        if more:
            return (
                f"the tokenizer '{chat.name}' reads {one!r} in a user's text as the control token "
                f"{more[0]!r}, so a text could speak for the template; use a fast tokenizer"
            )
    return ""
