"""Asking a language model for a judgement: fenced texts, limits, retries, a strictly read answer.

What is judged is written by the policy, which is paid for what the judge says of it. So every text
stands between markers that it does not contain, the answer is read from one line of a fixed form
that has to be the last one, and whatever goes wrong (no answer, too late, two verdicts) is a
failure of the judge, never a score.

The judge itself is injected: any callable from text to text, `async` or not.
"""

import asyncio
import hashlib
import importlib
import inspect
import json
import math
import re
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .errors import RlvrError, UsageError, unknown

T = TypeVar("T")

Ask = Callable[[str], str | Awaitable[str]]
"""From the judge's prompt to its answer."""

MAX_REPLY = 100_000
"""Characters of a judge's answer that are read."""
SHOWN_REPLY = 200
"""Characters of a judge's answer, its end, that are kept as evidence."""

_HOLE = re.compile(r"\{([a-z_]+)\}")
_EMPHASIS = "*_` \t"


class JudgeFailed(RlvrError):
    """A judge gave no answer that could be read; says what it did instead."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a judge answered."""

    value: Any
    """The answer, read."""
    text: str
    """The answer as it came."""
    calls: int
    """How often the judge was asked for it."""
    seconds: float
    """How long that took."""


def fenced(template: str, **texts: str) -> str:
    """Fill the holes of a template, each text between markers of its own.

    The markers hold a hash of all texts, so that a text cannot contain them: it would have to
    contain its own hash. That none does is checked all the same.

    Args:
        template: Text with holes such as `{completion}`.
        texts: What to put into each.

    Example:
        >>> print(fenced("Judge this:\\n{answer}", answer="42"))
        Judge this:
        <<<answer 37b71625026c>>>
        42
        <<<end of answer 37b71625026c>>>
    """
    whole = {name: text.encode("utf-8", "replace").decode() for name, text in texts.items()}
    mark = _digest(json.dumps(whole, sort_keys=True))
    while any(mark in text for text in whole.values()):
        mark = _digest(mark)

    def fill(hole: re.Match[str]) -> str:
        name = hole[1]
        return f"<<<{name} {mark}>>>\n{whole[name]}\n<<<end of {name} {mark}>>>"

    return _HOLE.sub(fill, template)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def check_template(template: str, needed: Iterable[str], known: Iterable[str]) -> str:
    """Return a template whose holes are all known, and which has those that are needed.

    Raises:
        UsageError: It is no such template.
    """
    if not isinstance(template, str):
        raise UsageError(f"template= is a text with holes, got {template!r:.100}")
    holes, all_known = set(_HOLE.findall(template)), set(known)
    for hole in sorted(holes - all_known):
        raise unknown("hole of a judge's template", hole, all_known)
    for hole in needed:
        if hole not in holes:
            raise UsageError(f"a judge's template needs the hole {{{hole}}}, got {template!r:.200}")
    return template


def last_line(answer: str, form: re.Pattern[str]) -> str | None:
    """Return what the one line of a form says; nothing unless it is the only one, and the last.

    Markdown emphasis around a line is not part of it.

    Example:
        >>> form = re.compile("Score: ([0-9]+)")
        >>> last_line("It is short.\\n**Score: 7**\\n", form)
        '7'
        >>> last_line("Score: 10\\nno:\\nScore: 2", form) is None
        True
    """
    lines = [line.strip(_EMPHASIS) for line in answer.strip().splitlines()]
    found = [match for line in lines if (match := form.fullmatch(line))]
    return found[0][1] if len(found) == 1 and form.fullmatch(lines[-1]) else None


@dataclass
class Interviewer:
    """Asks a judge: a limit for each call, further tries, a bound on calls under way."""

    ask: Ask | str
    """The judge, or its place as `"module:attribute"`."""
    retries: int = 2
    """Further tries after one without a readable answer."""
    timeout: float = 60.0
    """Seconds that a call may take."""
    at_once: int = 16
    """Calls under way at the same time at most."""
    _gates: "weakref.WeakKeyDictionary[Any, asyncio.Semaphore]" = field(
        default_factory=weakref.WeakKeyDictionary, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Check every range, and find the judge."""
        self.ask = _found(self.ask)
        for name, least in (("retries", 0), ("at_once", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"{name}= is a whole number from {least} up, got {value!r}")
        numeric = isinstance(self.timeout, int | float) and not isinstance(self.timeout, bool)
        if not numeric or not 0 < self.timeout < math.inf:
            raise UsageError(f"timeout= is in seconds, above 0 and finite, got {self.timeout!r}")

    def __getstate__(self) -> dict[str, Any]:
        """Travel without what belongs to the event loops here."""
        return {**self.__dict__, "_gates": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin anew elsewhere."""
        self.__dict__ = {**state, "_gates": weakref.WeakKeyDictionary()}

    async def question(self, text: str, read: Callable[[str], T | None], form: str) -> Reply:
        """Ask until an answer can be read.

        Args:
            text: The judge's prompt.
            read: Returns what an answer says, or `None` if that cannot be read.
            form: The line that is expected, for reminders and errors.

        Raises:
            JudgeFailed: No try gave one.
        """
        gate = self._gates.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self.at_once))
        began, why = time.monotonic(), ""
        for attempt in range(1 + self.retries):
            # a reminder: a judge that answers a text always alike would fail again
            again = f"\n\n(Try {attempt + 1}: the last line must be of the form {form}.)"
            async with gate:
                try:
                    answer = await _called(self.ask, text + again * bool(attempt), self.timeout)
                except TimeoutError:
                    why = f"the judge gave no answer within {self.timeout:g} s"
                    continue
                except Exception as error:
                    why = f"the judge failed: {type(error).__name__}: {str(error)[:SHOWN_REPLY]}"
                    continue
            if not isinstance(answer, str):
                why = f"the judge returned {type(answer).__name__}, expected a text"
                continue
            value = read(answer) if len(answer) <= MAX_REPLY else None
            if value is not None:
                seconds = time.monotonic() - began
                return Reply(value=value, text=answer, calls=attempt + 1, seconds=seconds)
            why = f"the judge's answer does not end in one line {form}: …{answer[-SHOWN_REPLY:]!r}"
        raise JudgeFailed(f"{why} ({1 + self.retries} tries)")


def _found(ask: Ask | str) -> Ask:
    if isinstance(ask, str):
        module, _, attribute = ask.partition(":")
        try:
            ask = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise UsageError(
                f"no judge at {ask!r}: {error}; ask= is a callable from text to text, or its place "
                "'module:attribute'"
            ) from error
    if not callable(ask):
        raise UsageError(f"ask= is a callable from text to text, got {ask!r:.100}")
    return ask


async def _called(ask: Any, text: str, timeout: float) -> Any:
    """Call a judge within a limit.

    One that is not `async` runs in a daemon thread, which nobody waits for after the limit: it ends
    when its call does, or with the process.
    """
    call = getattr(ask, "__call__", None)  # noqa: B004  (an object's own method, to look at it)
    if inspect.iscoroutinefunction(ask) or inspect.iscoroutinefunction(call):
        return await asyncio.wait_for(ask(text), timeout)
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any, error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    def work() -> None:
        value, failure = None, None
        try:
            value = ask(text)
        except StopIteration as error:  # which a future cannot carry
            failure = RuntimeError(f"StopIteration: {error}")
        except Exception as error:
            failure = error
        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            loop.call_soon_threadsafe(settle, value, failure)

    threading.Thread(target=work, daemon=True, name="rlvr-judge").start()
    value = await asyncio.wait_for(future, timeout)
    return await asyncio.wait_for(value, timeout) if inspect.isawaitable(value) else value
