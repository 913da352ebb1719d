"""A server that speaks as vLLM's does and draws what can be foretold: each token one more than the
one before it, with the log-probability −(number of the weights)/100. It can be told to fail."""

import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

CONTEXT = 64
VOCABULARY = 50
END = 49


class FakeVLLM:
    """A server on loopback."""

    def __init__(
        self,
        *,
        labelled: bool = True,
        adapted: bool = False,
        dev_mode: bool = True,
        scale_out: bool = True,
        processed: bool = True,
        limited: bool = True,
        rejects: bool = False,
        seconds: float = 0.0,
    ) -> None:
        """Start it.

        Args:
            labelled: Whether it knows labels of weights, as from 0.32 on.
            adapted: Whether it serves adapters.
            dev_mode: Whether it has the routes that change weights.
            scale_out: Whether the route from tokens to tokens is open.
            processed: Whether log-probabilities are those of the distribution drawn from.
            limited: Whether padding is cut off.
            rejects: Whether it refuses requests in a pause that aborts, as from 0.33 on.
            seconds: That one token takes.
        """
        self.labelled, self.dev_mode, self.scale_out = labelled, dev_mode, scale_out
        self.adapted = adapted
        self.processed, self.limited = processed, limited
        self.rejects, self.seconds = rejects, seconds
        self.script: list[str] = []
        """What becomes of the next requests: `abort 3`, `die 3`, `hang 3`, `error 3`, `nan 3`,
        `refuse`, `whole`; the number is that of the tokens before."""
        self.bodies: list[dict[str, Any]] = []
        """The requests for completions."""
        self.told: list[str] = []
        """The other requests, in order."""
        self.lock = threading.Lock()
        self.restart()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def restart(self) -> None:
        """Forget everything but what was asked."""
        self.label, self.weights, self.paused, self.preempted = "default", 0, "", 0
        self.adapters: dict[str, int] = {}
        self.aborts = 0

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def log_message(self, format: str, *args: Any) -> None:
                return

            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, body: Any) -> None:
                with suppress(OSError):
                    fake._serve(self, body)

            def send(self, value: Any, status: int = 200) -> None:
                data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
                self.begin("application/json", status)
                self.wfile.write(data)

            def begin(self, kind: str, status: int = 200) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.end_headers()

        return Handler

    def _serve(self, handler: Any, body: Any) -> None:
        parts = urlsplit(handler.path)
        if parts.path == "/inference/v1/generate":
            return self._generate(handler, body)
        self.told.append(handler.path)
        control = ("/pause", "/resume", "/collective_rpc", "/reset_prefix_cache")
        control += ("/v1/load_lora_adapter", "/v1/unload_lora_adapter") if self.adapted else ()
        labels = ("/weight_info", "/update_weight_version")
        known = ("/v1/models", "/health", "/metrics", *(control if self.dev_mode else ()))
        known += labels if self.labelled and self.dev_mode else ()
        if parts.path not in known:
            return handler.send({"detail": "Not Found"}, 404)
        if parts.path.endswith("load_lora_adapter"):
            there, wanted = body["lora_name"] in self.adapters, "unload" in parts.path
            if there != wanted:
                return handler.send({"error": {"message": f"there: {there}"}}, 400 + 4 * wanted)
        with self.lock:
            answer = self._control(parts.path, parse_qs(parts.query), body)
        return handler.send(answer)

    def _control(self, path: str, query: dict[str, list[str]], body: Any) -> Any:
        if path == "/pause":
            self.paused = query["mode"][0]
            self.aborts += self.paused == "abort"
        elif path == "/resume":
            self.paused = ""
        elif path == "/collective_rpc":
            self.weights += 1
        elif path == "/v1/load_lora_adapter":
            self.adapters[body["lora_name"]] = int(Path(body["lora_path"]).name)
        elif path == "/v1/unload_lora_adapter":
            del self.adapters[body["lora_name"]]
        elif path == "/update_weight_version":
            self.label = body["new_version"]
        elif path == "/metrics":
            return f'# TYPE x counter\nvllm:num_preemptions_total{{engine="0"}} {self.preempted}\n'
        return {
            "/v1/models": {"data": [{"max_model_len": CONTEXT}]},
            "/weight_info": {"weight_version": self.label},
            "/reset_prefix_cache": {"success": True},
            "/v1/load_lora_adapter": "Success",
            "/v1/unload_lora_adapter": "Success",
        }.get(path, {})

    def _generate(self, handler: Any, body: Any) -> None:
        parameters = body["sampling_params"]
        if not self.scale_out:
            return handler.send({"error": {"message": "scale-out is off"}}, 403)
        if "allowed_token_ids" in parameters:
            more = len(parameters["allowed_token_ids"]) > 1 and not self.limited
            logprobs = [-0.7 if more or not self.processed else 0.0]
            spans = [{"version": self.label, "start": 0, "end": 1}] if self.labelled else None
            return handler.send(_whole([1], logprobs, spans=spans))
        self.bodies.append(body)
        if body.get("model", "") not in ("", *self.adapters):
            return handler.send({"error": {"message": "no such model"}}, 404)
        act, _, count = (self.script.pop(0) if self.script else "").partition(" ")
        if act == "refuse" or (self.rejects and self.paused == "abort"):
            return handler.send({"error": {"message": "paused"}}, 503)
        drawn = _Drawn(self, body, act, int(count or 0))
        if act == "whole":
            return handler.send(_whole(*drawn.all()))
        handler.begin("text/event-stream")
        for event in drawn.events():
            handler.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            handler.wfile.flush()
        if act == "hang":
            time.sleep(5.0)
        if act not in ("die", "hang"):
            handler.wfile.write(b"data: [DONE]\n\n")
        return None


