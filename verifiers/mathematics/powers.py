"""The grammar of what follows an operand: exponents, factorials, degrees, ordinals."""

from ..numerals import Unreadable
from .brackets import transposed
from .cursor import Cursor
from .digits import is_numeral, number
from .nodes import Call, Degree, Matrix, Node, Number, Power, Sum, Symbol, Tuple, negated
from .runs import ORDINALS

_POSTFIX = frozenset(("^", "!", "!!", "\\degree", "'", "_"))
_SIGNS = frozenset(("+", "-"))
_SCALES = {"C": "°C", "F": "°F", "K": "K", '"C': "°C", '"F': "°F", '"celsius': "°C"} | {
    '"Celsius': "°C", '"fahrenheit': "°F", '"Fahrenheit': "°F"
}  # fmt: skip
_ORDINALS = frozenset('"' + ending for ending in ORDINALS)
_DEGREE_MARKS = frozenset(("\\degree", "\\circ", "o", '"o'))
ENDS = frozenset(("", ",", ";", "and", "or", ")", "]", "}", "\\}", "\\quad", "=", "~", "\\\\"))
"""Signs that end a value."""


class Powers(Cursor):
    """Reads an operand with its postfix signs."""

    def power(self) -> Node:
        """Read an operand and its factorial, exponent, degree sign."""
        node = self.operand()
        marks = 0
        while (token := self.tokens[self.at]) in _POSTFIX:
            marks = self.one_more(marks)
            if token == "^":
                node = self._raised(node)
            elif token in ("!", "!!"):
                self.at += 1
                if self.tokens[self.at] in ("!", "!!"):
                    raise Unreadable("a factorial with three marks")
                node = Call("factorial" if token == "!" else "double_factorial", (node,))
            elif token == "\\degree":
                self.at += 1
                node = self._degrees(node)
            elif token == "_" and isinstance(node, Number) and node.value.denominator == 1:
                node = self.based(str(node.value))
            else:
                raise self.refuse()
        return node

    def _raised(self, base: Node) -> Node:
        """Read what stands behind ^: an exponent, or the mark of a degree, ordinal, transpose."""
        tokens = self.tokens
        self.at += 1
        braced = tokens[self.at] == "{"
        token, after = tokens[self.at + braced], tokens[self.at + braced + 1]
        whole = not braced or after == "}"
        if whole and (token in _DEGREE_MARKS or token in _ORDINALS):
            self.at += 3 if braced else 1
            return base if token in _ORDINALS else self._degrees(base)
        if braced and self._is_ordinal(base, after):
            self.at += 4
            return base
        if whole and token in ("T", "\\top", "t") and isinstance(base, Matrix | Tuple):
            self.at += 3 if braced else 1
            return transposed(base)
        self.deeper()
        if braced:
            exponent = self.argument()
        else:
            negative = token in _SIGNS and self.sign()
            exponent = self.power()
            exponent = negated(exponent) if negative else exponent
        self.depth -= 1
        return Power(base, exponent)

    def _is_ordinal(self, base: Node, after: str) -> bool:
        tokens = self.tokens
        if tokens[self.at + 3] != "}" or not isinstance(base, Number | Symbol):
            return False
        mark = tokens[self.at + 1] + after
        return mark == "th" or (mark in ORDINALS and isinstance(base, Number))

    def _degrees(self, node: Node) -> Node:
        """Read what stands behind a degree sign: a temperature scale, or minutes and seconds."""
        scale = self.tokens[self.at]
        if scale in _SCALES and self.tokens[self.at + 1] in ENDS:
            self.at += 1
            self.unit = _SCALES[scale]
            return node
        parts = [Degree(node)]
        while is_numeral(self.tokens[self.at]) and self.tokens[self.at + 1] in ("'", "\\prime"):
            minutes = number(self.tokens[self.at])
            marks = 1 + (self.tokens[self.at + 2] == self.tokens[self.at + 1])
            self.at += 1 + marks
            parts.append(Degree(Number(minutes.value / 60**marks)))
        return parts[0] if len(parts) == 1 else Sum(tuple(parts))
