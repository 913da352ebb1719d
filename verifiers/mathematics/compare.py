"""The comparison of two trees: which kind of thing each is, and who compares such things.

Trees come in their one shape (`shape`). Symmetric by default: which side is the truth matters only
to the rule on decimals, which is stated with `MathAnswer`.
"""

import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from . import scalars
from .decisions import SAME, Decision, Rules, different, every, some
from .families import compare_families
from .lists import compare_lists, compare_tuples, is_collection, match
from .matrices import compare_matrices
from .nodes import (
    SCALARS,
    Applied,
    Cases,
    Choice,
    Clock,
    Date,
    Degree,
    Items,
    Matrix,
    Member,
    NamedSet,
    Node,
    Number,
    Percent,
    Product,
    Quantity,
    Ratio,
    Relation,
    SetBuilder,
    SetOf,
    SetOperation,
    Sum,
    Symbol,
    Text,
    Tuple,
    children,
    symbols,
)
from .quantities import compare_quantities
from .relations import against_value, compare_relations, is_equation
from .scalars import Draw, ScalarOptions
from .sets import compare_regions, is_region, region
from .shapes import holds, shape
from .words import compare_words

PATIENCE = 0.1
"""Seconds of processor time after which what is left is handed to a worker."""
_STRUCTURES = (Tuple, SetOf, Items, Relation, Member, Text, Matrix)


def compare(answer: Node, truth: Node, rules: Rules, draw: Draw, *, prove: bool) -> Decision:
    """Compare two shaped trees.

    Args:
        answer: What the policy wrote.
        truth: What is right.
        rules: What counts as equal.
        draw: The source of random points.
        prove: Whether sympy may be asked and time is no matter: set in a worker only.

    Returns:
        The decision, with `equal=None` for what is left open.
    """
    try:
        return Comparison(rules, draw, prove=prove).same(answer, truth)
    except OutOfPatience:
        return Decision(None, "undecided", "undecided")


class OutOfPatience(Exception):
    """What is left of a comparison is for a worker."""


