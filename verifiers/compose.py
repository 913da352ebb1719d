"""Several verifiers as one: weighted sums, gates, all, any, best.

Three-valued: a component that failed (`reward is None`) makes the whole unscored, unless the scored
components alone decide. `parts` carries every component's reward, `evidence["parts"]` its evidence;
`evidence["answer"]` is that of the weightiest component which found one.
"""

import inspect
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import Any

from .errors import UsageError
from .protocol import Verifier, failure, finished
from .registry import make
from .verdict import Status, Verdict

Component = tuple[str, Verifier, float]
"""Name, verifier, weight."""
Plan = Generator[Verifier, Verdict, Verdict]
"""A composition in the making: yields a verifier to run, is sent its verdict, returns the whole."""
Parts = dict[str, Verdict]


class Composite:
    """A composition of named verifiers; made by the functions of this module."""

    def __init__(
        self,
        name: str,
        components: Sequence[Component],
        combine: Callable[[Sequence[Component], Parts], Verdict],
        *,
        stop_early: bool = False,
    ) -> None:
        """Check the components; `combine` makes one verdict of theirs."""
        names = [component[0] for component in components]
        if not names:
            raise UsageError(f"{name} needs at least one verifier")
        if len(set(names)) != len(names):
            raise UsageError(f"{name}: the names of the verifiers differ, got {names}")
        for part, _, weight in components:
            if isinstance(weight, bool) or not -float("inf") < weight < float("inf"):
                raise UsageError(f"{name}: the weight of '{part}' is a number, got {weight!r}")
        self.name = name
        self.components = tuple(components)
        self.combine = combine
        self.stop_early = stop_early

    def __call__(self, completion: str, truth: Any, **context: Any) -> Verdict | Awaitable[Verdict]:
        """Run the components; the verdict is awaitable if one of theirs is."""
        plan = self._plan()
        verifier = next(plan)
        while True:
            verdict = _started(verifier, completion, truth, context)
            if inspect.isawaitable(verdict):
                return _rest(plan, verdict, completion, truth, context)
            try:
                verifier = plan.send(verdict)
            except StopIteration as end:
                return end.value

    def _plan(self) -> Plan:
        parts: Parts = {}
        for name, verifier, _ in self.components:
            parts[name] = verdict = yield verifier
            if self.stop_early and not _passed(verdict):
                break
        return self.combine(self.components, parts)

    def check_truth(self, truth: Any) -> None:
        """Check the truth with every component that can."""
        for _, verifier, _ in self.components:
            check = getattr(verifier, "check_truth", None)
            if check is not None:
                check(truth)

    def __repr__(self) -> str:
        """Show the components."""
        inner = ", ".join(f"{name}×{weight:g}" for name, _, weight in self.components)
        return f"{self.name}({inner})"


def _started(
    verifier: Verifier, completion: str, truth: Any, context: dict[str, Any]
) -> Verdict | Awaitable[Any]:
    """Call a component; what it raises becomes its verdict."""
    try:
        value = verifier(completion, truth, **context)
    except BaseException as error:
        return failure(error)
    return value if inspect.isawaitable(value) else finished(value)


async def _rest(
    plan: Plan, verdict: Awaitable[Any], completion: str, truth: Any, context: dict[str, Any]
) -> Verdict:
    """Go on from the first component that has to be awaited."""
    pending: Verdict | Awaitable[Any] = verdict
    while True:
        if inspect.isawaitable(pending):
            try:
                pending = finished(await pending)
            except Exception as error:
                pending = failure(error)
        try:
            verifier = plan.send(pending)
        except StopIteration as end:
            return end.value
        pending = _started(verifier, completion, truth, context)


def _passed(verdict: Verdict) -> bool:
    return verdict.reward is not None and verdict.reward >= 1


def _component(name: str, verifier: Verifier | str, weight: float) -> Component:
    return name, make(verifier), weight


def _evidence(components: Sequence[Component], parts: Parts) -> dict[str, Any]:
    evidence: dict[str, Any] = {
        "parts": {name: dict(part.evidence) for name, part in parts.items() if part.evidence}
    }
    weights = {name: abs(weight) for name, _, weight in components}
    found = [name for name, part in parts.items() if "answer" in part.evidence]
    if found:
        # of equal weights the last: in gates that is the one nearest to the solution
        best = max(reversed(found), key=lambda name: weights[name])
        evidence["answer"] = parts[best].evidence["answer"]
    return evidence


def _whole(components: Sequence[Component], parts: Parts, reward: float, *, full: bool) -> Verdict:
    """Make the verdict of a scored composition; `full` says that no more could be reached."""
    if full and reward > 0:
        status = Status.CORRECT
    elif reward > 0:
        status = Status.PARTIAL
    else:
        kinds = {part.status for part in parts.values() if part.scored and not _passed(part)}
        common = kinds.pop() if len(kinds) == 1 else Status.WRONG
        # "unparsed", "limit" or "timeout" if that is what every failed component says
        status = common if common not in (Status.CORRECT, Status.PARTIAL) else Status.WRONG
    rewards = {name: 0.0 for name, _, _ in components}  # one that was not reached earned nothing
    rewards |= {name: part.reward for name, part in parts.items()}  # pyright: ignore
    return Verdict(
        reward=reward, status=status, parts=rewards, evidence=_evidence(components, parts)
    )


