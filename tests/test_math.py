"""The `math` verifier: what equals what, what never does, and that nothing hangs."""

import asyncio
import builtins
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.verifiers import Status, verify
from rlvr.verifiers.mathematics import MathAnswer, TooLarge, Unreadable, read_answer
from rlvr.verifiers.mathematics.nodes import Number
from rlvr.verifiers.numerals import numeral, show_fraction

MATH = MathAnswer()

EQUAL = [
    # rational, decided without sympy
    ("42", 42),
    ("-42", "-42"),
    ("−42", -42),
    ("+42", 42),
    ("42.", 42),
    ("042", 42),
    ("42.0", 42),
    ("0.5", "1/2"),
    (".5", 0.5),
    ("1/2", 0.5),
    (r"\frac{1}{2}", "0.5"),
    (r"\dfrac{1}{2}", "0.5"),
    (r"\frac12", "0.5"),
    (r"\frac1{2}", "0.5"),
    (r"-\frac{1}{2}", "-0.5"),
    (r"\frac{-1}{2}", "-0.5"),
    ("2/4", "1/2"),
    (r"1\frac{1}{2}", "3/2"),
    (r"1\frac12", "3/2"),
    ("1 1/2", "3/2"),
    (r"-1\frac{1}{2}", "-3/2"),
    (r"12\frac{1}{2}\%", "1/8"),
    ("1,234", 1234),
    (r"1{,}234", 1234),
    (r"1\,234", 1234),
    ("1\u2009234", 1234),
    ("1,234,567.5", "1234567.5"),
    ("$5.50", 5.5),
    (r"\$5.50", "$5.50"),
    ("-$5.50", -5.5),
    ("€5", 5),
    ("50%", "1/2"),
    (r"50\%", 0.5),
    ("50%", r"50\%"),
    ("1.5e3", 1500),
    (r"1.5 \times 10^3", 1500),
    (r"1.5 \cdot 10^{-3}", 0.0015),
    ("2^10", 1024),
    ("2**10", 1024),
    ("2¹⁰", 1024),
    ("2^{-1}", "1/2"),
    ("2^3^2", 512),
    ("-2^2", -4),
    ("(-2)^2", 4),
    ("1 + 2 * 3", 7),
    ("(1 + 2) * 3", 9),
    ("2(3)", 6),
    ("(2)(3)", 6),
    ("12 ÷ 4", 3),
    ("2 - -3", 5),
    ("5!", 120),
    (r"\sqrt{16}", 4),
    ("√16", 4),
    ("sqrt(16)", 4),
    (r"\sqrt[3]{-8}", -2),
    (r"\sqrt{\frac{1}{4}}", "1/2"),
    ("4^{1/2}", 2),
    ("x = 5", 5),
    ("5", "x = 5"),
    (r"$\frac{1}{2}$", "1/2"),
    (r"\(42\)", 42),
    (r"\left(42\right)", 42),
    # structure and sympy
    ("x+1", "1+x"),
    ("2x", "x \\cdot 2"),
    ("y = 2x + 1", "y = 1 + 2x"),
    ("2x + 1 = y", "y = 2x + 1"),
    ("2x + 1", "y = 2x + 1"),
    ("x_1 + x_2", "x_{2} + x_{1}"),
    (r"2\pi", r"\pi * 2"),
    (r"2\sqrt{3}", r"\sqrt{12}"),
    (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"),
    (r"\sqrt{3 + 2\sqrt{2}}", r"1 + \sqrt{2}"),
    (r"(x+1)^2", "x^2 + 2x + 1"),
    (r"\frac{x^2-1}{x-1}", "x+1"),
    ("x^2 - x^2", 0),
    (r"\sqrt{2}^2", 2),
    (r"e^{i\pi}", -1),
    ("8^{1/3}", 2),
    ("1/2x", "x/2"),
]

DIFFERENT = [
    ("43", 42),
    ("4", 42),
    ("24", 42),
    ("0.333", "1/3"),
    ("0.5000001", "1/2"),
    ("1.414", r"\sqrt{2}"),
    ("3.14159", r"\pi"),
    ("50%", 50),
    ("50", "50%"),
    ("5=5", 5),
    ("6=5", 5),
    ("e=5", 5),
    ("x=x", "x"),
    ("x=5=5", 5),
    ("x=y=5", 5),
    ("x = 5", "y = 5"),
    ("4 or 5", 5),
    ("5 or 4", 5),
    ("4, 5", 5),
    ("5, 4", 5),
    ("not 5", 5),
    ("5 million", 5),
    ("5x", 5),
    ("1,23", 123),
    ("0,123", 123),
    ("(1,234)", 1234),
    ("12 34", 1234),
    ("1/0", 1),
    ("0/0", 0),
    ("0^0", 1),
    ("nan", 5),
    ("inf", 5),
    (r"\infty", 5),
    ("", 5),
    ("-x", "x"),
    ("x", "y"),
    (r"\sqrt{x^2}", "x"),
    (r"\frac{1}{11}", r"\frac{11}{1}"),
    (r"2\frac{3}{2}", 3),
    ("2^{2025}+1", "2^{2025}"),
    ("1/2004!", "1/2006!"),
    ("10^{-20}", "10^{-19}"),
    (r"\sqrt{2} + 10^{-60}", r"\sqrt{2}"),
    (r"\sqrt{2} + \pi 10^{-60}", r"\sqrt{2}"),
    ("y = 2x", "y = 3x"),
    ("x + y = 0", "x - y = 0"),
    ("1011_2", 11),
    ("٤٢", 42),
    ("5!!", 120),
]


@pytest.mark.parametrize(("answer", "truth"), EQUAL)
def test_equal_answers_are_correct(answer: str, truth: Any) -> None:
    assert MATH(rf"so \boxed{{{answer}}}", truth).status is Status.CORRECT


@pytest.mark.parametrize(("answer", "truth"), DIFFERENT)
def test_different_answers_earn_nothing(answer: str, truth: Any) -> None:
    assert MATH(rf"so \boxed{{{answer}}}", truth).reward == 0.0


@pytest.mark.parametrize(
    ("completion", "status"),
    [
        ("42", "correct"),
        ("The answer is 42.", "correct"),
        ("#### 42", "correct"),
        ("<answer>42</answer>", "correct"),
        (r"I get \boxed{41}. No: \boxed{42}", "correct"),
        ("<think>41</think> 42", "correct"),
        (r"\boxed{42} \boxed{41}", "wrong"),
        (r"\boxed{42} \boxed{41", "unparsed"),
        ("The answer is not 42.", "wrong"),
        ("I used 42 steps", "unparsed"),
        ("42 is the number of steps that I used", "unparsed"),
        ("The result is $42$", "correct"),
        ("The result is not $42$", "unparsed"),
        ("Final Answer: The largest $n$ is 42. I hope it is correct.", "correct"),
        ("Final Answer: The largest $n$ is not 42.", "wrong"),
        (r"\boxed{We find that $x = 42$.}", "correct"),
        (r"\boxed{40} and \boxed{2}", "wrong"),
        (r"\boxed{42}<|im_end|>\boxed{41}", "correct"),
        ("<think>42", "unparsed"),
        ("", "unparsed"),
    ],
)
def test_the_answer_is_found_where_it_stands(completion: str, status: str) -> None:
    assert MATH(completion, 42).status == status


def test_equal_rationals_vote_for_the_same_answer() -> None:
    texts = ("1/2", "0.5", ".50", r"\frac{2}{4}", "50%", "x = 0.5", "2^{-1}", "5e-1")
    assert {MATH(text, 1).evidence["answer"] for text in texts} == {"1/2"}


def test_the_evidence_says_what_was_compared_and_how() -> None:
    assert MATH("0.5", "1/2").evidence == {"answer": "1/2", "tier": "rational"}
    assert MATH("1/2", "1/2").evidence == {"answer": "1/2", "tier": "text"}
    assert MATH("0.25", "1/2").evidence == {
        "answer": "1/4",
        "tier": "rational",
        "reason": "different value",
    }
    assert MATH("4 or 5", 5).evidence == {
        "answer": "4 or 5",
        "tier": "structure",
        "reason": "different length",
    }


@pytest.mark.parametrize(
    ("completion", "truth", "reason"),
    [
        ("", 5, "no answer"),
        ("I counted them one by one, and that took a while.", 5, "no answer"),
        ("The answer is not five", 5, "different words"),
        (r"\boxed{\foo}", 5, "not understood"),
        (r"\boxed{1/0}", 5, "no value"),
        (r"\boxed{6}", 5, "different value"),
        (r"\boxed{4, 5}", 5, "different length"),
        (r"\boxed{(0, 1)}", "[0, 1]", "different brackets"),
        (r"\boxed{5 \text{ kg}}", r"5 \text{ cm}", "unit"),
        (r"\boxed{x = 5}", "y = 5", "different variable"),
        (r"\boxed{(0, 1)}", 5, "different structure"),
        (r"\boxed{B}", "A", "different value"),
        (r"\boxed{" + "1" * 5000 + "}", 5, "over a limit"),
    ],
)
def test_the_reason_names_a_class_of_error(completion: str, truth: Any, reason: str) -> None:
    assert MATH(completion, truth).evidence["reason"].partition(":")[0] == reason


BOMBS = [
    ("9^9^9^9", "wrong"),
    ("9^{9^{9^{9}}}", "wrong"),
    ("(10^9)!", "limit"),
    ("99999!", "limit"),
    ("1e999999999", "limit"),
    ("9" * 500, "limit"),
    ("1" + "+1" * 1900, "limit"),
    ("(" * 1000 + "1" + ")" * 1000, "limit"),
    ("{" * 1900 + "1" + "}" * 1900, "limit"),
    (r"\sqrt" * 400 + "2", "limit"),
    ("2^" * 700 + "2", "limit"),
    ("1" * 10 + "x" * 5000, "limit"),
    (r"2\frac" * 300 + "{1}{2}", "limit"),
    ("*".join(["9^{9999}"] * 300), "limit"),
    ("+".join([r"\sqrt[3]{2^{510}}"] * 100), "wrong"),
    ("-" * 1400 + "1", "wrong"),
]


@pytest.mark.parametrize(("answer", "status"), BOMBS)
def test_what_is_over_a_cap_is_refused_at_once(answer: str, status: str) -> None:
    start = time.process_time()
    verdict = MATH(rf"\boxed{{{answer}}}", 5 if status == "limit" else 7)
    assert verdict.status in (status, "unparsed")
    assert time.process_time() - start < 0.5


SYMPY_BOMBS = [
    r"\int_0^\infty \frac{\sin(x^3+1)}{x^5+x+1} dx",
    r"\int_0^1 x^{x^{x}} dx",
    r"\int e^{x^2} \sin(x^3) \ln(x) dx",
]


@pytest.mark.parametrize("answer", SYMPY_BOMBS)
def test_what_is_slow_in_sympy_is_stopped_from_any_thread(answer: str) -> None:
    quick = MathAnswer(timeout=0.4)
    start = time.monotonic()
    with ThreadPoolExecutor(1) as threads:
        verdict = threads.submit(quick, rf"\boxed{{{answer}}}", r"\pi").result()
    assert verdict.reward in (0.0, None)
    assert verdict.status in (Status.TIMEOUT, Status.LIMIT, Status.WRONG)
    assert time.monotonic() - start < 8
    assert MATH(r"\boxed{2\pi}", r"\pi + \pi").reward == 1.0


def test_a_slow_answer_leaves_the_event_loop_alone() -> None:
    async def main() -> tuple[int, Status]:
        call = asyncio.ensure_future(
            asyncio.to_thread(MathAnswer(timeout=0.3), SYMPY_BOMBS[0], r"\pi")
        )
        ticks = 0
        while not call.done():
            await asyncio.sleep(0.005)
            ticks += 1
        return ticks, (await call).status

    ticks, status = asyncio.run(main())
    assert status is Status.TIMEOUT
    assert ticks > 5  # about 60 on an idle machine; a loop that is held up has one


def test_no_text_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("text was evaluated")

    for name in ("eval", "exec", "compile"):
        monkeypatch.setattr(builtins, name, refuse)
    for answer in ("__import__('os').system('exit 1')", "2+2", r"\frac{1}{2}", "x.y", "lambda: 1"):
        assert MATH(answer, "7").reward == 0.0


def test_sympy_is_not_imported_for_rational_answers() -> None:
    code = (
        "import sys; from rlvr.verifiers import make; m = make('math');"
        r"assert m(r'\boxed{\frac{1}{2}}', '0.5').reward == 1.0;"
        "assert 'sympy' not in sys.modules and 'jsonschema' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0


rationals = st.fractions(max_denominator=10**6)
expressions = st.recursive(
    st.integers(0, 99).map(str) | st.sampled_from(["x", "y", r"\pi", "0.5", r"\frac{1}{3}"]),
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(
        lambda parts: f"({parts[0]}{parts[1]}{parts[2]})"
    ),
    max_leaves=5,
)


@given(st.text())
def test_no_text_raises_or_is_unscored(text: str) -> None:
    assert verify(MATH, text, "7").scored
    assert verify(MATH, rf"\boxed{{{text}}}", "7").scored


@given(st.text(alphabet=r"0123456789+-*/^!%(){}[]=,.\ xeiπ√frac_$"))
def test_no_text_of_mathematical_signs_raises(text: str) -> None:
    try:
        reading = read_answer(text)
    except Unreadable:
        return
    assert read_answer(text) == reading


@given(expressions)
def test_everything_equals_itself(text: str) -> None:
    assert MATH(rf"\boxed{{{text}}}", text).reward == 1.0


@given(rationals, rationals)
def test_equality_of_rationals_is_that_of_fractions_both_ways(
    one: Fraction, other: Fraction
) -> None:
    first, second = f"{one.numerator}/{one.denominator}", str(other)
    assert MATH(first, second).reward == float(one == other)
    assert MATH(second, first).reward == float(one == other)
    latex = rf"\frac{{{one.numerator}}}{{{one.denominator}}}"
    assert MATH(latex, first).reward == 1.0


@given(st.integers(-(10**12), 10**12), st.sampled_from([",", "{,}", r"\,", "\u2009"]))
def test_thousands_separators_change_nothing(value: int, mark: str) -> None:
    text = f"{value:,}".replace(",", mark)
    assert MATH(rf"\boxed{{{text}}}", value).reward == 1.0
    assert MATH(rf"\boxed{{{text}}}", value + 1).reward == 0.0


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_truth_is_the_number_that_it_prints(value: float) -> None:
    assert MATH(str(value), value).reward == 1.0
    assert MATH(str(value), str(value)).reward == 1.0


@given(st.integers(), st.integers(0, 30))
def test_a_numeral_keeps_every_digit(value: int, places: int) -> None:
    text = f"{abs(value)}.{'0' * places}1"
    assert numeral(text) == abs(value) + Fraction(1, 10 ** (places + 1))
    assert read_answer(show_fraction(Fraction(value))).node == Number(Fraction(value))


def test_numerals_over_the_cap_are_refused() -> None:
    with pytest.raises(TooLarge, match="at most 400"):
        numeral("1" * 401)
    with pytest.raises(TooLarge, match="exponent"):
        numeral("1e1001")
