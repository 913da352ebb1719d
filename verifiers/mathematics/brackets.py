r"""The grammar of what stands in brackets: groups, tuples, intervals, sets, matrices, cases."""

from ..numerals import Unreadable
from .cursor import Cursor, shown
from .nodes import (
    Call,
    Cases,
    Items,
    Matrix,
    Member,
    Node,
    Quantity,
    Relation,
    SetBuilder,
    SetOf,
    Symbol,
    Text,
    Tuple,
)

_CLOSINGS = {"(": (")", "]"), "[": ("]", ")", "["), "]": ("[", "]", ")"), "\\langle": ("\\rangle",)}
_OPENED = {"(": "(", "[": "[", "]": "(", "\\langle": "<", "<": "<"}
_CLOSED = {")": ")", "]": "]", "[": ")", "\\rangle": ">", ">": ">"}
_MATRICES = frozenset(
    ("pmatrix", "bmatrix", "matrix", "smallmatrix", "array", "vmatrix", "Vmatrix", "Bmatrix")
)
_SYSTEMS = frozenset(("cases", "dcases", "rcases"))
_CONDITION_WORDS = frozenset(('"if', '"for', '"when', '"where', '"with'))


class Brackets(Cursor):
    """Reads bracketed structures; the opening token is already taken."""

    def bracketed(self, opening: str) -> Node:
        """Read a group, or two or more entries: a tuple or an interval."""
        outer, self.bars = self.bars, 0
        self.deeper()
        entries = self._entries()
        self.depth -= 1
        self.bars = outer
        closing = self.tokens[self.at]
        if closing not in _CLOSINGS[opening]:
            raise Unreadable(f"{shown(closing)} where {shown(_CLOSINGS[opening][0])} belongs")
        self.at += 1
        if len(entries) == 1:
            if (opening, closing) in (("(", ")"), ("[", "]")):
                return entries[0]
            raise Unreadable(f"one value between {opening} and {closing}")
        return Tuple(tuple(entries), _OPENED[opening], _CLOSED[closing])

    def angle(self) -> Node:
        """Read the rest of `<1, 2>`."""
        entries = [self.sum()]
        while self.skip(","):
            entries.append(self.sum())
        self.take(">")
        if len(entries) < 2:
            raise Unreadable("one value between < and >")
        return Tuple(tuple(entries), "<", ">")

    def braced(self) -> Node:
        """Read the rest of a group in plain braces; with a comma or a bar in it, a set."""
        if self.skip("}"):
            if self.tokens[self.at] in ("_", "^"):
                return self.choice_before()
            raise Unreadable("empty braces")
        outer, self.bars = self.bars, 0
        self.deeper()
        if self.tokens[self.at + 1] in ("|", "\\mid", "\\in", ":") or self.has_comma(self.at - 1):
            node = self._first_of_set()
        else:
            node = self.sum()
        if self.tokens[self.at] in ("\\choose", "\\over"):
            node = self.stacked(node)
        elif self.tokens[self.at] != "}":
            node = self._set_after(self.relation_after(node))
        self.depth -= 1
        self.bars = outer
        self.take("}")
        return node

    def _first_of_set(self) -> Node:
        """Read an entry that a bar or a colon ends, as in `{x : x > 0}`."""
        self.bars, self.no_ratio = 1, True
        node = self.entry()
        self.bars, self.no_ratio = 0, False
        return node

    def set(self) -> Node:
        r"""Read the rest of `\{…\}`."""
        if self.skip("\\}"):
            return SetOf(())
        outer = self.bars
        self.deeper()
        nested = self.tokens[self.at] in ("\\{", "\\emptyset")
        first = self._first_of_set()
        node = self._set_after(first)
        self.depth -= 1
        self.bars = outer
        self.take("\\}")
        if isinstance(node, SetOf | SetBuilder) and not (nested and node is first):
            return node
        return SetOf((node,))

    no_ratio = False
    """Whether a colon ends an entry, as in `{x : x > 0}`."""

    def _set_after(self, first: Node) -> Node:
        """Read the rest of a set whose first entry was read; a lone entry is returned as it is."""
        if self.skip(*_BARS):
            return self._builder(first)
        entries = [first]
        while self.skip(",", ";", "and"):
            entries.append(self.entry())
        return SetOf(tuple(entries)) if len(entries) > 1 else first

    def _builder(self, element: Node) -> Node:
        conditions: list[Node] = []
        if isinstance(element, Member) and not element.negated:
            conditions.append(element)
            element = element.element
        alternatives = [self.entry()]
        joined = ""
        while self.tokens[self.at] in (",", ";", "and", "or", "\\land", "\\lor", "\\quad"):
            either = self.tokens[self.at] in ("or", "\\lor")
            self.at += 1
            if joined and either != (joined == "or"):
                raise Unreadable("a condition with both and and or")
            joined = "or" if either else "and"
            if self.skip("and", "or"):
                continue
            alternatives.append(self.entry())
        conditions += [Items(tuple(alternatives), "or")] if joined == "or" else alternatives
        return SetBuilder(element, tuple(conditions))

    def _entries(self) -> list[Node]:
        entries = [self.entry()]
        while self.tokens[self.at] in (",", ";"):
            self.at += 1
            entries.append(self.entry())
        return entries

    def environment(self, name: str) -> Node:
        r"""Read the rest of `\begin{…}`: a matrix, cases, or a system of relations."""
        if name not in _MATRICES and name not in _SYSTEMS:
            raise Unreadable(f"the environment {name[:40]!r}")
        if name == "array" and self.skip("{"):
            while self.tokens[self.at] not in ("}", ""):
                self.at += 1
            self.take("}")
        outer, self.bars = self.bars, 0
        self.deeper()
        rows = self._rows(name)
        self.depth -= 1
        self.bars = outer
        self.at += 1
        if name in _SYSTEMS:
            return _cases(rows)
        return _matrix(name, rows)

    def _rows(self, name: str) -> list[list[Node | None]]:
        rows: list[list[Node | None]] = [[]]
        end = "\\end " + name
        while (token := self.tokens[self.at]) != end:
            if token == "\\\\":
                self.at += 1
                rows.append([])
            elif token == "&":
                self.at += 1
            else:
                rows[-1] += self._case() if name in _SYSTEMS else [self.entry()]
                if self.tokens[self.at] not in (end, "\\\\", "&"):
                    raise self.refuse()
        return [row for row in rows if row]

    def _case(self) -> list[Node | None]:
        """Read a cell of cases, or two where only a comma or `if` stands between them."""
        cells: list[Node | None] = []
        if self.skip('"otherwise', '"else'):
            return [None]
        while True:
            if self.skip(*_CONDITION_WORDS):
                pass
            if self.skip('"otherwise', '"else'):
                cells.append(None)
            else:
                cells.append(self._condition() if cells else self.entry())
            if self.tokens[self.at] in (",", ";", "\\quad"):
                self.at += 1
                if self.tokens[self.at] in ("&", "\\\\") or self.tokens[self.at][:4] == "\\end":
                    return cells
            elif self.tokens[self.at] not in _CONDITION_WORDS:
                return cells

    def _condition(self) -> Node:
        parts = [self.entry()]
        while self.skip("and", "\\land"):
            parts.append(self.entry())
        return parts[0] if len(parts) == 1 else Items(tuple(parts))


