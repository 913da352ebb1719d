"""A place in a list of tokens, and the state that the grammar keeps while it reads them."""

from ..numerals import TooLarge, Unreadable
from .nodes import Node, Symbol
from .tokens import END

MAX_DEPTH = 60
"""Nesting: keeps every recursive pass far from Python's recursion limit."""
MAX_MARKS = 8
"""Marks behind one operand, as in `x!%`: each makes the tree a level taller."""
_RELATIONS = frozenset(("=", "!=", "<", "<=", ">", ">=", "\\in", "\\notin"))


class Cursor:
    """The tokens still to be read. `sum` and `listing` are what the levels below call back into."""

    def __init__(self, given: list[str]) -> None:
        self.tokens = [*given, END, END, END, END]
        self.at = 0
        self.depth = 0
        self.bars = 0
        """Open |…|, in which the next bar closes."""
        self.unit = ""
        """A currency sign or temperature scale met inside the current item."""
        self.bound: tuple[str, ...] = ()
        """Index names of the sums being read: `i` is no imaginary unit there."""
        self.integrals = 0
        """Integrals being read, in which `dx` ends the integrand."""
        self.differential: Symbol | None = None
        """The variable of a `dx` that was read and not yet used."""
        self.item_start = 0
        self._pairs: tuple[dict[int, int], set[int], set[int]] | None = None

    def take(self, expected: str) -> None:
        """Move past a token that has to be there."""
        if self.tokens[self.at] != expected:
            raise Unreadable(f"{shown(self.tokens[self.at])} where {shown(expected)} belongs")
        self.at += 1

    def skip(self, *wanted: str) -> bool:
        """Move past the next token if it is one of the wanted ones."""
        if self.tokens[self.at] in wanted:
            self.at += 1
            return True
        return False

    def sign(self) -> bool:
        """Read signs; return whether they amount to a minus."""
        negative = False
        while (token := self.tokens[self.at]) in ("+", "-"):
            negative ^= token == "-"
            self.at += 1
        return negative

    def one_more(self, marks: int) -> int:
        """Count a mark behind one operand: each is a level of the tree."""
        if marks >= MAX_MARKS:
            raise TooLarge(f"more than {MAX_MARKS} marks behind one operand")
        return marks + 1

    def deeper(self) -> None:
        """Count one more level of nesting."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooLarge(f"nested more than {MAX_DEPTH} deep")

    def refuse(self) -> Unreadable:
        """Return the error for the token here."""
        return Unreadable(f"{shown(self.tokens[self.at])} is not understood here")

    def closing(self, opening: int) -> int:
        """Return the place of the bracket that closes the one at a place; 0 if none does."""
        return self._brackets()[0].get(opening, 0)

    def has_comma(self, opening: int) -> bool:
        """Return whether a comma stands directly inside the bracket at a place."""
        return opening in self._brackets()[1]

    def is_condition(self, opening: int) -> bool:
        """Return whether a parenthesis at a place holds a relation: `x = 2kπ (k ∈ ℤ)`."""
        return self.tokens[opening] == "(" and opening in self._brackets()[2]

    def _brackets(self) -> tuple[dict[int, int], set[int], set[int]]:
        """Return, found once, which bracket closes which, which hold a comma, which a relation."""
        if self._pairs is None:
            closing: dict[int, int] = {}
            commas: set[int] = set()
            relations: set[int] = set()
            opened: list[int] = []
            for place, token in enumerate(self.tokens):
                if token in ("(", "[", "{", "\\{"):
                    opened.append(place)
                elif token in (")", "]", "}", "\\}") and opened:
                    closing[opened.pop()] = place
                elif token in (",", ";") and opened:
                    commas.add(opened[-1])
                elif token in _RELATIONS and opened:
                    relations.add(opened[-1])
            self._pairs = closing, commas, relations
        return self._pairs

    def sum(self) -> Node:
        """Read terms with + and − between them."""
        raise NotImplementedError

    def power(self) -> Node:
        """Read an operand with its factorial, exponent and the like."""
        raise NotImplementedError

    def term(self) -> Node:
        """Read factors."""
        raise NotImplementedError

    def entry(self) -> Node:
        """Read one entry of a list: a relation or a value."""
        raise NotImplementedError

    def operand(self) -> Node:
        """Read one operand."""
        raise NotImplementedError

    def stacked(self, node: Node) -> Node:
        """Read what stands below a value."""
        raise NotImplementedError

    def fraction(self) -> Node:
        """Read the two arguments of a fraction."""
        raise NotImplementedError

    def relation_after(self, left: Node) -> Node:
        """Read the rest of a relation whose left side was read."""
        raise NotImplementedError

    def based(self, token: str) -> Node:
        """Read the base of a whole number."""
        raise NotImplementedError

    def choice_before(self) -> Node:
        """Read a binomial whose first index stands before its letter."""
        raise NotImplementedError

    def argument(self) -> Node:
        """Read the argument of a command."""
        raise NotImplementedError


def shown(token: str) -> str:
    """Return a token as an error message names it."""
    return f"'{token.lstrip(chr(34))[:40]}'" if token else "the end"
