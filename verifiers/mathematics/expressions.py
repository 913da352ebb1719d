"""The grammar of expressions: sums, products, powers, and what may follow an operand."""

from ..numerals import MAX_EXPONENT, TooLarge
from .brackets import Brackets
from .calls import Calls
from .digits import Numbers, is_numeral, number, tokens_start_with_word
from .names import ATOMS, Names
from .nodes import (
    Call,
    Constant,
    Matrix,
    Member,
    Node,
    Number,
    Percent,
    PlusMinus,
    Power,
    Product,
    SetOf,
    Sum,
    Symbol,
    Tuple,
    inverse,
    negated,
)
from .operands import Operands
from .powers import ENDS, Powers
from .runs import FUNCTIONS
from .tokens import ACCENTS

_ADDITIVE = frozenset(("+", "-", "\\pm", "\\mp"))
_SIGNS = frozenset(("+", "-"))
_BIG = frozenset(("\\sum", "\\prod", "\\int", "\\lim"))
_CALLED = frozenset("\\" + name for name in FUNCTIONS) - {"\\sqrt", "\\cbrt", "\\binom"}
_OPENINGS = frozenset(("(", "[", "]", "{", "\\{", "\\langle", "<"))
_SHAPES = frozenset(("\\angle", "\\triangle"))
_ENVIRONMENTS = tuple(
    "\\begin " + name for name in str.split("pmatrix bmatrix matrix smallmatrix vmatrix Bmatrix")
)
_PAIRS = {"\\lfloor": ("\\rfloor", "floor"), "\\lceil": ("\\rceil", "ceil")}
_STARTS = (
    frozenset(ATOMS)
    | _CALLED
    | _BIG
    | _SHAPES
    | ACCENTS
    | _PAIRS.keys()
    | {"(", "[", "{", "\\langle", "\\frac", "\\sqrt", "\\cbrt", "\\binom", "\\pi", "\\infty", "|("}
    | set(_ENVIRONMENTS)
)
"""Tokens that continue a product without a sign between."""
_DIGITS = frozenset("0123456789")
_BEHIND_NUMERAL = frozenset(("", ",", ";", ")", "]", "}", "\\}", "=", "<", "<=", ">", ">="))
"""Tokens behind which a numeral stands alone, as most numerals do."""
_BEFORE_NUMERAL = frozenset((")", "}", "]", "\\pi", "|", "|)", "!"))
_CONSTANTS = {"\\pi": Constant("pi"), "\\infty": Constant("oo"), "\\emptyset": SetOf(())}
_SPEED = ["/", "s"]
_AFTER_INTERVAL = frozenset(("\\cup", "\\cap", "\\setminus", "U", ",", ";", "or", "and", ""))


_COMMANDS = {
    "\\frac": Operands.fraction,
    "\\sqrt": Operands.root,
    "\\binom": Operands.binomial,
    "\\cbrt": Operands.cube_root,
}


