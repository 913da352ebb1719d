"""The grammar of names: variables with subscripts and primes, functions, marked letters, sets."""

from ..numerals import Unreadable
from .cursor import Cursor, shown
from .digits import is_numeral, is_whole, number
from .nodes import Applied, Call, Constant, NamedSet, Node, Number, Symbol
from .tokens import ACCENTS, GREEK

MAX_NAME = 40
"""Tokens of a subscript or another name."""
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
ATOMS: dict[str, Node] = {letter: Symbol(letter) for letter in _LETTERS}
ATOMS |= {command: Symbol(command[1:]) for command in GREEK}
_VARIANTS = {"\\varepsilon": "epsilon", "\\varphi": "phi", "\\vartheta": "theta", "\\varrho": "rho"}
ATOMS |= {command: Symbol(name) for command, name in _VARIANTS.items()}
ATOMS |= {"e": Constant("e"), "i": Constant("i"), "\\imath": Constant("i")}
_FUNCTION_LETTERS = frozenset("fghFGHPQRSTNABCDEIJKLMUVWXYZ") | {"\\phi", "\\varphi", "\\psi"}
"""Letters that name a function where one plain argument follows in brackets: `P(x)`, not `x(y)`."""
_SIGNED_SETS = {
    "+": "+", ">0": "+", ">=0": "0+", "*": "*", "!=0": "*", "-": "-", "<0": "-", "<=0": "0-",
    "++": "+", "\\ast": "*",
}  # fmt: skip
_EVENTS = frozenset(("<", "<=", ">", ">=", "=", "\\cup", "\\cap", "|", "\\mid"))
"""Signs of the argument of a probability: `P(X > 1)`, `P(A | B)`."""
_AFTER_NAME = frozenset(("_", "'", "(", "^", "\\prime"))


