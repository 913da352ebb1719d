r"""Text to tree: a tokenizer and a precedence parser for what answers look like.

Reads numerals with thousands separators, `a/b`, `\frac`, mixed numbers (`1\frac{1}{2}`, `1 1/2`),
`+ - * / ^ !`, percent, `\sqrt`, `\pi`, implicit multiplication, one-letter variables and one `=`.
Division and implicit multiplication bind alike, from left to right: `1/2x` is x/2.

Never evaluates anything and never hands text to another parser. Every cap is named, because the
text is written by a policy that is paid for breaking this. What it does not understand (words,
lists, "4 or 5") is `Unreadable`: it is not guessed at.
"""

import re
from fractions import Fraction

from ..extract import clean
from ..numerals import TooLarge, Unreadable, numeral
from .nodes import (
    Constant,
    Equation,
    Factorial,
    Node,
    Number,
    Percent,
    Power,
    Product,
    Root,
    Sum,
    Symbol,
    inverse,
    negated,
)
from .tokens import CURRENCY, GREEK, MAX_CHARS, MAX_RUN, WORDS, tokens

MAX_DEPTH = 60
"""Nesting: keeps every recursive pass far from Python's recursion limit."""
MAX_DEGREE = 1000
"""Degree of a root."""
_INTEGER = re.compile(r"[+-]?[0-9]{1,300}")


def read(text: str) -> Node:
    r"""Read a mathematical text into a tree.

    Raises:
        TooLarge: It is over one of the caps.
        Unreadable: It is not understood, in full, from its first to its last character.

    Example:
        >>> read(r"\frac{1}{2}") == read("1/2")
        True
    """
    if _INTEGER.fullmatch(text):
        return Number(Fraction(int(text)))
    if len(text) > MAX_CHARS:
        raise TooLarge(f"an answer of {len(text)} characters; at most {MAX_CHARS} are read")
    text = clean(text)
    currency = CURRENCY.match(text)
    if currency:
        text = currency["sign"] + text[currency.end() :]
    return _Parser(tokens(text)).statement()


