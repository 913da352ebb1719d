r"""Text to tokens: numerals, letters, words, commands, signs.

Different ways to write one sign become one token here, so that the grammar knows each once. A
token is a short text: `12.5`; a letter; `"word`, with a quotation mark in front; a sign such as
`<=`; or a command such as `\frac`.
"""

import re

from ..numerals import TooLarge, Unreadable
from .runs import FUNCTIONS, split

MAX_TOKENS = 1500
"""Tokens of an answer: bounds the size of the tree."""
END = ""
"""What follows the last token."""

GREEK = frozenset(
    str.split(r"""\alpha \beta \gamma \delta \epsilon \varepsilon \zeta \eta \theta \vartheta \iota
    \kappa \lambda \mu \nu \xi \rho \sigma \tau \upsilon \phi \varphi \chi \psi
    \omega \Gamma \Delta \Theta \Lambda \Xi \Pi \Sigma \Phi \Psi \Omega \ell \hbar
    \mho \partial \varrho \nabla \aleph \wp \imath \jmath""")
)
"""Commands that are variables."""
ACCENTS = frozenset(
    str.split(r"""\vec \hat \tilde \bar \overline \overrightarrow \widehat \widetilde \dot \ddot
    \overleftrightarrow \overarc \wideparen \overparen""")
)
"""Commands that are a mark above what follows."""
_IGNORED = r"""\! \displaystyle \textstyle \scriptstyle \limits \nolimits \big \Big \bigg
\Bigg \bigl \bigr \Bigl \Bigr \biggl \biggr \Biggl \Biggr \boxed \fbox \framebox \left \right
\middle \mathstrut \phantom \rm \bf \it \mathit \mathsf \mathcal \mathbf \boldsymbol \bm
\mathrm \text \textbf \textit \textrm \mbox \hbox \operatorname \mathop \mathbb \hline \noindent
\centering \large \Large \small \dstyle \allowbreak \nonumber \mathfrak \mathscr \hfill \strut
\quad \qquad \, \; \: \> ~ \( \) \[ \] \  \/ \enspace \thinspace \hspace \unit \ensuremath
\underline \checkmark \blacksquare \qed"""
_SAME = r"""\frac \sqrt \binom \pi \infty \cup \cap \setminus \in \notin \pm \mp \sum \prod \int
\lim \lfloor \rfloor \lceil \rceil \langle \rangle \{ \} \| \\ \emptyset \forall \exists \angle
\triangle \to \degree \prime \ldots \bmod \pmod \choose \over \land \lor \parallel \perp \sim \cong
\subset \subseteq \implies \iff \mid \dagger \overset \underset \stackrel \circ \square
\Box \oplus \otimes \top \therefore \because \cancel \pounds \euro \operatorname"""
_FOLDED = {
    r"\cdot": "*", r"\times": "*", r"\ast": "*", r"\div": "/", r"\%": "%", r"\$": "$", r"\&": "and",
    r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac",
    r"\nicefrac": r"\frac", r"\sfrac": r"\frac", r"\Pr": "P", r"\lparen": "(",
    r"\rparen": ")", r"\lbrack": "[", r"\rbrack": "]", r"\lbrace": r"\{", r"\rbrace": r"\}",
    r"\le": "<=", r"\leq": "<=", r"\leqslant": "<=", r"\leqq": "<=", r"\ge": ">=", r"\geq": ">=",
    r"\geqslant": ">=", r"\geqq": ">=", r"\lt": "<", r"\gt": ">", r"\ne": "!=", r"\neq": "!=",
    r"\approx": "~", r"\thickapprox": "~", r"\approxeq": "~", r"\simeq": "~", r"\doteq": "~",
    r"\equiv": "==", r"\colon": ":", r"\dbinom": r"\binom", r"\tbinom": r"\binom",
    r"\varnothing": r"\emptyset", r"\O": r"\emptyset", r"\infin": r"\infty", r"\surd": r"\sqrt",
    r"\lvert": "|(", r"\rvert": "|)", r"\vert": "|", r"\lVert": r"\|", r"\rVert": r"\|",
    r"\Vert": r"\|", r"\backslash": r"\setminus", r"\smallsetminus": r"\setminus",
    r"\bigcup": r"\cup", r"\bigcap": r"\cap", r"\union": r"\cup", r"\dots": r"\ldots",
    r"\cdots": r"\ldots", r"\dotsc": r"\ldots", r"\dotsb": r"\ldots", r"\vdots": r"\ldots",
    r"\ddots": r"\ldots", r"\rightarrow": r"\to", r"\longrightarrow": r"\to",
    r"\Rightarrow": r"\implies", r"\Longrightarrow": r"\implies", r"\Leftrightarrow": r"\iff",
    r"\wedge": r"\land", r"\vee": r"\lor", r"\ni": r"\mid", r"\lbrac": "[", r"\deg": r"\degree",
    r"\measuredangle": r"\angle", r"\_": "_", r"\intercal": r"\top",
    r"\R": "#R", r"\Z": "#Z", r"\Q": "#Q", r"\N": "#N", r"\C": "#C", r"\reals": "#R",
    r"\cr": "\\\\", r"\newline": "\\\\", r"\textdegree": r"\degree",
    r"\dollar": "$", r"\textdollar": "$", r"\cent": '"cents', r"\percent": "%", r"\mod": r"\bmod",
    r"\leftarrow": r"\to", r"\mapsto": r"\to", r"\exp": r"\exp", r"\tg": r"\tan",
}  # fmt: skip
COMMANDS = (
    dict.fromkeys(_IGNORED.split(), "")
    | {name: name for name in (*_SAME.split(), *GREEK, *ACCENTS)}
    | {"\\" + name: "\\" + name for name in FUNCTIONS}
    | _FOLDED
    | {"\\ ": "", r"\quad": r"\quad", r"\qquad": r"\quad"}
)
"""Every command that is known and its token; empty where it is only for the eye."""
_PLAIN = {
    "**": "^", "+/-": r"\pm", "+-": r"\pm", "<=": "<=", "=<": "<=", ">=": ">=", "=>": r"\implies",
    "->": r"\to", "==": "=", ":=": "=", "≔": "=", "...": r"\ldots", "€": "$€", "£": "$£",
    "¥": "$¥", "₹": "$₹", "|": "|", "||": "||", "~": "", "&": "&", "<>": "!=", "¢": '"cents',
}  # fmt: skip
_BEFORE_ITEM = frozenset(("", ",", ";", "and", "or", "(", "[", r"\{", "{", "=", "+", "-", r"\quad"))
_AFTER_VALUE = frozenset("})")
_TEXT_NAMES = "text|textbf|textit|textrm|textnormal|textsf|mathrm|mbox|hbox|rm|operatorname|mathit"
_BOARD = re.compile(r"\\math(?:bb|bf|cal|rm)\s*\{?\s*([RQZNC])\s*\}?\Z")
_COMMA_GROUPS = r"(?<![0-9])(?<![0-9],)[0-9]{1,3}(?:,[0-9]{3})+(?![0-9]|,[-0-9])"
_MARK = r"(?:\{,\}|\\!,\\!|\\!,|,\\!\s?|\\[,;:!]|\\ |[ ~'])"
NUMERAL = (
    rf"(?:(?:{_COMMA_GROUPS}|[1-9][0-9]{{0,2}}(?:{_MARK}[0-9]{{3}})+(?![0-9])|[0-9]+)"
    r"(?:\.(?![.])[0-9]*(?:\\,[0-9]{3}(?![0-9]))*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+(?![0-9]))?"
)
"""Pattern of an unsigned numeral: `1,234.5`, `1\\,234`, `.5`, `84.`, `1.5e-3`."""
_TOKEN = re.compile(
    rf"\s+|{NUMERAL}|[A-Za-z]+"
    rf"|\\(?:{_TEXT_NAMES})\*?\s*\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}}"
    r"|\\math(?:bb|bf|cal)\s*\{\s*[RQZNC]\s*\}|\\mathbb\s*[RQZNC](?![A-Za-z])"
    r"|\\(?:begin|end)\s*\{\s*[A-Za-z]+\*?\s*\}(?:\s*\[[a-z]\])?"
    r"|\\(?:left|right)\s*[|.]|\\[hv]space\*?\{[^{}]*\}|\\(?:[hv]?phantom|(?:text)?color)\{[^{}]*\}"
    r"|\\not\s*(?:=|\\in\b|\\equiv\b)|\\\\(?:\[[^\[\]]{1,8}\])?|\\(?:[A-Za-z]+|.)"
    r"|\*\*|\+/-|\+-|<=|=<|>=|=>|->|==|!=|!!|:=|<>|\.\.\.|.",
    re.DOTALL,
)
_TEXT = re.compile(rf"\\(?:{_TEXT_NAMES})\*?\s*\{{(.*)\}}\Z", re.DOTALL)
_IN_TEXT = re.compile(rf"\s+|{NUMERAL}|[A-Za-z][A-Za-z'’\-]*[A-Za-z]|[A-Za-z]|\\[A-Za-z]+|\\.|.")
_PERIODS = re.compile(r"(?<=[A-Za-z])\.(?=[A-Za-z]|\s*\Z|\s+[a-z])")
_SPACED_SIGN = ("\\quad", "and", "or", ",", ";", "\\\\")
_NOT = {"=": "!=", "\\in": "\\notin", "\\equiv": "!="}


