"""Equality by sympy of what the other tiers leave open; runs in a worker that can be killed.

The sympy objects are built from our own tree, node by node; no text reaches sympy. An equality is
accepted only when it is proved, a difference only when it is larger than its rounding at some
point. The rest is undecided.
"""

from collections.abc import Callable, Sequence
from typing import Any

import sympy
from sympy.core import random as sympy_random

from ..numerals import Unreadable
from .nodes import (
    Applied,
    Big,
    Call,
    Constant,
    Matrix,
    Node,
    Number,
    Power,
    Product,
    Root,
    Sum,
    Symbol,
    Tuple,
    children,
    symbols,
)

DIGITS = 30
"""Significant digits to which differences are evaluated."""
_CONSTANTS = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "oo": sympy.oo}
_POINTS = ((7, 5), (13, 11), (23, 17), (5, 7))
"""Starting points (numerator, denominator) at which two expressions in variables are compared."""


def build(node: Node) -> Any:
    """Return the sympy expression of a folded scalar tree; variables stand for positive numbers.

    Raises:
        Unreadable: The tree is no scalar, or has no finite value.
    """
    handler = _BUILDERS.get(type(node))
    if handler is None:
        raise Unreadable(f"a {type(node).__name__} inside an expression")
    return handler(node)


def _finite(value: Any) -> Any:
    if value.has(sympy.zoo, sympy.nan):
        raise Unreadable("a division by zero")
    return value


def _symbol(name: str) -> Any:
    return sympy.Symbol(name, positive=True)


def _root(node: Root) -> Any:
    value, degree = build(node.operand), build(node.degree)
    if value.is_negative and degree.is_odd:
        return -sympy.root(-value, degree)
    return sympy.root(value, degree)


def _call(node: Call) -> Any:
    if node.name in ("det", "norm") and isinstance(node.args[0], Matrix | Tuple):
        return _of_matrix(node.name, node.args[0])
    function = _FUNCTIONS.get(node.name)
    if function is None:
        raise Unreadable(f"the function {node.name}")
    return _finite(function(*map(build, node.args)))


def _of_matrix(name: str, operand: Matrix | Tuple) -> Any:
    rows = operand.rows if isinstance(operand, Matrix) else [[item] for item in operand.items]
    matrix = sympy.Matrix([[build(entry) for entry in row] for row in rows])
    if name == "norm":
        return matrix.norm()
    if matrix.rows != matrix.cols:
        raise Unreadable("the determinant of a matrix that is not square")
    return matrix.det()


def _big(node: Big) -> Any:
    body, variable = build(node.body), _symbol(node.variable.name)
    lower = None if node.lower is None else build(node.lower)
    upper = None if node.upper is None else build(node.upper)
    if node.kind == "derivative":
        found = sympy.diff(body, variable)
        return found if lower is None else found.subs(variable, lower)
    if node.kind == "limit":
        return _limit(body, variable, lower)
    # an index or a variable of integration takes its values from its bounds, not from above 0
    bound = sympy.Symbol(node.variable.name, integer=True if node.kind != "integral" else None)
    bound = bound if node.kind != "integral" else sympy.Symbol(node.variable.name, real=True)
    body = body.subs(variable, bound)
    if node.kind == "integral":
        if lower is None or upper is None:
            return sympy.integrate(body, bound).subs(bound, variable)
        return _finite(sympy.integrate(body, (bound, lower, upper)))
    if lower is None or upper is None:
        raise Unreadable(f"a {node.kind} without bounds")
    make = sympy.summation if node.kind == "sum" else sympy.product
    return _finite(make(body, (bound, lower, upper)))


def _limit(body: Any, variable: Any, point: Any) -> Any:
    if point is None:
        raise Unreadable("a limit without a point")
    free = sympy.Symbol(variable.name, real=True)
    body = body.subs(variable, free)
    if point in (sympy.oo, sympy.S.NegativeInfinity):
        return _finite(sympy.limit(body, free, point))
    above, below = (sympy.limit(body, free, point, side) for side in "+-")
    if sympy.simplify(above - below) != 0:
        raise Unreadable("a limit that differs from the two sides")
    return _finite(above)


