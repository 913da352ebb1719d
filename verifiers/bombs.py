r"""Completions that are small to write and ruinous to check: towers, floods, traps.

None of them is right. A verifier that computes what it reads hangs on most, or fills the memory;
ours must answer each in time, and scored. The corpus ships: try it on a verifier of your own.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bomb:
    """One completion, with the truth that it is judged against.

    Example:
        `Bomb("tower", "\\boxed{9^{9^{9^9}}}", "7")`
    """

    name: str
    """Family and kind: `factorial: nested`."""
    completion: str
    """The policy's text."""
    truth: str = "7"
    """The truth; not equal to the answer."""


def bombs() -> list[Bomb]:
    """Make the corpus: some dozen megabytes of text in all.

    Example:
        >>> len(bombs()) > 110
        True
    """
    boxed = (_powers, _factorials, _numerals, _nesting, _traps, _structures, _calculus, _constants)
    made = [
        Bomb(f"{family.__name__[1:]}: {name}", rf"\boxed{{{text}}}", truth)
        for family in boxed
        for name, text, truth in family()
    ]
    whole = (_extraction, _unicode)
    return made + [
        Bomb(f"{family.__name__[1:]}: {name}", text, truth)
        for family in whole
        for name, text, truth in family()
    ]


Kind = tuple[str, str, str]
"""Name, answer, truth."""


def _nested(opening: str, core: str, closing: str, depth: int) -> str:
    return opening * depth + core + closing * depth


def _powers() -> Iterator[Kind]:
    yield "tower of four", "9^{9^{9^{9}}}", "7"
    yield "tower of three", "9^{9^{9}}", "9^{9^{8}}"
    yield "two tall towers", "3^{3^{3^{3^{3}}}}", "2^{2^{2^{2^{2^{2}}}}}"
    yield "tower of fifty", _nested("9^{", "9", "}", 50), "9"
    yield "left tower", _nested("(", "9", ")^{9}", 40), "9^{81}"
    yield "great base", "(10^{300}+1)^{10^{300}}", "10^{300}"
    yield "small fraction", "(0.5)^{10^{9}}", "0"
    yield "negative exponent", "2^{-2^{60}}", "0"
    yield "limit of e", "(1+10^{-9})^{10^{9}}", "e"
    yield "limit of e, far", "(1+10^{-90})^{10^{90}}", "e"
    yield "root of a power", r"\sqrt[10^{9}]{10^{10^{9}}+1}", "10"
    yield "high root", r"\sqrt[999]{2}", r"\sqrt[998]{2}"
    yield "power of a sum", "(a+b+c+d+f+g)^{400}", "(a+b+c+d+f)^{400}"
    yield "expansion", "(x+1)^{1000000}-1", "(x+1)^{1000000}"
    yield "product of powers", "".join(f"(x+{n})^{{{n}}}" for n in range(1, 150)), "x"
    yield "rational exponent", "(-8)^{123456789/987654321}", "(-8)^{1/8}"
    yield "imaginary exponent", "i^{i^{i^{i^{10^{9}}}}}", "i"
    yield "transcendental power", r"\pi^{\pi^{\pi^{\pi}}}", r"\pi^{\pi^{\pi^{e}}}"
    yield "exponentials", "e^{e^{e^{e^{e^{e}}}}}", "e^{e^{e^{e^{e^{2}}}}}"
    yield "power of a power of x", "x^{x^{x^{x^{x^{x}}}}}", "x^{x^{x^{x^{x}}}}"
    yield "quotient of towers", r"\frac{7^{7^{7^{7}}}}{7^{7^{7^{6}}}}", "7"
    yield "difference of towers", "10^{10^{10}}-10^{10^{9}}", "10^{10^{10}}"


