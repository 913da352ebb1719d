"""`rlvr/TextProgram-v0`: write a function that rewrites a text by rules.

**Prompt** the rules in words; the template's hole is `{rules}`. **Truth** calls of `rewrite` with
their results. **Solution** a function made of the same rules. **Verifier** `program`: calls in a
sandbox, results compared exactly. **Difficulty** how many rules, and how many tests.

A problem in which some rule changes none of the tests is drawn again.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..procedural import Problem, Procedural, Settings, check_range
from ..programs import ANSWER_FORM, fenced
from ..selection import side

LETTERS = "abcdeilmnorstu"
ALPHABET = 3 * LETTERS + " .,-0123456789" + " "
"""What texts are drawn from: three letters in four."""


@dataclass(frozen=True)
class Rule:
    """One rule: in words, as a line of Python, and as a function of a text and two letters.

    Example:
        `Rule("reverse the text", "text = text[::-1]", lambda t, a, b: t[::-1])`
    """

    words: str
    line: str
    apply: Callable[[str, str, str], str]


RULES = (
    Rule("replace every '{a}' by '{b}'", "text = text.replace('{a}', '{b}')",
         lambda t, a, b: t.replace(a, b)),
    Rule("remove every '{a}'", "text = text.replace('{a}', '')", lambda t, a, b: t.replace(a, "")),
    Rule("double every '{a}'", "text = text.replace('{a}', '{a}{a}')",
         lambda t, a, b: t.replace(a, a + a)),
    Rule("exchange '{a}' and '{b}' everywhere",
         "text = text.translate(str.maketrans('{a}{b}', '{b}{a}'))",
         lambda t, a, b: t.translate(str.maketrans(a + b, b + a))),
    Rule("reverse the text", "text = text[::-1]", lambda t, a, b: t[::-1]),
    Rule("remove all digits", "text = ''.join(c for c in text if not c.isdigit())",
         lambda t, a, b: "".join(c for c in t if not c.isdigit())),
    Rule("write the vowels a, e, i, o, u as capital letters",
         "text = ''.join(c.upper() if c in 'aeiou' else c for c in text)",
         lambda t, a, b: "".join(c.upper() if c in "aeiou" else c for c in t)),
    Rule("split the text at single spaces, reverse the order of the parts and join them with single"
         " spaces", "text = ' '.join(text.split(' ')[::-1])",
         lambda t, a, b: " ".join(t.split(" ")[::-1])),
    Rule("replace every digit d by 9 - d",
         "text = ''.join(str(9 - int(c)) if c.isdigit() else c for c in text)",
         lambda t, a, b: "".join(str(9 - int(c)) if c.isdigit() else c for c in t)),
    Rule("put the number of '{a}' in the text in front of it",
         "text = str(text.count('{a}')) + text", lambda t, a, b: str(t.count(a)) + t),
    Rule("cut off everything from the first '{a}' on, if there is one",
         "text = text.split('{a}', 1)[0]", lambda t, a, b: t.split(a, 1)[0]),
    Rule("of every run of the same character keep one",
         "text = ''.join(c for i, c in enumerate(text) if i == 0 or c != text[i - 1])",
         lambda t, a, b: "".join(c for i, c in enumerate(t) if i == 0 or c != t[i - 1])),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TextProgramSettings(Settings):
    """Difficulty.

    Example:
        `TextProgramSettings(rules=4)`
    """

    rules: int = 3
    """How many rules, from 1 to 8."""
    tests: int = 10
    """How many calls, from 4 to 100."""
    prompt: str = (
        "Write a Python function `rewrite(text)` that takes a text, applies these rules to it in "
        "this order, each to what the one before made, and returns the result:\n{rules}\n"
        + ANSWER_FORM
    )
    """The prompt's template."""

    def __post_init__(self) -> None:
        """Check every range."""
        super().__post_init__()
        check_range("rules", self.rules, 1, 8)
        check_range("tests", self.tests, 4, 100)


class TextProgram(Procedural[TextProgramSettings]):
    """Functions of texts."""

    name = "text-program"
    Config = TextProgramSettings
    fields = ("rules",)

    def draw(self, rng: np.random.Generator) -> Problem | None:
        """Draw the rules and the inputs; a rule that does nothing is drawn again."""
        config = self.config
        picks = rng.permutation(len(RULES))[: config.rules].tolist()
        rules = [RULES[pick] for pick in picks]
        letters = [[LETTERS[i] for i in rng.permutation(len(LETTERS))[:2]] for _ in rules]
        words = [r.words.format(a=a, b=b) for r, (a, b) in zip(rules, letters, strict=True)]
        lines = [r.line.format(a=a, b=b) for r, (a, b) in zip(rules, letters, strict=True)]
        if side("; ".join(lines)) != config.split:
            return None  # before the inputs, which take most of the time
        inputs = ["", *(_text(rng) for _ in range(config.tests - 1))]
        used = [False] * len(rules)
        results = []
        for text in inputs:
            for at, (rule, (a, b)) in enumerate(zip(rules, letters, strict=True)):
                after = rule.apply(text, a, b)
                used[at] |= after != text
                text = after
            results.append(text)
        if not all(used) or len(set(results)) < 4:
            return None
        tests = [{"args": [t], "output": r} for t, r in zip(inputs, results, strict=True)]
        body = "\n    ".join([*lines, "return text"])
        return Problem(
            fields={"rules": "\n".join(f"{at}. {word}" for at, word in enumerate(words, 1))},
            canonical="; ".join(lines),
            truth={"function": "rewrite", "tests": tests},
            solution=fenced(f"def rewrite(text):\n    {body}"),
            metadata={"rules": config.rules},
        )


def _text(rng: np.random.Generator) -> str:
    """Draw a text: mostly letters of a small alphabet, so that they repeat."""
    count = int(rng.integers(4, 30, endpoint=True))
    return "".join(ALPHABET[pick] for pick in rng.integers(len(ALPHABET), size=count).tolist())
