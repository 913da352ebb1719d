"""Moves on trees that are meant to change the value.

Whether one did is for `math_golds.proved_different` to say: a change of sign leaves 0 as it is.
"""

import random
from dataclasses import replace

from math_golds import Tree, num
from math_moves import Move, negated, whole


def change_digit(tree: Tree, rng: random.Random) -> Tree | None:
    """42 as 47."""
    if tree.kind != "num":
        return None
    at = rng.choice([i for i, char in enumerate(tree.text) if char.isdigit()])
    digit = rng.choice([digit for digit in "0123456789" if digit != tree.text[at]])
    text = tree.text[:at] + digit + tree.text[at + 1 :]
    return num(text if "." in text else str(int(text)))


def next_number(tree: Tree, rng: random.Random) -> Tree | None:
    """42 as 41 or 43."""
    value = whole(tree)
    return None if value is None else num(value + rng.choice((-1, 1)))


def swap_digits(tree: Tree, rng: random.Random) -> Tree | None:
    """42 as 24."""
    if whole(tree) is None or len(tree.text) < 2:
        return None
    at = rng.randrange(len(tree.text) - 1)
    digits = list(tree.text)
    digits[at], digits[at + 1] = digits[at + 1], digits[at]
    return num("".join(digits).lstrip("0") or "0")


def shift_point(tree: Tree, rng: random.Random) -> Tree | None:
    """42 as 420 or 4.2."""
    if whole(tree) is None or tree.text == "0":
        return None
    shorter = f"{tree.text[:-1] or 0}.{tree.text[-1]}"
    return num(rng.choice((tree.text + "0", shorter)))


def change_sign(tree: Tree, rng: random.Random) -> Tree | None:
    """a as −a."""
    structure = tree.kind in ("list", "tuple", "interval", "union", "set", "eq", "inf")
    return None if structure else negated(tree)


def swap_fraction(tree: Tree, rng: random.Random) -> Tree | None:
    """a/b as b/a."""
    return replace(tree, parts=tree.parts[::-1]) if tree.kind == "frac" else None


def change_exponent(tree: Tree, rng: random.Random) -> Tree | None:
    """a^n as a^(n±1)."""
    if tree.kind != "pow":
        return None
    base, exponent = tree.parts
    step = rng.choice((num(1), num(-1)))
    value = whole(exponent)
    bigger = num(value + (-1 if step.kind == "neg" else 1)) if value is not None else None
    return Tree("pow", (base, bigger or Tree("add", (exponent, step))))


def drop_root(tree: Tree, rng: random.Random) -> Tree | None:
    """√a as a, or ∛a."""
    if tree.kind != "sqrt":
        return None
    return rng.choice((tree.parts[0], Tree("sqrt", (tree.parts[0], num(4)))))


def drop_part(tree: Tree, rng: random.Random) -> Tree | None:
    """A term, factor or item less."""
    if tree.kind not in ("add", "mul", "list", "tuple", "set", "union"):
        return None
    at = rng.randrange(len(tree.parts))
    parts = tree.parts[:at] + tree.parts[at + 1 :]
    return parts[0] if len(parts) == 1 else replace(tree, parts=parts)


def repeat_part(tree: Tree, rng: random.Random) -> Tree | None:
    """A term, factor or item twice."""
    if tree.kind not in ("add", "mul", "list", "tuple"):
        return None
    return replace(tree, parts=(*tree.parts, rng.choice(tree.parts)))


def swap_parts(tree: Tree, rng: random.Random) -> Tree | None:
    """(a, b) as (b, a)."""
    if tree.kind not in ("tuple", "interval"):
        return None
    one, other = rng.sample(range(len(tree.parts)), 2)
    parts = list(tree.parts)
    parts[one], parts[other] = parts[other], parts[one]
    return replace(tree, parts=tuple(parts))


def change_bracket(tree: Tree, rng: random.Random) -> Tree | None:
    """(a, b] as [a, b]."""
    if tree.kind != "interval":
        return None
    at = rng.choice([i for i, part in enumerate(tree.parts) if "inf" not in _kinds(part)])
    flipped = {"(": "[", "[": "(", ")": "]", "]": ")"}[tree.text[at]]
    return replace(tree, text=tree.text[:at] + flipped + tree.text[at + 1 :])


def _kinds(tree: Tree) -> frozenset[str]:
    return frozenset((tree.kind,)).union(*map(_kinds, tree.parts))


def other_operation(tree: Tree, rng: random.Random) -> Tree | None:
    """a + b as ab, ⌊a⌋ as ⌈a⌉, π as 3."""
    other = {"add": "mul", "mul": "add", "floor": "ceil", "ceil": "floor", "binom": "frac"}
    if tree.kind == "pi":
        return num(rng.choice(("3", "3.14", "3.14159")))
    return replace(tree, kind=other[tree.kind]) if tree.kind in other else None


def add_little(tree: Tree, rng: random.Random) -> Tree | None:
    """a as a + 10^(−9)."""
    if tree.kind in ("list", "tuple", "interval", "union", "set", "eq", "inf"):
        return None
    tiny = Tree("pow", (num(10), num(-rng.choice((3, 6, 9, 20)))))
    return Tree("add", (tree, tiny))


def flatten_scripts(tree: Tree, rng: random.Random) -> Tree | None:
    """2^10 as 210, 2√3 as 23."""
    if tree.kind == "pow" and all(whole(part) is not None for part in tree.parts):
        return num(tree.parts[0].text + tree.parts[1].text)
    if tree.kind == "mul" and whole(tree.parts[0]) is not None and tree.parts[1].kind == "sqrt":
        inside = tree.parts[1].parts[0]
        return num(tree.parts[0].text + inside.text) if whole(inside) is not None else None
    return None


MUTATIONS: tuple[Move, ...] = (
    change_digit, next_number, swap_digits, shift_point, change_sign, swap_fraction,
    change_exponent, drop_root, drop_part, repeat_part, swap_parts, change_bracket,
    other_operation, add_little, flatten_scripts,
)  # fmt: skip