class Comparison:
    """One answer against one truth; the first of two trees is always part of the answer."""

    def __init__(self, rules: Rules, draw: Draw, *, prove: bool) -> None:
        """Start the clock."""
        self.rules = rules
        self.draw = draw
        self.prove = prove
        self.started = 0.0 if prove else time.thread_time()

    def same(self, one: Node, other: Node) -> Decision:
        """Compare two trees of any kind."""
        if isinstance(one, SCALARS) and isinstance(other, SCALARS):
            return self._scalars(one, other)
        if one == other and not _may_be_false(one):
            return SAME
        kinds = one, other
        for kind, judge in _JUDGES:
            if kind(one) or kind(other):
                return judge(self, *kinds)
        return different("different structure")

    def near(self, one: Node, other: Node) -> Decision:
        """Return whether the second number is the first one rounded or cut off."""
        if not isinstance(other, Number):
            return self.same(one, other)
        unit = Fraction(1, 10 ** (other.places or 0))
        loose = ScalarOptions(absolute=unit if other.places else unit / 2)
        return self._asked(one, other, loose)

    def matched(
        self,
        some: Sequence[Any],
        others: Sequence[Any],
        compare: Callable[[Any, Any], Decision] | None = None,
    ) -> Decision:
        """Match the parts of one side with those of the other, in any order."""
        return match(some, others, compare or self.same)

    def _asked(self, one: Node, other: Node, options: ScalarOptions) -> Decision:
        if self.started and time.thread_time() - self.started > PATIENCE:
            raise OutOfPatience
        return scalars.compare(one, other, options, self.draw, prove=self.prove)

    def _scalars(self, one: Node, other: Node) -> Decision:
        options = self.rules.scalars
        letters = symbols(one), symbols(other)
        if letters[0] and letters[1] and letters[0] != letters[1]:
            family = compare_families(one, other, lambda a, b: self._asked(a, b, options))
            if family is not None:
                return family
        decision = self._asked(one, other, options)
        if decision.equal is None and (holds(one, *_STRUCTURES) or holds(other, *_STRUCTURES)):
            return SAME if one == other else different("different structure")
        if decision.equal is not False:
            return decision
        again = some(
            self._asked(left, right, options) for left, right in self._readings(one, other)
        )
        if again.equal is not False:
            return again
        if letters[0] and letters[0] == letters[1]:
            family = compare_families(one, other, lambda a, b: self._asked(a, b, options))
            return family or decision
        return decision

    def _readings(self, one: Node, other: Node) -> list[tuple[Node, Node]]:
        """Return the other pairs that two scalars may be read as: 45° as 45, 50% as 50."""
        found: list[tuple[Node, Node]] = []
        if self.rules.degrees and _in_degrees(one) != _in_degrees(other):
            found.append((_without_degrees(one), _without_degrees(other)))
        if self.rules.either_percent and isinstance(one, Percent) != isinstance(other, Percent):
            found.append((_without_percent(one), _without_percent(other)))
        return found

    def _quantities(self, one: Node, other: Node) -> Decision:
        return compare_quantities(one, other, self)

    def _choices(self, one: Node, other: Node) -> Decision:
        """Compare `(B) 12` with another choice, with its letter, or with its text."""
        if isinstance(one, Choice) and isinstance(other, Choice):
            if one.letter != other.letter:
                return different("different words")
            return self.same(one.value, other.value)
        choice, plain = (one, other) if isinstance(one, Choice) else (other, one)
        assert isinstance(choice, Choice)
        if isinstance(plain, Symbol) and plain.name.isupper():
            return SAME if plain.name == choice.letter else different("different words")
        return self.same(choice.value, plain) if choice is one else self.same(plain, choice.value)

    def _words(self, one: Node, other: Node) -> Decision:
        return compare_words(one, other)

    def _lists(self, one: Node, other: Node) -> Decision:
        if is_region(one) or is_region(other):
            found = self._as_regions(one, other)
            if found is not None:
                return found
        return compare_lists(one, other, self)

    def _as_regions(self, one: Node, other: Node) -> Decision | None:
        left, right = region(one), region(other)
        return None if left is None or right is None else compare_regions(left, right, self)

    def _relations(self, one: Node, other: Node) -> Decision:
        if isinstance(one, Relation) and isinstance(other, Relation):
            return compare_relations(one, other, self)
        if isinstance(one, Relation) and is_equation(one):
            return against_value(one, other, self)
        if isinstance(other, Relation) and is_equation(other):
            return against_value(other, one, _Swapped(self))
        return self._sets(one, other)

    def _sets(self, one: Node, other: Node) -> Decision:
        found = self._as_regions(one, other)
        if found is not None:
            return found
        if isinstance(one, Member) or isinstance(other, Member):
            return self._members(one, other)
        if isinstance(one, SetBuilder) and isinstance(other, SetBuilder):
            return self._builders(one, other)
        if isinstance(one, SetOperation) and isinstance(other, SetOperation):
            return self._operations(one, other)
        return different("different structure")

    def _members(self, one: Node, other: Node) -> Decision:
        """Compare `x ∈ A` with `x ∈ B` or with B."""
        if isinstance(one, Member) and isinstance(other, Member):
            if one.negated != other.negated:
                return different("different structure")
            return every((self.same(one.element, other.element), self.same(one.of, other.of)))
        member, plain = (one, other) if isinstance(one, Member) else (other, one)
        assert isinstance(member, Member)
        if member.negated or isinstance(plain, Relation):
            return different("different structure")
        if member is one:
            return self.same(member.of, plain)
        return self.same(plain, member.of)

    def _builders(self, one: SetBuilder, other: SetBuilder) -> Decision:
        if len(one.conditions) != len(other.conditions):
            return different("different structure")
        conditions = self.matched(
            tuple(map(shape, one.conditions)), tuple(map(shape, other.conditions))
        )
        return every((self.same(one.element, other.element), conditions))

    def _operations(self, one: SetOperation, other: SetOperation) -> Decision:
        if one.kind != other.kind or len(one.parts) != len(other.parts):
            return different("different structure")
        left, right = tuple(map(shape, one.parts)), tuple(map(shape, other.parts))
        if one.kind == "minus":
            return every(map(self.same, left, right))
        return self.matched(left, right)

    def _matrices(self, one: Node, other: Node) -> Decision:
        return compare_matrices(one, other, self)

    def _tuples(self, one: Node, other: Node) -> Decision:
        one, other = _point(one), _point(other)
        if isinstance(one, Tuple) and isinstance(other, Tuple):
            return compare_tuples(one, other, self)
        return different("different structure")

    def _ratios(self, one: Node, other: Node) -> Decision:
        left, right = _ratio(one), _ratio(other)
        if left is None or right is None:
            return different("different structure")
        if len(left) != len(right):
            return different("different length")
        return every(
            self.same(Product((part, right[0])), Product((other_part, left[0])))
            for part, other_part in zip(left[1:], right[1:], strict=True)
        )

    def _moments(self, one: Node, other: Node) -> Decision:
        if isinstance(one, Date) and isinstance(other, Date):
            year = one.year == other.year or not (one.year and other.year)
            same = year and (one.month, one.day) == (other.month, other.day)
            return SAME if same else different("different value")
        if isinstance(one, Clock) and isinstance(other, Clock):
            return SAME if one == other else different("different value")
        return different("different structure")

    def _cases(self, one: Node, other: Node) -> Decision:
        if not isinstance(one, Cases) or not isinstance(other, Cases):
            return different("different structure")
        return self.matched(one.branches, other.branches, self._branch)

    def _branch(self, one: tuple[Node, Node | None], other: tuple[Node, Node | None]) -> Decision:
        value = self.same(shape(one[0]), shape(other[0]))
        if one[1] is None or other[1] is None:
            return value
        return every((value, self.same(shape(one[1]), shape(other[1]))))


