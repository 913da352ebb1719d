"""Matrices and vectors: sums, products and determinants are computed, entries compared."""

from fractions import Fraction

from .decisions import Decision, Judge, different, every
from .lists import as_vector
from .nodes import Call, Matrix, Node, Number, Power, Product, Sum, Tuple
from .shapes import holds, rewrite

MAX_ENTRIES = 400
"""Entries of a matrix that is multiplied."""
MAX_POWER = 16
"""Exponent of a matrix that is multiplied out."""
MAX_DETERMINANT = 4
"""Rows of a matrix whose determinant is written out."""


def evaluate(node: Node) -> Node:
    """Return a tree with its arithmetic of matrices and vectors carried out where sizes fit."""
    return rewrite(node, _visit) if holds(node, Matrix, Tuple) else node


def _visit(node: Node) -> Node | None:
    if isinstance(node, Sum):
        return _sum(node)
    if isinstance(node, Product):
        return _product(node)
    if isinstance(node, Power):
        return _power(node)
    match node:
        case Call("det", (Matrix(rows),)) if len(rows) == len(rows[0]) <= MAX_DETERMINANT:
            return _expanded(rows)
    return None


def _sum(node: Sum) -> Node:
    terms = [evaluate(term) for term in node.terms]
    if all(isinstance(term, Tuple) and _is_vector(term) for term in terms):
        rows = [term.items for term in terms if isinstance(term, Tuple)]
        if len(set(map(len, rows))) == 1:
            return Tuple(tuple(Sum(parts) for parts in zip(*rows, strict=True)), "(", ")")
    sizes = {_size(term) if isinstance(term, Matrix) else None for term in terms}
    if len(sizes) > 1 or None in sizes:
        return node
    grids = [term.rows for term in terms if isinstance(term, Matrix)]
    return Matrix(
        tuple(
            tuple(Sum(entries) for entries in zip(*rows, strict=True))
            for rows in zip(*grids, strict=True)
        )
    )


def _product(node: Product) -> Node:
    found: Node | None = None
    scalars: list[Node] = []
    for factor in map(evaluate, node.factors):
        if not isinstance(factor, Matrix):
            scalars.append(factor)
        elif found is None:
            found = factor
        elif isinstance(found, Matrix):
            found = _times(found, factor)
    if not isinstance(found, Matrix):
        return _scaled(scalars) or node
    if not scalars:
        return found
    return Matrix(tuple(tuple(Product((*scalars, entry)) for entry in row) for row in found.rows))


def _is_vector(node: Tuple) -> bool:
    return (node.opening, node.closing) in (("(", ")"), ("<", ">"))


def _scaled(factors: list[Node]) -> Node | None:
    """Return a number times a vector."""
    vectors = [factor for factor in factors if isinstance(factor, Tuple) and _is_vector(factor)]
    if len(vectors) != 1:
        return None
    rest = tuple(factor for factor in factors if factor is not vectors[0])
    return Tuple(tuple(Product((*rest, item)) for item in vectors[0].items), "(", ")")


def _times(one: Matrix, other: Matrix) -> Matrix | None:
    (rows, inner), (again, columns) = _size(one), _size(other)
    if inner != again or rows * columns * inner > MAX_ENTRIES:
        return None
    return Matrix(
        tuple(
            tuple(
                _total([Product((row[k], other.rows[k][column])) for k in range(inner)])
                for column in range(columns)
            )
            for row in one.rows
        )
    )


def _total(terms: list[Node]) -> Node:
    return terms[0] if len(terms) == 1 else Sum(tuple(terms))


def _power(node: Power) -> Node:
    base, exponent = evaluate(node.base), node.exponent
    if not isinstance(base, Matrix) or not isinstance(exponent, Number):
        return node
    times = exponent.value
    if times.denominator != 1 or not 1 <= times <= MAX_POWER:
        return node
    found: Matrix | None = base
    for _ in range(int(times) - 1):
        found = found and _times(found, base)
    return found or node


def _expanded(rows: tuple[tuple[Node, ...], ...]) -> Node:
    """Expand along the first row."""
    if len(rows) == 1:
        return rows[0][0]
    terms: list[Node] = []
    for column, entry in enumerate(rows[0]):
        minor = tuple((*row[:column], *row[column + 1 :]) for row in rows[1:])
        sign = Number(Fraction((-1) ** column))
        terms.append(Product((sign, entry, _expanded(minor))))
    return Sum(tuple(terms))


def _size(matrix: Matrix) -> tuple[int, int]:
    return len(matrix.rows), len(matrix.rows[0])


def compare_matrices(one: Node, other: Node, judge: Judge) -> Decision:
    """Compare two trees of which at least one is a matrix; a column is also a vector."""
    if isinstance(one, Matrix) and isinstance(other, Matrix):
        if _size(one) != _size(other):
            return different("different structure")
        return every(
            judge.same(left, right)
            for rows in zip(one.rows, other.rows, strict=True)
            for left, right in zip(*rows, strict=True)
        )
    left, right = _grid(one), _grid(other)
    if left and right and _size(left) == _size(right):
        return compare_matrices(left, right, judge)
    vector, other_vector = as_vector(one), as_vector(other)
    if vector is None or other_vector is None:
        return different("different structure")
    return judge.same(vector, other_vector)


def _grid(node: Node) -> Matrix | None:
    """Return `[[1, 2], [3, 4]]` as a matrix."""
    if isinstance(node, Matrix):
        return node
    if not isinstance(node, Tuple):
        return None
    rows = [item.items for item in node.items if isinstance(item, Tuple)]
    if len(rows) < len(node.items) or len({len(row) for row in rows}) != 1:
        return None
    return Matrix(tuple(rows))