class _Drawn:
    """One request's tokens."""

    def __init__(self, fake: FakeVLLM, body: Any, act: str, count: int) -> None:
        self.fake, self.act, self.count = fake, act, count
        self.last, self.parameters = body["token_ids"][-1], body["sampling_params"]
        self.adapters = fake.adapters.get(body.get("model"))
        self.aborts = fake.aborts
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.spans: list[dict[str, Any]] = []

    def events(self) -> Any:
        """Draw, two tokens an event."""
        tokens: list[int] = []
        while True:
            finish, stop = self._next(tokens)
            if finish or len(tokens) == 2 or (self.act and len(self.tokens) == self.count):
                yield self._event(tokens, finish, stop)
                tokens = []
            if finish:
                return
            if self.act and len(self.tokens) >= self.count:
                if self.act == "error":
                    yield {"error": {"message": "EngineDeadError", "code": 500}}
                return

    def _next(self, tokens: list[int]) -> tuple[str, str | None]:
        """Draw one token; returns whether it ended here, and at which stop string."""
        fake = self.fake
        time.sleep(fake.seconds)
        while fake.paused == "keep" or (fake.paused and fake.aborts == self.aborts):
            time.sleep(0.001)
        with fake.lock:
            if fake.paused == "keep":
                return "", None
            return self._drawn(tokens)

    def _drawn(self, tokens: list[int]) -> tuple[str, str | None]:
        fake = self.fake
        if fake.aborts != self.aborts or (self.act == "abort" and len(self.tokens) >= self.count):
            return "abort", None
        token = (self.last + 1 + len(self.tokens)) % VOCABULARY
        self.tokens.append(token)
        weights = fake.weights if self.adapters is None else self.adapters
        self.logprobs.append(-9999.0 if self.act == "nan" else -weights / 100)
        tokens.append(token)
        if not self.spans or self.spans[-1]["version"] != fake.label:
            self.spans.append({"version": fake.label, "start": len(self.tokens) - 1, "end": 0})
        self.spans[-1]["end"] = len(self.tokens)
        if token in self.parameters["stop_token_ids"]:
            return "stop", None
        for stop in self.parameters["stop"]:
            if text_of(self.tokens).endswith(stop):
                return "stop", stop
        return ("length" if len(self.tokens) >= self.parameters["max_tokens"] else ""), None

    def _event(self, tokens: list[int], finish: str, stop: str | None) -> Any:
        count = len(self.tokens)
        pairs = zip(tokens, self.logprobs[count - len(tokens) : count], strict=True)
        choice: dict[str, Any] = {
            "index": 0,
            "token_ids": tokens,
            "logprobs": {"content": [{"token_id": one, "logprob": value} for one, value in pairs]},
            "finish_reason": finish or None,
            "stop_reason": stop,
        }
        if finish and self.fake.labelled:
            choice["weight_versions"] = self.spans
        return {"request_id": "x", "choices": [choice]}

    def all(self) -> tuple[list[int], list[float], str, list[dict[str, Any]]]:
        """Draw to the end."""
        finish = ""
        while not finish:
            finish, _ = self._next([])
        return self.tokens, self.logprobs, finish, self.spans


def _whole(
    tokens: list[int],
    logprobs: list[float],
    finish: str = "length",
    spans: list[dict[str, Any]] | None = None,
) -> Any:
    content = [
        {"token_id": token, "logprob": one} for token, one in zip(tokens, logprobs, strict=True)
    ]
    choice = {"token_ids": tokens, "logprobs": {"content": content}, "finish_reason": finish}
    return {"choices": [{**choice, "weight_versions": spans}]}


def text_of(tokens: Any) -> str:
    """Return the text of tokens: a letter each."""
    return "".join(chr(ord("a") + token % 26) for token in tokens)
