"""Classes of verdicts for logs: how a check ended and why, without the values of the one case.

A reason is written for whoever reads one verdict: `a numeral of 523 characters; at most 400 are
read`. Counted over thousands of verdicts, its numbers and quotations would make every reason a
class of its own; they are left out here.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

MAX_CLASSES = 24
"""Classes that a count names; the rarer ones are counted together as `other`."""
MAX_CHARS = 60
"""Characters of a class."""
MAX_READ = 500
"""Characters of a reason that are looked at."""

_QUOTED = re.compile(r"(?<!\w)('[^']*'?|\"[^\"]*\"?|`[^`]*`?)(?!\w)")
_VALUES = re.compile(r"\\[A-Za-z]+|[±+\-−]?\d[\d.,_^]*")
_END = re.compile(r"[;:](?:\s|$)|\s\(")
_SEPARATORS = re.compile(r"[^0-9a-z…]+")


def reason_class(reason: str) -> str:
    """Return a reason without its values: quotations, numbers and what follows them.

    Example:
        >>> reason_class("a numeral of 523 characters; at most 400 are read")
        'a numeral of … characters'
        >>> reason_class("ValueError: no such luck")
        'ValueError'
    """
    text = _VALUES.sub("…", _QUOTED.sub("…", reason[:MAX_READ]))
    end = _END.search(text)
    return (text[: end.start()] if end else text).strip(" .")[:MAX_CHARS].rstrip() or "no reason"


def explain(verdict: Mapping[str, Any]) -> tuple[str, str]:
    """Return the tier and the class of the reason of a verdict's JSON, each `""` where none is.

    Of a composition without a reason of its own, those of its components are taken.

    Example:
        >>> explain({"status": "wrong", "evidence": {"tier": "rational", "reason": "not 5"}})
        ('rational', 'not …')
    """
    pairs = list(_explained(verdict.get("evidence") or {}))
    tier = next((tier for tier, _ in pairs if tier), "")
    return tier, next((reason_class(reason) for _, reason in pairs if reason), "")


def _explained(evidence: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield tier and reason, outermost first."""
    yield str(evidence.get("tier") or ""), str(evidence.get("reason") or "")
    parts = evidence.get("parts")
    for part in parts.values() if isinstance(parts, Mapping) else ():
        if isinstance(part, Mapping):
            yield from _explained(part)


def class_counts(verdicts: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Count verdicts per tier, and per status and reason, under names that suit a log.

    Args:
        verdicts: Verdicts as JSON; an empty one is left out.

    Returns:
        `tier/<tier>` and `reason/<status>/<class>`, the most frequent reasons, and
        `reason/other` for the rest; sorted by name.

    Example:
        >>> class_counts([{"status": "unparsed", "evidence": {"reason": "no answer was found"}}])
        {'reason/unparsed/no-answer-was-found': 1.0}
    """
    tiers: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for verdict in verdicts:
        tier, reason = explain(verdict)
        if tier:
            tiers[f"tier/{_slug(tier)}"] += 1
        if reason:
            reasons[f"reason/{verdict.get('status')}/{_slug(reason)}"] += 1
    kept = sorted(reasons, key=lambda name: (-reasons[name], name))[:MAX_CLASSES]
    rest = reasons.total() - sum(reasons[name] for name in kept)
    counts = {**tiers, **{name: reasons[name] for name in kept}}
    if rest:
        counts["reason/other"] = rest
    return {name: float(counts[name]) for name in sorted(counts)}


def _slug(text: str) -> str:
    return _SEPARATORS.sub("-", text.lower()).strip("-").replace("…", "N") or "none"
