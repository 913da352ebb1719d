"""Properties of the `math` verifier over drawn answers: expressions, lists, points and noise.

Expressions are trees of this file's own. Two texts are equal because they spell one tree in two
styles; they differ because exact fractions, put in for the variables, give two values.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rlvr.verifiers import TaskError, Verdict
from rlvr.verifiers.mathematics import MathAnswer

MATH = MathAnswer()
POINTS = (
    {"x": Fraction(3, 7), "y": Fraction(11, 5)},
    {"x": Fraction(13, 3), "y": Fraction(2, 9)},
    {"x": Fraction(17, 4), "y": Fraction(19, 6)},
)
quickly = settings(max_examples=120)


def boxed(text: str) -> str:
    return f"so \\boxed{{{text}}}"


def paid(completion: str, truth: object) -> bool:
    verdict = MATH(completion, truth)
    assert verdict.scored, f"{truth!r} | {completion!r} | {verdict}"
    return verdict.reward == 1


# --- trees ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tree:
    """`+`, `*`, `-` (of one part), `/`, `^` (its exponent in `number`), a number or a variable."""

    kind: str
    parts: "tuple[Tree, ...]" = ()
    number: int = 0
    name: str = ""


def number(value: int) -> Tree:
    return Tree("n", number=value)


NUMBERS = st.integers(1, 40).map(number)
VARIABLES = st.sampled_from(("x", "y")).map(lambda name: Tree("v", name=name))


def _grown(inner: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    pairs = st.tuples(inner, inner)
    return st.one_of(
        pairs.map(lambda parts: Tree("+", parts)),
        pairs.map(lambda parts: Tree("*", parts)),
        inner.map(lambda part: Tree("-", (part,))),
        st.tuples(inner, st.one_of(NUMBERS, VARIABLES)).map(lambda parts: Tree("/", parts)),
        st.tuples(inner, st.integers(2, 4)).map(lambda p: Tree("^", (p[0],), number=p[1])),
    )


TREES = st.recursive(st.one_of(NUMBERS, VARIABLES), _grown, max_leaves=7)
RATIONALS = st.recursive(NUMBERS, _grown, max_leaves=5).filter(lambda tree: not _variables(tree))


def _variables(tree: Tree) -> bool:
    return tree.kind == "v" or any(map(_variables, tree.parts))


def value(tree: Tree, point: dict[str, Fraction]) -> Fraction:
    parts = [value(part, point) for part in tree.parts]
    match tree.kind:
        case "n":
            return Fraction(tree.number)
        case "v":
            return point[tree.name]
        case "+":
            return parts[0] + parts[1]
        case "*":
            return parts[0] * parts[1]
        case "-":
            return -parts[0]
        case "/":
            return parts[0] / parts[1]
        case _:
            return parts[0] ** tree.number


def spell(tree: Tree, rng: Random) -> str:
    """Write a tree, its terms and factors in any order, in any of the usual spellings."""
    if tree.kind == "n":
        return str(tree.number)
    if tree.kind == "v":
        return tree.name
    parts = [_grouped(part, rng) for part in tree.parts]
    if tree.kind in "+*":
        rng.shuffle(parts)
    match tree.kind:
        case "+":
            return rng.choice(("+", " + ", r"\,+\,")).join(parts)
        case "*":
            return rng.choice((r"\cdot ", " * ", r" \times ")).join(parts)
        case "-":
            return "-" + parts[0]
        case "/":
            written = spell(tree.parts[0], rng), spell(tree.parts[1], rng)
            slash = f"{parts[0]}/{parts[1]}"
            command = rng.choice((r"\frac", r"\dfrac"))
            return rng.choice((f"{command}{{{written[0]}}}{{{written[1]}}}", slash))
        case _:
            return rng.choice((f"{parts[0]}^{tree.number}", f"{parts[0]}^{{{tree.number}}}"))


def _grouped(tree: Tree, rng: Random) -> str:
    if tree.kind in "nv":
        return spell(tree, rng)
    return rng.choice((r"\left(%s\right)", "(%s)")) % spell(tree, rng)


def mutate(tree: Tree, rng: Random) -> Tree:
    """Change one number, sign, operation or order of a quotient somewhere."""
    if tree.parts and rng.random() < 0.7:
        at = rng.randrange(len(tree.parts))
        changed = mutate(tree.parts[at], rng)
        return replace(tree, parts=(*tree.parts[:at], changed, *tree.parts[at + 1 :]))
    ways = [Tree("-", (tree,)), Tree("+", (tree, number(1)))]
    if tree.kind == "n":
        ways += [number(tree.number + 1), number(int(str(tree.number)[::-1]))]
    if tree.kind in "+*":
        ways.append(replace(tree, kind="*" if tree.kind == "+" else "+"))
    if tree.kind == "^":
        ways.append(replace(tree, number=tree.number + 1))
    return rng.choice(ways)


def differ(one: Tree, other: Tree) -> bool:
    return any(value(one, point) != value(other, point) for point in POINTS)


# --- expressions ----------------------------------------------------------------------------------


@given(TREES, st.randoms(use_true_random=False))
@quickly
def test_an_expression_equals_itself_in_any_spelling(tree: Tree, rng: Random) -> None:
    truth = spell(tree, rng)
    assert paid(boxed(truth), truth)
    assert paid(boxed(spell(tree, rng)), truth)


@given(TREES, st.randoms(use_true_random=False))
@quickly
def test_a_mutated_expression_is_not_paid(tree: Tree, rng: Random) -> None:
    changed = mutate(tree, rng)
    assume(differ(tree, changed))
    assert not paid(boxed(spell(changed, rng)), spell(tree, rng))


@given(RATIONALS, st.randoms(use_true_random=False))
@quickly
def test_a_rational_expression_equals_its_value_and_no_other(tree: Tree, rng: Random) -> None:
    exact = value(tree, {})
    assert paid(boxed(f"{exact.numerator}/{exact.denominator}"), spell(tree, rng))
    assert paid(boxed(spell(tree, rng)), f"{exact.numerator}/{exact.denominator}")
    assert not paid(boxed(f"{exact.numerator + 1}/{exact.denominator}"), spell(tree, rng))


@given(TREES, TREES, st.randoms(use_true_random=False))
@quickly
def test_equality_does_not_depend_on_who_asks(one: Tree, other: Tree, rng: Random) -> None:
    mutated = mutate(one, rng)
    for pair in ((one, other), (one, mutated)):
        left, right = (spell(tree, rng) for tree in pair)
        assert paid(boxed(left), right) == paid(boxed(right), left)


DRESSES: Sequence[Callable[[str], str]] = (
    r"\boxed{{{}}}".format,
    r"\boxed{{{}.}}".format,
    r"\fbox{{{}}}".format,
    r"$\boxed{{ {} }}$.".format,
    r"\[\boxed{{\displaystyle {}}}\]".format,
    r"first \boxed{{123456789}}, no: \boxed{{{}}}".format,
    r"<think>\boxed{{123456789}}</think>\boxed{{{}}}".format,
    r"The answer is ${}$.".format,
    r"<answer>{}</answer>".format,
    r"\boxed{{z = {}}}".format,
    r"\boxed{{{}\,}}".format,
)


@pytest.mark.parametrize("dress", DRESSES)
@given(TREES, st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_dressing_changes_nothing(dress: Callable[[str], str], tree: Tree, rng: Random) -> None:
    truth = spell(tree, rng)
    assert paid(dress(spell(tree, rng)), truth)
    assert not paid(dress(spell(Tree("+", (tree, number(1))), rng)), truth)


# --- numbers --------------------------------------------------------------------------------------


@given(st.integers(0, 10**12), st.sampled_from((",", "{,}", r"\,", "\u2009", "\u202f")))
@quickly
def test_thousands_separators_are_read_over(whole: int, mark: str) -> None:
    grouped = f"{whole:,}".replace(",", mark)
    assert paid(boxed(grouped), whole)
    assert not paid(boxed(grouped), whole + 1)


@given(st.decimals(-(10**6), 10**6, places=4), st.integers(1, 9999))
@quickly
def test_decimals_are_exact(decimal: object, step: int) -> None:
    exact = Fraction(str(decimal))
    assert paid(boxed(str(decimal)), f"{exact.numerator}/{exact.denominator}")
    shifted = exact + Fraction(step, 10**4)
    assert not paid(boxed(str(decimal)), f"{shifted.numerator}/{shifted.denominator}")


@given(st.integers(-99, 99), st.integers(1, 99), st.integers(2, 30))
@quickly
def test_roots_and_multiples_of_pi_are_told_apart(a: int, b: int, root: int) -> None:
    assume(int(root**0.5) ** 2 != root)
    text = rf"\frac{{{a}+{b}\sqrt{{{root}}}}}{{7}} + \pi"
    assert paid(boxed(rf"\pi + \frac{{{b}}}{{7}} {root}^{{1/2}} + \frac{{{a}}}{{7}}"), text)
    assert not paid(boxed(rf"\frac{{{a}-{b}\sqrt{{{root}}}}}{{7}} + \pi"), text)
    assert not paid(boxed(rf"\frac{{{a}+{b}\sqrt{{{root}}}}}{{7}} + 3.14159265358979"), text)


# --- structures -----------------------------------------------------------------------------------

ITEMS = st.lists(st.integers(-50, 50), min_size=2, max_size=6, unique=True)


@given(ITEMS, st.randoms(use_true_random=False))
@quickly
def test_a_list_has_no_order_and_no_item_to_spare(items: list[int], rng: Random) -> None:
    truth = "; ".join(map(str, items))
    shuffled = rng.sample(items, len(items))
    for text in (", ".join(map(str, shuffled)), rf"\{{{', '.join(map(str, shuffled))}\}}"):
        assert paid(boxed(text), truth)
    extra = next(number for number in range(51, 60))
    for changed in (shuffled[1:], [*shuffled, extra], [extra, *shuffled[1:]]):
        assert not paid(boxed("; ".join(map(str, changed))), truth)


@given(ITEMS, st.randoms(use_true_random=False))
@quickly
def test_a_point_has_an_order(items: list[int], rng: Random) -> None:
    truth = f"({', '.join(map(str, items))})"
    assert paid(boxed(rf"\left({', '.join(map(str, items))}\right)"), truth)
    shuffled = rng.sample(items, len(items))
    assert paid(boxed(f"({', '.join(map(str, shuffled))})"), truth) == (shuffled == items)


@given(st.integers(-50, 50), st.integers(1, 50), st.sampled_from("(["), st.sampled_from(")]"))
@quickly
def test_an_interval_is_its_inequality_and_no_other(
    low: int, width: int, opening: str, closing: str
) -> None:
    high = low + width
    interval = f"{opening}{low}, {high}{closing}"
    below = {"(": "<", "[": r"\le"}
    above = {")": "<", "]": r"\le"}
    assert paid(boxed(rf"{low} {below[opening]} x {above[closing]} {high}"), interval)
    assert paid(boxed(interval), rf"{low} {below[opening]} x {above[closing]} {high}")
    other = {"(": "[", "[": "("}[opening]
    assert not paid(boxed(f"{other}{low}, {high}{closing}"), interval)
    assert not paid(boxed(rf"{low} {below[other]} x {above[closing]} {high}"), interval)
    assert not paid(boxed(f"{opening}{low}, {high + 1}{closing}"), interval)


# --- noise ----------------------------------------------------------------------------------------

PIECES = r"""
\boxed{ \frac{ \sqrt{ \left( \right) { } ( ) [ ] 1 2 0.5 x y f( , ; : . = < \le \in \cup \{ \} & \\
\begin{cases} \end{cases} \begin{pmatrix} \end{pmatrix} ^ _ ! ! % \% $ \$ ° \circ ^\circ \pi e i
\infty \pm \mp \binom \sum_{k=1}^n \int_0^1 \lim_{x\to0} | \| \log_2 \sin \text{ cm and or \mid
\mathbb{R} \setminus <think> </think> <answer> </answer> #### answer is - − + * / \cdot ² ½ √ ∞ \rac
\overline{ 0.\dot{3} \, \! {,} 12:30 pm kg
"""
FRAGMENTS = st.sampled_from(PIECES.split())
SOUP = st.lists(FRAGMENTS, max_size=14).map(" ".join)
NOISE = st.one_of(st.text(max_size=60), SOUP, SOUP.map(boxed))


@given(NOISE, st.sampled_from(("5", "x+1", "(0,1)", "1, 2", r"\sqrt{2}", "x=5", "yes")))
@settings(max_examples=400)
def test_no_completion_raises_or_goes_unscored(completion: str, truth: str) -> None:
    verdict = MATH(completion, truth)
    assert verdict.scored
    assert MATH(completion, truth) == verdict
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


def _readable(truth: str) -> bool:
    try:
        MATH.check_truth(truth)
    except TaskError:
        return False
    return True


@given(NOISE)
@settings(max_examples=300)
def test_any_text_is_a_truth_or_is_refused(truth: str) -> None:
    readable = _readable(truth)
    verdict = MATH(boxed("5"), truth)
    assert verdict.scored or verdict.status == "bad_truth"
    assert readable or not verdict.scored


@given(st.text(max_size=40), st.integers(2, 10**9))
@settings(max_examples=200)
def test_noise_in_a_box_never_equals_a_number_it_does_not_hold(noise: str, truth: int) -> None:
    assume(not any(char.isnumeric() for char in noise))
    assert not paid(boxed(noise), truth)
