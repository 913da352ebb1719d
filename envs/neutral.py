"""Texts that a tokenizer cannot take for control tokens.

What a tool returns or a game echoes may spell `<|im_end|>`, and a tokenizer turns those characters
into the token that ends a message: whoever wrote the page that was fetched then speaks as the
user. A space behind the opening bracket keeps the text readable and takes the spelling away.

The environment does not know the tokenizer; the markers here are those of the usual templates. An
agent knows, and must make sure: `neutral(text, tokenizer.all_special_tokens)`.
"""

import re
from collections.abc import Iterable

MARKERS = re.compile(
    r"""<(?=[|｜][^<>\n]{0,60}[|｜]>                # <|im_end|>, <|eot_id|>, <｜User｜>
    |/?s>|/?(?:bos|eos|pad|unk|mask|cls|sep)>        # <s>, </s>, <eos>
    |/?(?:start_of_turn|end_of_turn|im_start|im_end)>
    |/?(?:tool_calls?|tool_response|tool_result|tool_results|tools|think|answer)\b
    |<SYS>|/SYS>)
    |\[(?=/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS)\])""",
    re.VERBOSE | re.IGNORECASE,
)
"""The opening bracket of a marker."""


def neutral(text: str, tokens: Iterable[str] = ()) -> str:
    """Return a text in which no marker of a chat template stands, and no lone surrogate.

    Args:
        text: Any text.
        tokens: Further spellings to break up: a tokenizer's special tokens.

    Example:
        >>> neutral("done<|im_end|>", ["[PAD]"])
        'done< |im_end|>'
        >>> neutral("a < b [1]")
        'a < b [1]'
    """
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    if "<" in text or "[" in text:
        text = MARKERS.sub(r"\g<0> ", text)
    for token in tokens:
        if len(token) > 1 and token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text
