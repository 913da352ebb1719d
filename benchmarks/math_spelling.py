"""Trees written down in one of the many ways that models write: all spellings mean the same.

Every choice is drawn from the generator that is passed in. Thousands separators, mixed numbers and
dressing of whole answers are moves of their own, in `math_rewrites`.
"""

import random
import re

from math_golds import Tree

_LEVEL = {"add": 1, "neg": 1, "mul": 2, "frac": 2, "mixed": 2, "pow": 3, "fact": 3, "log": 2}
"""How loosely a kind holds together; everything else is an atom."""
_ATOM = 4
_THREE_DIGITS = re.compile(r"\d{3}(?!\d)")
"""What would turn a comma before it into a thousands separator."""
_FUNCTION_NAMES = tuple("fghpqPQN")
"""Letters that a bracket would turn into functions."""
_SPACES = (" ", " ", "", r"\,", r"\;", r"\ ")


def _level(tree: Tree) -> int:
    return _LEVEL.get(tree.kind, _ATOM)


class Speller:
    """Writes trees, one drawn style per answer."""

    def __init__(self, rng: random.Random) -> None:
        """Draw the habits that a writer keeps within one answer."""
        self.rng = rng
        self.fraction = rng.choice((r"\frac", r"\frac", r"\dfrac", r"\tfrac", "/"))
        self.times = rng.choice((r"\cdot", r"\times", "*", r"\cdot"))
        self.juxtaposes = rng.random() < 0.7
        self.sized = rng.random() < 0.5
        self.braces = rng.random() < 0.7
        self.space = rng.choice(_SPACES)
        self.ascii = rng.random() < 0.12
        if self.ascii:  # as a program would write it
            self.fraction, self.times, self.space = "/", "*", " "
            self.juxtaposes = self.sized = False

    def brackets(self, inside: str, opening: str = "(", closing: str = ")") -> str:
        """Put brackets around a text."""
        if self.sized:
            return rf"\left{opening}{inside}\right{closing}"
        return f"{opening}{inside}{closing}"

    def group(self, tree: Tree, least: int) -> str:
        """Write a part, in brackets where it holds together less than `least`."""
        text = self.write(tree)
        return text if _level(tree) >= least else self.brackets(text)

    def write(self, tree: Tree) -> str:
        """Write a tree."""
        return getattr(self, f"_{tree.kind}")(tree)

    def _num(self, tree: Tree) -> str:
        return tree.text

    _sym = _num

    def _pi(self, tree: Tree) -> str:
        return "pi" if self.ascii else self.rng.choice((r"\pi ", r"\pi ", "π"))

    def _inf(self, tree: Tree) -> str:
        return self.rng.choice((r"\infty", r"\infty", "∞"))

    def _neg(self, tree: Tree) -> str:
        return "-" + self.group(tree.parts[0], 2)

    def _add(self, tree: Tree) -> str:
        text = self.write(tree.parts[0])
        for term in tree.parts[1:]:
            sign, body = ("-", term.parts[0]) if term.kind == "neg" else ("+", term)
            written = self.group(body, 2)
            text += f"{self.space}{sign}{self.space}{written}"
        return text

    def _mul(self, tree: Tree) -> str:
        text = self.group(tree.parts[0], 2)
        for before, factor in zip(tree.parts, tree.parts[1:], strict=False):
            written = self.group(factor, 3 if self.fraction == "/" else 2)
            text += self._between(before, factor, written) + written
        return text

    def _between(self, before: Tree, after: Tree, written: str) -> str:
        numeric = before.kind in ("num", "frac", "mixed", "pow", "fact", "log")
        glued = written[0].isdigit() or (numeric and after.kind in ("frac", "mixed"))
        applied = before.text in _FUNCTION_NAMES and written.startswith(("(", r"\left("))
        slashed = self.fraction == "/" and before.kind == "frac"
        if glued or applied or slashed or before.kind == "log" or not self.juxtaposes:
            return f" {self.times} "
        return self.rng.choice(("", " "))

    def _frac(self, tree: Tree) -> str:
        above, below = tree.parts
        if self.fraction == "/":
            return f"{self.group(above, 2)}/{self.group(below, 3)}"
        plain = all(part.kind == "num" and len(part.text) == 1 for part in tree.parts)
        if plain and not self.braces:
            return f"{self.fraction}{above.text}{below.text}"
        return f"{self.fraction}{{{self.write(above)}}}{{{self.write(below)}}}"

    def _mixed(self, tree: Tree) -> str:
        whole, above, below = (part.text for part in tree.parts)
        if self.fraction == "/":
            return f"{whole} {above}/{below}"
        return rf"{whole}{self.rng.choice(('', ' '))}{self.fraction}{{{above}}}{{{below}}}"

    def _pow(self, tree: Tree) -> str:
        base, exponent = tree.parts
        if self.ascii:
            mark = self.rng.choice(("^", "**"))
            return f"{self.group(base, _ATOM)}{mark}{self.group(exponent, _ATOM)}"
        written = self.write(exponent)
        if len(written) > 1 or self.braces:
            written = f"{{{written}}}"
        return f"{self.group(base, _ATOM)}^{written}"

    def _sqrt(self, tree: Tree) -> str:
        operand, degree = tree.parts
        inside = self.write(operand)
        if self.ascii and degree.text == "2":
            return f"sqrt({inside})"
        if degree.text != "2":
            return rf"\sqrt[{self.write(degree)}]{{{inside}}}"
        if len(inside) == 1 and not self.braces:
            return rf"\sqrt{inside}" if inside.isdigit() else rf"\sqrt {inside}"
        return rf"\sqrt{{{inside}}}"

    def _fact(self, tree: Tree) -> str:
        return self.group(tree.parts[0], _ATOM) + "!"

    def _binom(self, tree: Tree) -> str:
        above, below = map(self.write, tree.parts)
        return self.rng.choice((r"\binom{%s}{%s}", r"\dbinom{%s}{%s}")) % (above, below)

    def _floor(self, tree: Tree) -> str:
        return self.brackets(self.write(tree.parts[0]), r"\lfloor ", r"\rfloor ")

    def _ceil(self, tree: Tree) -> str:
        return self.brackets(self.write(tree.parts[0]), r"\lceil ", r"\rceil ")

    def _log(self, tree: Tree) -> str:
        argument = self.group(tree.parts[0], _ATOM)
        if len(tree.parts) == 1:
            return rf"\log {argument}"
        return rf"\log_{{{self.write(tree.parts[1])}}} {argument}"

    def _deg(self, tree: Tree) -> str:
        mark = self.rng.choice((r"^\circ", r"^{\circ}", "°"))
        return self.group(tree.parts[0], _ATOM) + mark

    def _pct(self, tree: Tree) -> str:
        return self.group(tree.parts[0], _ATOM) + self.rng.choice((r"\%", "%", r" \%"))

    def _list(self, tree: Tree) -> str:
        items = [self.write(part) for part in tree.parts]
        way = self.rng.randrange(6)
        if way == 0:
            return "; ".join(items)
        if way == 1:
            last = self.rng.choice((r" \text{ and } ", " and ", r",\text{ and }", r" \text{ or } "))
            return ", ".join(items[:-1]) + last + items[-1]
        grouping = any(_THREE_DIGITS.match(item) for item in items[1:])
        tight = "; " if grouping else ","
        return self.rng.choice((", ", tight, r",\ ", r",\quad ")).join(items)

    def _set(self, tree: Tree) -> str:
        inside = ", ".join(self.write(part) for part in tree.parts)
        return self.brackets(inside, r"\{", r"\}")

    def _tuple(self, tree: Tree) -> str:
        return self.brackets(
            self.rng.choice((", ", ",", r",\ ")).join(self.write(part) for part in tree.parts)
        )

    def _interval(self, tree: Tree) -> str:
        low, high = map(self.write, tree.parts)
        return self.brackets(f"{low}, {high}", tree.text[0], tree.text[1])

    def _union(self, tree: Tree) -> str:
        return self.rng.choice((r" \cup ", r"\cup ", "∪")).join(map(self.write, tree.parts))

    def _eq(self, tree: Tree) -> str:
        gap = self.rng.choice((" ", ""))
        return f"{tree.text}{gap}={gap}{self.write(tree.parts[0])}"
