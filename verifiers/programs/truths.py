"""The forms that a truth may have, read into tests.

| form | keys |
|---|---|
| printing | `tests`: `[{"input": "3\\n", "output": "9\\n"}, …]` |
| calls | `function`, `tests`: `[{"args": [3], "output": 9}, …]`; also `kwargs`, `after` |
| code | `tests`: `["assert square(3) == 9", …]`; also `setup`, `names`, `classes`, `mutation` |
| HumanEval | `prompt`, `test`, `entry_point` |
| MBPP | `test_list`; also `test_setup_code`, `test_imports`, `challenge_test_list` |
| APPS | `input_output`: `{"inputs": […], "outputs": […], "fn_name": …}`, or its JSON text |
| LiveCodeBench | `public_test_cases`, `private_test_cases`, `metadata` with `func_name` |

Any of them may have `solution` (a program known to be right: it is run first, and slow solutions
stretch the time limit), `judge` (source of a special judge), and the options of `ProgramTests`
about comparing: `tolerance`, `whitespace`, `unordered`, `types`, and `timeout` and `memory`. Values
of calls are JSON, so that an object is a dict with texts as keys; with `"values": "tagged"` they
are what `tag` makes of any plain value. In the forms of APPS and LiveCodeBench a program may leave
out the usual imports, as it may in their own harnesses.
"""

import ast
import base64
import json
import pickletools
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..errors import TaskError, UsageError
from .asserts import AssertTests, free_names
from .calls import CallTests
from .forms import Comparing, calls, check_keys, code, printing, text_of
from .prints import PrintTests

Tests = PrintTests | CallTests | AssertTests
MAX_TESTS = 10_000
"""Tests of a truth at most."""
MAX_UNPACKED = 256 << 20
"""Bytes of a packed list of tests at most."""


def read_tests(truth: Any, comparing: Comparing) -> Tests:
    """Read a truth of any of the forms.

    Raises:
        TaskError: It is of none of them, or broken; says what was found.
    """
    if not isinstance(truth, Mapping):
        raise TaskError(f"a truth of programs is an object, got {truth!r:.100}; {_FORMS}")
    for key, read in _READERS.items():
        if truth.get(key) is not None:
            try:
                tests = read(truth, _own(truth, comparing))
            except (KeyError, TypeError, ValueError) as error:
                if isinstance(error, TaskError):
                    raise
                raise TaskError(f"the truth with '{key}' is broken: {error!r:.200}") from error
            if not 0 < len(tests) <= MAX_TESTS:
                raise TaskError(f"a truth has from 1 to {MAX_TESTS} tests, got {len(tests)}")
            return tests
    raise TaskError(f"the truth has the keys {', '.join(map(str, truth))}; {_FORMS}")


def _own(truth: Mapping[str, Any], comparing: Comparing) -> Comparing:
    """Return the comparison that the truth asks for."""
    names = ("tolerance", "whitespace", "unordered", "types")
    given = {name: truth[name] for name in names if truth.get(name) is not None}
    try:
        return Comparing(**{**vars(comparing), **given})
    except UsageError as error:
        raise TaskError(f"the truth: {error}") from error


def _tests(truth: Mapping[str, Any], comparing: Comparing) -> Tests:
    tests = truth["tests"]
    if not isinstance(tests, list | tuple) or not tests:
        raise TaskError(f"'tests' is a list of at least one test, got {tests!r:.100}")
    kinds = {type(test) for test in tests}
    if kinds == {str}:
        return code(truth, tuple(tests))
    if not all(isinstance(test, Mapping) for test in tests):
        raise TaskError(f"a test is an object or a text of code, got {tests[0]!r:.100}")
    if "function" in truth:
        return calls(truth, comparing)
    check_keys(truth, {"tests"})
    pairs = [(text_of(test, "input"), text_of(test, "output")) for test in tests]
    for test in tests:
        check_keys(test, {"input", "output"})
    return printing(pairs, truth, comparing)


def _humaneval(truth: Mapping[str, Any], comparing: Comparing) -> AssertTests:
    """The prompt's helpers stand in the tests' sandbox too: some tests use them."""
    name = truth["entry_point"]
    if not isinstance(name, str) or not name.isidentifier():
        raise TaskError(f"'entry_point' is a name, got {name!r:.100}")
    prompt, test = text_of(truth, "prompt"), text_of(truth, "test")
    _, imports = free_names([prompt, test], "")
    return AssertTests(
        tests=("check(candidate)",),
        names=(name,),
        setup=f"{imports}{prompt}\n    pass\n\n{test}",
        aliases=(("candidate", name),),
    )


def _mbpp(truth: Mapping[str, Any], comparing: Comparing) -> AssertTests:
    tests = (*truth["test_list"], *(truth.get("challenge_test_list") or ()))
    if not all(isinstance(test, str) for test in tests):
        raise TaskError(f"'test_list' holds texts of code, got {tests!r:.100}")
    setup = "\n".join([*(truth.get("test_imports") or ()), truth.get("test_setup_code") or ""])
    names, imports = free_names(list(tests), setup)
    if not names:
        raise TaskError(f"the tests call nothing of the program: {tests[0]!r:.100}")
    # what the setup makes instances of, it means to use
    called = {n.func.id for n in ast.walk(ast.parse(setup)) if _is_plain_call(n)}  # pyright: ignore
    classes = tuple(name for name in names if name in called)
    return AssertTests(tests=tests, names=names, setup=imports + setup, classes=classes)