class _Parser:
    """Recursive descent over one list of tokens; each method reads one level of precedence."""

    def __init__(self, given: list[str]) -> None:
        self.tokens = given
        self.at = 0
        self.depth = 0

    def peek(self, ahead: int = 0) -> str:
        """Return a token to come; empty past the end."""
        place = self.at + ahead
        return self.tokens[place] if place < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        """Return the next token and move on."""
        token = self.peek()
        if not token or (expected and token != expected):
            raise Unreadable(
                f"{_name(token)} where {_name(expected) if expected else 'more'} belongs"
            )
        self.at += 1
        return token

    def statement(self) -> Node:
        """Read the whole text: an expression or one equation."""
        node = self.sum()
        if self.peek() == "=":
            self.take()
            node = Equation(node, self.sum())
        if self.peek():
            raise Unreadable(f"{_name(self.peek())} after the end of the expression")
        return node

    def deeper(self) -> None:
        """Count one more level of nesting."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooLarge(f"nested more than {MAX_DEPTH} deep")

    def sum(self) -> Node:
        """Read terms with + and − between them."""
        terms = [self.term()]
        while self.peek() in ("+", "-"):
            negative = self.take() == "-"
            term = self.term()
            terms.append(negated(term) if negative else term)
        return terms[0] if len(terms) == 1 else Sum(tuple(terms))

    def term(self) -> Node:
        """Read signed factors with *, / or nothing between them."""
        negative = self.signs()
        factors = [self.factor()]
        while True:
            operator = self.peek()
            if operator in ("*", "/"):
                self.take()
                negative ^= self.signs()
                factor = self.factor()
                factors.append(inverse(factor) if operator == "/" else factor)
            elif _starts_implicit_factor(operator):
                factors.append(self.factor())
            else:
                break
        node = factors[0] if len(factors) == 1 else Product(tuple(factors))
        return negated(node) if negative else node

    def signs(self) -> bool:
        """Read any signs; return whether they amount to a minus."""
        negative = False
        while self.peek() in ("+", "-"):
            negative ^= self.take() == "-"
        return negative

    def factor(self) -> Node:
        """Read an operand with its fraction, factorial, power and percent sign."""
        mixed = _is_integer(self.peek()) and (_is_integer(self.peek(1)) or self.peek(1) == "\\frac")
        node = self.mixed_number() if mixed else self.power()
        if self.peek() == "%":
            self.take()
            node = Percent(node)
        return node

    def mixed_number(self) -> Node:
        r"""Read `1\frac{1}{2}` or `1 1/2`: a whole number and a proper fraction, no power on it.

        With anything but numerals in it, `2\frac{x}{3}` is a product.
        """
        whole = numeral(self.take())
        if self.peek() == "\\frac":
            self.take()
            fraction = self.fraction()
        else:
            top = Number(numeral(self.take()))
            self.take("/")
            if not _is_integer(self.peek()):
                raise Unreadable("two numbers side by side")
            fraction = Product((top, inverse(Number(numeral(self.take())))))
        if self.peek() in ("^", "!"):
            raise Unreadable("a power or factorial of a mixed number")
        match fraction:
            case Product((Number(top), Power(Number(bottom), _))):
                if not (top.denominator == bottom.denominator == 1 and 0 < top < bottom):
                    raise Unreadable("a number beside a fraction that is not proper")
                return Number(whole + top / bottom)
        return Product((Number(whole), fraction))

    def power(self) -> Node:
        """Read an operand, its factorial and its exponent; the exponent binds to the right."""
        node = self.operand()
        if self.peek() == "!":
            self.take()
            node = Factorial(node)
            if self.peek() == "!":
                raise Unreadable("a double factorial")
        if self.peek() != "^":
            return node
        self.take()
        self.deeper()
        negative = self.signs()
        exponent = self.power()
        self.depth -= 1
        return Power(node, negated(exponent) if negative else exponent)

    def operand(self) -> Node:
        """Read a number, a variable, a group, a fraction or a root."""
        token = self.take()
        if token[0] in "0123456789" or (token[0] == "." and len(token) > 1):
            return Number(numeral(token))
        if token == "\\pi":
            return Constant("pi")
        if token[0] == "\\" and token[1:] in GREEK:
            return self.variable(token[1:])
        if token.isascii() and token.isalpha() and token != "sqrt":
            return self.letters(token)
        if token not in _OPENINGS:
            raise Unreadable(f"{_name(token)} is not understood here")
        self.deeper()
        node = getattr(self, _OPENINGS[token])()
        self.depth -= 1
        return node

    def group(self) -> Node:
        """Read the rest of a bracketed expression."""
        closing = ")" if self.tokens[self.at - 1] == "(" else "}"
        node = self.sum()
        self.take(closing)
        return node

    def argument(self) -> Node:
        r"""Read the argument of a command: a group, or as in TeX one digit, letter or command."""
        token = self.peek()
        if token[:1] in ("", ".") or (token[0].isdigit() and not _is_integer(token)):
            raise Unreadable(f"{_name(token)} as the argument of a command")
        if len(token) > 1 and token.isalnum() and token != "pi":
            self.tokens[self.at : self.at + 1] = [token[0], token[1:]]
        return self.operand()

    def fraction(self) -> Node:
        """Read the two arguments of a fraction."""
        top = self.argument()
        return Product((top, inverse(self.argument())))

    def root(self) -> Node:
        r"""Read the degree and the argument of a root; `\sqrt12` could be √12 or √1·2."""
        degree = 2
        if self.peek() == "[":
            self.take()
            text = self.take()
            self.take("]")
            if not _is_integer(text) or len(text) > 4 or not 2 <= int(text) <= MAX_DEGREE:
                raise Unreadable(f"a root of degree {text[:20]}; 2 to {MAX_DEGREE} are read")
            degree = int(text)
        if len(self.peek()) > 1 and self.peek().isalnum():
            raise Unreadable(f"a root of {_name(self.peek())} without braces")
        return Root(self.argument(), degree)

    def radical(self) -> Node:
        """Read the operand of the sign √, which reaches as far as the next number or group."""
        return Root(self.operand(), 2)

    def called_root(self) -> Node:
        """Read `sqrt(…)`."""
        self.take("(")
        return Root(self.group(), 2)

    def letters(self, run: str) -> Node:
        """Read a run of letters: a name that is known, or a product of variables."""
        if run == "pi":
            return Constant("pi")
        if len(run) > MAX_RUN or run.lower() in WORDS:
            raise Unreadable(f"the word {run[:40]!r}")
        factors = [Symbol(letter) for letter in run[:-1]]
        last = self.variable(run[-1])
        parts = [_constant(part) for part in (*factors, last)]
        return parts[0] if len(parts) == 1 else Product(tuple(parts))

    def variable(self, name: str) -> Symbol:
        """Read the subscript of a variable, if it has one."""
        if self.peek() != "_":
            return Symbol(name)
        self.take()
        braced = self.peek() == "{"
        if braced:
            self.take()
        subscript = self.take()
        if braced:
            self.take("}")
        if not (subscript.isascii() and subscript.isalnum() and len(subscript) <= MAX_RUN):
            raise Unreadable(f"the subscript {_name(subscript)}")
        return Symbol(f"{name}_{subscript}")


_OPENINGS = {
    "(": "group",
    "{": "group",
    "\\frac": "fraction",
    "\\sqrt": "root",
    "√": "radical",
    "sqrt": "called_root",
}
"""Tokens that open something nested, and the method that reads it."""


def _is_integer(token: str) -> bool:
    return token.isascii() and token.isdecimal()


def _constant(symbol: Symbol) -> Node:
    return Constant(symbol.name) if symbol.name in ("e", "i") else symbol


def _starts_implicit_factor(token: str) -> bool:
    if token in _OPENINGS or token == "\\pi":
        return True
    return bool(token) and (
        (token.isascii() and token.isalpha()) or (token[0] == "\\" and token[1:] in GREEK)
    )


def _name(token: str) -> str:
    return f"'{token[:40]}'" if token else "the end"
