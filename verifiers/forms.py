"""Verifiers of form: a pattern, a JSON document, tags.

Regular expressions and JSON schemas can take for ever on a text that was written to make them, so
both are run in a worker that is killed at the deadline.
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import TaskError, UsageError
from .numerals import brief
from .text import SHOWN_CHARS, TextVerifier
from .verdict import Verdict
from .workers import WorkerPool, check_timeout

MAX_JSON_CHARS = 100_000
"""Characters of a JSON answer."""
MAX_JSON_DEPTH = 50
"""Nesting of a JSON answer and of a schema: far from Python's recursion limit."""
_QUANTIFIERS = frozenset("*+?{|(")


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str, ignore_case: bool) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE if ignore_case else 0)


def _match(pattern: str, text: str, ignore_case: bool, search: bool) -> bool:
    compiled = _compiled(pattern, ignore_case)
    return (compiled.search if search else compiled.fullmatch)(text) is not None


_MATCHERS = WorkerPool(_match, name="regex")


class Regex(TextVerifier):
    r"""Judge whether the answer matches a pattern.

    Args:
        pattern: The pattern; the task's truth if not given.
        extract: Where the answer stands.
        search: Whether a match anywhere counts; otherwise the whole answer has to match.
        case: Whether upper and lower case differ.
        timeout: Seconds that a match may take, above 0.

    Example:
        >>> Regex(pattern=r"[0-9][0-9]")("42", None).reward
        1.0
    """

    def __init__(
        self,
        *,
        pattern: str | None = None,
        extract: str | Sequence[str] = ("whole",),
        search: bool = False,
        case: bool = True,
        timeout: float = 1.0,
    ) -> None:
        """Check the pattern."""
        super().__init__(extract)
        check_timeout(timeout)
        self.pattern = pattern
        self.search = search
        self.case = case
        self.timeout = timeout
        if pattern is not None:
            try:
                self._checked(pattern)
            except TaskError as error:
                raise UsageError(str(error)) from None

    def _checked(self, pattern: Any) -> str:
        if not isinstance(pattern, str):
            raise TaskError(f"a pattern is a text, got {brief(pattern)}")
        try:
            _compiled(pattern, not self.case)
        except (re.error, RecursionError, OverflowError) as error:
            raise TaskError(
                f"the pattern {brief(pattern)} is no regular expression: {error}"
            ) from None
        return pattern

    def read_truth(self, truth: Any) -> str:
        """Return the pattern."""
        return self.pattern if self.pattern is not None else self._checked(truth)

    def judge(self, answer: str, truth: str) -> Verdict:
        """Match here if nothing in the pattern can repeat or branch, else in a worker."""
        shown = {"answer": answer[:SHOWN_CHARS]}
        if _QUANTIFIERS.isdisjoint(truth):
            matched = _match(truth, answer, not self.case, self.search)
            return Verdict.correct(**shown) if matched else Verdict.wrong(**shown)
        return _with(
            _MATCHERS.call_within(self.timeout, truth, answer, not self.case, self.search), shown
        )


def _with(verdict: Verdict, evidence: Mapping[str, Any]) -> Verdict:
    return Verdict(
        reward=verdict.reward,
        status=verdict.status,
        evidence={**evidence, **verdict.evidence},
        cost=verdict.cost,
    )


class _Refused(ValueError):
    """A JSON text that Python would take and the standard does not."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise _Refused("a key stands twice in an object")
    return out


def _constant(name: str) -> float:
    raise _Refused(f"{name} is not JSON")


def parse_json(text: str) -> Any:
    """Parse a JSON text strictly: no NaN, no key twice, bounded nesting.

    Raises:
        ValueError: It is not JSON.
        RecursionError: It is nested more than `MAX_JSON_DEPTH` deep.
    """
    value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    if _depth(value) > MAX_JSON_DEPTH:
        raise RecursionError("nested too deep")
    return value


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level:
        depth += 1
        level = [
            child
            for item in level
            for child in (
                item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
            )
        ]
    return depth


def same_json(one: Any, other: Any) -> bool:
    """Return whether two JSON values are equal: 1 is 1.0, and `true` is not 1.

    Example:
        >>> same_json([1, True], [1.0, True]), same_json(True, 1)
        (True, False)
    """
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return one == other


def _validator(schema: Mapping[str, Any]) -> Any:
    import jsonschema
    import referencing
    from jsonschema import validators

    kind = validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    # an empty registry: a reference to somewhere else is an error, never a download
    return kind(schema, registry=referencing.Registry())


def _validate(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Validate in a worker."""
    from referencing.exceptions import Unresolvable

    document = parse_json(text)
    try:
        for error in _validator(schema).iter_errors(document):
            place = "/".join(map(str, error.absolute_path))
            return Verdict.wrong(reason=f"{error.validator} at /{place}"[:SHOWN_CHARS]).to_json()
    except (Unresolvable, re.error, RecursionError) as error:
        # the document's depth is bounded: only a schema that refers to itself recurses for ever
        return Verdict.bad_truth(f"the schema is broken: {type(error).__name__}: {error}").to_json()
    return Verdict.correct().to_json()