_SAME_NAMES = ("sin", "cos", "tan", "cot", "sec", "csc", "exp")
_SAME_NAMES += ("sinh", "cosh", "tanh", "coth", "sech", "csch")
_INVERTED = ["sin", "cos", "tan", "sec", "csc", "sinh", "cosh", "tanh"]
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(sympy, name) for name in _SAME_NAMES},
    **{f"arc{name}": getattr(sympy, f"a{name}") for name in _INVERTED},
    "arccot": lambda value: sympy.pi / 2 - sympy.atan(value),
    "ln": sympy.log,
    "log": sympy.log,
    "abs": sympy.Abs,
    "norm": sympy.Abs,
    "det": lambda value: value,
    "floor": sympy.floor,
    "ceil": sympy.ceiling,
    "factorial": sympy.factorial,
    "double_factorial": sympy.factorial2,
    "binomial": sympy.binomial,
    "permutations": lambda n, k: sympy.ff(n, k),
    "gcd": lambda *args: sympy.gcd(list(args)),
    "lcm": lambda *args: sympy.lcm(list(args)),
    "mod": sympy.Mod,
    "min": sympy.Min,
    "max": sympy.Max,
    "re": sympy.re,
    "im": sympy.im,
    "conjugate": sympy.conjugate,
    "arg": sympy.arg,
    "sgn": sympy.sign,
}
_BUILDERS: dict[type, Callable[..., Any]] = {
    Number: lambda node: sympy.Rational(node.value.numerator, node.value.denominator),
    Symbol: lambda node: _symbol(node.name),
    Constant: lambda node: _CONSTANTS[node.name],
    Sum: lambda node: _finite(sympy.Add(*map(build, node.terms))),
    Product: lambda node: _finite(sympy.Mul(*map(build, node.factors))),
    Power: lambda node: _finite(sympy.Pow(build(node.base), build(node.exponent))),
    Root: _root,
    Call: _call,
    Applied: lambda node: sympy.Function(node.name)(*map(build, node.args)),
    Big: _big,
}


def same(one: Node, other: Node) -> bool | None:
    """Return whether two folded trees have the same value, `None` if that stays open.

    Raises:
        Unreadable: A side has no value.
    """
    sympy_random.seed(0)  # `Expr.equals` draws points: the same ones on every run
    left, right = build(one), build(other)
    if left == right:
        return True
    if left.is_infinite or right.is_infinite:
        return False
    difference = left - right
    free = sorted(difference.free_symbols, key=str)
    points = _POINTS if free else _POINTS[:1]
    if any(_differs(difference.subs(_values(free, point))) for point in points):
        return False
    if _signs_matter(one) or _signs_matter(other):
        return None
    return _proved(difference)


def _signs_matter(node: Node) -> bool:
    """Return whether a proof for positive variables says too little: √(x²) is not x."""
    rooted = isinstance(node, Root) or (
        isinstance(node, Power)
        and isinstance(node.exponent, Number)
        and node.exponent.value.denominator != 1
    )
    signed = isinstance(node, Call) and node.name in _SIGNED
    if (rooted or signed) and symbols(node):
        return True
    return any(map(_signs_matter, children(node)))


_SIGNED = frozenset(["abs", "ln", "log", "sgn", "arg", "min", "max", "re", "im", "conjugate"])
"""Functions that treat a negative number otherwise than a positive one."""


def _values(symbols: Sequence[Any], point: tuple[int, int]) -> dict[Any, Any]:
    numerator, denominator = point
    return {
        # the step lets no two variables, nor a variable and a number, coincide
        symbol: sympy.Rational(numerator + 2 * place, denominator + 3 * place)
        for place, symbol in enumerate(symbols)
    }


def _differs(number: Any) -> bool | None:
    """Return whether a number is certainly not zero; `None` if it has no finite value."""
    if number.is_Rational:
        return bool(number != 0)
    parts = sympy.N(number, DIGITS).as_real_imag()
    if not all(part.is_Float or part.is_Rational for part in parts):
        return None
    # a Float of precision 1 is what is left when all digits cancelled
    return any(part != 0 and (part.is_Rational or part._prec > 1) for part in parts)


def _proved(difference: Any) -> bool | None:
    for rewrite in (sympy.expand, sympy.radsimp, sympy.simplify):
        if rewrite(difference) == 0:
            return True
    # a False of sympy rests on points that may lie outside of where both sides have a value
    return True if difference.equals(0) else None
