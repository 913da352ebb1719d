r"""The many spellings of one sign become one: Unicode, HTML and escaped text to plain LaTeX.

Works on the text, before there are tokens; every step is linear. It also takes away what surrounds
an answer (white space, dollar signs, marks of emphasis, a full stop). Patterns are compiled when
first needed: most answers need none.
"""

import re
import unicodedata

_SPACES = " \t\n\v\f\r\x85\xa0\u2009\u202f\u200b\u3000\ufeff"
_LEADING = _SPACES + ';:,`"“”*'
_TRAILING = _SPACES + '.;:,`"“”*'

MAX_WRAPPINGS = 3
"""Pairs of braces around a whole answer that are taken away."""

_SIGNS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "－": "-", "＋": "+", "＝": "=", "＜": "<",
    "＞": ">", "（": "(", "）": ")", "［": "[", "］": "]", "｛": "\\{", "｝": "\\}", "，": ",",
    "、": ",", "；": ";", "：": ":", "．": ".", "。": ".", "％": "%", "！": "!", "｜": "|",
    "／": "/",
    "∶": ":", "×": "*", "·": "*", "⋅": "*", "∙": "*", "•": "*", "∗": "*", "⁎": "*", "÷": "/",
    "∕": "/", "⁄": "/", "≤": "<=", "≦": "<=", "⩽": "<=", "≥": ">=", "≧": ">=", "⩾": ">=",
    "≠": "\\ne ", "≈": "\\approx ", "≡": "\\equiv ", "∞": "\\infty ", "π": "\\pi ", "𝜋": "\\pi ",
    "√": "\\sqrt ", "∛": "\\sqrt[3]", "∜": "\\sqrt[4]", "∪": "\\cup ", "∩": "\\cap ",
    "∖": "\\setminus ", "∈": "\\in ", "∉": "\\notin ", "∅": "\\emptyset ", "Ø": "\\emptyset ",
    "±": "\\pm ", "∓": "\\mp ", "°": "\\degree ", "º": "\\degree ", "˚": "\\degree ",
    "′": "'", "’": "'", "‘": "'", "″": "''", "∀": "\\forall ", "∃": "\\exists ", "∠": "\\angle ",
    "△": "\\triangle ", "∑": "\\sum ", "∏": "\\prod ", "∫": "\\int ", "∂": "\\partial ",
    "…": "\\ldots ", "⋯": "\\ldots ", "⌊": "\\lfloor ", "⌋": "\\rfloor ", "⌈": "\\lceil ",
    "⌉": "\\rceil ", "⟨": "\\langle ", "⟩": "\\rangle ", "〈": "\\langle ", "〉": "\\rangle ",
    "ℝ": "\\mathbb{R}", "ℚ": "\\mathbb{Q}", "ℤ": "\\mathbb{Z}", "ℕ": "\\mathbb{N}",
    "ℂ": "\\mathbb{C}", "½": "\\frac{1}{2}", "⅓": "\\frac{1}{3}", "⅔": "\\frac{2}{3}",
    "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}", "⅕": "\\frac{1}{5}", "⅖": "\\frac{2}{5}",
    "⅗": "\\frac{3}{5}", "⅘": "\\frac{4}{5}", "⅙": "\\frac{1}{6}", "⅚": "\\frac{5}{6}",
    "⅛": "\\frac{1}{8}", "⅜": "\\frac{3}{8}", "⅝": "\\frac{5}{8}", "⅞": "\\frac{7}{8}",
    "ⅈ": "i", "ⅇ": "e", "ℯ": "e", "∧": "\\land ", "∨": "\\lor ", "→": "\\to ", "⇒": "\\implies ",
    "⇔": "\\iff ", "∥": "\\parallel ", "⊥": "\\perp ", "⊂": "\\subset ", "⊆": "\\subseteq ",
    "α": "\\alpha ", "β": "\\beta ", "γ": "\\gamma ", "δ": "\\delta ", "ε": "\\epsilon ",
    "ϵ": "\\epsilon ", "ζ": "\\zeta ", "η": "\\eta ", "θ": "\\theta ", "ι": "\\iota ",
    "κ": "\\kappa ", "λ": "\\lambda ", "μ": "\\mu ", "µ": "\\mu ", "ν": "\\nu ", "ξ": "\\xi ",
    "ρ": "\\rho ", "σ": "\\sigma ", "τ": "\\tau ", "υ": "\\upsilon ", "φ": "\\phi ",
    "ϕ": "\\phi ", "χ": "\\chi ", "ψ": "\\psi ", "ω": "\\omega ", "Γ": "\\Gamma ",
    "Δ": "\\Delta ", "Θ": "\\Theta ", "Λ": "\\Lambda ", "Π": "\\Pi ", "Σ": "\\Sigma ",
    "Φ": "\\Phi ", "Ψ": "\\Psi ", "Ω": "\\Omega ", "ℓ": "\\ell ", "\u200b": "", "\u200c": "",
    "\ufeff": "", "\u2060": "", "\u200e": "", "\u200f": "", "\u2061": "", "\u2062": "*",
    "\u2063": ",", "‖": "\\|", "∣": "|",
    "﹣": "-", "﹢": "+", "或": " or ", "和": " and ", "且": " and ", "与": " and ",
    "\u2009": " ", "\u202f": " ", "\xa0": " ", "\u3000": " ",
}  # fmt: skip
_FULL_WIDTH = {0xFF10 + i: str(i) for i in range(10)}
_CIRCLED = {0x2460 + i: f"{i + 1}, " for i in range(20)}
_ONE_SIGN = str.maketrans(_SIGNS) | _FULL_WIDTH | _CIRCLED
_MATH_LETTERS = "[\U0001d400-\U0001d7ff]+"
_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣʸᵏᵐᵗ"
_LOWERED = "₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙᵢₓₖₘₜ"
_RAISED_RUN = f"[{_RAISED}]+"
_LOWERED_RUN = f"[{_LOWERED}]+"
_SMALL_FRACTION = "([⁰¹²³⁴⁵⁶⁷⁸⁹]{1,4})[⁄/∕]([₀₁₂₃₄₅₆₇₈₉]{1,4})"
_TO_RAISED = str.maketrans(_RAISED, "0123456789+-()nixykmt")
_TO_LOWERED = str.maketrans(_LOWERED, "0123456789+-()nixkmt")
_LOST_COMMANDS = (
    (r"\\?\x0c(?=rac\s*\{|rac[0-9]|orall)", r"\\f"),
    (r"\\?\x08(?=inom|egin\s*\{|oxed|eta\b)", r"\\b"),
    (r"\\?\t(?=ext\s*\{|imes\b|heta\b|an\b)", r"\\t"),
)
"""`\\frac` whose `\\f` somebody's JSON turned into a form feed, and the like."""
_SYSTEM = r"\\left\s*\\\{\s*\\begin\s*\{(?:array|aligned|matrix|gathered)\}(?:\{[^{}]{0,20}\})?"
_SYSTEM_END = r"\\end\s*\{(?:array|aligned|matrix|gathered)\}\s*\\right\s*\."
_HTML = r"(?i)<(su[pb])>([^<>]{1,200})</su[pb]>"
_ESCAPED = r"\\\\(?=[A-Za-z{}()\[\]%$,;:!])"
_DECIMAL_COMMA = r"(?<![0-9.,])(?:0,(?=[0-9]{3})|[0-9]{4,},(?=[0-9]{2}(?![0-9])))"
_OPENED = r"[(\[{]"
"""In brackets a comma separates: (1000,10) is a point."""
_PERCENT_COMMA = r"(?<=[0-9]),(?=[0-9]{1,3}\s*(?:\\?%|€))"
_DOTTED = r"(?<![0-9.,])[1-9][0-9]{0,2}(?:\.[0-9]{3})+,(?=[0-9])"
_DOT_GROUPS = r"(?<![0-9.,])[1-9][0-9]{0,2}(?:\.[0-9]{3}){2,}(?![0-9.])"
_TIMES_TEN = r"(?<=[0-9])\s{0,4}[xX]\s{0,4}(?=10\s{0,4}(?:\^|\*\*))"
_SQUARE_METRES = r"^([\s$]*[-+]?[0-9][0-9.,]*)\s?m(?=[²³][\s$.]*$)"
"""As prose writes them, with the power as a sign of its own: `m^2` is the square of a variable."""
_EMPTY_BRACES = r"(?<=[0-9°])\{\}(?![_^])|(?<=\\circ)\{\}"
_SPACE_IN_BRACES = r"(?<=[0-9])\{\\,\}(?=[0-9]{3})"
_COMMA_IN_BRACES = r"(?<![0-9}])([0-9]+)\{,\}([0-9]+)(?![0-9]|\{,\})"
_DISPLAY = r"\\(?:display|text)style(?![A-Za-z])\s*"
_OF_SETS = r"[,;|]|\\mid|\\in(?![A-Za-z])|[A-Za-z]\s*:"
_SIGN_IN_BRACES = r"(?<![A-Za-z*_^}])\{([-+/=])\}"
_MONEY_BEFORE = r"\$\s*[-+]?\s*[0-9.]"
_MONEY_AFTER = r"[0-9]\s*\$\Z"


