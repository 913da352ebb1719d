"""A sandbox on another machine, by HTTP: `serve` there, `Remote` here.

One POST of one JSON object per run; bytes in base64. A failure on the way is the sandbox's, retried
and then `Ended.INFRA`, never the program's.
"""

import asyncio
import base64
import dataclasses
import hmac
import http.server
import json
import threading
import time
import urllib.error
import urllib.request
from typing import Any

from ..errors import UsageError
from .connection import Job
from .engine import Engine
from .outcome import Cost, Ended, Limits, Options, Outcome, SandboxError
from .survey import Row, Survey

MAX_BODY = 256 << 20
"""Bytes of a request or an answer at most."""
ATTEMPTS = 3
PAUSE = 0.5
"""Seconds before the second attempt; doubled before the third."""


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: Any) -> bytes:
    return base64.b64decode(text, validate=True)


def encode_job(job: Job) -> dict[str, Any]:
    """A job as JSON values."""
    return {
        "program": _text(job.source()),
        "stdin": _text(job.stdin),
        "files": {name: _text(content) for name, content in job.files.items()},
        "limits": dataclasses.asdict(job.limits),
        "options": dataclasses.asdict(job.options),
    }


def decode_job(data: Any) -> Job:
    """Read a job.

    Raises:
        UsageError: The data is none.
    """
    try:
        options = data["options"]
        options |= {name: tuple(options.get(name, ())) for name in ("argv", "preload")}
        return Job(
            program=_bytes(data["program"]),
            stdin=_bytes(data["stdin"]),
            files={name: _bytes(content) for name, content in data["files"].items()},
            limits=Limits(**data["limits"]),
            options=Options(**options),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"the request is no job: {type(error).__name__}: {error}") from error


def encode_outcome(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON values."""
    return {
        "ended": outcome.ended.value,
        "stdout": _text(outcome.stdout),
        "stderr": _text(outcome.stderr),
        "exit": outcome.exit,
        "reason": outcome.reason,
        "tier": outcome.tier,
        "cost": dataclasses.asdict(outcome.cost),
    }


def decode_outcome(data: Any) -> Outcome:
    """Read an outcome.

    Raises:
        SandboxError: The data is none.
    """
    try:
        return Outcome(
            ended=Ended(data["ended"]),
            stdout=_bytes(data["stdout"]),
            stderr=_bytes(data["stderr"]),
            exit=data["exit"],
            reason=str(data["reason"]),
            tier=str(data["tier"]),
            cost=Cost(**data["cost"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SandboxError(f"the answer is no outcome: {type(error).__name__}: {error}") from error


class Remote:
    """Runs programs on a machine where `serve` runs.

    Args:
        url: Such as `http://10.0.0.5:8750`.
        token: What `serve` was given.
        timeout: Seconds for one attempt, waiting for a turn included.
        require: Refuse a machine whose tier is another.
    """

    def __init__(
        self, url: str, *, token: str = "", timeout: float = 600.0, require: str | None = None
    ) -> None:
        """Ask the machine what walls stand there."""
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"url {url!r}; expected http://... or https://...")
        self.url = url.rstrip("/")
        self.token = token
        self.timeout = timeout
        self.survey = self._survey()
        if require is not None and self.survey.tier != require:
            raise SandboxError(f"{url} has the tier '{self.survey.tier}'; required '{require}'")

    def _survey(self) -> Survey:
        data = self._ask("/survey", None)
        try:
            rows = tuple(Row(**row) for row in data["rows"])
            return Survey(data["tier"], rows, data["python"], data["why_not"])
        except (KeyError, TypeError) as error:
            raise SandboxError(f"{self.url} does not answer as a sandbox: {error}") from error

    def _ask(self, path: str, body: dict[str, Any] | None) -> Any:
        """Make one request; every failure is a `SandboxError`, a refusal a `UsageError`."""
        data = None if body is None else json.dumps(body).encode()
        head = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(self.url + path, data, head)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                return json.loads(answer.read(MAX_BODY))
        except urllib.error.HTTPError as error:
            with error:
                text = error.read(1 << 16).decode("utf-8", "replace")
            if error.code in (400, 401):
                raise UsageError(f"{self.url} refused: {text}") from error
            raise SandboxError(f"{self.url} failed with status {error.code}: {text}") from error
        except (OSError, ValueError, RecursionError) as error:
            raise SandboxError(f"{self.url} cannot be asked: {error}") from error

    def run(
        self,
        program: str | bytes,
        *,
        stdin: bytes = b"",
        files: dict[str, bytes] | None = None,
        limits: Limits | None = None,
        options: Options | None = None,
        share: str = "",
    ) -> Outcome:
        """Run a program over there."""
        job = Job.of(program, stdin, files, limits, options)
        body = {**encode_job(job), "share": share}
        reason = ""
        for attempt in range(ATTEMPTS):
            try:
                return decode_outcome(self._ask("/run", body))
            except SandboxError as error:
                reason = str(error)
                if attempt + 1 < ATTEMPTS:
                    time.sleep(PAUSE * 2**attempt)
        return Outcome(Ended.INFRA, reason=f"{reason} ({ATTEMPTS} attempts)", tier="remote")

    async def arun(self, program: str | bytes, **given: Any) -> Outcome:
        """Run a program over there, in a thread of its own."""
        return await asyncio.to_thread(self.run, program, **given)

    def describe(self) -> Survey:
        """What walls stand over there."""
        return self.survey

    def close(self) -> None:
        """Nothing is kept between runs."""


class Service(http.server.ThreadingHTTPServer):
    """The other end of `Remote`; made by `serve`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, engine: Engine, host: str, port: int, token: str) -> None:
        """Bind; `start` or `serve_forever` begins."""
        self.engine = engine
        self.token = token
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.server_address[0]}:{self.server_address[1]}"

    def start(self) -> None:
        """Serve in a thread."""
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """End the thread and close the port."""
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = 60.0

    @property
    def service(self) -> Service:
        """The server, as what it is."""
        assert isinstance(self.server, Service)
        return self.server

    def do_GET(self) -> None:
        """Answer what walls stand."""
        if self._allowed():
            self._answer(200, dataclasses.asdict(self.service.engine.describe()))

    def do_POST(self) -> None:
        """Run a job."""
        if not self._allowed():
            return
        try:
            length = int(self.headers.get("Content-Length", "0"))
            if not 0 < length <= MAX_BODY:
                raise UsageError(f"a body of {length} bytes; expected 1 to {MAX_BODY}")
            data = json.loads(self.rfile.read(length))
            job, share = decode_job(data), str(data.get("share", ""))
            outcome = self.service.engine.run(
                job.program,
                stdin=job.stdin,
                files=job.files,
                limits=job.limits,
                options=job.options,
                share=share,
            )
            self._answer(200, encode_outcome(outcome))
        except (ValueError, RecursionError) as error:
            self._answer(400, str(error))
        except SandboxError as error:
            self._answer(503, str(error))

    def _allowed(self) -> bool:
        given = self.headers.get("Authorization", "")
        if hmac.compare_digest(given.encode(), f"Bearer {self.service.token}".encode()):
            return True
        self._answer(401, "wrong token")
        return False

    def _answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def serve(engine: Engine, host: str = "127.0.0.1", port: int = 0, *, token: str = "") -> Service:
    """Offer an engine to other machines; port 0 takes a free one.

    Raises:
        UsageError: An address that others can reach, without a token.
    """
    if not token and host not in ("127.0.0.1", "localhost", "::1"):
        raise UsageError(f"host {host!r} can be reached from outside; give a token")
    return Service(engine, host, port, token)