def tokens(text: str) -> list[str]:
    r"""Split a text into tokens.

    Raises:
        TooLarge: There are more than `MAX_TOKENS`.
        Unreadable: There is a command or a sign that is not known.

    Example:
        >>> tokens(r"2\dfrac{1}{2} ≤ x".replace("≤", r"\leq"))
        ['2', '\\frac', '{', '1', '}', '{', '2', '}', '<=', 'x']
    """
    out: list[str] = []
    add = out.append
    before = ""
    for raw in _TOKEN.findall(text):
        first = raw[0]
        if (
            raw in _SINGLE
            or first in _DIGITS
            or (first == "." and len(raw) > 1 and raw[1] in _DIGITS)
        ):
            add(raw)
        elif first == "\\":
            _command(raw, out)
        elif first.isspace():
            pass
        elif first.isalpha() and first.isascii():
            _letters(raw, out, before)
        else:
            _sign(raw, out)
        before = raw
    if len(out) > MAX_TOKENS:
        raise TooLarge(f"more than {MAX_TOKENS} symbols")
    if "\\begin" in text:
        out = _without_alignment(out)
    if "," in text:
        out = _without_groups_in_brackets(out)
    return _without_loose_quads(out) if "\\quad" in out else out


_DIGITS = frozenset("0123456789")
_SINGLE = frozenset("+-*/^_(){}[]=<>,;:%'")