class Expressions(Powers, Brackets, Calls, Numbers, Names, Operands):
    """Reads scalars, and structures where they are operands."""

    def sum(self) -> Node:
        """Read terms with + and − between them."""
        tokens = self.tokens
        token = tokens[self.at]
        if token[:1] in _DIGITS and tokens[self.at + 1] in _BEHIND_NUMERAL:
            self.at += 1
            return number(token)
        terms = [self._signed(token) if token in ("\\pm", "\\mp") else self.term()]
        while (token := tokens[self.at]) in _ADDITIVE and not self._integrand_ended():
            if token in _SIGNS:
                self.at += 1
                term = self.term()
                terms.append(negated(term) if token == "-" else term)
            else:
                terms.append(self._signed(token))
        return terms[0] if len(terms) == 1 else Sum(tuple(terms))

    def _signed(self, token: str) -> Node:
        self.at += 1
        return PlusMinus(self.term(), token == "\\mp")

    def _integrand_ended(self) -> bool:
        return self.integrals > 0 and self.differential is not None

    def term(self) -> Node:
        """Read signed factors with *, / or nothing between them."""
        tokens = self.tokens
        negative = tokens[self.at] in _SIGNS and self.sign()
        factors: list[Node] = []
        if self.integrals and self.at_differential():
            self.take_differential()
            factors.append(number("1"))
        else:
            factors.append(self.factor())
        scientific = remainders = 0
        while True:
            token = tokens[self.at]
            if token in _STARTS:
                if not self._continues(token, factors[-1]):
                    break
                if self.integrals and token == "d" and self.at_differential():
                    self.take_differential()
                    break
                factors.append(self.factor())
            elif token == "*" or token == "/":
                if tokens[self.at + 1][:1] == '"' and len(tokens[self.at + 1]) > 1:
                    break
                self.at += 1
                scientific += token == "*" and tokens[self.at] == "10"
                if tokens[self.at] in _SIGNS:
                    negative ^= self.sign()
                factor = self.factor()
                factors.append(inverse(factor) if token == "/" else factor)
            elif token == "\\bmod":
                self.at += 1
                remainders = self.one_more(remainders)
                factors = [Call("mod", (_product(factors), self.factor()))]
            elif (token == "|" and self.bars == 0 and self._opens_bar()) or (
                token and is_numeral(token) and tokens[self.at - 1] in _BEFORE_NUMERAL
            ):
                factors.append(self.factor())
            elif token == '"d' and self.at_differential():
                self.take_differential()
                break
            else:
                break
        if len(factors) == 1:
            node = factors[0]
        else:
            node = (_scientific(factors) if scientific == 1 else None) or _product(factors)
        return negated(node) if negative else node

    def _continues(self, token: str, last: Node) -> bool:
        """Return whether the next operand multiplies the last one: not a unit, not a union."""
        tokens = self.tokens
        if self._integrand_ended():
            return False
        if token in ("(", "{", "\\frac"):
            place = self.at + (token == "\\frac")
            if tokens_start_with_word(tokens, place) or (
                token == "(" and tokens[self.at + 1][:1] == '"'
            ):
                return False
            if tokens[self.at + 1] == "\\bmod" or self.is_condition(self.at):
                return False
        if token == "[":
            return self.closing(self.at) > 0 and tokens[self.at + 1] not in _AFTER_INTERVAL
        if token == "U" and isinstance(last, Tuple | SetOf):
            return tokens[self.at + 1] not in _OPENINGS
        return (
            token != "m"
            or not isinstance(last, Number)
            or tokens[self.at + 1 : self.at + 3] != _SPEED
        )

    def _opens_bar(self) -> bool:
        return self.tokens[self.at + 1] not in ENDS

    def factor(self) -> Node:
        """Read an operand with all that follows it, the percent sign last."""
        node = self.power()
        marks = 0
        while self.skip("%"):
            node = Percent(node)
            marks = self.one_more(marks)
        return node

    def operand(self) -> Node:
        """Read a number, a variable, or something nested."""
        token = self.tokens[self.at]
        if token in ATOMS:
            return self.variable(token)
        if token and token[0] in "0123456789":
            return self.numeral()
        if token in _CONSTANTS:
            self.at += 1
            return _CONSTANTS[token]
        self.at += 1
        if token in _COMMANDS:
            self.deeper()
            node = _COMMANDS[token](self)
            self.depth -= 1
            return node
        if token in _OPENINGS:
            return self._opened(token)
        return self._rarer(token)

    def _opened(self, token: str) -> Node:
        if token == "{":
            return self.braced()
        if token == "\\{":
            return self.set()
        if token == "<":
            self.deeper()
            node = self.angle()
            self.depth -= 1
            return node
        return self.bracketed(token)

    def _rarer(self, token: str) -> Node:
        if token in _CALLED:
            return self.function(token)
        if token in _BIG:
            return self.big(token)
        if token in ("|", "|(", "\\|") or token in _PAIRS:
            return self._between(token)
        if token[:7] == "\\begin ":
            return self.environment(token[7:])
        if token in ACCENTS:
            return self.accented(token)
        if token in _SHAPES:
            return self.shape(token[1:])
        if token == "\\ldots":
            return Symbol("...")
        if token[:1] == "#":
            return self.named_set(token[1:])
        if token[:1] == "$":
            self.unit = token[1:] or "$"
            return self.power()
        self.at -= 1
        if token in ("_", "^"):
            return self.choice_before()
        if token[:1] == "." and len(token) > 1:
            return self.numeral()
        if token == "." and self.tokens[self.at + 1] == "\\overline":
            self.tokens[self.at] = "0."
            return self.numeral()
        if token[:1] == '"' and token[1:] in ATOMS:
            self.tokens[self.at] = token[1:]
            return self.variable(token[1:])
        raise self.refuse()

    def _between(self, opening: str) -> Node:
        """Read |x|, a norm, a floor or a ceiling."""
        closing, name = _PAIRS.get(opening, ("|)" if opening == "|(" else opening, "abs"))
        self.deeper()
        outer, self.bars = self.bars, 1 if opening == "|" else 0
        node = self.sum()
        self.bars = outer
        self.depth -= 1
        if not self.skip(closing) and not (opening[0] == "|" and self.skip("|", "|)")):
            raise self.refuse()
        if name == "abs" and isinstance(node, Matrix):
            name = "det"
        if opening == "\\|" or (name == "abs" and _is_vector(node)):
            name = "norm"
        return Call(name, (node,))


def _is_vector(node: Node) -> bool:
    return isinstance(node, Tuple) or (isinstance(node, Symbol) and node.name.startswith("vec "))


def _product(factors: list[Node]) -> Node:
    """Return the product; a variable beside a half-open interval, `t(0, 4]`, lies in it."""
    match factors:
        case [only]:
            return only
        case [Symbol(), Tuple(_, opening, closing)] if (opening, closing) in _HALF_OPEN:
            return Member(factors[0], factors[1])
    return Product(tuple(factors))


_HALF_OPEN = (("(", "]"), ("[", ")"))


def _scientific(factors: list[Node]) -> Number | None:
    """Return a decimal times a power of ten as one decimal, with the digits it was written with."""
    match factors:
        case [Number(value, places, digits), Power(Number(ten), Number(exponent))]:
            if places is None or ten != 10 or exponent.denominator > 1:
                return None
            if abs(exponent) > MAX_EXPONENT:
                raise TooLarge(f"an exponent beyond ±{MAX_EXPONENT}")
            shift = int(exponent)
            scaled = value * 10**shift if shift >= 0 else value / 10**-shift
            return Number(scaled, max(places - shift, 0), digits)
    return None
