r"""The grammar of functions, sums, products, integrals and limits."""

from fractions import Fraction

from ..numerals import Unreadable
from .cursor import Cursor
from .digits import is_numeral, is_whole, number
from .names import ATOMS
from .nodes import (
    MINUS_ONE,
    Big,
    Call,
    Constant,
    Matrix,
    Node,
    Number,
    Power,
    Product,
    Sum,
    Symbol,
    Tuple,
    inverse,
    negated,
)
from .runs import FUNCTIONS

_SEVERAL = frozenset(("max", "min", "gcd", "lcm"))
_INVERSES = {
    name: "arc" + name
    for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")
}
_TRIGONOMETRIC = frozenset(("sin", "cos", "tan", "cot", "sec", "csc", "cis"))
_TEN = Number(Fraction(10), None, 2)
_KINDS = {"\\sum": "sum", "\\prod": "product", "\\int": "integral", "\\lim": "limit"}


class Calls(Cursor):
    """Reads functions and big operators; their own token is already taken."""

    def function(self, token: str) -> Node:
        """Read a function: its base or power, and its arguments in brackets or without."""
        name = FUNCTIONS[token[1:]]
        base = exponent = None
        while self.tokens[self.at] in ("^", "_"):
            if self.skip("_"):
                if base is not None or name != "log":
                    raise self.refuse()
                base = self._index()
            else:
                self.at += 1
                exponent = self._index()
        if base is None and self.tokens[self.at : self.at + 2] == ["10", "("] and name == "log":
            self.at += 1
            base = _TEN
        if name == "lg":
            name, base = "log", _TEN
        if isinstance(exponent, Number) and exponent.value == -1 and name in _INVERSES:
            name, exponent = _INVERSES[name], None
        self.deeper()
        node = _call(name, self._arguments(name), base)
        self.depth -= 1
        return node if exponent is None else Power(node, exponent)

    def _index(self) -> Node:
        """Read the base of a logarithm or the exponent on a function's name."""
        token = self.tokens[self.at]
        if is_whole(token):
            self.at += 1
            return number(token)
        if token == "-" and is_whole(self.tokens[self.at + 1]):
            self.at += 2
            return negated(number(self.tokens[self.at - 1]))
        return self.argument()

    def _arguments(self, name: str) -> list[Node]:
        opening = self.tokens[self.at]
        if opening == "(" or (opening == "[" and self.closing(self.at)):
            self.at += 1
            return self._listed(")" if opening == "(" else "]")
        if name in _SEVERAL and self.skip("\\{"):
            return self._listed("\\}")
        if name in _SEVERAL and opening == "{" and self.has_comma(self.at):
            self.at += 1
            return self._listed("}")
        return [self._bare_argument(name)]

    def _listed(self, closing: str) -> list[Node]:
        args = [self.entry()]
        while self.skip(",", ";"):
            args.append(self.entry())
        self.take(closing)
        return args

    def _bare_argument(self, name: str) -> Node:
        r"""Read an argument without brackets: `\sin 2x` takes the product, not `\sin x \cos x`."""
        negative = False
        while self.tokens[self.at] in ("-", "+"):
            negative ^= self.tokens[self.at] == "-"
            self.at += 1
        factors = [self.power()]
        while self._goes_on(factors):
            factors.append(self.power())
        over = self.tokens[self.at] == "/" and is_numeral(self.tokens[self.at + 1])
        if over and name in _TRIGONOMETRIC and _PI in factors:
            self.at += 1
            factors.append(inverse(self.power()))
        if negative:
            factors.insert(0, MINUS_ONE)
        return factors[0] if len(factors) == 1 else _product(factors)

    def _goes_on(self, factors: list[Node]) -> bool:
        token = self.tokens[self.at]
        if self.at_differential():
            return False
        if token in ATOMS and token != "e":
            return True
        if token == "\\pi":
            return True
        return (
            token in ("\\frac", "\\sqrt") and len(factors) == 1 and isinstance(factors[0], Number)
        )

    def at_differential(self) -> bool:
        """Return whether an integral is being read and its `dx` stands here."""
        token = self.tokens[self.at]
        return (
            self.integrals > 0
            and token in ("d", '"d')
            and self.tokens[self.at + 1].lstrip('"') in ATOMS
        )

    def take_differential(self) -> None:
        """Read `dx`."""
        if self.differential is not None:
            raise Unreadable("two differentials in one integral")
        self.differential = Symbol(self.tokens[self.at + 1].lstrip('"\\'))
        self.at += 2

    def big(self, token: str) -> Node:
        """Read a sum, product, integral or limit with its bounds and body."""
        kind = _KINDS[token]
        self.deeper()
        node = self._integral() if kind == "integral" else self._indexed(kind)
        self.depth -= 1
        return node

    def _indexed(self, kind: str) -> Node:
        lower = upper = variable = None
        while self.tokens[self.at] in ("_", "^"):
            if self.skip("_"):
                variable, lower = self._start(kind)
            else:
                self.at += 1
                upper = self.argument() if self.tokens[self.at] == "{" else self.bound_value()
        if variable is None or lower is None or (upper is None) != (kind == "limit"):
            raise Unreadable(f"a {kind} without its bounds")
        outer, self.bound = self.bound, (*self.bound, variable.name)
        body = self.term()
        self.bound = outer
        return Big(kind, variable, lower, upper, body)

    def _start(self, kind: str) -> tuple[Symbol, Node]:
        self.take("{")
        token = self.tokens[self.at]
        if token not in ATOMS:
            raise self.refuse()
        self.at += 1
        self.take("\\to" if kind == "limit" else "=")
        value = self.sum()
        self.take("}")
        return Symbol(token.lstrip("\\")), value

    def bound_value(self) -> Node:
        """Read a bound without braces: one numeral, letter or command."""
        token = self.tokens[self.at]
        if token == "-":
            self.at += 1
            return _product([MINUS_ONE, self.bound_value()])
        return self.argument()

    def _integral(self) -> Node:
        lower = upper = None
        while self.tokens[self.at] in ("_", "^"):
            below = self.tokens[self.at] == "_"
            self.at += 1
            value = self.argument() if self.tokens[self.at] == "{" else self.bound_value()
            lower, upper = (value, upper) if below else (lower, value)
        if (lower is None) != (upper is None):
            raise Unreadable("an integral with one bound")
        outer, self.differential = self.differential, None
        self.integrals += 1
        body = self.sum()
        self.integrals -= 1
        variable, self.differential = self.differential, outer
        if variable is None:
            raise Unreadable("an integral without its dx")
        return Big("integral", variable, lower, upper, body)


_PI = Constant("pi")


def _product(factors: list[Node]) -> Node:
    return Product(tuple(factors))


def _call(name: str, args: list[Node], base: Node | None) -> Node:
    if name == "cis" and len(args) == 1:
        sine = Product((Constant("i"), Call("sin", tuple(args))))
        return Sum((Call("cos", tuple(args)), sine))
    if name == "log":
        if base is not None and len(args) == 1:
            return Call("log", (args[0], base))
        if len(args) <= 2 and base is None:
            return Call("log", tuple(args))
        raise Unreadable("a logarithm with too many arguments")
    if name in ("det", "norm") and not isinstance(args[0], Matrix | Tuple | Symbol):
        raise Unreadable(f"the {name} of something else than a matrix")
    wanted = 2 if name == "mod" else 1
    if len(args) != wanted and name not in _SEVERAL:
        raise Unreadable(f"{name} of {len(args)} values")
    return Call(name, tuple(args))
