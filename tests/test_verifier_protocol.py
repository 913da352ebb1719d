"""The seam `verify`, the decorator, and the registry."""

import asyncio
import functools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from rlvr.verifiers import (
    FunctionVerifier,
    Status,
    Task,
    TaskError,
    UsageError,
    Verdict,
    make,
    names,
    register,
    registry,  # pyright: ignore
    verifier,
    verify,
)
from rlvr.verifiers.text import Exact

TASK = Task(id="a", prompt="2+2", truth="4")


class Rude(Exception):
    """An exception whose text raises."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def raising(error: BaseException) -> FunctionVerifier:
    def judge(completion: str, truth: object) -> bool:
        raise error

    return verifier(judge)


@pytest.mark.parametrize(
    ("value", "reward"),
    [
        (True, 1.0),
        (False, 0.0),
        (0.5, 0.5),
        (1, 1.0),
        (np.float32(0.5), 0.5),
        (np.bool_(True), 1.0),
    ],
)
def test_a_function_is_lifted_by_what_it_returns(value: Any, reward: float) -> None:
    assert verify(verifier(lambda completion, truth: value), "a", "b").reward == reward


@pytest.mark.parametrize(
    "value", [None, "1", float("nan"), float("inf"), [1.0], 10**400, Fraction(1)]
)
def test_what_is_no_reward_is_an_error_and_never_a_score(value: Any) -> None:
    verdict = verify(verifier(lambda completion, truth: value), "a", "b")
    assert verdict.status is Status.ERROR
    assert verdict.reward is None


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("x"), Status.ERROR, "ValueError: x"),
        (TaskError("row 3"), Status.BAD_TRUTH, "row 3"),
        (SystemExit(1), Status.ERROR, "called exit"),
        (MemoryError(), Status.ERROR, "MemoryError"),
        (RecursionError("deep"), Status.ERROR, "RecursionError: deep"),
        (Rude(), Status.ERROR, "Rude"),
        (asyncio.CancelledError(), Status.ERROR, "CancelledError"),
    ],
)
def test_whatever_is_raised_a_verdict_comes_out(
    error: BaseException, status: Status, reason: str
) -> None:
    verdict = verify(raising(error), "a", "b")
    assert verdict.status is status
    assert reason in verdict.evidence["reason"]


def test_ctrl_c_is_not_swallowed() -> None:
    with pytest.raises(KeyboardInterrupt):
        verify(raising(KeyboardInterrupt()), "a", "b")


def test_context_is_passed_only_where_it_is_asked_for() -> None:
    assert verify(verifier(lambda c, t, task: task is TASK), "a", "b", task=TASK).reward == 1.0
    assert verify(verifier(lambda c, t: True), "a", "b", task=TASK).reward == 1.0
    assert verify(verifier(lambda c, t, **k: k["task"] is TASK), "a", "b", task=TASK).reward == 1.0


def test_a_function_of_one_argument_is_refused() -> None:
    with pytest.raises(UsageError, match=r"must take \(completion, truth\)"):
        verifier(lambda completion: True)  # pyright: ignore


async def slowly(completion: str, truth: str) -> bool:
    await asyncio.sleep(0)
    return completion == truth


def test_an_async_verifier_is_awaited_outside_and_inside_a_loop() -> None:
    lifted = verifier(slowly)
    assert verify(lifted, "4", "4").reward == 1.0

    async def inside() -> Verdict:
        return verify(lifted, "4", "5")

    assert asyncio.run(inside()).reward == 0.0


def test_an_async_verifier_may_call_another_through_verify() -> None:
    @verifier
    async def outer(completion: str, truth: str) -> float:
        return verify(verifier(slowly), completion, truth).reward or 0.0

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(verify, outer, "4", "4").result(timeout=20).reward == 1.0


def test_an_async_verifier_works_in_a_forked_child() -> None:
    verify(verifier(slowly), "4", "4")
    child = os.fork()
    if child == 0:
        os._exit(7 if verify(verifier(slowly), "4", "4").reward == 1.0 else 8)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_async_verifiers_run_on_one_thread_however_many_call() -> None:
    lifted = verifier(slowly)
    with ThreadPoolExecutor(8) as threads:
        rewards = list(threads.map(lambda n: verify(lifted, str(n), "4").reward, range(16)))
    assert sum(reward or 0 for reward in rewards) == 1.0
    assert sum(t.name == "rlvr-async-verifiers" for t in threading.enumerate()) == 1


@pytest.fixture
def table() -> Iterator[None]:
    before = dict(registry._TABLE)
    yield
    registry._TABLE.clear()
    registry._TABLE.update(before)


def factory(answer: str, *, strict: bool = True) -> Exact:
    return Exact(case=strict)


def test_every_name_in_the_table_can_be_made() -> None:
    options: dict[str, Any] = {
        "regex": {"pattern": "a"},
        "judge": {"ask": str},
        "reward-model": {"path": "me/none"},
    }
    for name in names():
        assert callable(make(name, **options.get(name, {})))


def test_an_unknown_name_or_option_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="no verifier 'maths'; did you mean 'math'"):
        make("maths")
    with pytest.raises(
        UsageError, match="no option of verifier 'exact' 'cases'; did you mean 'case'"
    ):
        make("exact", cases=True)


def test_options_need_a_name() -> None:
    with pytest.raises(UsageError, match="need a verifier's name"):
        make(Exact(), case=False)


def test_a_verifier_is_returned_as_it_is_and_a_function_lifted() -> None:
    exact = Exact()
    assert make(exact) is exact
    assert verify(make(lambda completion, truth: True), "a", "b", task=TASK).reward == 1.0  # pyright: ignore


@pytest.mark.parametrize("given", [Exact, 3, None])
def test_what_is_no_verifier_is_refused(given: Any) -> None:
    with pytest.raises(UsageError, match="a verifier is a name or a callable"):
        make(given)


@pytest.mark.usefixtures("table")
def test_every_kind_of_entry_can_be_registered() -> None:
    register("me/class", Exact)
    register("me/factory", factory)
    register("me/partial", functools.partial(factory, "x"))
    register("me/place", "rlvr.verifiers.text:Exact")
    register("me/object", Exact())
    register("me/lifted", verifier(lambda completion, truth: completion == truth))
    register("me/function", lambda completion, truth: completion == truth)
    assert verify(make("me/factory", answer="x", strict=False), "A", "a").reward == 1.0
    for name in ("me/class", "me/partial", "me/place", "me/object", "me/lifted", "me/function"):
        assert verify(make(name), "a", "a").reward == 1.0


@pytest.mark.usefixtures("table")
def test_a_bad_registration_says_what_is_wrong() -> None:
    register("me/a", Exact)
    with pytest.raises(UsageError, match="registered already; pass replace=True"):
        register("me/a", Exact)
    with pytest.raises(UsageError, match="needs a callable or 'module:attribute'"):
        register("me/b", "nowhere")
    register("me/c", "no_such_module:X")
    with pytest.raises(UsageError, match=r"'me/c' is registered at 'no_such_module:X'"):
        make("me/c")
    register("me/d", factory)
    with pytest.raises(UsageError, match="'me/d' cannot be made: missing a required argument"):
        make("me/d")
    register("me/e", Exact())
    with pytest.raises(UsageError, match="takes no options"):
        make("me/e", case=True)
