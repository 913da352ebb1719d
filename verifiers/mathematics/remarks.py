"""The grammar of what stands behind a value: units, multipliers, remarks."""

from fractions import Fraction

from ..numerals import Unreadable
from .digits import in_base, is_numeral, is_whole, number
from .expressions import Expressions
from .names import ATOMS
from .nodes import Based, Items, Node, Number, Product, Quantity, Text
from .units import canonical

NEGATIONS = frozenset(
    str.split("""not no nor never neither cannot isn't aren't doesn't don't can't wrong incorrect
    false instead rather except unless""")
)
"""Words that take back what they stand beside."""
CLAUSE_STARTS = frozenset(("all", "any", "every", "each", "some", "integer", "integers",
                            "positive", "real", "natural", "nonnegative"))  # fmt: skip
_MULTIPLIERS = {
    "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12,
}  # fmt: skip


class Remarks(Expressions):
    """Reads the words behind a value."""

    def with_words(self, node: Node, following: str) -> Node:
        """Read the unit or the remark behind a value."""
        if following[:1] == '"' and self._is_clause(following):
            return node
        if following[:1] == "$":
            self.at += 1
            return _quantity(node, following[1:] or "$")
        if following == '"base' and is_whole(self.tokens[self.at + 1]):
            self.at += 2
            return _rebased(node, self.tokens[self.at - 1])
        unit = self._unit()
        word, _, rest = unit.partition(" ")
        if word.lower() in _MULTIPLIERS:
            node = _times(node, _MULTIPLIERS[word.lower()])
            if not rest:
                return node
            unit = rest
        if is_numeral(self.tokens[self.at]):
            return self._compound(node, unit)
        return _quantity(node, unit) if unit else node

    def _is_clause(self, token: str) -> bool:
        following = self.tokens[self.at + 1].lstrip('"').lower()
        return token == '"where' or (token == '"for' and following in CLAUSE_STARTS)

    def _compound(self, node: Node, unit: str) -> Node:
        """Read `2 hours 30 minutes`: units of one kind, each smaller than the one before."""
        total, last = _in_base_unit(node, unit)
        kind = (canonical(unit) or ("",))[0]
        while is_numeral(self.tokens[self.at]):
            value = self.numeral()
            unit = self._unit()
            more, factor = _in_base_unit(value, unit)
            if (canonical(unit) or ("",))[0] != kind or factor >= last:
                raise Unreadable("two values side by side")
            total, last = total + more, factor
        return Quantity(Number(total / last), unit)

    def _unit(self) -> str:
        """Read words, with the powers and bars of a unit: `cm^2`, `m/s`, `because it is so`."""
        tokens, parts = self.tokens, []
        start = self.at
        while True:
            token = tokens[self.at]
            if token[:1] == '"' or (token in ATOMS and self.at >= start):
                word = token.lstrip('"\\')
                if word.lower() in NEGATIONS:
                    raise Unreadable("a value that the words take back")
                glued = not parts or parts[-1] in ("/", "*", "-")
                parts += [word] if glued else [" ", word]
                self.at += 1
            elif (token in ("/", "*", "-") and tokens[self.at + 1][:1] == '"') or (
                token in ("/", "*") and parts and tokens[self.at + 1] in ATOMS
            ):
                parts.append(token)
                self.at += 1
            elif token == "^" and parts:
                parts.append(self._unit_power())
            elif token == "\\frac":
                self.at += 1
                parts += [self._unit_in_braces(), "/", self._unit_in_braces()]
            elif token in ("{", "}", "(", ")") and tokens[self.at + (token in "({")][:1] == '"':
                if token in ")}" or not (end := self.closing(self.at)):
                    break
                self.at += 1
                parts += [" " if parts else "", self._unit()]
                if self.at != end:
                    raise self.refuse()
                self.at += 1
            else:
                break
        if not parts and tokens[self.at]:
            raise self.refuse()
        return "".join(parts)

    def _unit_in_braces(self) -> str:
        self.take("{")
        unit = self._unit()
        self.take("}")
        return unit

    def _unit_power(self) -> str:
        self.at += 1
        braced = self.skip("{")
        sign = "-" if self.skip("-") else ""
        digits = self.tokens[self.at]
        if digits in ('"th', "\\degree") or not is_whole(digits) or len(digits) > 2:
            raise self.refuse()
        self.at += 1
        if braced:
            self.take("}")
        return f"^{sign}{digits}"


def _quantity(node: Node, unit: str) -> Node:
    if isinstance(node, Quantity):
        node, unit = node.value, f"{node.unit} {unit}"
    if isinstance(node, Text | Items):
        raise Unreadable("words behind words")
    return Quantity(node, unit)


def _times(node: Node, factor: int) -> Node:
    if isinstance(node, Quantity):
        return Quantity(_times(node.value, factor), node.unit)
    if isinstance(node, Number):
        places = max(node.places - len(str(factor)) + 1, 0) if node.places else None
        return Number(node.value * factor, places, node.digits)
    return Product((node, number(str(factor))))


def _rebased(node: Node, base: str) -> Based:
    if not isinstance(node, Number) or node.places is not None:
        raise Unreadable("a base behind something else than a whole number")
    return in_base(str(node.value), base)


def _in_base_unit(node: Node, unit: str) -> tuple[Fraction, Fraction]:
    known = canonical(unit)
    if known is None or not isinstance(node, Number):
        raise Unreadable("two values side by side")
    return node.value * known[1], known[1]