_BARS = ("|", "\\mid", ":", "|)", "|(")


def _cases(rows: list[list[Node | None]]) -> Node:
    if all(len(row) == 2 and row[0] is not None for row in rows) and rows:
        return Cases(tuple((row[0], row[1]) for row in rows if row[0] is not None))
    flat = [cell for row in rows for cell in row]
    relations = [cell for cell in flat if isinstance(cell, Relation | Member)]
    if len(relations) == len(flat) > 0:
        return relations[0] if len(flat) == 1 else Items(tuple(relations))
    raise Unreadable("cases that are neither values with conditions nor relations")


def _matrix(name: str, rows: list[list[Node | None]]) -> Node:
    cells = tuple(tuple(cell for cell in row if cell is not None) for row in rows)
    if not cells or any(len(row) != len(cells[0]) for row in cells):
        raise Unreadable("a matrix with rows of unequal length")
    if any(isinstance(cell, Quantity | Text | Items) for row in cells for cell in row):
        raise Unreadable("words in a matrix")
    matrix = Matrix(cells)
    if name == "vmatrix":
        return Call("det", (matrix,))
    return Call("norm", (matrix,)) if name == "Vmatrix" else matrix


def transposed(node: Node) -> Node:
    """Return the transpose of a matrix; a tuple stands for a row and a column alike."""
    if isinstance(node, Matrix):
        return Matrix(tuple(zip(*node.rows, strict=True)))
    if isinstance(node, Tuple | Symbol):
        return node
    raise Unreadable("the transpose of something else than a matrix")
