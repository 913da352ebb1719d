"""The three kinds of tests, built from the parts of a truth: printing, calls, code."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import TaskError, UsageError
from .asserts import AssertTests, free_names
from .calls import Call, CallTests
from .comparison import Same, show
from .encoding import tree_of, tree_of_tagged
from .judges import as_line
from .prints import PrintTests
from .texts import Output


@dataclass(frozen=True, kw_only=True)
class Comparing:
    """How results are compared; a truth may say otherwise.

    Example:
        `Comparing(tolerance=1e-6)`
    """

    tolerance: float = 0.0
    whitespace: str = "lines"
    unordered: bool = False
    types: str = "exact"

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        tolerance = self.tolerance
        if isinstance(tolerance, bool) or not isinstance(tolerance, int | float):
            raise UsageError(f"tolerance={tolerance!r:.50}; expected a number from 0 to 1")
        if not 0 <= tolerance <= 1:
            raise UsageError(f"tolerance={tolerance!r}; expected a number from 0 to 1")
        if self.whitespace not in ("lines", "tokens", "exact"):
            raise UsageError(f"whitespace={self.whitespace!r:.50}; expected lines, tokens or exact")
        if self.types not in ("exact", "json"):
            raise UsageError(f"types={self.types!r:.50}; expected exact or json")
        if not isinstance(self.unordered, bool):
            raise UsageError(f"unordered={self.unordered!r:.50}; expected True or False")

    def output(self) -> Output:
        """Return the comparison of printed texts."""
        return Output(
            whitespace=self.whitespace,  # pyright: ignore
            tolerance=float(self.tolerance),
            unordered=self.unordered,
        )

    def same(self) -> Same:
        """Return the comparison of values."""
        return Same(
            tolerance=float(self.tolerance),
            types=self.types,  # pyright: ignore
            unordered=self.unordered,
        )


_COMMON = {
    "solution", "judge", "tolerance", "whitespace", "unordered", "types", "timeout", "memory",
    "values",
}  # fmt: skip
"""Keys that any truth may have."""


def check_keys(given: Mapping[str, Any], known: set[str]) -> None:
    """Refuse keys that nobody reads."""
    more = sorted(map(str, given.keys() - known - _COMMON))
    if more:
        raise TaskError(
            f"nothing reads the keys {', '.join(more)}; expected {', '.join(sorted(known))}"
        )


def text_of(test: Mapping[str, Any], key: str) -> str:
    """Return an input or output, which some files hold as a list of lines."""
    value = test.get(key)
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value) + "\n"
    if not isinstance(value, str):
        raise TaskError(f"the '{key}' of a test is a text, got {value!r:.100}")
    return value


def judge_of(truth: Mapping[str, Any]) -> str:
    """Return the source of the truth's special judge, empty if it has none."""
    judge = truth.get("judge") or ""
    if not isinstance(judge, str):
        raise TaskError(f"'judge' is Python source, got {judge!r:.100}")
    return judge


def printing(
    pairs: list[tuple[str, str]], truth: Mapping[str, Any], comparing: Comparing
) -> PrintTests:
    """Make tests of inputs and outputs."""
    try:
        output = comparing.output()
    except UsageError as error:
        raise TaskError(f"the truth: {error}") from error
    return PrintTests(pairs=tuple(pairs), output=output, judge=judge_of(truth))


def calls(truth: Mapping[str, Any], comparing: Comparing) -> CallTests:
    """Make tests of a truth with `function`."""
    function = truth["function"]
    parts = re.split(r"[.|]", function) if isinstance(function, str) else [""]
    if not all(part.isidentifier() for part in parts):
        raise TaskError(
            "'function' is a name such as 'f' or 'Solution.f', or 'Solution|f' for either, got "
            f"{function!r:.100}"
        )
    check_keys(truth, {"function", "tests"})
    tagged = truth.get("values", "json")
    if tagged not in ("json", "tagged"):
        raise TaskError(f"'values' is 'json' or 'tagged', got {tagged!r:.100}")
    read = tree_of_tagged if tagged == "tagged" else tree_of
    made = []
    for test in truth["tests"]:
        check_keys(test, {"args", "kwargs", "output", "after"})
        if "output" not in test and "after" not in test:
            raise TaskError(f"a call needs 'output' or 'after', got {test!r:.100}")
        made.append(_call(test, read))
    return CallTests(
        function=function, calls=tuple(made), same=comparing.same(), judge=judge_of(truth)
    )


def _call(test: Mapping[str, Any], read: Callable[[Any], Any]) -> Call:
    args, named = test.get("args", []), test.get("kwargs", {})
    if not isinstance(args, list | tuple) or not isinstance(named, Mapping):
        raise TaskError(f"'args' is a list and 'kwargs' an object, got {args!r:.60}, {named!r:.60}")
    given = [read(value) for value in args]
    pairs = [[str(name), read(value)] for name, value in named.items()]
    shown = [show(value) for value in given] + [f"{name}={show(v)}" for name, v in pairs]
    after = None if test.get("after") is None else [read(value) for value in test["after"]]
    expected = read(test.get("output"))
    return Call(
        args=as_line(given),
        named='{"dict":' + as_line(pairs) + "}",
        given=given,
        expected=expected,
        after=after,
        shown=", ".join(shown),
        size=len(as_line([expected, after])),
    )


def code(truth: Mapping[str, Any], tests: tuple[str, ...]) -> AssertTests:
    """Make tests of pieces of code."""
    check_keys(truth, {"tests", "setup", "names", "classes", "mutation"})
    setup = truth.get("setup") or ""
    names, imports = free_names(list(tests), setup)
    classes = tuple(truth.get("classes") or ())
    if truth.get("names"):
        names = tuple(truth["names"])
    if not names:
        raise TaskError(f"the tests call nothing of the program: {tests[0]!r:.100}")
    return AssertTests(
        tests=tests,
        names=tuple(dict.fromkeys([*names, *classes])),
        setup=imports + setup,
        classes=classes,
        mutation=bool(truth.get("mutation")),
    )