def _import_jsonschema() -> None:
    _validator({})


_VALIDATORS = WorkerPool(_validate, setup=_import_jsonschema, name="json")


def _check_schema(schema: Any) -> None:
    """Raise `TaskError` unless a schema is valid and refers to nothing outside itself."""
    import jsonschema

    try:
        type(_validator(schema)).check_schema(schema)
    except jsonschema.SchemaError as error:
        raise TaskError(f"the truth is no JSON schema: {error.message[:300]}") from None
    level = [schema]
    while level:
        item = level.pop()
        if isinstance(item, dict):
            for key in ("$ref", "$dynamicRef"):
                reference = item.get(key, "#")
                if isinstance(reference, str) and not reference.startswith("#"):
                    raise TaskError(
                        f"a schema refers only to itself ('#/…'), got {brief(reference)}"
                    )
        level.extend(
            item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        )


class Json(TextVerifier):
    """Judge whether the answer is a JSON document that fits the truth.

    The truth is a JSON schema, or `{"schema": …, "equals": …}` with either or both.

    Args:
        extract: Where the document stands.
        timeout: Seconds that a validation may take, above 0.

    Example:
        >>> Json()('{"x": 1}', {"equals": {"x": 1.0}}).reward
        1.0
    """

    def __init__(
        self, *, extract: str | Sequence[str] = ("tag", "whole"), timeout: float = 1.0
    ) -> None:
        """Keep the options."""
        super().__init__(extract)
        check_timeout(timeout)
        self.timeout = timeout

    def check_truth(self, truth: Any) -> None:
        """Raise `TaskError` for a schema that is none."""
        wanted = self.read_truth(truth)
        if "schema" in wanted:
            _check_schema(wanted["schema"])

    def read_truth(self, truth: Any) -> dict[str, Any]:
        """Return the truth in its long form."""
        if not isinstance(truth, dict):
            raise TaskError(
                "a JSON truth is a schema or {'schema': …, 'equals': …}, "
                f"got {type(truth).__name__} {brief(truth)}"
            )
        wanted = truth if truth and truth.keys() <= {"schema", "equals"} else {"schema": truth}
        if not isinstance(wanted.get("schema", {}), dict):
            raise TaskError(f"a JSON schema is an object, got {brief(wanted['schema'])}")
        return wanted

    def judge(self, answer: str, truth: dict[str, Any]) -> Verdict:
        """Parse and compare here, validate in a worker."""
        shown = {"answer": answer[:SHOWN_CHARS]}
        if len(answer) > MAX_JSON_CHARS:
            return Verdict.limit(f"{len(answer)} characters; at most {MAX_JSON_CHARS}", **shown)
        try:
            value = parse_json(answer)
        except RecursionError:
            return Verdict.limit(f"nested more than {MAX_JSON_DEPTH} deep", **shown)
        except ValueError as error:
            return Verdict.unparsed(f"not JSON: {str(error)[:SHOWN_CHARS]}", **shown)
        if "equals" in truth and not same_json(value, truth["equals"]):
            return Verdict.wrong(reason="another value", **shown)
        if "schema" not in truth:
            return Verdict.correct(**shown)
        return _with(_VALIDATORS.call_within(self.timeout, answer, truth["schema"]), shown)


class Format:
    """Judge the form alone: each tag exactly once, in order, nothing outside but white space.

    Args:
        tags: The tags' names, in order.
        empty: Whether a tag may hold nothing but white space.

    Example:
        >>> Format()("<think>2 + 2</think><answer>4</answer>", None).reward
        1.0
    """

    def __init__(self, *, tags: Sequence[str] = ("think", "answer"), empty: bool = False) -> None:
        """Check the names."""
        self.tags = (tags,) if isinstance(tags, str) else tuple(tags)
        if not self.tags or len(set(self.tags)) != len(self.tags) or not all(self.tags):
            raise UsageError(f"tags= is a list of different names, got {tags!r:.200}")
        self.empty = empty

    def check_truth(self, truth: Any) -> None:
        """Accept every truth: the form does not depend on it."""

    def __call__(self, completion: str, truth: Any, **context: Any) -> Verdict:
        """Judge the form of a completion."""
        rest = completion
        for tag in self.tags:
            opening, closing = f"<{tag}>", f"</{tag}>"
            if completion.count(opening) != 1 or completion.count(closing) != 1:
                return Verdict.wrong(reason=f"<{tag}>…</{tag}> has to stand exactly once")
            before, _, rest = rest.partition(opening)
            content, closed, rest = rest.partition(closing)
            if before.strip() or not closed:
                return Verdict.wrong(reason=f"something stands before <{tag}>, or out of order")
            if not self.empty and not content.strip():
                return Verdict.wrong(reason=f"<{tag}> is empty")
        return Verdict.wrong(reason="text after the end") if rest.strip() else Verdict.correct()
