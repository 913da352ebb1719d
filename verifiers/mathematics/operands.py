"""The grammar of arguments: groups, fractions, roots, binomials, derivatives."""

from fractions import Fraction

from ..numerals import Unreadable
from .cursor import Cursor, shown
from .digits import is_numeral, is_whole, number
from .names import ATOMS
from .nodes import Big, Call, Node, Number, Product, Root, Symbol, inverse

MAX_DEGREE = 1000
"""Degree of a root."""
_TWO = Number(Fraction(2), None, 1)


class Operands(Cursor):
    """Reads commands with braces behind them."""

    def argument(self) -> Node:
        r"""Read the argument of a command: a group, or as in TeX one digit, letter or command."""
        tokens, token = self.tokens, self.tokens[self.at]
        if token == "{":
            self.at += 1
            only = tokens[self.at]
            if tokens[self.at + 1] == "}" and is_whole(only):
                self.at += 2
                return number(only)
            self.deeper()
            node = self.sum()
            node = self.stacked(node)
            self.depth -= 1
            self.take("}")
            return node
        if is_whole(token):
            if len(token) > 1:
                tokens[self.at] = token[1:]
            else:
                self.at += 1
            return number(token[0])
        if is_numeral(token) or not token:
            raise Unreadable(f"{shown(token)} as the argument of a command")
        if token in ATOMS:
            self.at += 1
            return ATOMS[token] if token not in self.bound else Symbol(token)
        self.deeper()
        node = self.operand()
        self.depth -= 1
        return node

    def stacked(self, node: Node) -> Node:
        r"""Read what stands below a value: `1 \over 2`, `n \choose k`."""
        if self.skip("\\choose"):
            return Call("binomial", (node, self.sum()))
        if self.skip("\\over"):
            return Product((node, inverse(self.sum())))
        return node

    def fraction(self) -> Node:
        """Read the two arguments of a fraction, or a derivative."""
        if self.tokens[self.at] == "{" and self.tokens[self.at + 1] in ("d", "\\partial"):
            derivative = self._derivative()
            if derivative is not None:
                return derivative
        top = self.argument()
        return Product((top, inverse(self.argument())))

    def _derivative(self) -> Node | None:
        """Read d/dx and its operand, or dy/dx as a name."""
        tokens, mark = self.tokens, self.tokens[self.at + 1]
        end = self.closing(self.at)
        if not end or tokens[end + 1 : end + 3] != ["{", mark]:
            return None
        last = self.closing(end + 1)
        above, below = tokens[self.at + 2 : end], tokens[end + 3 : last]
        if len(below) != 1 or len(above) > 1 or below[0] not in ATOMS:
            return None
        self.at = last + 1
        variable = Symbol(below[0].lstrip("\\"))
        if above:
            return Symbol("d{}/d{}".format(above[0].lstrip("\\"), variable.name))
        self.deeper()
        body = self.term()
        self.depth -= 1
        return Big("derivative", variable, None, None, body)

    def root(self) -> Node:
        """Read the degree and the argument of a root."""
        degree: Node = _TWO
        if self.skip("["):
            degree = self.sum()
            self.take("]")
            match degree:
                case Number(value) if value.denominator > 1 or not 2 <= value <= MAX_DEGREE:
                    raise Unreadable(f"a root of degree {value}; 2 to {MAX_DEGREE} are read")
        return Root(self._radicand(), degree)

    def _radicand(self) -> Node:
        token = self.tokens[self.at]
        if is_numeral(token):
            self.at += 1
            return number(token)
        return self.argument()

    def cube_root(self) -> Node:
        """Read `cbrt(x)`."""
        return Root(self._radicand(), Number(Fraction(3), None, 1))

    def binomial(self) -> Node:
        r"""Read the two arguments of `\binom`."""
        if self.skip("("):
            upper = self.sum()
            self.take(",")
            pair = upper, self.sum()
            self.take(")")
            return Call("binomial", pair)
        upper = self.argument()
        return Call("binomial", (upper, self.argument()))
