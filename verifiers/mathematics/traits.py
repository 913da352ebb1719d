"""What the tiers need to know of the trees they compare, found in one walk."""

from dataclasses import dataclass, field
from fractions import Fraction

from .nodes import (
    Applied,
    Big,
    Call,
    Constant,
    Node,
    Number,
    Power,
    Product,
    Root,
    Sum,
    Symbol,
    children,
    symbols,
)

_WHOLE_CALLS = frozenset(["factorial", "double_factorial", "gcd", "lcm", "mod"])
_CHOICES = frozenset(["binomial", "permutations"])
_COUNTS = frozenset({"n", "m", "k", "N", "M", "K"})
"""Letters that are whole numbers where they are rounded: ⌈n/2⌉ is ⌊(n + 1)/2⌋."""
_ANALYTIC = frozenset({"sin", "cos", "tan", "cot", "sec", "csc", "exp"}) | frozenset(
    {"sinh", "cosh", "tanh", "coth", "sech", "csch"}
)


@dataclass(slots=True)
class Traits:
    """What stands in some trees, all of them together."""

    names: set[str]
    """Variables, those bound by a sum or an integral included."""
    whole: set[str]
    """Variables that must be small whole numbers: in a factorial, as the bound of a sum, in the
    exponent of a negative number; counting letters that every tree rounds."""
    kinds: set[str]
    """Names of functions and constants, kinds of `Big`, `applied`, and `log()` for one without a
    base. ∞ counts only where it is not the bound of a sum, or the point of a limit."""
    counted: set[str] = field(default_factory=set)
    """Counting letters under a rounding in the last tree."""
    levels: set[Fraction] = field(default_factory=set)
    """Numbers that stand in them: where pieces of a piecewise function may meet."""
    nodes: int = 0
    branched: bool = False
    """Whether a variable stands under a root or a function that is not analytic everywhere, so
    that agreement on one interval says nothing of the next."""

    def has_big(self) -> bool:
        """Return whether there is a sum, product, integral, limit or derivative."""
        return "big" in self.kinds


def traits(*trees: Node) -> Traits:
    """Walk some folded scalar trees."""
    found = Traits(set(), set(), set())
    counted: list[set[str]] = []
    for tree in trees:
        found.counted = set()
        _walk(tree, found)
        counted.append(found.counted)
    found.whole |= set.intersection(*counted) if counted else set()
    return found


def _walk(node: Node, found: Traits) -> None:
    found.nodes += 1
    kind = type(node)
    if kind is Number:
        found.levels.add(node.value)  # type: ignore[union-attr]
        return
    if kind is Symbol:
        found.names.add(node.name)  # type: ignore[union-attr]
        return
    match node:
        case Sum(parts) | Product(parts):
            for part in parts:
                _walk(part, found)
        case Power(base, exponent):
            if isinstance(base, Number) and base.value < 0:
                found.whole |= symbols(exponent)
            if not (isinstance(exponent, Number) and exponent.value.denominator == 1):
                _mark_branched(base, found)
            _walk(base, found)
            _walk(exponent, found)
        case Root(operand, degree):
            _mark_branched(operand, found)
            _walk(operand, found)
            _walk(degree, found)
        case Constant(name):
            found.kinds.add(name)
        case Call(name, args):
            _walk_call(name, args, found)
        case Big():
            _walk_big(node, found)
        case _:
            if isinstance(node, Applied):
                found.kinds.add("applied")
            for child in children(node):
                _walk(child, found)


def _walk_call(name: str, args: tuple[Node, ...], found: Traits) -> None:
    found.kinds.add("log()" if name == "log" and len(args) == 1 else name)
    if name in _WHOLE_CALLS or (name in _CHOICES and not isinstance(args[-1], Number)):
        for arg in args:
            found.whole |= symbols(arg)
    if name in ("floor", "ceil"):
        for arg in args:
            found.counted |= symbols(arg) & _COUNTS
    for arg in args:
        if name not in _ANALYTIC:
            _mark_branched(arg, found)
        _walk(arg, found)


def _mark_branched(node: Node, found: Traits) -> None:
    found.branched = found.branched or bool(symbols(node))


def _walk_big(node: Big, found: Traits) -> None:
    found.kinds |= {"big", node.kind}
    found.names.add(node.variable.name)
    infinite = "oo" in found.kinds
    for end in (node.lower, node.upper):
        if end is not None:
            _walk(end, found)
            if node.kind in ("sum", "product"):
                found.whole |= symbols(end)
    if not infinite:
        found.kinds.discard("oo")
    _walk(node.body, found)
