"""Answers of data sets as trees of their own: what the rewrites and mutations work on.

A second reader, for well-formed answers only, that shares nothing with the verifier which is
judged: an answer that it does not understand is left alone. Values come from mpmath, at 60 digits.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import mpmath

DIGITS = 60
AGREEMENT = mpmath.mpf(10) ** -30
"""Relative difference below which two values of 60 digits count as the same."""

_TOKEN = re.compile(r"\\[a-zA-Z]+|\d+(?:\.\d+)?|[a-zA-Z]|\S")
_IDLE = re.compile(r"\\(?:left|right|quad|displaystyle)(?![a-zA-Z])|\\[,;! ]|~")
_TYPOGRAPHY = {r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\geqslant": r"\geq"}
_CLOSING = {"(": ")", "[": "]", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
_ENDS = frozenset((")", "]", "}", r"\rfloor", r"\rceil", ",", "=", "+", "-", "/", r"\cup"))


class Unread(ValueError):
    """An answer that this reader leaves alone."""


@dataclass(frozen=True)
class Tree:
    r"""A node: `Tree("frac", (Tree("num", text="1"), Tree("num", text="2")))` is 1/2.

    Scalars: `num`, `sym`, `pi`, `neg`, `add`, `mul`, `frac`, `pow`, `sqrt` (operand, degree),
    `fact`, `binom`, `floor`, `ceil`, `log` (argument, perhaps base), `deg`, `pct`, `mixed` (whole,
    above, below), `inf`. Structures: `list`, `tuple`, `interval` (its brackets in `text`), `union`,
    `set`, `eq` (its left side in `text`).
    """

    kind: str
    parts: "tuple[Tree, ...]" = ()
    text: str = ""


@dataclass(frozen=True)
class Gold:
    """An answer of a data set."""

    name: str
    """`olympiadbench:17`."""
    text: str
    tree: Tree | None
    """`None` where the text was left alone."""


def num(value: int | str) -> Tree:
    """Return a numeral; a negative one is a `neg`."""
    text = str(value)
    return Tree("neg", (num(text[1:]),)) if text.startswith("-") else Tree("num", text=text)


class _Reader:
    """Recursive descent over the tokens of one scalar."""

    def __init__(self, text: str) -> None:
        self.tokens = _TOKEN.findall(text)
        self.at = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.peek()
        if not token or (wanted and token != wanted):
            raise Unread(f"expected {wanted or 'more'}, got {token!r}")
        self.at += 1
        return token

    def sum(self) -> Tree:
        terms = [self.signed()]
        while self.peek() in ("+", "-"):
            terms.append(self.signed())
        return terms[0] if len(terms) == 1 else Tree("add", tuple(terms))

    def signed(self) -> Tree:
        if self.peek() == "-":
            self.take()
            return Tree("neg", (self.product(),))
        if self.peek() == "+":
            self.take()
        return self.product()

    def product(self) -> Tree:
        factors = [self.power()]
        while self.peek() and self.peek() not in _ENDS - {"/"}:
            token = self.peek()
            if token in (r"\cdot", r"\times", "*"):
                self.take()
                factors.append(self.power())
            elif token == "/":
                self.take()
                above = factors[0] if len(factors) == 1 else Tree("mul", tuple(factors))
                factors = [Tree("frac", (above, self.power()))]
            else:
                factors.append(self.power())
        return factors[0] if len(factors) == 1 else Tree("mul", tuple(factors))

    def power(self) -> Tree:
        base = self.atom()
        while self.peek() in ("^", "!", "%", "\\") and self.peek():
            mark = self.take()
            if mark == "!":
                base = Tree("fact", (base,))
            elif mark == "\\":
                self.take("%")
                base = Tree("pct", (base,))
            elif mark == "%":
                base = Tree("pct", (base,))
            elif self.tokens[self.at : self.at + 3] == ["{", r"\circ", "}"]:
                self.at += 3
                base = Tree("deg", (base,))
            else:
                base = Tree("pow", (base, self.argument()))
        return base

    def argument(self) -> Tree:
        if self.peek() != "{":
            return self.atom()
        self.take()
        inside = self.sum()
        self.take("}")
        return inside

    def atom(self) -> Tree:
        token = self.take()
        if token[0].isdigit():
            return num(token)
        if token.isalpha():
            return Tree("sym", text=token)
        if token in _CLOSING and token != "[":
            inside = self.sum()
            self.take(_CLOSING[token])
            kind = {r"\lfloor": "floor", r"\lceil": "ceil"}.get(token)
            return Tree(kind, (inside,)) if kind else inside
        if token == "{":
            self.at -= 1
            return self.argument()
        return self.command(token)

    def command(self, token: str) -> Tree:
        if token == r"\pi":
            return Tree("pi")
        if token in (r"\frac", r"\binom"):
            return Tree(token[1:], (self.argument(), self.argument()))
        if token == r"\sqrt":
            degree = num(2)
            if self.peek() == "[":
                self.take()
                degree = self.sum()
                self.take("]")
            return Tree("sqrt", (self.argument(), degree))
        if token == r"\log":
            if self.peek() != "_":
                return Tree("log", (self.power(),))
            self.take()
            base = self.argument()
            return Tree("log", (self.power(), base))
        raise Unread(f"the token {token!r}")


def scalar(text: str) -> Tree:
    """Read one expression.

    Raises:
        Unread: It is not understood.
    """
    text = text.strip()
    if text.lstrip("+-") == r"\infty":
        return Tree("neg", (Tree("inf"),)) if text[0] == "-" else Tree("inf")
    reader = _Reader(text)
    tree = reader.sum()
    if reader.peek():
        raise Unread(f"the token {reader.peek()!r} at the end")
    return tree


def _split(text: str, mark: str) -> list[str]:
    pieces, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if depth == 0 and text.startswith(mark, at):
            pieces.append(text[start:at])
            start = at + len(mark)
    return [*pieces, text[start:]]


def _item(text: str, interval: bool) -> Tree:
    text = text.strip()
    if len(pieces := _split(text, r"\cup")) > 1:
        return Tree("union", tuple(_item(piece, interval) for piece in pieces))
    if text.startswith(r"\{") and text.endswith(r"\}"):
        return Tree("set", tuple(map(scalar, _split(text[2:-2], ","))))
    inside = _split(text[1:-1], ",") if text[:1] in "([" and text[-1:] in ")]" else []
    if len(inside) > 1 and len(_split(text, ",")) == 1:
        parts = tuple(map(scalar, inside))
        if len(parts) == 2 and (interval or "[" in text[0] + text[-1]):
            return Tree("interval", parts, text[0] + text[-1])
        return Tree("tuple", parts)
    left, equals, right = text.rpartition("=")
    if equals and re.fullmatch(r"[a-zA-Z](?:\([a-z]\))?", left.replace(" ", "")):
        return Tree("eq", (scalar(right),), left.replace(" ", ""))
    return scalar(text)


def read(text: str, *, interval: bool = False) -> Tree:
    r"""Read an answer.

    Args:
        text: As the data set has it: `"$1$,$\\frac{1}{2}$"`.
        interval: Take `(1, 2)` for an interval, not a point.

    Raises:
        Unread: It is not understood.
    """
    text = _IDLE.sub(" ", text.replace("$", "")).strip().rstrip(".")
    for old, new in _TYPOGRAPHY.items():
        text = text.replace(old, new)
    items = tuple(_item(piece, interval) for piece in _split(text, ","))
    return items[0] if len(items) == 1 else Tree("list", items)


def _gold(name: str, text: str, plain: str, interval: bool = False) -> Gold:
    try:
        return Gold(name, text, read(plain, interval=interval))
    except Unread:
        return Gold(name, text, None)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def load(folder: Path) -> list[Gold]:
    """Read the golds of OlympiadBench, GSM8K (test) and SVAMP, in this order."""
    golds = []
    for row in _lines(folder / "olympiadbench.jsonl"):
        gold = row["final_answer"][0]
        golds.append(
            _gold(f"olympiadbench:{row['id']}", gold, gold, row["answer_type"] == "Interval")
        )
    for at, row in enumerate(_lines(folder / "gsm8k_test.jsonl")):
        gold = row["answer"].rpartition("####")[2].strip()
        golds.append(_gold(f"gsm8k:{at}", gold, gold.replace(",", "")))
    for row in _lines(folder / "svamp.jsonl"):
        gold = f"{row['Answer']:.6f}".rstrip("0").rstrip(".")
        golds.append(_gold(f"svamp:{row['idx']}", gold, gold))
    return golds


def symbols(tree: Tree) -> frozenset[str]:
    """Return the variables of a tree."""
    own = frozenset((tree.text,)) if tree.kind == "sym" else frozenset()
    return own.union(*map(symbols, tree.parts))


def periodic(tree: Tree) -> bool:
    """Whether a multiple of π by a variable occurs: a family, equal to itself shifted."""
    kinds = {part.kind for part in tree.parts}
    return (tree.kind == "mul" and kinds == {"pi", "sym"}) or any(map(periodic, tree.parts))


def value(tree: Tree, point: Mapping[str, Any]) -> Any:
    """Return a scalar's value at a point, at the working precision."""
    if tree.kind == "num":
        exact = Fraction(tree.text)
        return mpmath.mpf(exact.numerator) / exact.denominator
    if tree.kind == "sym":
        return point[tree.text]
    parts = [value(part, point) for part in tree.parts]
    return _OPERATIONS[tree.kind](*parts)


