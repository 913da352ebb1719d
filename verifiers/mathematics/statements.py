"""The grammar of whole answers: relations, lists, and values with words around them."""

from ..numerals import Unreadable
from .digits import is_numeral, spelled
from .listing import listed
from .names import ATOMS
from .nodes import (
    SCALARS,
    Applied,
    Call,
    Items,
    Member,
    NamedSet,
    Node,
    Number,
    Product,
    Quantity,
    Ratio,
    Relation,
    SetOf,
    SetOperation,
    Sum,
    Symbol,
    Text,
    negated,
)
from .remarks import CLAUSE_STARTS, NEGATIONS, Remarks
from .units import CURRENCIES

_RELATIONS = frozenset(("=", "!=", "<", "<=", ">", ">=", "~", "=="))
_EQUALITIES = frozenset(("=", "!=", "~", "=="))
_IS = frozenset(('"is', '"are', '"equals'))
_STATEMENTS = {
    "\\parallel": "parallel", "\\perp": "perpendicular", "\\sim": "similar", "\\cong": "congruent",
    "\\subset": "subset", "\\subseteq": "subset or equal", "\\to": "to", "\\implies": "implies",
    "\\iff": "if and only if", "\\mid": "divides",
}  # fmt: skip
_SET_SIGNS = {"\\cup": "union", "\\cap": "intersection", "\\setminus": "minus"}
_SEPARATORS = frozenset((",", ";", "and", "or", "\\quad", "\\\\", "\\land", "\\lor"))
_STRENGTH = {";": 3, "or": 2, "\\lor": 2, "\\\\": 1}
_JOINS = {"or": ("or",), "\\lor": ("or",), "and": ("and",), "\\land": ("and",)}
_LEADS = frozenset(
    str.split("""is are was be that only get gets have has find obtain obtained equals equal gives
    exactly about approximately roughly thus therefore hence so then by""")
)
"""Words after which the value comes: "we find that x < 3"."""
_PHRASES: dict[str, Node] = {
    "all real numbers": NamedSet("R"), "all reals": NamedSet("R"), "real numbers": NamedSet("R"),
    "all integers": NamedSet("Z"), "integers": NamedSet("Z"), "positive integers": NamedSet("Z+"),
    "all positive integers": NamedSet("Z+"), "all complex numbers": NamedSet("C"),
    "all rational numbers": NamedSet("Q"), "all positive real numbers": NamedSet("R+"),
    "all nonnegative real numbers": NamedSet("R0+"),
    "empty set": SetOf(()), "the empty set": SetOf(()),
}  # fmt: skip