def _letters(run: str, out: list[str], before: str) -> None:
    last = out[-1] if out else ""
    after_value = last[-1:] in _AFTER_VALUE or (last[:1] in _DIGITS and last != "")
    out.extend(split(run, after_value, before[:1].isspace(), last[:1] == '"'))


def _sign(raw: str, out: list[str]) -> None:
    if raw == "!=":
        tight = bool(out) and (out[-1][-1:] in _AFTER_VALUE or out[-1][-1:] in _DIGITS)
        out.extend(("!", "=") if tight else ("!=",))
    elif raw in ("!", "!!", "&", "|"):
        out.append(raw)
    elif raw in _PLAIN:
        if _PLAIN[raw]:
            out.append(_PLAIN[raw])
    elif raw == ".":
        if not out or out[-1][:1] != '"':
            out.append(raw)
    elif raw.isalpha():
        out.append('"' + raw)
    else:
        raise Unreadable(f"the sign {raw!r}")


def _command(raw: str, out: list[str]) -> None:
    token = COMMANDS.get(raw)
    if token is not None:
        if token:
            out.append(token)
        return
    text = _TEXT.match(raw)
    if text is not None:
        _in_text(text[1], out)
        return
    board = _BOARD.match(raw)
    if board is not None:
        out.append("#" + board[1])
    elif raw.startswith(("\\begin", "\\end")):
        name = raw.partition("{")[2].partition("}")[0].strip().rstrip("*")
        out.append(("\\begin " if raw[1] == "b" else "\\end ") + name)
    elif raw.startswith("\\\\"):
        out.append("\\\\")
    elif raw.startswith(("\\left", "\\right")) and raw[-1] in "|.":
        out.extend(("|(" if raw[1] == "l" else "|)",) if raw[-1] == "|" else ())
    elif raw.startswith("\\not") and raw[4:].strip() in _NOT:
        out.append(_NOT[raw[4:].strip()])
    elif not raw.endswith("}"):
        _glued_command(raw, out)