def plain(text: str) -> str:
    r"""Return the text in the spelling that the tokenizer knows, without its surroundings.

    Example:
        >>> plain("$x ≤ 3²$.")
        'x <= 3^{2}'
    """
    if "{" in text:
        text = _unbraced(text)
    if "style" in text:
        text = re.sub(_DISPLAY, "", text)
    if not text.isascii():
        text = re.sub(_SQUARE_METRES, r"\1 \\text{m}", text)
        text = re.sub(_SMALL_FRACTION, _small_fraction, text)
        text = re.sub(_RAISED_RUN, lambda run: f"^{{{run[0].translate(_TO_RAISED)}}}", text)
        text = re.sub(_LOWERED_RUN, lambda run: f"_{{{run[0].translate(_TO_LOWERED)}}}", text)
        text = re.sub(_MATH_LETTERS, lambda run: unicodedata.normalize("NFKC", run[0]), text)
        text = text.translate(_ONE_SIGN)
    if not text.isprintable():
        for lost, found in _LOST_COMMANDS:
            text = re.sub(lost, found, text)
    if "</su" in text:
        text = re.sub(_HTML, _raised_html, text)
    if "\\\\" in text:
        text = _unescaped(text)
    if "\\right" in text and "\\begin" in text:
        text = re.sub(_SYSTEM_END, r"\\end{cases}", re.sub(_SYSTEM, r"\\begin{cases}", text))
    if "$" in text:
        text = _without_dollars(text)
    if "10" in text and ("x" in text or "X" in text):
        text = re.sub(_TIMES_TEN, "*", text)
    if text.count(",") == 1 and not re.search(_OPENED, text[: text.index(",")]):
        text = re.sub(_DECIMAL_COMMA, lambda found: found[0].replace(",", "."), text)
        text = re.sub(_PERCENT_COMMA, ".", text)
        text = re.sub(_DOTTED, lambda found: found[0].replace(".", "").replace(",", "."), text)
    if text.count(".") > 1:
        text = re.sub(_DOT_GROUPS, lambda found: found[0].replace(".", ""), text)
    return stripped(text)


