"""Requests to a server that may be slow, busy, broken or gone.

Every attempt has a time limit, and what is worth another attempt gets one: no connection, no answer
in time, an answer that is no JSON, "too many requests" and errors of the server. The others wait
when one is told to (`Retry-After`). An event loop on a thread of its own keeps the connections, so
that an endpoint can be asked from any loop, one after the other, and from none.
"""

import asyncio
import json
import random
import re
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ..verifiers import ModelError, UsageError

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 507, 520, 521, 522, 523, 524, 529})
"""Statuses that may be others at the next attempt."""

LARGEST = 64 << 20
"""Bytes of an answer at most."""

HOPELESS = 3
"""Requests in a row that may run out of attempts before nothing more is asked."""

KEPT_SECONDS = 3.0
"""Seconds that an unused connection is kept: less than the 5 after which servers close theirs, so
that none is closed just when it is used again."""

LOCAL = ("127.0.0.1", "localhost", "::1")
"""Hosts that no proxy stands before."""


class EndpointError(ModelError):
    """A server gave no answer, or refused to."""

    def __init__(
        self, text: str, *, status: int = 0, said: str = "", fatal: bool = True, heard: bytes = b""
    ) -> None:
        """Take the message.

        Args:
            text: The whole message.
            status: The HTTP status; 0 without an answer.
            said: What the server gave as its reason.
            fatal: Whether further requests are in vain, too.
            heard: What had been answered when the last attempt broke off.
        """
        super().__init__(text)
        self.status, self.said, self.fatal, self.heard = status, said, fatal, heard
        self.outgrown = False
        """Whether the conversation is longer than the model's context."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often, how fast and for how long a server is asked.

    Example:
        `Patience(timeout=60, concurrency=8, per_minute=500)`
    """

    timeout: float = 600.0
    """Seconds that one attempt may take."""
    attempts: int = 8
    """Attempts per request."""
    wait: float = 0.5
    """Seconds before the second attempt; twice as long before each further one."""
    longest_wait: float = 120.0
    """Seconds between two attempts at most; a server that wants more is given up."""
    concurrency: int = 32
    """Requests under way at the same time."""
    per_minute: float = 0.0
    """Attempts begun per minute at most; 0 is without a limit."""

    def __post_init__(self) -> None:
        """Check every range."""
        for name in ("timeout", "wait", "longest_wait"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be above 0 seconds, got {getattr(self, name)!r}")
        for name, least in (("attempts", 1), ("concurrency", 1), ("per_minute", 0)):
            if not getattr(self, name) >= least:
                raise UsageError(f"{name} must be at least {least}, got {getattr(self, name)!r}")


class Endpoint:
    """A server's address, the connections to it, and the patience with it."""

    def __init__(
        self,
        url: str,
        patience: Patience | None = None,
        *,
        key: str = "",
        advice: Mapping[int, str] | None = None,
    ) -> None:
        """Take over an address; nothing is sent.

        Args:
            url: `https://host/v1`, before every path.
            patience: With the server.
            key: Sent as a bearer token, and in no message.
            advice: What to do about a status, for its message.

        Raises:
            UsageError: The address or the key cannot be used, or aiohttp is not installed.
        """
        self._http = _http()
        self.url = checked_url(url)
        self._proxy = proxy_of(self.url)
        self.patience = patience or Patience()
        self._key, self._advice = checked_key(key), dict(advice or {})
        self.requests = self.retries = 0
        """Requests that were answered, and attempts beyond the first."""
        self._hopeless = 0
        self._free_at = 0.0
        self._loop = asyncio.new_event_loop()
        self._slots = asyncio.Semaphore(self.patience.concurrency)
        self._session: Any = None
        self._thread = threading.Thread(target=self._run, name="rlvr-endpoint", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    async def ask(self, path: str, body: Any = None, **how: Any) -> Any:
        """Send a request and return the answer's JSON.

        Args:
            path: Behind the address, with its slash.
            body: Sent as JSON by POST; `None` sends a GET.
            how: As for `submit`.

        Raises:
            EndpointError: There is no answer, or a refusal.
        """
        return await asyncio.wrap_future(self.submit(path, body, **how))

    def submit(self, path: str, body: Any = None, **how: Any) -> "Future[Any]":
        """Send a request from any thread.

        Args:
            path: As for `ask`.
            body: As for `ask`.
            how: `timeout` and `attempts` in place of the patience's; `check`, which returns what is
                wrong with an answer's JSON, so that it is asked for again; `raw` for an answer that
                is no JSON: its bytes.
        """
        return self._schedule(self._request(path, body, **how))

    def _schedule(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        if not self._thread.is_alive():
            work.close()
            raise UsageError(f"the connection to {self.url} has been closed; make a new one")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _request(
        self,
        path: str,
        body: Any,
        timeout: float | None = None,
        attempts: int | None = None,
        check: Callable[[Any], str] = lambda _: "",
        raw: bool = False,
    ) -> Any:
        attempts = attempts or self.patience.attempts
        seconds = timeout or self.patience.timeout
        answer, trouble = _Answer(), ""
        for attempt in range(1, attempts + 1):
            async with self._slots:
                await self._turn()
                answer = await self._attempt(path, body, seconds, raw)
            trouble = self._trouble(answer, path) or self._scrubbed(check(answer.value))
            if not trouble:
                self.requests, self._hopeless = self.requests + 1, 0
                return answer.value
            if attempt < attempts:
                self.retries += 1
                await self._pause(answer, attempt, path)
        self._hopeless += 1
        fatal = self._hopeless >= HOPELESS or not self.requests
        raise EndpointError(
            f"{self.url}{path} gave no answer in {attempts} attempts, at last: {trouble}; see "
            "whether the server runs, or take fewer requests at a time or a longer limit",
            status=answer.status,
            fatal=fatal,
            heard=answer.heard,
        )

    async def _turn(self) -> None:
        """Wait until the next attempt may begin."""
        while (wait := self._free_at - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        if self.patience.per_minute:
            self._free_at = time.monotonic() + 60 / self.patience.per_minute

    async def _pause(self, answer: "_Answer", attempt: int, path: str) -> None:
        """Wait before another attempt: as long as the server says, or longer each time.

        Raises:
            EndpointError: It wants more than is granted.
        """
        longest = self.patience.longest_wait
        if answer.wait is not None:
            if answer.wait > longest:
                raise EndpointError(
                    f"{self.url}{path} answered {answer.status} and wants a pause of "
                    f"{answer.wait:.0f} s, more than the {longest:.0f} s granted; try again later",
                    status=answer.status,
                )
            self._free_at = max(self._free_at, time.monotonic() + answer.wait)
            return
        wait = min(longest, self.patience.wait * 2 ** (attempt - 1))
        await asyncio.sleep(wait * (0.5 + random.random() / 2))

    async def _attempt(self, path: str, body: Any, seconds: float, raw: bool) -> "_Answer":
        session, content = self._opened(), bytearray()
        method = "GET" if body is None else "POST"
        # with each request: what belongs to a session goes to a proxy, too
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            async with (
                asyncio.timeout(seconds),
                session.request(
                    method, self.url + path, json=body, headers=headers, allow_redirects=False
                ) as got,
            ):
                async for chunk in got.content.iter_any():
                    content += chunk
                    if len(content) > LARGEST:
                        return _Answer(problem=f"an answer of more than {LARGEST} bytes")
            if raw and 200 <= got.status < 300:
                return _Answer(status=got.status, value=bytes(content))
            told = {name.lower(): value for name, value in got.headers.items()}
            return _Answer.read(got.status, told, bytes(content))
        except TimeoutError:
            what = "no end" if content else "nothing"
            return _Answer(problem=f"{what} within {seconds:g} s", heard=bytes(content))
        except (self._http.ClientError, OSError) as error:
            return _Answer(problem=f"{type(error).__name__}: {error}", heard=bytes(content))

    def _opened(self) -> Any:
        """Return the connections, made on the loop that uses them."""
        if self._session is None:
            http = self._http
            self._session = http.ClientSession(
                connector=http.TCPConnector(limit=0, keepalive_timeout=KEPT_SECONDS),
                cookie_jar=http.DummyCookieJar(),
                timeout=http.ClientTimeout(
                    total=None, sock_connect=None
                ),  # `asyncio.timeout` counts
                proxy=self._proxy,
            )
        return self._session

    def _trouble(self, answer: "_Answer", path: str) -> str:
        """Return why another attempt is due; empty for an answer.

        Raises:
            EndpointError: No attempt will do.
        """
        said = self._scrubbed(answer.problem)
        if answer.status == 0 or 200 <= answer.status < 300:
            return said
        spent = "insufficient_quota" in answer.problem
        if answer.status in AGAIN and not spent:
            return f"status {answer.status}: {said}"
        advice = self._advice.get(answer.status, "")
        raise EndpointError(
            f"{self.url}{path} refused with status {answer.status}: {said}"
            + (f"; {advice}" if advice else ""),
            status=answer.status,
            said=said,
        )

    def _scrubbed(self, text: str) -> str:
        """Return a text of the server's as one short line without the key."""
        text = text.replace(self._key, "[key]") if self._key else text
        return re.sub(r"\s+", " ", text)[:400]

    def close(self) -> None:
        """Drop what is under way, and the connections."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._wind_up(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _wind_up(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What came of an attempt."""

    status: int = 0
    """The HTTP status; 0 without an answer."""
    value: Any = None
    """The JSON."""
    problem: str = ""
    """Why it is no use; empty if it is."""
    wait: float | None = None
    """Seconds to wait before the next attempt, as the server wants it."""
    heard: bytes = b""
    """What there was when it broke off."""

    @classmethod
    def read(cls, status: int, headers: Mapping[str, str], content: bytes) -> "_Answer":
        """Read status, headers and body."""
        good = 200 <= status < 300
        try:
            value = json.loads(content) if content or not good else None
        except (ValueError, RecursionError):
            problem = content[:300].decode("utf-8", "replace") or "an empty body"
            problem = f"no JSON: {problem}" if good else problem
            return cls(status=status, problem=problem, wait=_wait(headers))
        if good:
            return cls(status=status, value=value)
        return cls(status=status, value=value, problem=reason_of(value), wait=_wait(headers))


def reason_of(value: Any) -> str:
    """Return the reason in a refusal's JSON: `{"error": {"message", "code", "param"}}`, mostly."""
    error = value.get("error", value) if isinstance(value, dict) else value
    if not isinstance(error, dict):
        return str(error)
    parts = [
        error.get("message") or error.get("detail") or "",
        error.get("code"),
        error.get("param"),
    ]
    return " ".join(str(part) for part in parts if part) or json.dumps(error)


def _wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `Retry-After` asks for: a number, or a date."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def checked_url(url: str) -> str:
    """Return an address without its last slash.

    Raises:
        UsageError: It is none, or holds a password.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        parts, good = None, False
    if parts is not None and (parts.username or parts.password):
        raise UsageError(
            f"the address of {parts.hostname} holds a name or password, which would be written "
            "into every log; set OPENAI_API_KEY instead"
        )
    if not good or parts is None or parts.query or parts.fragment:
        raise UsageError(f"an address is like 'http://127.0.0.1:8000/v1', got {url!r:.200}")
    return url.rstrip("/")


def proxy_of(url: str) -> str | None:
    """Return the proxy that the environment names for an address (`HTTPS_PROXY`, `NO_PROXY`, …).

    Raises:
        UsageError: It is not one that speaks HTTP.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = getproxies().get(parts.scheme) or getproxies().get("all")
    if not proxy or host in LOCAL or proxy_bypass(host):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if urlsplit(proxy).scheme not in ("http", "https"):
        raise UsageError(
            f"the proxy for {host} in the environment begins with '{urlsplit(proxy).scheme}://'; "
            f"one for HTTP is needed, or NO_PROXY={host}"
        )
    return proxy


def checked_key(key: str) -> str:
    """Return a key that can be sent.

    Raises:
        UsageError: It cannot be.
    """
    key = key.strip()
    if not re.fullmatch(r"[!-~]*", key):
        raise UsageError(
            "the API key holds a space, a line break or a letter that no header can carry; set "
            "OPENAI_API_KEY to the key alone"
        )
    return key


def _http() -> Any:
    try:
        import aiohttp
    except ImportError as error:
        raise UsageError(
            f"asking a server needs aiohttp, which cannot be imported here ({error}); install "
            "rlvr[openai]"
        ) from error
    return aiohttp
