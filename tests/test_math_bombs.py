"""Resource bombs: every one is answered in time, scored 0, from any thread and any event loop."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlvr.verifiers import Status, Verdict, make
from rlvr.verifiers.bombs import Bomb, bombs

LIMIT = 8.0
"""Seconds: a hang fails here. That the deadline of 1 s is kept to 50 ms on an idle machine is what
`benchmarks/math_bombs.py` measures; here other work may hold the processors."""
BOMBS = bombs()
CASES = Path(__file__).parent / "cases" / "math.jsonl"
math = make("math")

Answered = tuple[Bomb, Verdict, float]
"""A bomb, its verdict and the seconds from dispatch, those without a processor left out."""


def _answer(bomb: Bomb) -> Answered:
    start = time.monotonic()
    verdict = math(bomb.completion, bomb.truth)
    seconds = time.monotonic() - start
    return bomb, verdict, seconds - sum(verdict.cost.get(k, 0.0) for k in ("waited", "starved"))


def _main_thread(given: Iterable[Bomb]) -> list[Answered]:
    return [_answer(bomb) for bomb in given]


def _threads(given: Iterable[Bomb]) -> list[Answered]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(_answer, given))


def _event_loop(given: Iterable[Bomb]) -> list[Answered]:
    async def main() -> list[Answered]:
        return await asyncio.gather(*[asyncio.to_thread(_answer, bomb) for bomb in given])

    return asyncio.run(main())


DOORS = {"main thread": _main_thread, "8 threads": _threads, "asyncio": _event_loop}


def _is_quick(bomb: Bomb) -> bool:
    """Whether the bomb is of a family that needs no prover; long ones of each are slow to make."""
    return bomb.name.split(":")[0] not in ("calculus", "constants", "structures")


def test_the_corpus_is_large_and_its_names_differ() -> None:
    assert len(BOMBS) > 110
    assert len({bomb.name for bomb in BOMBS}) == len(BOMBS)


def _faults(answered: Iterable[Answered]) -> list[str]:
    """Name the bombs that were late, paid or unscored."""
    return [
        f"{bomb.name}: {seconds:.2f} s, {verdict.status} {verdict.evidence.get('reason', '')}"
        for bomb, verdict, seconds in answered
        if seconds > LIMIT or verdict.reward != 0.0
    ]


def test_bombs_that_need_no_prover_are_answered_at_once() -> None:
    assert not _faults(_main_thread(filter(_is_quick, BOMBS)))


def test_a_sample_of_all_bombs_is_answered_in_eight_threads() -> None:
    assert not _faults(_threads(BOMBS[3::12]))


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_every_bomb_is_answered_within_its_deadline(
    door: Callable[[Iterable[Bomb]], list[Answered]],
) -> None:
    assert not _faults(door(BOMBS))


def _completion(row: dict[str, str]) -> str:
    bare = row["kind"] in ("answer", "normalization")
    return rf"\boxed{{{row['completion']}}}" if bare else row["completion"]


@pytest.mark.slow
def test_honest_answers_among_bombs_get_the_verdict_of_an_idle_machine() -> None:
    rows = [json.loads(line) for line in CASES.read_text().splitlines()]
    honest = [Bomb(f"honest {n}", _completion(row), row["truth"]) for n, row in enumerate(rows)]
    idle = {bomb.name: verdict for bomb, verdict, _ in _main_thread(honest)}
    mixed = [bomb for pair in zip(honest, BOMBS * 9, strict=False) for bomb in pair]
    found = {bomb.name: verdict for bomb, verdict, _ in _threads(mixed)}
    differing = [name for name, verdict in idle.items() if found.get(name, verdict) != verdict]
    assert not differing


def test_an_answer_at_the_deadline_does_not_touch_the_answers_of_other_threads() -> None:
    slow = Bomb("slow", r"\boxed{\int_0^1 x^{x^{x^{x}}}\,dx}", r"\int_0^1 e^{-x^2}\sin(x^3)\,dx")
    stop = threading.Event()
    wrong: list[Verdict] = []

    def honest() -> None:
        while not stop.is_set():
            for completion, status in ((r"\boxed{0.5}", "correct"), (r"\boxed{0.51}", "wrong")):
                verdict = math(completion, r"\frac{1}{2}")
                if verdict.status is not Status(status):
                    wrong.append(verdict)

    thread = threading.Thread(target=honest)
    thread.start()
    try:
        assert _answer(slow)[1].reward == 0.0
    finally:
        stop.set()
        thread.join()
    assert not wrong