def _is_plain_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


def _apps(truth: Mapping[str, Any], comparing: Comparing) -> Tests:
    found = truth["input_output"]
    data = json.loads(found) if isinstance(found, str) else found
    inputs, outputs = data["inputs"], data["outputs"]
    if len(inputs) != len(outputs):
        raise TaskError(f"{len(inputs)} inputs and {len(outputs)} outputs; expected as many")
    if data.get("fn_name"):
        tests = [{"args": a, "output": o} for a, o in zip(inputs, outputs, strict=True)]
        made = _methods(str(data["fn_name"]), tests, truth, comparing)
        # some rows write every result as a list of one, and nothing says which
        wrapped = all(isinstance(out, list) and len(out) == 1 for out in outputs)
        return replace(made, same=replace(made.same, wrapped=wrapped))
    pairs = [
        (text_of({"input": a}, "input"), text_of({"output": b}, "output"))
        for a, b in zip(inputs, outputs, strict=True)
    ]
    return replace(printing(pairs, truth, comparing), imports=True)


def _livecodebench(truth: Mapping[str, Any], comparing: Comparing) -> Tests:
    cases: list[Mapping[str, Any]] = []
    for key in ("public_test_cases", "private_test_cases"):
        if truth.get(key):
            cases += unpacked(truth[key])
    metadata = truth.get("metadata") or {}
    metadata = json.loads(metadata) if isinstance(metadata, str) else metadata
    kinds = {case.get("testtype", "stdin") for case in cases}
    if kinds == {"functional"}:
        # each line of the input is one argument as JSON, the output the result
        tests = [
            {
                "args": [json.loads(line) for line in case["input"].split("\n") if line.strip()],
                "output": json.loads(case["output"]),
            }
            for case in cases
        ]
        return _methods(str(metadata["func_name"]), tests, truth, comparing)
    if kinds != {"stdin"}:
        raise TaskError(f"a LiveCodeBench row has tests of one type, got {sorted(map(str, kinds))}")
    pairs = [(text_of(case, "input"), text_of(case, "output")) for case in cases]
    return replace(printing(pairs, truth, comparing), imports=True)


def _methods(
    name: str, tests: list[dict[str, Any]], truth: Mapping[str, Any], comparing: Comparing
) -> CallTests:
    """Calls of a function, or of a method of `Solution` if the program has that class."""
    lenient = Comparing(**{**vars(comparing), "types": "json"})
    made = calls({"function": f"Solution|{name}", "tests": tests, **_rest(truth)}, lenient)
    return replace(made, imports=True)


def _rest(truth: Mapping[str, Any]) -> dict[str, Any]:
    return {key: truth[key] for key in ("judge",) if truth.get(key)}


def unpacked(given: Any) -> list[Mapping[str, Any]]:
    """Read a list of tests: as it is, as JSON, or packed as LiveCodeBench packs it.

    The packed form is base64 of zlib of a pickled text. It is taken out of the pickle without
    unpickling.

    Raises:
        TaskError: It is none of these.
    """
    if isinstance(given, list):
        return given
    try:
        if given.lstrip().startswith("["):
            return json.loads(given)
        machine = zlib.decompressobj()
        data = machine.decompress(base64.b64decode(given, validate=True), MAX_UNPACKED)
        if machine.unconsumed_tail:
            raise ValueError(f"more than {MAX_UNPACKED} bytes")
        return json.loads(pickled_text(data))
    except (ValueError, AttributeError, zlib.error) as error:
        raise TaskError(f"a list of tests cannot be read: {error}: {given!r:.60}") from error


_HARMLESS = {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "STOP"}


def pickled_text(data: bytes) -> str | bytes:
    """Return the one text that a pickle holds, without unpickling it.

    Raises:
        ValueError: It holds anything else.

    Example:
        >>> import pickle
        >>> pickled_text(pickle.dumps("[1]"))
        '[1]'
    """
    found: list[str] = []
    for operation, given, _ in pickletools.genops(data):
        if operation.name.endswith("UNICODE") or operation.name.endswith("UNICODE8"):
            found.append(str(given))
        elif operation.name not in _HARMLESS:
            raise ValueError(f"a pickle with {operation.name}; expected a text alone")
    if len(found) != 1:
        raise ValueError(f"a pickle of {len(found)} texts; expected one")
    return found[0]


_READERS: dict[str, Callable[[Mapping[str, Any], Comparing], Tests]] = {
    "tests": _tests,
    "entry_point": _humaneval,
    "test_list": _mbpp,
    "input_output": _apps,
    "public_test_cases": _livecodebench,
    "private_test_cases": _livecodebench,
}
"""Key that tells the form → its reader."""
_FORMS = (
    "expected 'tests' (inputs and outputs, calls of a 'function', or code), or a row of HumanEval "
    "('entry_point'), MBPP ('test_list'), APPS ('input_output') or LiveCodeBench "
    "('public_test_cases')"
)
