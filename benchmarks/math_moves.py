"""Moves on trees that keep the value.

A move takes a node and a random generator and returns another node, or `None` where it does not
apply.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from math import gcd

from math_golds import Tree, num, symbols

Move = Callable[[Tree, random.Random], Tree | None]


def whole(tree: Tree) -> int | None:
    """Return the value of a whole numeral."""
    return int(tree.text) if tree.kind == "num" and tree.text.isdigit() else None


def _rational(tree: Tree) -> Fraction | None:
    if tree.kind == "num":
        return Fraction(tree.text)
    if tree.kind == "frac":
        above, below = map(whole, tree.parts)
        return Fraction(above, below) if above is not None and below else None
    return None


def _fraction(value: Fraction) -> Tree:
    return Tree("frac", (num(value.numerator), num(value.denominator)))


def shuffle(tree: Tree, rng: random.Random) -> Tree | None:
    """Terms, factors and items in another order."""
    if tree.kind not in ("add", "mul", "list", "set", "union"):
        return None
    return replace(tree, parts=tuple(rng.sample(tree.parts, len(tree.parts))))


def scale_fraction(tree: Tree, rng: random.Random) -> Tree | None:
    """1/2 as 3/6."""
    value = _rational(tree) if tree.kind == "frac" else None
    factor = rng.choice((2, 3, 5, 10))
    if value is None:
        return None
    return Tree("frac", (num(value.numerator * factor), num(value.denominator * factor)))


def decimal(tree: Tree, rng: random.Random) -> Tree | None:
    """A fraction that terminates as a decimal."""
    value = _rational(tree) if tree.kind == "frac" else None
    if value is None or 10**6 % value.denominator:
        return None
    digits = f"{value.numerator * (10**6 // value.denominator):07d}"
    return num(f"{digits[:-6]}.{digits[-6:]}".rstrip("0").rstrip("."))


def undecimal(tree: Tree, rng: random.Random) -> Tree | None:
    """A decimal as a fraction."""
    return _fraction(Fraction(tree.text)) if tree.kind == "num" and "." in tree.text else None


def mixed(tree: Tree, rng: random.Random) -> Tree | None:
    """3/2 as 1 1/2."""
    value = _rational(tree) if tree.kind == "frac" else None
    if value is None or value.denominator == 1 or value < 1:
        return None
    units, rest = divmod(value.numerator, value.denominator)
    return Tree("mixed", (num(units), num(rest), num(value.denominator)))


def negative_power(tree: Tree, rng: random.Random) -> Tree | None:
    """a/b as a · b^(−1)."""
    if tree.kind != "frac":
        return None
    below = Tree("pow", (tree.parts[1], num(-1)))
    return Tree("mul", (tree.parts[0], below))


def split_fraction(tree: Tree, rng: random.Random) -> Tree | None:
    """(a + b)/c as a/c + b/c."""
    if tree.kind != "frac" or tree.parts[0].kind != "add":
        return None
    return Tree("add", tuple(_over(term, tree.parts[1]) for term in tree.parts[0].parts))


def _over(term: Tree, below: Tree) -> Tree:
    if term.kind == "neg":
        return Tree("neg", (Tree("frac", (term.parts[0], below)),))
    return Tree("frac", (term, below))


def pull_factor(tree: Tree, rng: random.Random) -> Tree | None:
    """ab/c as (1/c)·ab."""
    if tree.kind != "frac" or tree.parts[0] == num(1):
        return None
    return Tree("mul", (Tree("frac", (num(1), tree.parts[1])), tree.parts[0]))


def root_as_power(tree: Tree, rng: random.Random) -> Tree | None:
    """√a as a^(1/2)."""
    return (
        Tree("pow", (tree.parts[0], Tree("frac", (num(1), tree.parts[1]))))
        if tree.kind == "sqrt"
        else None
    )


def merge_root(tree: Tree, rng: random.Random) -> Tree | None:
    """3√2 as √18."""
    if tree.kind != "mul" or len(tree.parts) != 2 or tree.parts[1].kind != "sqrt":
        return None
    outside, inside = whole(tree.parts[0]), whole(tree.parts[1].parts[0])
    if outside is None or inside is None or tree.parts[1].parts[1] != num(2):
        return None
    return Tree("sqrt", (num(outside**2 * inside), num(2)))


def split_root(tree: Tree, rng: random.Random) -> Tree | None:
    """√6 as √2·√3."""
    inside = whole(tree.parts[0]) if tree.kind == "sqrt" and tree.parts[1] == num(2) else None
    divisors = [n for n in (2, 3, 5, 7, 11) if inside and inside % n == 0 and inside > n]
    if not divisors or inside is None:
        return None
    one = rng.choice(divisors)
    return Tree("mul", tuple(Tree("sqrt", (num(n), num(2))) for n in (one, inside // one)))


def rationalise(tree: Tree, rng: random.Random) -> Tree | None:
    """a/√b as a√b/b."""
    if tree.kind != "frac" or tree.parts[1].kind != "sqrt" or tree.parts[1].parts[1] != num(2):
        return None
    above = Tree("mul", (tree.parts[0], tree.parts[1]))
    return Tree("frac", (above, tree.parts[1].parts[0]))


def expand(tree: Tree, rng: random.Random) -> Tree | None:
    """a(b + c) as ab + ac."""
    if tree.kind != "mul" or not any(part.kind == "add" for part in tree.parts):
        return None
    at = next(i for i, part in enumerate(tree.parts) if part.kind == "add")
    others = tree.parts[:at] + tree.parts[at + 1 :]
    return Tree("add", tuple(_times(others, term) for term in tree.parts[at].parts))


def _times(factors: tuple[Tree, ...], term: Tree) -> Tree:
    if term.kind == "neg":
        return Tree("neg", (Tree("mul", (*factors, term.parts[0])),))
    return Tree("mul", (*factors, term))


def turn_difference(tree: Tree, rng: random.Random) -> Tree | None:
    """−(a − b) as b − a, a − b as −(b − a)."""
    if tree.kind == "neg" and tree.parts[0].kind == "add":
        return Tree("add", tuple(map(negated, tree.parts[0].parts)))
    if tree.kind == "add":
        return Tree("neg", (Tree("add", tuple(map(negated, tree.parts))),))
    return None


def negated(tree: Tree) -> Tree:
    """Return −tree."""
    return tree.parts[0] if tree.kind == "neg" else Tree("neg", (tree,))


def sign_into_fraction(tree: Tree, rng: random.Random) -> Tree | None:
    """−a/b as (−a)/b or a/(−b)."""
    if tree.kind != "neg" or tree.parts[0].kind != "frac":
        return None
    above, below = tree.parts[0].parts
    both = ((negated(above), below), (above, negated(below)))
    return Tree("frac", rng.choice(both))


def write_power_out(tree: Tree, rng: random.Random) -> Tree | None:
    """2^10 as 1024, n² as n·n."""
    if tree.kind != "pow" or (exponent := whole(tree.parts[1])) is None or exponent > 12:
        return None
    base = whole(tree.parts[0])
    if base is not None and base <= 12:
        return num(base**exponent)
    return Tree("mul", tree.parts[:1] * exponent) if exponent in (2, 3) else None


def split_number(tree: Tree, rng: random.Random) -> Tree | None:
    """42 as 6 · 7, or 40 + 2."""
    value = whole(tree)
    if value is None or not 4 <= value < 10**6 or rng.random() < 0.5:
        return None
    part = rng.randrange(1, value)
    if (common := gcd(value, part)) > 1:
        return Tree("mul", (num(common), num(value // common)))
    return Tree("add", (num(part), num(value - part)))


def change_base(tree: Tree, rng: random.Random) -> Tree | None:
    """log₁₀ 2 as a quotient."""
    if tree.kind != "log" or len(tree.parts) != 2:
        return None
    return Tree("frac", tuple(Tree("log", (part, num(2))) for part in tree.parts))


def binomial_as_factorials(tree: Tree, rng: random.Random) -> Tree | None:
    """The definition of a binomial."""
    if tree.kind != "binom":
        return None
    n, k = tree.parts
    rest = Tree("fact", (Tree("add", (n, Tree("neg", (k,)))),))
    return Tree("frac", (Tree("fact", (n,)), Tree("mul", (Tree("fact", (k,)), rest))))


def drop_degrees(tree: Tree, rng: random.Random) -> Tree | None:
    """45° as 45."""
    return tree.parts[0] if tree.kind == "deg" else None


def percent_as_number(tree: Tree, rng: random.Random) -> Tree | None:
    """62.5% as 625/1000."""
    value = _rational(tree.parts[0]) if tree.kind == "pct" else None
    return None if value is None else _fraction(value / 100)


def list_as_set(tree: Tree, rng: random.Random) -> Tree | None:
    """1, 2 as {2, 1}."""
    scalars = all(part.kind not in ("eq", "interval", "union") for part in tree.parts)
    if tree.kind != "list" or not scalars or len(set(tree.parts)) < len(tree.parts):
        return None
    return replace(tree, kind="set")


def rename_parameter(tree: Tree, rng: random.Random) -> Tree | None:
    """f(x) = x² as f(t) = t²."""
    if tree.kind != "eq" or not tree.text.endswith(")"):
        return None
    old = tree.text[-2]
    new = next(name for name in "txuns" if name != old and name not in symbols(tree))
    return replace(tree, text=f"{tree.text[:-2]}{new})", parts=(_renamed(tree.parts[0], old, new),))


def _renamed(tree: Tree, old: str, new: str) -> Tree:
    if tree.kind == "sym" and tree.text == old:
        return replace(tree, text=new)
    return replace(tree, parts=tuple(_renamed(part, old, new) for part in tree.parts))


def drop_left_side(tree: Tree, rng: random.Random) -> Tree | None:
    """k = 5 as 5."""
    return tree.parts[0] if tree.kind == "eq" else None


REWRITES: tuple[Move, ...] = (
    shuffle, scale_fraction, decimal, undecimal, mixed, negative_power, split_fraction, pull_factor,
    root_as_power, merge_root, split_root, rationalise, expand, turn_difference, sign_into_fraction,
    write_power_out, split_number, change_base, binomial_as_factorials, drop_degrees,
    percent_as_number, list_as_set, rename_parameter, drop_left_side,
)  # fmt: skip

STEPS: tuple[Move, ...] = (
    scale_fraction, decimal, undecimal, merge_root, split_root, rationalise, expand,
    write_power_out, change_base, binomial_as_factorials,
)  # fmt: skip
"""Those that a writer would put an equals sign behind."""

_MAY_HOLD_MIXED = ("neg", "list", "set", "tuple", "interval", "union", "eq")
"""Elsewhere a mixed number would read as a product."""


def variants(tree: Tree, move: Move, rng: random.Random) -> Iterator[Tree]:
    """Yield the tree with the move applied at one node, for each node where it applies."""
    if (moved := move(tree, rng)) is not None and moved != tree:
        yield moved
    if tree.kind == "mixed" or (move is mixed and tree.kind not in _MAY_HOLD_MIXED):
        return
    if move is drop_left_side:  # all of a list or none
        return
    for at, part in enumerate(tree.parts):
        for changed in variants(part, move, rng):
            yield replace(tree, parts=(*tree.parts[:at], changed, *tree.parts[at + 1 :]))