class Names(Cursor):
    """Reads one name at a time."""

    def variable(self, token: str) -> Node:
        """Read a letter, its subscript and primes, and the arguments of a function."""
        tokens = self.tokens
        start = self.at
        self.at += 1
        following = tokens[self.at]
        if following not in _AFTER_NAME:
            atom = ATOMS[token]
            if self.bound and token in self.bound:
                return Symbol(token.lstrip("\\"))
            return atom
        name = ATOMS[token].name if token not in "ei" else token  # pyright: ignore
        if following == "_":
            chosen = self._choice(token)
            if chosen is not None:
                return chosen
            self.at += 1
            name += "_" + self.subscript()
        name += self._primes()
        symbol = Symbol(name) if name not in ("e", "i") or name in self.bound else ATOMS[token]
        if tokens[self.at] == "(" and self._is_application(start, token, name):
            return self._application(name)
        return symbol

    def subscript(self) -> str:
        """Read a subscript, past its `_`, as a text."""
        tokens = self.tokens
        if tokens[self.at] != "{":
            self.at += 1
            token = tokens[self.at - 1]
            if not token or not (token[-1].isalnum() or token in ("+", "*")):
                raise Unreadable(f"the subscript {shown(token)}")
            return token.lstrip('"\\')
        end = self.closing(self.at)
        if not 0 < end - self.at <= MAX_NAME:
            raise Unreadable("a subscript that is not closed, or too long")
        inside = [part.lstrip('"\\') for part in tokens[self.at + 1 : end]]
        self.at = end + 1
        return "".join(inside)

    def _primes(self) -> str:
        marks = ""
        tokens = self.tokens
        while True:
            here = tokens[self.at : self.at + 4]
            if here[0] in ("'", "\\prime"):
                self.at += 1
            elif here[:2] in (["^", "'"], ["^", "\\prime"]):
                self.at += 2
            elif here[:3] == ["^", "{", "\\prime"]:
                end = self.closing(self.at + 1)
                inside = tokens[self.at + 2 : end]
                if not end or any(mark not in ("'", "\\prime") for mark in inside):
                    raise self.refuse()
                marks += "'" * (len(inside) - 1)
                self.at = end + 1
            elif here == ["^", "{", "-", "1"] and tokens[self.at + 4 : self.at + 6] == ["}", "("]:
                self.at += 5
                return marks + "^-1"
            else:
                return marks
            marks += "'"

    def _is_application(self, start: int, token: str, name: str) -> bool:
        """Return whether brackets after a name hold arguments: `f(x)` against `x(x + 1)`."""
        end = self.closing(self.at)
        if not end or self.tokens[end] != ")":
            return False
        inside = self.tokens[self.at + 1 : end] if end - self.at < MAX_NAME else ["+"]
        if token == "f" or (name[-1] in "'1" and name[-2:] in ("f'", "g'", "-1")):
            return True
        defined = start == self.item_start and self.tokens[end + 1] in ("=", ":")
        if defined and all(part in ATOMS or part == "," or is_numeral(part) for part in inside):
            return True
        if token not in _FUNCTION_LETTERS:
            return False
        return self.has_comma(self.at) or len(inside) == 1 or not _EVENTS.isdisjoint(inside)

    def _application(self, name: str) -> Node:
        self.at += 1
        self.deeper()
        args = [self.entry()]
        while self.skip(",", ";"):
            args.append(self.entry())
        self.take(")")
        self.depth -= 1
        match name, args:
            case "C", [Number(n), Number(k)] if n >= k >= 0:
                return Call("binomial", tuple(args))
        return Applied(name, tuple(args))

    def _choice(self, letter: str) -> Node | None:
        """Read C_5^2, the binomial, and A_5^2, the permutations."""
        if letter not in "CAP":
            return None
        lower, place = self._small_index(self.at + 1)
        if lower is None or self.tokens[place] != "^":
            return None
        upper, place = self._small_index(place + 1)
        if upper is None:
            return None
        if letter != "C" and not (is_whole(lower) and is_whole(upper)):
            return None
        self.at = place
        pair = tuple(number(part) if is_whole(part) else ATOMS[part] for part in (lower, upper))
        return Call("binomial" if letter == "C" else "permutations", pair)

    def _small_index(self, place: int) -> tuple[str | None, int]:
        """Return the numeral or letter at a place, in braces or not, and the place after it."""
        braced = self.tokens[place] == "{"
        token = self.tokens[place + braced]
        closed = not braced or self.tokens[place + 2] == "}"
        if closed and (is_whole(token) or token in ("n", "m", "k", "r")):
            return token, place + 1 + 2 * braced
        return None, place

    def choice_before(self) -> Node:
        """Read _5C_2 and ^5P_2, where the first index stands before the letter."""
        upper, place = self._small_index(self.at + 1)
        letter = self.tokens[place].lstrip('"')
        lower, after = self._small_index(place + 2)
        if upper is None or lower is None or letter not in ("C", "P"):
            raise self.refuse()
        if self.tokens[place + 1] != "_":
            raise self.refuse()
        self.at = after
        pair = tuple(number(part) if is_whole(part) else ATOMS[part] for part in (upper, lower))
        return Call("binomial" if letter == "C" else "permutations", pair)

    def accented(self, mark: str) -> Node:
        """Read a letter or name under a mark; a bar over z or an expression is the conjugate."""
        end = self.closing(self.at) if self.tokens[self.at] == "{" else 0
        inside = self.tokens[self.at + 1 : end] if end else [self.tokens[self.at]]
        named = 0 < len(inside) <= MAX_NAME and all(
            part in ATOMS or part in ("_", "{", "}", "'") or is_whole(part) or part in ACCENTS
            for part in inside
        )
        if mark in ("\\overline", "\\bar") and (not named or inside[0] in ("z", "w")):
            return Call("conjugate", (self.argument(),))
        if not named or not (end or inside[0] in ATOMS):
            raise self.refuse()
        self.at = end + 1 if end else self.at + 1
        kept = [part.lstrip("\\") for part in inside if part not in ("{", "}")]
        kind = {"\\overrightarrow": "vec", "\\bar": "overline", "\\widehat": "hat"}.get(mark)
        return Symbol(f"{kind or mark[1:]} {''.join(kept)}")

    def shape(self, kind: str) -> Node:
        r"""Read `\angle ABC` and `\triangle ABC`: points in a row are one name."""
        braced = self.skip("{")
        name = ""
        while self.tokens[self.at] in ATOMS or is_whole(self.tokens[self.at]):
            name += self.tokens[self.at].lstrip("\\")
            self.at += 1
            if self.skip("_"):
                name += "_" + self.subscript()
            while self.skip("'"):
                name += "'"
        if not name:
            raise self.refuse()
        if braced:
            self.take("}")
        return Symbol(f"{kind} {name}")

    def named_set(self, letter: str) -> Node:
        """Read ℝ, ℤ and the like with their sign or dimension."""
        suffix = ""
        while self.skip("^", "_"):
            text = self.subscript() if self.tokens[self.at] not in ("+", "-", "*") else ""
            if not text:
                text = self.tokens[self.at]
                self.at += 1
            suffix += _SIGNED_SETS.get(text, "^" + text)
        return NamedSet(letter + suffix)