_GLUED = tuple(
    "\\" + name for name in str.split("qquad quad cdot times pi infty leq geq sin cos tan ln log")
)


def _glued_command(raw: str, out: list[str]) -> None:
    r"""Read `\quadx` or `\cdotx`, where a space was lost."""
    for name in _GLUED:
        if raw.startswith(name) and len(raw) <= len(name) + 3:
            out.append(COMMANDS[name])
            _letters(raw[len(name) :], out, raw)
            return
    raise Unreadable(f"the command {raw[:40]!r} is not known")


def _in_text(content: str, out: list[str]) -> None:
    r"""Add what stands in `\text{…}`: letters are words there unless they name a function."""
    for raw in _IN_TEXT.findall(_PERIODS.sub("", content)):
        first = raw[0]
        if first.isspace() or raw in (".", "~", "?", '"'):
            continue
        if first.isascii() and first.isalpha():
            after_value = bool(out) and out[-1][0] in _DIGITS
            tokens_of_run = split(raw, after_value, True, True) if raw.isalpha() else ('"' + raw,)
            # the letters of a product are one word here; e and i are constants in upright type
            whole = len(tokens_of_run) > 1 or (len(raw) == 1 and raw not in "eid")
            out.extend(('"' + raw,) if whole else tokens_of_run)
        elif first == "\\":
            _command(raw, out)
        elif first in _DIGITS or raw in _SINGLE:
            out.append(raw)
        else:
            _sign(raw, out)


def _without_alignment(given: list[str]) -> list[str]:
    r"""Drop `aligned` and the like with their `&`; what ends their rows separates items."""
    out: list[str] = []
    inside: list[bool] = []
    for token in given:
        if token[:5] in ("\\begi", "\\end "):
            aligned = token.rpartition(" ")[2] in _ALIGNED
            if token[1] == "b":
                inside.append(aligned)
            elif inside:
                inside.pop()
            if aligned:
                continue
        if token != "&" or not (inside and inside[-1]):
            out.append(token)
    while out and out[-1] == "\\\\":
        out.pop()
    return out


_ALIGNED = frozenset(
    str.split("align aligned alignat alignedat gather gathered split equation eqnarray")
)


def _without_groups_in_brackets(given: list[str]) -> list[str]:
    """Read (1,234) as a pair: a comma in brackets separates, unless a group starts with a 0."""
    out: list[str] = []
    depth = 0
    for token in given:
        if token in _BRACKETS:
            depth += _BRACKETS[token]
        if depth > 0 and "," in token[1:] and "{" not in token and "," in token.split("\\")[0]:
            parts = token.split(",")
            if not any(part.startswith("0") for part in parts[1:]):
                for part in parts[:-1]:
                    out.extend((part, ","))
                token = parts[-1]
        out.append(token)
    return out


_BRACKETS = {"(": 1, "[": 1, "\\{": 1, "\\langle": 1, ")": -1, "]": -1, "\\}": -1, "\\rangle": -1}


def _without_loose_quads(given: list[str]) -> list[str]:
    r"""Keep a `\quad` only where it may separate two items: not beside another sign."""
    out: list[str] = []
    for token in given:
        if token == "\\quad":
            if out and out[-1] not in _OPEN:
                out.append(token)
            continue
        if out and out[-1] == "\\quad" and (token in _CLOSED or token[:1] == '"'):
            out.pop()
        out.append(token)
    if out and out[-1] == "\\quad":
        out.pop()
    return out


_RELATIONS = ("=", "!=", "<", "<=", ">", ">=", "~", "==", "\\in", "\\notin", ":")
_OPERATORS = (*_RELATIONS, "+", "-", "*", "/", "^", "_", "\\cup", "\\cap", "\\pm", "\\mp", "&")
_OPEN = frozenset((*_OPERATORS, *_SPACED_SIGN, "(", "[", "{", "\\{"))
_CLOSED = frozenset((*_OPERATORS, *_SPACED_SIGN, ")", "]", "}", "\\}")) - {"+", "-", "\\pm"}
