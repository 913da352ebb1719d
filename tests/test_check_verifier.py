"""`check_verifier` passes our verifiers and finds what is wrong with broken ones."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

from rlvr.verifiers import (
    EXPLOITS,
    Exploit,
    Task,
    Verdict,
    Verifier,
    check_verifier,
    gates,
    make,
    verifier,
    weighted,
)


def tasks(*truths: Any, solution: Callable[[Any], str] | None = None) -> list[Task]:
    return [
        Task(id=f"t{n}", prompt="?", truth=truth, solution=solution(truth) if solution else None)
        for n, truth in enumerate(truths)
    ]


def wrapped(truth: Any) -> str:
    return f"<think>so it is</think><answer>{truth}</answer>"


SCHEMA = {"type": "object", "required": ["x"]}
SOUND = [
    ("exact", {}, tasks("Paris", "Rome", "Bern")),
    ("choice", {}, tasks("A", "B", "D")),
    ("number", {}, tasks(42, "1,234", 0.5)),
    ("regex", {}, tasks("[0-9]{3}", "ab+c", solution=lambda t: "123" if "9" in t else "abbc")),
    ("json", {}, tasks({"equals": {"x": 1}}, solution=lambda _: '{"x": 1}')),
    ("json", {}, tasks({"schema": SCHEMA}, solution=lambda _: '{"x": 1}')),
    ("format", {}, tasks("a", solution=wrapped)),
    ("math", {}, tasks(42, "3/4", r"2\sqrt{3}", "x^2 + 1")),
    ("math", {"percent": "either"}, tasks("25%", "1/8")),
]


@pytest.mark.parametrize(("name", "options", "sample"), SOUND)
def test_our_verifiers_are_sound(name: str, options: dict[str, Any], sample: list[Task]) -> None:
    report = check_verifier(make(name, **options), sample, budget=30.0)
    assert report.ok, str(report)
    assert report.calls > len(EXPLOITS) * len(sample) / 2


def test_our_compositions_are_sound() -> None:
    sample = tasks(42, 17, solution=wrapped)
    steps = gates([("format", "format", 0.1), ("answer", "number", 0.9)])
    report = check_verifier(steps, sample, budget=30.0)
    assert report.ok, str(report)
    # a sum pays for the form alone, but no garbage has the form
    total = weighted({"format": ("format", 0.1), "answer": ("math", 0.9)})
    assert check_verifier(total, sample, exploits=["x", "{"], budget=30.0).ok


def broken(function: Callable[[str, Any], Any]) -> Verifier:
    return verifier(name="broken")(function)


counter = itertools.count()


def slow(completion: str, truth: Any) -> bool:
    time.sleep(0.05)
    return completion == truth


BROKEN: list[tuple[str, Callable[[str, Any], Any]]] = [
    ("garbage", lambda completion, truth: True),
    ("solution", lambda completion, truth: False),
    ("dump", lambda completion, truth: truth in completion),
    ("exploit", lambda completion, truth: completion in (truth, "{}")),
    ("unscored", lambda completion, truth: len(truth) / len(completion)),
    ("range", lambda completion, truth: 7.0 if completion == truth else 0.0),
    ("deterministic", lambda completion, truth: Verdict.correct(n=next(counter))),
    ("json", lambda completion, truth: Verdict.score(float(completion == truth), seen={1})),
    ("time", slow),
]


@pytest.mark.parametrize(("check", "function"), BROKEN)
def test_each_fault_is_found(check: str, function: Callable[[str, Any], Any]) -> None:
    report = check_verifier(
        broken(function), tasks("abc", "def"), budget=0.02 if check == "time" else 30.0,
        exploits=EXPLOITS if check == "exploit" else ["x"],
    )  # fmt: skip
    assert not report.ok
    assert check in {finding.check for finding in report.findings}


def test_a_truth_that_changes_in_json_is_found() -> None:
    pairs = tasks((1, 2), solution=lambda _: "12")
    report = check_verifier(
        broken(lambda c, t: c == "12" and isinstance(t, tuple)), pairs, exploits=[]
    )
    assert [finding.check for finding in report.findings] == ["json"]


def test_a_refused_truth_is_a_finding_and_stops_its_task() -> None:
    report = check_verifier("math", tasks("1/0"))
    assert [finding.check for finding in report.findings] == ["truth"]
    assert report.calls == 0


def test_an_exploit_whose_answer_is_the_truth_is_no_exploit() -> None:
    flood = next(exploit for exploit in EXPLOITS if exploit.name == "box flood")
    assert check_verifier("math", tasks(99), exploits=[flood], budget=30.0).ok
    assert check_verifier("math", tasks("99.0"), exploits=[flood], budget=30.0).ok
    lying = Exploit(flood.name, flood.text)
    assert not check_verifier("math", tasks(99), exploits=[lying], budget=30.0).ok


def test_the_report_is_a_table_that_names_task_and_fault() -> None:
    text = str(check_verifier(broken(lambda c, t: True), tasks("abc"), exploits=["x"]))
    assert "findings" in text.splitlines()[0]
    assert "garbage  t0  an empty text scores 1, expected 0" in text
    assert str(check_verifier("exact", tasks("abc"), exploits=["x"])).startswith("ok: 1 tasks")


def test_the_same_seed_tries_the_same_garbage() -> None:
    def seen(seed: int) -> list[str]:
        texts: list[str] = []

        def note(completion: str, truth: Any) -> bool:
            texts.append(completion)
            return completion == truth

        check_verifier(broken(note), tasks("abc"), seed=seed, exploits=[])
        return texts

    assert seen(1) == seen(1)
    assert seen(1) != seen(2)
