"""Whether an answer equals a truth: the tiers, cheapest first.

1. `rational`: both sides are exact fractions; decided here, without sympy.
2. `structure`: the two trees are the same up to the order of terms and factors.
3. `symbolic`: sympy decides, in a worker (`decide` with `prove=True` runs there).
"""

from dataclasses import dataclass
from fractions import Fraction

from .nodes import Equation, Node, Number, Percent, Product, Symbol, show
from .rational import fold


@dataclass(frozen=True, slots=True)
class Reading:
    """A text that was read."""

    node: Node
    """The tree, with its rational parts computed."""
    shown: str
    """One text for all equal rationals: `x = 1/2`, `0.5` and `50%` are all shown as `1/2`."""
    percent: bool
    """Whether it ends in a percent sign."""

    @classmethod
    def of(cls, node: Node) -> "Reading":
        """Fold a tree."""
        folded = fold(node)
        shown = folded.right if isinstance(folded, Equation) and is_assignment(folded) else folded
        return cls(folded, show(shown), isinstance(node, Percent))


@dataclass(frozen=True, slots=True)
class Leniency:
    """What counts as equal beyond exact equality."""

    absolute: Fraction = Fraction(0)
    relative: Fraction = Fraction(0)
    either_percent: bool = False
    """Whether 50% equals 50 as well as 1/2."""

    @property
    def tolerant(self) -> bool:
        """Whether numbers may differ at all."""
        return bool(self.absolute or self.relative)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a tier decided: `equal` is `None` when it is left to the next one."""

    equal: bool | None
    tier: str
    reason: str = ""


_EQUAL = Decision(True, "rational")
_DIFFERENT = Decision(False, "rational")


def is_assignment(node: Node) -> bool:
    """Return whether a tree names a value: one variable = something without that variable."""
    return (
        isinstance(node, Equation)
        and isinstance(node.left, Symbol)
        and node.left not in symbols(node.right)
    )


def symbols(node: Node) -> set[Symbol]:
    """Return the variables of a tree."""
    if isinstance(node, Symbol):
        return {node}
    found: set[Symbol] = set()
    for name in getattr(node, "__slots__", ()):
        child = getattr(node, name)
        for part in child if isinstance(child, tuple) else (child,):
            found |= symbols(part) if hasattr(part, "__slots__") else set()
    return found


def decide(answer: Reading, truth: Reading, leniency: Leniency, *, prove: bool) -> Decision:
    """Compare an answer with a truth.

    Args:
        answer: What the policy wrote.
        truth: What is right.
        leniency: The tolerances asked for.
        prove: Whether sympy may be asked; otherwise what needs it is left open.

    Returns:
        The decision, with `equal=None` for what is left open.
    """
    one, other = answer.node, truth.node
    if isinstance(one, Equation) and isinstance(other, Equation):
        return _equations(one, other, leniency, prove)
    for side in (one, other):
        if isinstance(side, Equation) and not is_assignment(side):
            return Decision(False, "structure", "an equation is not a value")
    one = one.right if isinstance(one, Equation) else one
    other = other.right if isinstance(other, Equation) else other
    decision = _values(one, other, leniency, prove)
    if decision.equal is False and leniency.either_percent and answer.percent != truth.percent:
        hundred = Number(Fraction(100))
        if answer.percent:
            again = _values(_times(one, hundred), other, leniency, prove)
        else:
            again = _values(one, _times(other, hundred), leniency, prove)
        return again if again.equal else decision
    return decision


def check_value(node: Node) -> None:
    """Raise `Unreadable` if sympy finds that a tree has no finite value."""
    from . import symbolic

    for side in (node.left, node.right) if isinstance(node, Equation) else (node,):
        symbolic.build(side)


def _times(node: Node, factor: Number) -> Node:
    return fold(Product((factor, node)))


def _equations(one: Equation, other: Equation, leniency: Leniency, prove: bool) -> Decision:
    """Compare side with side, as written or swapped; no terms are moved across."""
    straight = _both(one.left, other.left, one.right, other.right, leniency, prove)
    if straight.equal:
        return straight
    swapped = _both(one.left, other.right, one.right, other.left, leniency, prove)
    return swapped if swapped.equal or straight.equal is False else straight


def _both(a: Node, b: Node, c: Node, d: Node, leniency: Leniency, prove: bool) -> Decision:
    first = _values(a, b, Leniency(), prove)
    return _values(c, d, leniency, prove) if first.equal else first


def _values(one: Node, other: Node, leniency: Leniency, prove: bool) -> Decision:
    if isinstance(one, Number) and isinstance(other, Number):
        if one.value == other.value:
            return _EQUAL
        if not leniency.tolerant:
            return _DIFFERENT
        bound = max(leniency.absolute, leniency.relative * abs(other.value))
        return _EQUAL if abs(one.value - other.value) <= bound else _DIFFERENT
    if one == other or show(one) == show(other):
        return Decision(True, "structure")
    if not prove:
        return Decision(None, "symbolic")
    from . import symbolic

    equal = symbolic.same(one, other)
    if not equal and leniency.tolerant and not symbols(one) and not symbols(other):
        equal = symbolic.close(one, other, leniency.absolute, leniency.relative)
    return Decision(equal, "symbolic", "" if equal is not None else "equality stays undecided")
