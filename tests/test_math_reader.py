"""The reader of mathematical texts: what becomes which tree, and what is refused."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.verifiers.mathematics.moments import clock_of
from rlvr.verifiers.mathematics.nodes import (
    Applied,
    Based,
    Big,
    Call,
    Cases,
    Clock,
    Constant,
    Date,
    Degree,
    Items,
    Matrix,
    Member,
    NamedSet,
    Node,
    Number,
    Percent,
    PlusMinus,
    Power,
    Product,
    Quantity,
    Ratio,
    Relation,
    Root,
    SetBuilder,
    SetOf,
    SetOperation,
    Sum,
    Symbol,
    Text,
    Tuple,
)
from rlvr.verifiers.mathematics.reader import read
from rlvr.verifiers.mathematics.units import canonical
from rlvr.verifiers.numerals import Unreadable


def _n(value: int | str) -> Number:
    return Number(Fraction(value))


x, y, n, k = (Symbol(name) for name in "xynk")
one, two, three, five = (_n(value) for value in (1, 2, 3, 5))
pi = Constant("pi")

NUMERALS = [
    ("42", "42"),
    ("-42", "-42"),
    ("− 42", "-42"),
    ("+42.", "42"),
    ("042", "42"),
    (".5", "1/2"),
    ("1,234", "1234"),
    ("1,234,567.5", "1234567.5"),
    (r"1{,}234", "1234"),
    (r"1\,234", "1234"),
    (r"11,\! 111,\! 100", "11111100"),
    (r"1\!,234", "1234"),
    ("1\u2009234", "1234"),
    ("1 234 567", "1234567"),
    ("1.234.567", "1234567"),
    ("1.234,5", "1234.5"),
    ("1000,99", "1000.99"),
    ("0,111", "0.111"),
    ("(1,000)", "1000"),
    ("1.5e3", "1500"),
    (r"1.5 \times 10^{-3}", "0.0015"),
    (r"0.\overline{3}", "1/3"),
    (r".0\overline{6}", "1/15"),
    (r"1.2\overline{34}", "611/495"),  # 1.2 + 34/990
    (r"0.\dot{1}2\dot{3}", "41/333"),  # 123/999
    ("0.(3)", "1/3"),
    ("0.333...", "1/3"),
    (r"0.1666\ldots", "1/6"),
    ("2.718281828...", "2.718281828"),
    (r"1\frac{1}{2}", "3/2"),
    (r"2\frac58", "21/8"),
    ("1 1/2", "3/2"),
    ("3½", "7/2"),
    ("２５", "25"),
    ("five", "5"),
    (r"12^{\mathrm{th}}", "12"),
    ("1st", "1"),
    ("1.5 million", "1500000"),
    (r"\text{42}", "42"),
    (r"\boxed{42}", "42"),
    ("185\\", "185"),
]


@pytest.mark.parametrize(("text", "value"), NUMERALS)
def test_a_number_is_read_in_all_its_spellings(text: str, value: str) -> None:
    assert read(text) == _n(value)


SPELLINGS = [
    (r"\frac{1}{2}", ["1/2", r"\dfrac{1}{2}", r"\frac12", r"\frac 1 2", "½", r"$\frac{1}{2}$."]),
    (r"\sqrt{2}", ["√2", r"\sqrt2", "sqrt(2)", r"\\sqrt{2}", r"\surd 2"]),
    (r"3\sqrt{2}", [r"3 \cdot \sqrt{2}", r"3\times\sqrt 2", "3√2", "3*sqrt(2)"]),
    ("x^2", ["x²", "x^{2}", "x**2", "x<sup>2</sup>", r"\left(x\right)^2", "{x}^{2}"]),
    ("x_1", ["x_{1}", "x₁", r"x_{\text{1}}"]),
    (r"x \le 3", ["x <= 3", "x ≤ 3", r"x \leqslant 3", r"x\leq3", "x =< 3"]),
    (r"\sin x", [r"\sin(x)", "sin x", "sinx", r"\text{sin} x", r"\operatorname{sin}(x)"]),
    (r"\sin^{-1} x", [r"\arcsin x", r"\arcsin(x)", "asin(x)"]),
    ("1/2", [r"{1 \over 2}", r"{1\over{2}}"]),
    (r"\binom{5}{2}", [r"\dbinom52", r"{5 \choose 2}", "C_5^2", r"{}_5C_2", "C(5, 2)"]),
    ("90^\\circ", ["90°", r"90^{\circ}", "90 degrees", r"90\text{ degrees}"]),
    (r"28\%", ["28%", "28 %", "28 pct", "28 percent", r"28\text{ percent}"]),
    (r"\{1, 2\}", ["{1,2}", r"\left\{1, 2\right\}", r"\lbrace 1 , 2 \rbrace"]),
    ("(1, 2]", [r"\left(1, 2\right]", r"\bigl(1,\; 2\bigr]", "]1, 2]", "(1; 2]"]),
    ("(-∞, 2) ∪ (3, ∞)", [r"(-\infty,2)\cup(3,+\infty)", "(-oo, 2) U (3, oo)"]),
    ("1, 2, 3", ["1, 2 and 3", "1, 2, and 3", "1;2;3", r"$1$, $2$, $3$", "1 or 2 or 3"]),
    (r"x \in \mathbb{R}", ["x∈ℝ", r"x\in\R", r"x \in \mathbb R"]),
    (r"\pm 2", ["±2", "+/-2", r"\pm2"]),
    ("e^{i\\pi}", ["e^(iπ)", r"\mathrm{e}^{\mathrm{i}\pi}"]),
    (r"\text{Even}", ["even", "Even.", r"\textbf{even}", r"\mathrm{Even}"]),
    ("A", ["(A)", "A.", r"\text{A}", r"\text{(A)}", r"\mathbf{A}", r"(\text{A})"]),
    ("5 cm", [r"5\text{ cm}", r"5\,\mathrm{cm}", "5cm", "$5$ cm", r"\text{5 cm}"]),
    ("60 km/h", [r"60\text{ km/h}", r"60\ \mathrm{km} / \mathrm{h}"]),
    ("$5.50", [r"\$5.50", r"5.50\$", "$ 5.50"]),
    (r"\begin{cases} x=1 \\ y=2 \end{cases}", ["x=1, y=2", r"x = 1 \quad y = 2"]),
    (r"\frac{3}{4}x", [r"\frac{3}{4} \cdot x", r"\frac34x"]),
    ("-\x0crac{7}{4}", [r"-\frac{7}{4}"]),
    (r"\log_{2} 8", [r"\log_2(8)", "log(8, 2)", r"\log_{2}{8}"]),
    ("0.5", ["0.50", ".5", "5e-1"]),
    ("f(x) = x", [r"$f(x)=x$ for all $x \in \mathbb{R}$", r"f(x)=x, \text{ where } x>0"]),
    ("x² = y, x > 0", ["x²=y (x>0)", r"x^2 = y \quad (x > 0)"]),
    ("1, 3", ["①③", "①和③", "1或3"]),
    ("x = k\\pi", ["x = kπ (k∈Z)", r"x = k\pi, k \in \mathbb{Z}", "x = kπ, where k is an integer"]),
]


@pytest.mark.parametrize(("text", "others"), SPELLINGS)
def test_other_spellings_give_the_same_tree(text: str, others: list[str]) -> None:
    assert {other: read(other) for other in others} == dict.fromkeys(others, read(text))


def _interval(low: Node, high: Node, ends: str) -> Tuple:
    return Tuple((low, high), ends[0], ends[1])


TREES: list[tuple[str, Node]] = [
    ("x + 2", Sum((x, two))),
    ("2x", Product((two, x))),
    ("1/2x", Product((one, Power(two, _n(-1)), x))),
    ("-x^2", Product((_n(-1), Power(x, two)))),
    ("2^3^2", Power(two, Power(three, two))),
    (r"\frac{x}{2}", Product((x, Power(two, _n(-1))))),
    (r"\sqrt[3]{x}", Root(x, three)),
    ("n!", Call("factorial", (n,))),
    ("5!!", Call("double_factorial", (five,))),
    ("|x|", Call("abs", (x,))),
    ("||x|-1|", Call("abs", (Sum((Call("abs", (x,)), _n(-1))),))),
    (r"\lfloor x \rfloor", Call("floor", (x,))),
    (r"\sin 2x", Call("sin", (Product((two, x)),))),
    (r"\sin x \cos x", Product((Call("sin", (x,)), Call("cos", (x,))))),
    (r"\tan \frac{1}{2}\pi", Call("tan", (Product((read("1/2"), pi)),))),
    (r"7 \bmod 3", Call("mod", (_n(7), three))),
    ("i", Constant("i")),
    (r"-\infty", Product((_n(-1), Constant("oo")))),
    ("f(x)", Applied("f", (x,))),
    ("P(x) = 2", Relation((Applied("P", (x,)), two), ("=",))),
    ("x(y)", Product((x, y))),
    ("x(t) = 2", Relation((Applied("x", (Symbol("t"),)), two), ("=",))),
    ("f'(x)", Applied("f'", (x,))),
    (r"\frac{dy}{dx}", Symbol("dy/dx")),
    (r"\vec{v}", Symbol("vec v")),
    (r"\angle ABC", Symbol("angle ABC")),
    (r"\sum_{i=1}^{n} i", Big("sum", Symbol("i"), one, n, Symbol("i"))),
    (r"\int_0^1 x \, dx", Big("integral", x, _n(0), one, x)),
    (
        r"\int \frac{dx}{x}",
        Big("integral", x, None, None, Product((one, Power(x, _n(-1))))),
    ),
    (r"\lim_{x \to 0} x", Big("limit", x, _n(0), None, x)),
    (r"\frac{d}{dx} x", Big("derivative", x, None, None, x)),
    (r"1 \pm x", Sum((one, PlusMinus(x)))),
    (r"\mp x", PlusMinus(x, flipped=True)),
    ("5%", Percent(five)),
    ("5°", Degree(five)),
    ("30° 15'", Sum((Degree(_n(30)), Degree(_n("1/4"))))),
    ("204_5", Based(54, 5)),
    ("2B_{16}", Based(43, 16)),
    ("204 base 5", Based(54, 5)),
    (r"204_{\text{five}}", Based(54, 5)),
    ("5 cm", Quantity(five, "cm")),
    (r"15\mbox{ cm}^2", Quantity(_n(15), "cm^2")),
    ("9.8 m/s^2", Quantity(_n("9.8"), "m/s^2")),
    ("10 square units", Quantity(_n(10), "square units")),
    ("42 because it is so", Quantity(_n(42), "because it is so")),
    ("x = 5 cm", Quantity(Relation((x, five), ("=",)), "cm")),
    ("2 hours 30 minutes", Quantity(_n(150), "minutes")),
    ("1 hour and 30 minutes", Quantity(_n(90), "minutes")),
    ("25°C", Quantity(_n(25), "°C")),
    ("-$5", Quantity(_n(-5), "$")),
    (
        r"7 \text{ goats and } 4 \text{ toys}",
        Items((Quantity(_n(7), "goats"), Quantity(_n(4), "toys"))),
    ),
    ("2:3:5", Ratio((two, three, five))),
    ("12:00", Clock(43_200)),
    (r"08:34 \text{P.M.}", Clock(74_040)),
    ("20:34:00", Clock(74_040)),
    ("3 pm", Clock(54_000)),
    ("March 5, 2020", Date(2020, 3, 5)),
    (r"6 \text{ PM}", Clock(64_800)),
    (r"\text{June 20}", Date(0, 6, 20)),
    ("2020-03-05", Date(2020, 3, 5)),
    ("odd $n$", Text("odd n")),
    ("CAB", Text("cab")),
    ("Tom", Text("tom")),
    ("1,23", Items((one, _n(23)))),
    ("(1,234)", Tuple((one, _n(234)), "(", ")")),
    ("27,54,108,135", Items((_n(27), _n(54), _n(108), _n(135)))),
    ("32, 349", Items((_n(32), _n(349)))),
    (r"\langle 1, 2 \rangle", Tuple((one, two), "<", ">")),
    ("[1, 2[", _interval(one, two, "[)")),
    ("t(0,4]", Member(Symbol("t"), _interval(_n(0), _n(4), "(]"))),
    ("(1,2,3)^T", Tuple((one, two, three), "(", ")")),
    ("0 < x ≤ 1", Relation((_n(0), x, one), ("<", "<="))),
    (r"x \equiv 3 \pmod 7", Relation((x, Call("mod", (three, _n(7)))), ("==",))),
    (r"x \ne 1", Relation((x, one), ("!=",))),
    (r"\pi \approx 3", Relation((pi, three), ("~",))),
    (r"x \notin \mathbb{Z}", Member(x, NamedSet("Z"), negated=True)),
    (r"\mathbb{Z}_{\geq 0}", NamedSet("Z0+")),
    (r"\mathbb{R} \setminus \{1\}", SetOperation("minus", (NamedSet("R"), SetOf((one,))))),
    (r"\{\}", SetOf(())),
    (r"\varnothing", SetOf(())),
    (r"\{x \mid x > 1\}", SetBuilder(x, (Relation((x, one), (">",)),))),
    (
        r"\{x \in \mathbb{Z} : x > 1\}",
        SetBuilder(x, (Member(x, NamedSet("Z")), Relation((x, one), (">",)))),
    ),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 5 \\ \end{pmatrix}", Matrix(((one, two), (three, five)))),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 5 \end{pmatrix}^T", Matrix(((one, three), (two, five)))),
    (
        r"\begin{cases} 1 & \text{if } x > 0 \\ 2 & \text{otherwise} \end{cases}",
        Cases(((one, Relation((x, _n(0)), (">",))), (two, None))),
    ),
    (
        r"\left\{\begin{array}{l} x=1 \\ y=2 \end{array}\right.",
        Items((Relation((x, one), ("=",)), Relation((y, two), ("=",)))),
    ),
    (
        "x=1, y=2; x=3, y=5",
        Items(
            (
                Items((Relation((x, one), ("=",)), Relation((y, two), ("=",)))),
                Items((Relation((x, three), ("=",)), Relation((y, five), ("=",)))),
            )
        ),
    ),
    ("We find that $x < 3$.", Relation((x, three), ("<",))),
    ("The answer is 5", five),
    (r"\text{only }x=1", Relation((x, one), ("=",))),
    ("Maximum = 2", Relation((Symbol("maximum"), two), ("=",))),
    ("all real numbers", NamedSet("R")),
    (r"A \parallel B", Applied("parallel", (Symbol("A"), Symbol("B")))),
    (r"x < 1 \cup x > 3", Items((Relation((x, one), ("<",)), Relation((x, three), (">",))))),
]


@pytest.mark.parametrize(("text", "tree"), TREES)
def test_a_text_becomes_this_tree(text: str, tree: Node) -> None:
    assert read(text) == tree


DIFFERENT = [
    (r"\frac{1}{11}", r"\frac{11}{1}"),
    ("CAB", "ABC"),
    ("12:00", "1:00"),
    ("1011_2", "1011_3"),
    ("(0,1)", "[0,1]"),
    (r"\forall x", r"\exists x"),
    ("x_1 2", "x_{12}"),
    ("|x|y", "|xy|"),
    ("2^{10}", "2^10x"),
    (r"\sin x y", r"\sin(x) y"),
    ("5 cm", "5 cm^2"),
    ("x=1, y=2 or x=3, y=4", "x=1, y=4 or x=3, y=2"),
    (r"0.\overline{3}", "0.3333333333"),
    ("$5", "€5"),
    ("$x$ is odd", "$x$ is even"),
    (r"\overrightarrow{AB}", r"\overrightarrow{BA}"),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_texts_that_mean_different_things_give_different_trees(one: str, other: str) -> None:
    trees = []
    for text in (one, other):
        try:
            trees.append(read(text))
        except Unreadable as error:
            trees.append(str(error))
    assert trees[0] != trees[1]


@pytest.mark.parametrize(
    ("text", "places", "digits"),
    [
        ("2.50", 2, 3),
        ("1.5e-3", 4, 2),
        (r"2.314814814815 \times 10^{-3}", 15, 13),
        ("0.050", 3, 2),
        ("1,234.5", 1, 5),
        ("42", None, 2),
        ("84.", None, 2),
        ("-3.14", 2, 3),
    ],
)
def test_a_decimal_remembers_how_it_was_written(text: str, places: int | None, digits: int) -> None:
    node = read(text)
    assert isinstance(node, Number)
    assert (node.places, node.digits) == (places, digits)


def test_a_time_may_stand_as_a_ratio() -> None:
    ratio = read("20:34")
    assert isinstance(ratio, Ratio)
    assert clock_of(ratio) == read("8:34 pm")
    assert clock_of(Ratio((two, one))) is None


@pytest.mark.parametrize(
    ("one", "other", "factor"),
    [
        ("m", "cm", "100"),
        ("hours", "minutes", "60"),
        ("square centimeters", "cm^2", "1"),
        ("km/h", "kilometers per hour", "1"),
        ("m/s", "km/h", "3.6"),
        ("feet", "inches", "12"),
        ("dollars", "$", "1"),
        ("$", "cents", "100"),
        ("square units", "units^2", "1"),
        ("cubic meters", "liters", "1000"),
        ("mph", "miles per hour", "1"),
        ("sq. ft", "ft^2", "1"),
    ],
)
def test_units_of_one_kind_convert(one: str, other: str, factor: str) -> None:
    first, second = canonical(one), canonical(other)
    assert first is not None
    assert second is not None
    assert first[0] == second[0]
    assert first[1] / second[1] == Fraction(factor)


@pytest.mark.parametrize(("one", "other"), [("m", "m^2"), ("$", "€"), ("°C", "°F"), ("s", "m")])
def test_units_of_different_kinds_do_not_convert(one: str, other: str) -> None:
    first, second = canonical(one), canonical(other)
    assert first is not None
    assert second is not None
    assert first[0] != second[0]


@pytest.mark.parametrize(
    "unit", ["apples", "", "because it is so", "cm and", "square", "2 cm", "/"]
)
def test_words_are_no_units(unit: str) -> None:
    assert canonical(unit) is None


EXPRESSIONS = st.recursive(
    st.integers(0, 99).map(str) | st.sampled_from(["x", "y", r"\pi", "0.5", "n"]),
    lambda inner: (
        st.tuples(inner, st.sampled_from(["+", "-", r"\cdot "]), inner).map(
            lambda parts: f"({parts[0]}{parts[1]}{parts[2]})"
        )
        | st.tuples(inner, inner).map(lambda parts: rf"\frac{{{parts[0]}}}{{{parts[1]}}}")
        | inner.map(lambda part: rf"\sqrt{{{part}}}")
        | inner.map(lambda part: rf"\left|{part}\right|")
        | inner.map(lambda part: rf"\sin({part})")
    ),
    max_leaves=6,
)
REWRITES = [
    (r"\frac", r"\dfrac"),
    (r"\cdot ", r"\times "),
    (r"\cdot ", "*"),
    (r"\cdot ", " · "),
    ("(", r"\left("),
    (")", r" \right) "),
    ("+", " + "),
    ("-", "−"),
    (r"\pi", r"{\pi}"),
    ("x", "{x}"),
    (r"\left|", r"\lvert "),
]


@given(EXPRESSIONS, st.sampled_from(REWRITES))
def test_spelling_does_not_change_the_tree(text: str, rewrite: tuple[str, str]) -> None:
    respelled = text.replace(*rewrite)
    if rewrite[0] == ")":
        respelled = respelled.replace("(", r"\left(")
    assert read(respelled) == read(text)
    assert read(f"${text}$.") == read(text)
    assert read(rf"\[ {text} \]") == read(text)
    assert read(rf"\boxed{{{text}}}") == read(text)


@given(st.lists(st.integers(-999, 9999), min_size=2, max_size=6))
def test_a_list_keeps_its_numbers_however_it_is_joined(values: list[int]) -> None:
    numbers = tuple(_n(value) for value in values)
    assert read(", ".join(map(str, values))) == Items(numbers)
    assert read("(" + ",".join(map(str, values)) + ")") == Tuple(numbers, "(", ")")
    assert read(r" \text{ and } ".join(map(str, values))) == Items(numbers)
    assert read("$,$".join(map(str, values)).join("$$")) == Items(numbers)


@given(st.integers(0, 10**12), st.sampled_from([",", "{,}", r"\,", r",\!", "\u2009", "~"]))
def test_thousands_separators_change_nothing(value: int, mark: str) -> None:
    assert read(f"{value:,}".replace(",", mark)) == _n(value)


@given(st.integers(2, 10), st.integers(0, 10**9))
def test_a_numeral_with_a_base_has_its_value(base: int, value: int) -> None:
    digits, rest = "", value
    while rest or not digits:
        digits, rest = str(rest % base) + digits, rest // base
    assert read(rf"{digits}_{{{base}}}") == Based(value, base)