def _unscored(components: Sequence[Component], parts: Parts) -> Verdict:
    """Make the verdict of a composition that its failed components leave open."""
    failed = {name: part for name, part in parts.items() if not part.scored}
    bad = any(part.status is Status.BAD_TRUTH for part in failed.values())
    reasons = "; ".join(f"{n}: {p.evidence.get('reason', p.status)}" for n, p in failed.items())
    return Verdict(
        reward=None,
        status=Status.BAD_TRUTH if bad else Status.ERROR,
        parts={name: part.reward for name, part in parts.items()},
        evidence={**_evidence(components, parts), "reason": reasons},
    )


def weighted(parts: Mapping[str, tuple[Verifier | str, float]]) -> Composite:
    """Add up weighted rewards: r = Σ wᵢ·rᵢ.

    Correct when every part with a positive weight has its full reward and every part with a
    negative one has none; wrong when r ≤ 0; partial between. A part of weight 0 is run for its
    metric and decides nothing, not even when it fails.

    Args:
        parts: Verifier (or its name) and weight by name.

    Example:
        >>> both = weighted({"format": ("format", 0.1), "answer": ("number", 0.9)})
        >>> both("<think>2+2</think><answer>4</answer>", 4).reward
        1.0
    """
    components = [_component(name, *pair) for name, pair in parts.items()]
    if components and not any(weight > 0 for _, _, weight in components):
        raise UsageError(f"weighted needs a positive weight, got {dict.fromkeys(parts)!r:.200}")
    return Composite("weighted", components, _weighted)


def _weighted(components: Sequence[Component], parts: Parts) -> Verdict:
    deciding = [(parts[name], weight) for name, _, weight in components if weight]
    if any(not part.scored for part, _ in deciding):
        return _unscored(components, parts)
    reward = sum(weight * (part.reward or 0.0) for part, weight in deciding)
    full = all(_passed(p) if weight > 0 else (p.reward or 0.0) <= 0 for p, weight in deciding)
    return _whole(components, parts, reward, full=full)


def gates(stages: Sequence[tuple[str, Verifier | str, float]]) -> Composite:
    """Reward in steps: a stage counts only if every stage before it passed (reward ≥ 1).

    r = Σ wᵢ·rᵢ over the stages up to and with the first that does not pass; later ones are not
    run and their part is 0. Correct when all pass.

    Args:
        stages: Name, verifier (or its name) and weight, in order; a weight of 0 only gates.

    Example:
        >>> steps = gates([("format", "format", 0.2), ("answer", "number", 0.8)])
        >>> steps("<think>2+2</think><answer>5</answer>", 4).reward
        0.2
    """
    components = [_component(*stage) for stage in stages]
    if any(weight < 0 for _, _, weight in components):
        raise UsageError("gates takes weights of at least 0; use weighted for penalties")
    if components and not any(weight > 0 for _, _, weight in components):
        raise UsageError("gates needs a positive weight")
    return Composite("gates", components, _gates, stop_early=True)


def _gates(components: Sequence[Component], parts: Parts) -> Verdict:
    # the first gate that does not pass is the last that was run
    if any(not part.scored for part in parts.values()):
        return _unscored(components, parts)
    weights = {name: weight for name, _, weight in components}
    reward = sum(weights[name] * (part.reward or 0.0) for name, part in parts.items())
    full = len(parts) == len(components) and all(map(_passed, parts.values()))
    return _whole(components, parts, reward, full=full)


def _named(verifiers: Sequence[Verifier | str] | Mapping[str, Verifier | str]) -> list[Component]:
    if isinstance(verifiers, Mapping):
        return [_component(name, verifier, 1.0) for name, verifier in verifiers.items()]
    names = [
        given if isinstance(given, str) else getattr(given, "name", type(given).__name__.lower())
        for given in verifiers
    ]
    return [
        _component(name if names.count(name) == 1 else f"{name}_{place}", verifier, 1.0)
        for place, (name, verifier) in enumerate(zip(names, verifiers, strict=True))
    ]


def all_of(verifiers: Sequence[Verifier | str] | Mapping[str, Verifier | str]) -> Composite:
    """Reward 1 if every verifier gives its full reward, else 0.

    One that does not decides, even if another failed.
    """
    return Composite("all_of", _named(verifiers), _all_of)


def _all_of(components: Sequence[Component], parts: Parts) -> Verdict:
    if any(part.scored and not _passed(part) for part in parts.values()):
        return _whole(components, parts, 0.0, full=False)
    if any(not part.scored for part in parts.values()):
        return _unscored(components, parts)
    return _whole(components, parts, 1.0, full=True)


def any_of(verifiers: Sequence[Verifier | str] | Mapping[str, Verifier | str]) -> Composite:
    """Reward 1 if at least one verifier gives its full reward, else 0.

    One that does decides, even if another failed.
    """
    return Composite("any_of", _named(verifiers), _any_of)


def _any_of(components: Sequence[Component], parts: Parts) -> Verdict:
    if any(map(_passed, parts.values())):
        return _whole(components, parts, 1.0, full=True)
    if any(not part.scored for part in parts.values()):
        return _unscored(components, parts)
    return _whole(components, parts, 0.0, full=False)


def best_of(verifiers: Sequence[Verifier | str] | Mapping[str, Verifier | str]) -> Composite:
    """Give the highest of the rewards: r = max rᵢ.

    A full reward decides, even if another verifier failed.
    """
    return Composite("best_of", _named(verifiers), _best_of)


def _best_of(components: Sequence[Component], parts: Parts) -> Verdict:
    rewards = [part.reward for part in parts.values() if part.reward is not None]
    if len(rewards) < len(parts) and not any(map(_passed, parts.values())):
        return _unscored(components, parts)
    best = max(rewards)
    return _whole(components, parts, best, full=best >= 1)