def _factorials() -> Iterator[Kind]:
    yield "of a billion", "(10^{9})!", "7"
    yield "of a million", "1000000!", "999999!"
    yield "nested", "((9!)!)!", "(9!)!"
    yield "marks", "9" + "!" * 500, "9!"
    yield "double", "(10^{7})!!", "(10^{7}+2)!!"
    yield "quotient", r"\frac{(10^{8})!}{(10^{8}-2)!}", "10^{16}"
    yield "of a tower", "(9^{9^{9}})!", "9^{9^{9}}"
    yield "of a fraction", r"(10^{8}+\frac{1}{2})!", "(10^{8})!"
    yield "sum", "+".join(f"({10**5 + n})!" for n in range(60)), "10!"
    yield "binomial", r"\binom{10^{9}}{5\cdot 10^{8}}", "7"
    yield "binomial, middle", r"\binom{1000000}{500000}", r"\binom{1000000}{499999}"
    yield "binomial of towers", r"\binom{9^{9^{9}}}{9^{9^{8}}}", "9"
    yield "nested binomials", _nested(r"\binom{", "100", "}{50}", 20), "100"
    binomials = [rf"\binom{{99999}}{{{n}}}" for n in range(9000, 9080)]
    yield "product of binomials", "".join(binomials), "1"
    yield "symbolic", r"\frac{(n+1000)!}{n!}", r"\frac{(n+999)!}{n!}"
    yield "gamma", r"\Gamma(10^{9})", r"\Gamma(10^{8})"


def _numerals() -> Iterator[Kind]:
    yield "million digits", "7" * 1_000_000, "7"
    yield "million decimals", "7." + "7" * 1_000_000, "7"
    yield "at the cap of the text", "9" * 3_900, "9"
    yield "many long ones", "+".join(["9" * 390] * 9), "9"
    yield "product of long ones", "(" + ")(".join(["9" * 380] * 10) + ")^{999}", "9"
    yield "great exponent", "1e1000000000", "7"
    yield "small exponent", "1e-999999999", "0"
    yield "exponent of digits", "1e" + "9" * 3_000, "7"
    yield "power of ten", r"3\times 10^{999999999999}", "3"
    yield "thousands", "1" + ",000" * 100_000, "1"
    yield "thin spaces", "1" + r"\,000" * 900, "1"
    yield "repeating", r"0.\overline{" + "123456789" * 40 + "}", "0.1"
    yield "long period", r"0.\overline{" + "12" * 100_000 + "}", "0.1"
    yield "binary", "1" * 3_000 + "_2", "1"
    yield "great base", "10_{999999999999}", "1"
    yield "zeros", "0" * 500_000 + "8", "7"
    yield "percent signs", "7" + r"\%" * 900, "7"
    yield "factors", r"\cdot".join(f"{n}^{{{n}}}" for n in range(2, 200)), "7"


def _nesting() -> Iterator[Kind]:
    for name, opening, closing in (
        ("parentheses", "(", ")"), ("fractions", r"\frac{1}{1+", "}"), ("roots", r"\sqrt{1+", "}"),
        ("bars", "|", "|"), ("sized", r"\left(", r"\right)"), ("brackets", "[", "]"),
        ("sets", r"\{", r"\}"), ("braces", "{", "}"), ("boxes", r"\boxed{", "}"),
        ("text", r"\text{", "}"), ("sines", r"\sin(", ")"), ("logarithms", r"\ln(2+", ")"),
        ("absolute values", r"\left|1-", r"\right|"), ("floors", r"\lfloor", r"\rfloor"),
    ):  # fmt: skip
        yield f"{name}, 20000", _nested(opening, "1", closing, 20_000), "7"
        yield f"{name}, 55", _nested(opening, "x", closing, 55), "7"
    yield "signs", "-" * 3_900 + "7", "8"
    yield "mixed signs", "+-" * 100_000 + "7", "8"
    yield "exponents", _nested("x^{", "x", "}", 20_000), "x"
    yield "subscripts", _nested("x_{", "1", "}", 20_000), "x"
    yield "open only", "{" * 200_000, "7"
    yield "closed only", "}" * 200_000, "7"
    yield "radicals", _nested(r"\sqrt{2+", "2", "}", 50), "1"
    yield "odd radicals", _nested(r"\sqrt[3]{3+", "3", "}", 50), r"\sqrt[3]{3}"