def _power(base: Any, exponent: Any) -> Any:
    if mpmath.im(base) == 0 and base < 0 and not mpmath.isint(exponent):
        raise ValueError("principal or real root: a matter of convention")
    return mpmath.power(base, exponent)


_OPERATIONS: dict[str, Any] = {
    "pi": lambda: +mpmath.pi,
    "inf": lambda: mpmath.inf,
    "neg": lambda a: -a,
    "add": lambda *terms: sum(terms),
    "mul": lambda *factors: mpmath.fprod(factors),
    "frac": lambda a, b: a / b,
    "pow": _power,
    "sqrt": lambda a, n: mpmath.power(a, 1 / n),
    "fact": mpmath.factorial,
    "binom": mpmath.binomial,
    "floor": mpmath.floor,
    "ceil": mpmath.ceil,
    "log": lambda a, *base: mpmath.log(a) / mpmath.log(*base or (10,)),
    "deg": lambda a: a,
    "pct": lambda a: a / 100,
    "mixed": lambda whole, above, below: whole + above / below,
}

_UNORDERED = ("list", "union", "set")


def _alike(a: Tree, b: Tree, point: Mapping[str, Any]) -> bool:
    a, b = (tree.parts[0] if tree.kind == "eq" else tree for tree in (a, b))
    structures = (*_UNORDERED, "tuple", "interval")
    if a.kind in structures or b.kind in structures:
        if (a.kind, a.text, len(a.parts)) != (b.kind, b.text, len(b.parts)):
            return False
        if a.kind not in _UNORDERED:
            return all(_alike(x, y, point) for x, y in zip(a.parts, b.parts, strict=True))
        left = list(b.parts)
        for part in a.parts:
            match = next((other for other in left if _alike(part, other, point)), None)
            if match is None:
                return False
            left.remove(match)
        return True
    one, other = value(a, point), value(b, point)
    if mpmath.isinf(one) or mpmath.isinf(other):
        return bool(one == other)
    return bool(abs(one - other) <= AGREEMENT * max(abs(one), abs(other), AGREEMENT))


def proved_different(a: Tree, b: Tree) -> bool:
    """Whether two answers differ at one of five points, by 30 digits or more."""
    names = sorted(symbols(a) | symbols(b))
    with mpmath.workdps(DIGITS):
        for step in range(5):
            point = {
                name: mpmath.mpf(17 + 29 * step + 11 * at * (step + 1)) / 13
                for at, name in enumerate(names)
            }
            try:
                if not _alike(a, b, point):
                    return True
            except (ZeroDivisionError, ValueError, OverflowError):
                continue
    return False