class Statements(Remarks):
    """Reads a whole text."""

    def statement(self) -> Node:
        """Read everything there is."""
        self.skip("=", "~", "\\implies", "\\therefore", "\\quad")
        node = self._quantified() if self.tokens[self.at] in ("\\forall", "\\exists") else None
        node = node or self.listing()
        if isinstance(node, SCALARS):
            node = self.stacked(node)
        if self.tokens[self.at]:
            raise Unreadable(f"{self.refuse()} (after the end of the expression)")
        return node

    def _quantified(self) -> Node:
        """Read "for all x > 0, …" as a list that starts with its quantifier."""
        kind = self.tokens[self.at][1:]
        self.at += 1
        name = self.tokens[self.at]
        if name not in ATOMS:
            raise self.refuse()
        rest = self.listing()
        parts = rest.items if isinstance(rest, Items) else (rest,)
        return Items((Applied(kind, (ATOMS[name],)), *parts))

    def listing(self) -> Node:
        """Read items with commas, semicolons, and, or between them."""
        first = self.item()
        if not self.tokens[self.at]:
            return first
        items, strengths = [first], [0]
        joined: set[str] = set()
        while self.tokens[self.at] in _SEPARATORS or self._more_follows(items[-1]):
            if self.is_condition(self.at):
                conditions = self._conditions_in_brackets()
                items += conditions
                strengths += [0] * len(conditions)
                continue
            strength = 0
            while (token := self.tokens[self.at]) in _SEPARATORS:
                strength = max(strength, _STRENGTH.get(token, 0))
                joined.update(_JOINS.get(token, ()))
                self.at += 1
            if not self.tokens[self.at]:
                if strength == _STRENGTH["or"]:
                    raise Unreadable("nothing behind or")
                break
            if self._clause():
                continue
            items.append(self.item())
            strengths.append(strength)
        return listed(items, strengths, joined.pop() if len(joined) == 1 else "")

    def _more_follows(self, last: Node) -> bool:
        """Return whether more follows without a separator; skips `for all x` and the like."""
        if isinstance(last, Relation) and self.skip("\\cup"):
            return True
        return self.is_condition(self.at) or self._clause()

    def _conditions_in_brackets(self) -> list[Node]:
        """Read `(k ∈ ℤ)` behind a value: items of their own."""
        self.take("(")
        self.deeper()
        node = self.listing()
        self.depth -= 1
        self.take(")")
        return list(node.items) if isinstance(node, Items) else [node]

    def _clause(self) -> bool:
        """Skip "for all x", "where k is an integer": a condition that names no value."""
        tokens = self.tokens
        token, after = tokens[self.at], tokens[self.at + 1]
        if token in ("\\forall", '"where') or (
            token == '"for' and after.lstrip('"').lower() in CLAUSE_STARTS
        ):
            end = (
                {"", ";", "or", "\\\\"}
                if token == '"where'
                else {"", ";", "or", "and", ",", "\\\\"}
            )
            depth = 0
            while (here := tokens[self.at]) and (depth > 0 or here not in end):
                depth += (here in ("(", "[", "{", "\\{")) - (here in (")", "]", "}", "\\}"))
                self.at += 1
            if depth:
                raise Unreadable("brackets that do not close in a condition")
            return True
        return False

    def entry(self) -> Node:
        """Read one entry of a bracketed list."""
        return self.item()

    def item(self) -> Node:
        """Read one value or relation with the words around it."""
        self.item_start = self.at
        outer, self.unit = self.unit, ""
        token = self.tokens[self.at]
        worded = token[:1] == '"'
        node = self._worded() if worded else self.relation_after(self._ratio())
        if self.unit:
            node = Quantity(node, self.unit)
        self.unit = outer
        following = self.tokens[self.at]
        if following and following not in _ITEM_ENDS and not self.is_condition(self.at):
            node = self.with_words(node, following)
        return node

    def relation_after(self, left: Node) -> Node:
        """Read the rest of a chain of relations, or of a membership."""
        token = self.tokens[self.at]
        if token in _RELATIONS or (token in _IS and isinstance(left, Symbol | Applied)):
            return self._chain(left)
        if token in ("\\in", "\\notin"):
            self.at += 1
            whole = self._sets()
            if isinstance(whole, Symbol) and whole.name in "RQZNC":
                whole = NamedSet(whole.name)
            return Member(left, whole, token == "\\notin")
        if token in _STATEMENTS and not (token == "\\mid" and self.bars):
            self.at += 1
            self.deeper()
            right = self.relation_after(self._ratio())
            self.depth -= 1
            return Applied(_STATEMENTS[token], (left, right))
        modulus = self._modulus() if token in ("\\pmod", "(") else None
        return left if modulus is None else Applied("modulo", (left, modulus))

    def _chain(self, left: Node) -> Node:
        sides, operators = [left], []
        while (token := self.tokens[self.at]) in _RELATIONS or token in _IS:
            self.at += 1
            if token in _IS and self.tokens[self.at][:1] == '"':
                self.at -= 1
                break
            operators.append("=" if token in _IS else token)
            worded = operators[-1] == "=" and self.tokens[self.at][:1] == '"'
            read = self._ratio if operators[-1] in _EQUALITIES else self.sum
            sides.append(self._worded() if worded else read())
        if not operators:
            return left
        if "==" in operators and (modulus := self._modulus()) is not None:
            sides[-1] = Call("mod", (sides[-1], modulus))
        if self.tokens[self.at] == "\\in":
            raise self.refuse()
        return Relation(tuple(sides), tuple(operators))

    def _modulus(self) -> Node | None:
        if self.skip("\\pmod"):
            return self.argument()
        if self.tokens[self.at] == "(" and self.tokens[self.at + 1] == "\\bmod":
            self.at += 2
            node = self.sum()
            self.take(")")
            return node
        return None

    def _ratio(self) -> Node:
        """Read a value, or values with colons between them."""
        first = self._sets()
        if self.tokens[self.at] != ":" or self.no_ratio:
            return first
        parts = [first]
        while self.skip(":"):
            parts.append(self._sets())
        return Ratio(tuple(parts))

    def _sets(self) -> Node:
        """Read a value, or sets with ∪, ∩, ∖ between them."""
        node = self.sum()
        changes = 0
        while (kind := self._set_sign(node)) is not None:
            self.at += 1
            right = self.sum()
            if isinstance(node, SetOperation) and node.kind == kind and kind != "minus":
                node = SetOperation(kind, (*node.parts, right))
            else:
                changes = self.one_more(changes)
                node = SetOperation(kind, (node, right))
        match node:
            case Sum((NamedSet() as whole, Product((Number(), SetOf() as without)))):
                return SetOperation("minus", (whole, without))
        return node

    def _set_sign(self, left: Node) -> str | None:
        token = self.tokens[self.at]
        if token == "U" and not isinstance(left, Symbol | Number):
            return "union"
        return _SET_SIGNS.get(token)

    def _worded(self) -> Node:
        """Read an item that starts with words: a text, a named value, or a value led in by them."""
        tokens, start = self.tokens, self.at
        if tokens[start][1:] in ATOMS and tokens[start + 1][:1] != '"':
            return self.relation_after(self._ratio())
        end = start
        while tokens[end][:1] == '"' or tokens[end] in ATOMS or tokens[end] in ("'", "-"):
            end += 1
        words = [token.lstrip('"').lower() for token in tokens[start:end]]
        stop = tokens[end]
        if not stop or (stop in _ITEM_ENDS and (stop != ":" or self.no_ratio)):
            self.at = end
            return _words(words)
        if NEGATIONS & set(words):
            raise Unreadable("a value that the words take back")
        if stop == ":":
            self.at = end + 1
            return self.item()
        leads = [place for place, word in enumerate(words) if word in _LEADS]
        if not leads and stop == "=":
            self.at = end
            return self.relation_after(Symbol(" ".join(words)))
        if words in (["minus"], ["negative"]) and is_numeral(stop):
            self.at = end
            return self.relation_after(negated(self._ratio()))
        if not leads and len(words) == 1 and words[0] in CURRENCIES:
            self.at = end
            return Quantity(self._ratio(), words[0])
        if not leads:
            raise Unreadable(f"words before a value: {' '.join(words)[:60]!r}")
        self.at = start + leads[-1] + 1
        self.skip("=", "~")
        return self.relation_after(self._ratio())


_ENVIRONMENTS = """cases dcases rcases pmatrix bmatrix matrix smallmatrix array vmatrix Vmatrix
Bmatrix"""
_ITEM_ENDS = (
    _SEPARATORS
    | {")", "]", "}", "\\}", "\\rangle", ">", "|", "|)", "\\mid", ":", "&", "["}
    | {"\\choose", "\\over"}
    | {
        "\\cup",
        "\\forall",
        *(f"\\end {name}" for name in str.split(_ENVIRONMENTS)),
    }
)


def _words(words: list[str]) -> Node:
    text = " ".join(words)
    known = spelled(text) or _PHRASES.get(text)
    return known if known is not None else Text(text)