def _traps() -> Iterator[Kind]:
    for name, unit in (
        ("commas", "1,"), ("points", "1."), ("spaces", " "), ("letters", "a"),
        ("backslashes", "\\"),
        ("quads", r"\quad "), ("thin spaces", r"\, "), ("dollars", "$"), ("percents", "%"),
        ("primes", "'"), ("underscores", "_"), ("equals", "1="), ("less", "1<"), ("slashes", "1/"),
        ("ampersands", "&"), ("carets", "^"), ("or", "1 or "), ("and", "1 and "), ("colons", "1:"),
        ("exponents", "1e"), ("quotes", '"'), ("commands", r"\alpha"), ("breaks", "\n"),
        ("units", "m "), ("degrees", r"1^\circ "), ("tildes", "~"), ("text", r"\text{a}"),
        ("sums", "1+"), ("products", "x"), ("pairs", "(1,2),"), ("NUL", "\0"),
    ):  # fmt: skip
        yield f"{name}, long", unit * 200_000 + "7", "8"
        yield f"{name}, readable", unit * (1_400 // len(unit)) + "7", "8"


def _structures() -> Iterator[Kind]:
    roots = [rf"\sqrt{{{n}}}" for n in range(2, 150)]
    hard = [rf"\sin({n})^2+\cos({n})^2+{n}" for n in range(90)]
    yield "signs of every term", "1" + r"\pm x" * 60, "1"
    yield "many ±", ",".join(r"1\pm\sqrt{2}" for _ in range(200)), "1"
    yield "long list", ",".join(map(str, range(700))), ",".join(map(str, range(1, 701)))
    yield "list of roots", ",".join(roots), ",".join([*roots[1:], r"\sqrt{1000}"])
    yield "list of identities", ",".join(hard), ",".join(reversed([*hard[1:], "1000"]))
    yield "equal members", r"\{" + ",".join(["(x+1)^2"] * 250) + r"\}", r"\{x^2+2x\}"
    yield "sets of sets", r"\{\{1,2\}," * 20 + "1" + r"\}" * 20, r"\{1\}"
    intervals = [f"({n},{n + 1})" for n in range(250)]
    yield "union", r"\cup".join(intervals), "(0,250)"
    yield "union of roots", r"\cup".join(
        rf"(\sqrt{{{n}}},\sqrt{{{n + 1}}})" for n in range(1, 90)
    ), "(1,9)"  # fmt: skip
    yield "intersections", r"\cap".join(intervals), "(0,250)"
    yield "chain of equal sides", "=".join(["(x+1)^{99}"] * 200), "x"
    yield "chain of less", "<".join(["x"] * 700), "x<1"
    yield "inequalities", r"\text{ or }".join(f"x<-{n}" for n in range(1, 151)), "x<0"
    yield (
        "equations",
        ",".join(f"x_{{{n}}}={n}" for n in range(99)),
        ",".join(f"x_{{{n}}}={n + 1}" for n in range(99)),
    )
    yield "curve of high degree", "x^{100000}+y^{100000}=1", "x^{100000}+y^{99999}=1"
    yield "polynomial", "+".join(f"{n}x^{{{n}}}" for n in range(2, 200)) + "=0", "x^{199}=0"
    cases = r"\\".join(rf"{n}x^{{{n}}} & x<{n}" for n in range(100))
    yield "piecewise", rf"\begin{{cases}}{cases}\end{{cases}}", r"\begin{cases}1&x<1\end{cases}"
    row = "&".join(["x^2+1"] * 10)
    for kind, size in (("pmatrix", 20), ("vmatrix", 10)):
        rows = r"\\".join([row] * size)
        yield kind, rf"\begin{{{kind}}}{rows}\end{{{kind}}}", r"\begin{pmatrix}1\end{pmatrix}"
    determinant = r"\\".join("&".join(f"x_{{{i * 9 + j}}}" for j in range(9)) for i in range(9))
    yield "determinant", rf"\begin{{vmatrix}}{determinant}\end{{vmatrix}}", "1"
    small = r"\begin{pmatrix}1&1\\1&0\end{pmatrix}"
    yield "matrix power", small + "^{10^{9}}", small
    yield "matrix of rows", r"\begin{pmatrix}" + r"1\\" * 100_000 + r"\end{pmatrix}", small
    yield "environments", r"\begin{pmatrix}" * 50_000, small
    yield "set builder", r"\{x^{x}\mid x\in\mathbb{Z}, 1<x<10^{100}\}", r"\{1\}"
    yield "tuple", "(" + ",".join(["1"] * 700) + ")", "(" + ",".join(["1"] * 699) + ",2)"


def _calculus() -> Iterator[Kind]:
    four = r"\sum_{a=1}^{999}\sum_{b=1}^{999}\sum_{c=1}^{999}\sum_{d=1}^{999}"
    arcs = r"\arcsin(\arctan x)-\arctan(\arcsin x)"
    sines = "".join(rf"\sin({n}x)" for n in range(1, 99))
    for name, text in (
        ("integral without a form", r"\int_0^1 e^{-x^2}\sin(x^3)\,dx"),
        ("integral of a tower", r"\int_0^1 x^{x^{x^{x}}}\,dx"),
        ("improper integral", r"\int_0^\infty \frac{\sin(x^2)\ln(1+x)}{1+x^5}\,dx"),
        ("primitive", r"\int \sqrt{\sin x+\sqrt{\tan x+\ln x}}\,dx"),
        ("high power of a sine", r"\int_0^{\pi} \sin^{500} x\cos^{500} x\,dx"),
        ("double integral", r"\int_0^1\int_0^1 \frac{\ln(1+xy)}{1+x^3+y^3}\,dx\,dy"),
        ("nested integrals", _nested(r"\int_0^1 ", r"\sin(x^2)", r"\,dx", 20)),
        ("rational integral", r"\int \frac{x^{50}}{(x^7+3x^2+1)^{20}}\,dx"),
        ("integral to a tower", r"\int_0^{9^{9^9}} \sin(e^{x})\,dx"),
        ("harmonic sum", r"\sum_{k=1}^{10^9}\frac{1}{k}"),
        ("sum of powers", r"\sum_{k=1}^{10^{100}} k^{99}"),
        ("sum to a tower", r"\sum_{k=1}^{9^{9^{9}}} \frac{1}{k^2}"),
        ("sum of factorials", r"\sum_{k=1}^{10^6} k!"),
        ("nested sums", four + r"\frac{1}{a+b+c+d}"),
        ("product", r"\prod_{k=1}^{10^7} \left(1+\frac{1}{k^3}\right)"),
        ("infinite product", r"\prod_{k=1}^{\infty}\left(1+\frac{\sin k}{k^3}\right)"),
        ("series without a form", r"\sum_{n=1}^{\infty}\frac{\sin(n^2)}{n^3+\ln n}"),
        ("limit", rf"\lim_{{x\to 0}}\frac{{\sin(\tan x)-\tan(\sin x)}}{{{arcs}}}"),
        ("limit of a tower", r"\lim_{n\to\infty} \frac{n^{n^{n}}}{(n!)^{n!}}"),
        ("limit of a series", r"\lim_{n\to\infty}\sum_{k=1}^{n^2}\frac{\sqrt[k]{n}}{n^2+k}"),
        ("derivative", r"\frac{d^{50}}{dx^{50}} \tan(x^{x^{x}})"),
        ("derivative of a product", r"\frac{d}{dx} " + sines),
    ):  # fmt: skip
        yield name, text, r"\frac{\pi^2}{7}"
    yield "integral as the truth", "1", r"\int_0^1 e^{-x^2}\sin(x^3)\cos(\ln(1+x))\,dx"
    yield "two integrals", r"\int_0^1 x^{x}\,dx", r"\int_0^1 x^{-x}\,dx"


def _constants() -> Iterator[Kind]:
    primes = [n for n in range(2, 240) if all(n % d for d in range(2, n))]
    yield "sum of roots", "+".join(rf"\sqrt{{{p}}}" for p in primes), "316"
    yield "sum of odd roots", "+".join(rf"\sqrt[{p}]{{{p}}}" for p in primes[:30]), "43"
    yield "product of sums of roots", "".join(
        rf"(\sqrt{{{p}}}-\sqrt{{{q}}}+1)" for p, q in itertools.pairwise(primes)
    ), "1"  # fmt: skip
    yield "cosines", "+".join(rf"\cos(\frac{{{n}\pi}}{{97}})" for n in range(1, 97, 2)), "1"
    yield "roots of unity", "+".join(rf"e^{{\frac{{2\pi i {n}}}{{101}}}}" for n in range(90)), "0"
    yield "arctangents", "+".join(rf"\arctan(\frac{{1}}{{{n}}})" for n in range(2, 90)), r"\pi"
    yield "sine of a tower", r"\sin(10^{10^{10}})", r"\sin(10^{10^{9}})"
    yield "sine of a great number", r"\sin(10^{999})", "0"
    yield "floor of a great number", r"\lfloor \pi\cdot 10^{10^{9}}\rfloor", "3"
    yield "floor near a whole", r"\lfloor (\sqrt{2}+1)^{100000}\rfloor", "3"
    yield "remainder", r"7^{7^{7^{7}}} \bmod 10^{100}", "7"
    yield "greatest divisor", r"\gcd(2^{10^{7}}-1, 3^{10^{7}}-1)", "7"
    yield "logarithm of a tower", r"\log_{2}(2^{2^{2^{2^{2^{2}}}}}+1)", "2^{65536}"
    yield "logarithm of a factorial", r"\ln((10^{12})!)", "10^{12}"
    yield "near miss", r"e^{\pi\sqrt{163}}", "262537412640768744"
    yield "nearly a root", r"\sqrt{2}+10^{-300}", r"\sqrt{2}"
    yield "tangents", _nested(r"\tan(", "1", ")", 50), r"\tan(1)"
    yield "primorial", r"\prod_{p\le 10^9} p", "1"
    yield "continued fraction", _nested(r"1+\frac{1}{", "x", "}", 50), r"\frac{1+\sqrt{5}}{2}"
    yield "zeta", r"\zeta(10^{-9})+\zeta(3+10^{9}i)", "1"


def _extraction() -> Iterator[Kind]:
    for name, unit in (
        ("boxes", r"\boxed{1} "), ("open boxes", r"\boxed{"), ("framed boxes", r"\fbox{1},"),
        ("joined boxes", r"\boxed{1}, "), ("boxes joined by words", r"\boxed{1} and "),
        ("boxes without braces", r"\boxed 1 "), ("boxes and spaces", r"\boxed" + " " * 50),
        ("thoughts", "</think>"), ("open thoughts", "<think>"), ("claims", "the answer is "),
        ("claims in words", "Final answer: 1. "), ("hashes", "#### 1\n"), ("hashes alone", "#"),
        ("tags", "<answer>1</answer>"), ("open tags", "<answer>"), ("closed tags", "</answer>"),
        ("dollars", "$1$ "), ("displays", r"\[1\]"), ("open displays", r"\["),
        ("stop tokens", "<|im_end|>"), ("broken stop tokens", "<|"), ("words", "so it goes. "),
        ("hopes", "I hope it is correct. "), ("stars", "**1** "), ("colons", "answer:"),
    ):  # fmt: skip
        yield name, unit * (1_000_000 // len(unit)), "7"


def _unicode() -> Iterator[Kind]:
    for name, unit in (
        ("superscripts", "9⁹"), ("combining marks", "e\u0301\u0323"), ("emoji", "🧨"),
        ("zero width", "\u200b"), ("full width", "９"), ("ligatures that expand", "\ufdfa"),
        ("fractions", "½"), ("letters for mathematics", "𝟗"), ("Arabic digits", "٣"),
        ("circled digits", "⑨"), ("surrogates", "\ud800"), ("byte order marks", "\ufeff"),
        ("right to left", "\u202e1"), ("Turkish i", "İ"), ("roots", "√"),
        ("thin spaces", "1\u2009"),
        ("factorial marks", "❗"), ("infinities", "∞"), ("infinite powers", "∞^"), ("Greek", "π"),
        ("minus signs", "−"), ("primes", "″"), ("Han numbers", "九億"), ("NUL", "\0"),
    ):  # fmt: skip
        yield name, rf"\boxed{{{unit * 100_000}}}", "7"
        yield f"{name}, readable", rf"\boxed{{{unit * (1_200 // len(unit))}}}", "7"