def stripped(text: str) -> str:
    r"""Take white space, quotes, emphasis and punctuation from both ends.

    Example:
        >>> stripped("**84.**"), stripped("0.333..."), stripped("185\\ ")
        ('84', '0.333...', '185')
    """
    text = text.strip(_SPACES)
    if not text or (text[0] not in _LEADING and text[-1] not in _TRAILING and text[-1] != "\\"):
        return text
    dots = "..." if text.endswith("...") else ""
    text = text.lstrip(_LEADING).rstrip(_TRAILING)
    bare = text.rstrip("\\")
    if (len(text) - len(bare)) % 2:
        # half of a `\,` or `\ ` whose other half was taken
        text = text[:-1].rstrip(_TRAILING)
    return text + dots


def _unbraced(text: str) -> str:
    """Take away braces that hold a sign, nothing, or the whole answer."""
    text = text.strip(_SPACES)
    if "-}" in text or "+}" in text or "/}" in text or "=}" in text:
        text = re.sub(_SIGN_IN_BRACES, r"\1", text)
    if "{," in text:
        text = re.sub(_COMMA_IN_BRACES, _decimal_comma, text)
    if "{}" in text or "{\\,}" in text:
        text = re.sub(_SPACE_IN_BRACES, r"\\,", re.sub(_EMPTY_BRACES, "", text))
    for _ in range(MAX_WRAPPINGS):
        if text[:1] != "{" or text[-1] != "}":
            break
        inner = text[1:-1].strip(_SPACES)
        if not inner or re.search(_OF_SETS, inner) or not _is_balanced(inner):
            break
        text = inner
    return text


def _is_balanced(text: str) -> bool:
    """Return whether every brace closes one that opened before it."""
    depth = 0
    for mark in re.findall(r"\\.|[{}]", text):
        depth += {"{": 1, "}": -1}.get(mark, 0)
        if depth < 0:
            return False
    return depth == 0


def _decimal_comma(match: re.Match[str]) -> str:
    r"""Read `3{,}14` as 3.14; `1{,}234` has a group of thousands."""
    whole, decimals = match[1], match[2]
    grouped = len(decimals) == 3 and len(whole) <= 3 and whole[0] != "0"
    return match[0] if grouped else f"{whole}.{decimals}"


def _small_fraction(match: re.Match[str]) -> str:
    top, bottom = match[1].translate(_TO_RAISED), match[2].translate(_TO_LOWERED)
    return f"\\frac{{{top}}}{{{bottom}}}"


def _raised_html(match: re.Match[str]) -> str:
    return f"{'^' if match[1].lower() == 'sup' else '_'}{{{match[2]}}}"


def _unescaped(text: str) -> str:
    r"""Undo one level of escaping: `\\frac` was `\frac` before somebody escaped it for JSON.

    Inside an environment `\\` ends a row, so there only the escaped `\\begin` tells.
    """
    if "\\\\begin" in text:
        return text.replace("\\\\", "\\")
    return text if "\\begin" in text else re.sub(_ESCAPED, r"\\", text)


def _without_dollars(text: str) -> str:
    r"""Turn math delimiters into spaces; keep a dollar sign that is money as `\$`."""
    text = text.strip(_SPACES)
    marks = text.count("$") - text.count("\\$")
    money = re.search(_MONEY_BEFORE, text) or re.search(_MONEY_AFTER, text.rstrip(_TRAILING))
    if marks == 1 and money:
        return text.replace("\\$", "$").replace("$", "\\$")
    return text.replace("\\$", "\0").replace("$", " ").replace("\0", "\\$")
