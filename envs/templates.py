"""Texts with holes: `"{question}\\nAnswer:"`.

Not `str.format`: prompts are full of braces (`\\boxed{}`), so only `{name}` with a letter first is
a hole, and everything else, including `{}` and `{1}`, is itself. `{{name}}` stands for `{name}`.
"""

import re
from collections.abc import Collection, Mapping

from ..verifiers import UsageError
from ..verifiers.errors import unknown

_HOLE = re.compile(r"\{\{([A-Za-z_]\w*)\}\}|\{([A-Za-z_]\w*)\}")


class Template:
    """A text with named holes, checked when it is made.

    Example:
        >>> Template(r"{question} Put it in \\boxed{}.", ["question"]).fill({"question": "1 + 1?"})
        '1 + 1? Put it in \\\\boxed{}.'
    """

    def __init__(self, text: str, fields: Collection[str], what: str = "template") -> None:
        """Read the template.

        Args:
            text: The text with holes.
            fields: The names that may stand in a hole.
            what: What the template is for, in errors.

        Raises:
            UsageError: It is no text, a hole has an unknown name, or there is no hole at all.
        """
        if not isinstance(text, str):
            raise UsageError(
                f"{what} must be a text with holes {_shown(fields)}, got {text!r:.100}"
            )
        self.text = text
        self._pieces: list[tuple[str, str]] = []
        end = 0
        for hole in _HOLE.finditer(text):
            escaped, name = hole.groups()
            if name and name not in fields:
                raise unknown(
                    f"field in {what}", name, fields, "Write {{name}} for a literal {name}."
                )
            before = text[end : hole.start()]
            self._pieces.append((before + f"{{{escaped}}}", "") if escaped else (before, name))
            end = hole.end()
        self._pieces.append((text[end:], ""))
        self.fields = frozenset(name for _, name in self._pieces if name)
        if not self.fields:
            raise UsageError(
                f"{what} {text!r:.100} shows nothing of the problem; put in one of {_shown(fields)}"
            )

    def fill(self, values: Mapping[str, object]) -> str:
        """Return the text with every hole filled."""
        return "".join(f"{text}{values[name]}" if name else text for text, name in self._pieces)


def _shown(fields: Collection[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(fields))