class _Swapped:
    """The same comparison with the sides exchanged: what comes first is part of the truth."""

    def __init__(self, judge: Comparison) -> None:
        """Wrap a comparison."""
        self._judge = judge
        self.rules = judge.rules
        self.near = judge.near
        self.matched = judge.matched

    def same(self, one: Node, other: Node) -> Decision:
        """Compare two trees of any kind."""
        return self._judge.same(other, one)


def _may_be_false(node: Node) -> bool:
    """Return whether a tree claims something about numbers, such as `6 = 5`."""
    return isinstance(node, Relation) and not symbols(node)


def _point(node: Node) -> Node:
    """Return a point without its name: `P(1, 2)` is (1, 2)."""
    if isinstance(node, Applied) and node.name.isupper() and len(node.args) > 1:
        return Tuple(node.args, "(", ")")
    return node


def _without_percent(node: Node) -> Node:
    return node.operand if isinstance(node, Percent) else node


def _in_degrees(node: Node) -> bool:
    """Return whether a degree sign stands in a tree outside of any function."""
    if isinstance(node, Sum | Product):
        return any(map(_in_degrees, children(node)))
    return isinstance(node, Degree)


def _without_degrees(node: Node) -> Node:
    if isinstance(node, Sum):
        return Sum(tuple(map(_without_degrees, node.terms)))
    if isinstance(node, Product):
        return Product(tuple(map(_without_degrees, node.factors)))
    return node.operand if isinstance(node, Degree) else node


def _ratio(node: Node) -> tuple[Node, ...] | None:
    """Return the parts of a ratio; a number is one to 1, and 11:21 may have been read as a time."""
    if isinstance(node, Ratio):
        return node.parts
    if isinstance(node, Clock) and node.seconds % 60 == 0:
        return Number(Fraction(node.seconds // 3600)), Number(Fraction(node.seconds // 60 % 60))
    return (node, Number(Fraction(1))) if isinstance(node, SCALARS) else None


def _is(*kinds: type) -> Callable[[Node], bool]:
    return lambda node: isinstance(node, kinds)


_JUDGES: tuple[tuple[Callable[[Node], bool], Callable[[Comparison, Node, Node], Decision]], ...] = (
    (_is(Choice), Comparison._choices),
    (_is(Text), Comparison._words),
    (is_collection, Comparison._lists),
    (_is(Relation), Comparison._relations),
    (_is(Quantity), Comparison._quantities),
    (_is(SetOperation, SetBuilder, NamedSet, Member), Comparison._sets),
    (_is(Matrix), Comparison._matrices),
    (_is(Tuple), Comparison._tuples),
    (_is(Ratio), Comparison._ratios),
    (_is(Clock, Date), Comparison._moments),
    (_is(Cases), Comparison._cases),
)
"""Who compares what: the first row whose kind either side is."""
