"""The policy on an OpenAI-compatible endpoint, against a real HTTP server."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rlvr.agents import Sampling, StopReason, rollout
from rlvr.agents.endpoints import Endpoint, EndpointError, Patience, checked_key, checked_url
from rlvr.agents.messages import Answer, ToolCall, Transcript, action_of
from rlvr.agents.openai_policy import OpenAIPolicy
from rlvr.agents.rollouts import Episode
from rlvr.envs import PromptEnv
from rlvr.envs.tools import ToolEnv
from rlvr.rl_core.cli import main
from rlvr.rl_core.config import TrainConfig
from rlvr.rl_core.evaluation import evaluate
from rlvr.rl_core.sources import Source
from rlvr.verifiers import ModelError, Task, UsageError

KEY = "sk-very-secret"
FAST = Patience(timeout=5, attempts=4, wait=0.01, concurrency=8)
QUESTION = [{"role": "user", "content": "2 + 2 = ?"}]

Reply = tuple[int, dict[str, str], Any]
"""Status, headers, and the body: bytes as they are, anything else as JSON."""


class Server:
    """A chat endpoint on loopback; `script` says what it answers to each request."""

    def __init__(self, script: Callable[[dict[str, Any], int], Reply]) -> None:
        self.script = script
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.busy = self.most = 0
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.bodies.append(body)
                    outer.headers.append(dict(self.headers))
                    number = len(outer.bodies)
                    outer.busy += 1
                    outer.most = max(outer.most, outer.busy)
                status, headers, answer = outer.script(body, number)
                with outer.lock:
                    outer.busy -= 1
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


def say(
    text: str | None, reason: str = "stop", calls: Sequence[Any] = (), tokens: int = 3
) -> Reply:
    """Return a completion as the protocol writes it."""
    message = {"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    usage = {"prompt_tokens": 10, "completion_tokens": tokens}
    return 200, {}, {"object": "chat.completion", "choices": [choice], "usage": usage}


def refuse(status: int, message: str, headers: dict[str, str] | None = None) -> Reply:
    """Return a refusal."""
    return status, headers or {}, {"error": {"message": message, "code": None, "param": None}}


def call(name: str, arguments: str, id: str = "call_1") -> dict[str, Any]:
    """Return a tool call."""
    function = {"name": name, "arguments": arguments}
    return {"id": id, "type": "function", "function": function}


Serve = Callable[[Callable[[dict[str, Any], int], Reply]], Server]
Open = Callable[..., OpenAIPolicy]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers that end with the test."""
    servers: list[Server] = []

    def start(script: Callable[[dict[str, Any], int], Reply]) -> Server:
        servers.append(Server(script))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Make policies that end with the test, with a key."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    policies: list[OpenAIPolicy] = []

    def make(server: Server, patience: Patience = FAST, **options: Any) -> OpenAIPolicy:
        policies.append(OpenAIPolicy("m", server.url, patience, **options))
        return policies[-1]

    yield make
    for policy in policies:
        policy.close()


def ask(policy: OpenAIPolicy, **sampling: Any) -> Answer:
    """Ask one question."""
    return asyncio.run(policy.reply(QUESTION, Sampling(**sampling)))


def test_what_is_asked_for_is_what_was_wanted_and_the_key_is_a_bearer_token(
    serve: Serve, connect: Open
) -> None:
    server = serve(lambda body, number: say("4"))
    answer = ask(connect(server), max_tokens=9, temperature=0.5, top_p=0.9, stop=("\n",), seed=3)
    assert (answer.text, answer.stop_reason, answer.tokens) == ("4", StopReason.EOS, 3)
    (body,), (headers,) = server.bodies, server.headers
    assert headers["Authorization"] == f"Bearer {KEY}"
    seed = body.pop("seed")
    assert 0 <= seed < 2**63
    assert body == {
        "model": "m",
        "messages": QUESTION,
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 0,
        "min_p": 0.0,
        "stop": ["\n"],
    }


def test_an_answer_that_ran_out_of_tokens_says_so(serve: Serve, connect: Open) -> None:
    server = serve(lambda body, number: say("4 is the", "length"))
    assert ask(connect(server)).stop_reason is StopReason.LENGTH


@pytest.mark.parametrize(
    "trouble",
    [
        refuse(429, "slow down"),
        refuse(500, "oops"),
        refuse(503, "loading"),
        (200, {}, b'{"choices": [{"mess'),
        (200, {}, b""),
        (200, {}, {"error": {"message": "upstream is down"}}),
        (200, {}, {"choices": []}),
        (200, {}, {"choices": [{"message": {"content": ["4"]}}]}),
        (502, {"Content-Type": "text/html"}, b"<html>Bad gateway</html>"),
    ],
)
def test_trouble_that_passes_is_tried_again(trouble: Reply, serve: Serve, connect: Open) -> None:
    server = serve(lambda body, number: trouble if number < 3 else say("4"))
    policy = connect(server)
    assert ask(policy).text == "4"
    assert (policy.endpoint.requests, policy.endpoint.retries) == (1, 2)
    assert policy.figures()["completion_tokens"] == 3  # what failed is not counted


def test_a_server_is_waited_for_as_long_as_it_says(serve: Serve, connect: Open) -> None:
    busy = refuse(429, "slow down", {"Retry-After": "0.4"})
    server = serve(lambda body, number: busy if number == 1 else say("4"))
    began = time.monotonic()
    assert ask(connect(server)).text == "4"
    assert time.monotonic() - began >= 0.4


def test_a_server_that_wants_too_long_a_pause_is_given_up_at_once(
    serve: Serve, connect: Open
) -> None:
    server = serve(lambda body, number: refuse(429, "tomorrow", {"Retry-After": "86400"}))
    with pytest.raises(EndpointError, match="429 and wants a pause of 86400 s"):
        ask(connect(server))
    assert len(server.bodies) == 1


def test_a_quota_that_is_used_up_is_not_asked_again(serve: Serve, connect: Open) -> None:
    used = {"error": {"message": "no credit", "code": "insufficient_quota"}}
    server = serve(lambda body, number: (429, {}, used))
    with pytest.raises(EndpointError, match=r"status 429: no credit .* quota is used up"):
        ask(connect(server))
    assert len(server.bodies) == 1


def test_a_server_that_hangs_is_asked_again_and_then_named(serve: Serve, connect: Open) -> None:
    over = threading.Event()

    def hang(body: dict[str, Any], number: int) -> Reply:
        over.wait(20)
        return say("late")

    server = serve(hang)
    patience = Patience(timeout=0.2, attempts=2, wait=0.01)
    with pytest.raises(EndpointError, match=r"no answer in 2 attempts.* nothing within 0.2 s"):
        ask(connect(server, patience))
    over.set()
    assert len(server.bodies) == 2


def test_a_server_that_is_not_there_is_named(connect: Open, serve: Serve) -> None:
    server = serve(lambda body, number: say("4"))
    policy = connect(server)
    policy.endpoint.url = "http://127.0.0.1:9/v1"
    with pytest.raises(
        EndpointError, match=r"http://127.0.0.1:9/v1/chat/completions gave no .*Connect"
    ):
        ask(policy)


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "set OPENAI_API_KEY"), (404, "check --model, and --base-url")]
)
def test_a_refusal_names_address_status_and_what_to_do_but_never_the_key(
    status: int, advice: str, serve: Serve, connect: Open
) -> None:
    server = serve(lambda body, number: refuse(status, f"bad key {KEY}"))
    with pytest.raises(EndpointError) as caught:
        ask(connect(server))
    text = str(caught.value)
    assert server.url in text
    assert f"status {status}: bad key [key]" in text
    assert advice in text
    assert KEY not in text
    assert len(server.bodies) == 1


def test_parameters_that_an_endpoint_does_not_know_are_left_out_if_they_change_nothing(
    serve: Serve, connect: Open
) -> None:
    def strict(body: dict[str, Any], number: int) -> Reply:
        if "max_tokens" in body:
            return refuse(400, "'max_tokens' is not supported; use 'max_completion_tokens'")
        if {"top_k", "min_p"} & body.keys():
            return refuse(400, "Unrecognized request arguments supplied: min_p, top_k")
        return say("4")

    server = serve(strict)
    policy = connect(server)
    assert ask(policy, max_tokens=7).text == "4"
    assert server.bodies[-1]["max_completion_tokens"] == 7
    assert ask(policy).text == "4"
    assert len(server.bodies) == 4  # the second question knows what the first one has learned
    with pytest.raises(EndpointError, match="top_k"):
        ask(policy, top_k=5)


def test_no_more_requests_are_under_way_than_allowed(serve: Serve, connect: Open) -> None:
    def slow(body: dict[str, Any], number: int) -> Reply:
        time.sleep(0.02)
        return say("4")

    server = serve(slow)
    policy = connect(server, Patience(concurrency=3))

    async def many() -> list[Answer]:
        return await asyncio.gather(*[policy.reply(QUESTION, Sampling()) for _ in range(20)])

    assert len(asyncio.run(many())) == 20
    assert server.most <= 3


def test_requests_begin_no_faster_than_allowed(serve: Serve, connect: Open) -> None:
    server = serve(lambda body, number: say("4"))
    policy = connect(server, Patience(per_minute=600))  # one every 0.1 s

    async def many() -> None:
        await asyncio.gather(*[policy.reply(QUESTION, Sampling()) for _ in range(5)])

    began = time.monotonic()
    asyncio.run(many())
    assert time.monotonic() - began >= 0.4


def test_tokens_and_costs_are_added_up(serve: Serve, connect: Open) -> None:
    bare = (200, {}, {"choices": [{"message": {"content": "4"}}]})
    server = serve(lambda body, number: bare if number == 3 else say("4", tokens=5))
    policy = connect(server, prices=(2.0, 8.0))
    for _ in range(3):
        ask(policy)
    figures = policy.figures()
    assert (figures["prompt_tokens"], figures["completion_tokens"]) == (20, 10)
    assert figures["uncounted"] == 1
    assert policy.cost == pytest.approx((20 * 2 + 10 * 8) / 1e6)


TASKS = [Task(id=str(i), prompt=f"{i} + 1 = ?", truth=i + 1) for i in range(6)]


def _env() -> Any:
    return PromptEnv(TASKS, "number")


def _right(body: dict[str, Any], number: int) -> Reply:
    return say(str(int(body["messages"][-1]["content"].split()[0]) + 1))


def test_an_environment_is_evaluated_and_no_answer_is_counted_twice(
    serve: Serve, connect: Open
) -> None:
    def shaky(body: dict[str, Any], number: int) -> Reply:
        return refuse(500, "oops") if number % 3 == 0 else _right(body, number)

    server = serve(shaky)
    found = evaluate(
        connect(server), [Source("sums", _env)], tasks=6, samples=2, sampling=Sampling()
    )
    assert (found.solved, found.samples, found.unscored, found.length) == (1.0, 12, 0, 3.0)
    good = len(server.bodies) - len(server.bodies) // 3
    assert good == 12


def test_an_episode_without_an_answer_is_unscored_and_the_others_count(
    serve: Serve, connect: Open
) -> None:
    def broken(body: dict[str, Any], number: int) -> Reply:
        if body["messages"][-1]["content"].startswith("3 "):
            return refuse(500, "cannot count to 4")
        return _right(body, number)

    policy = connect(serve(broken), Patience(attempts=2, wait=0.01))
    found = evaluate(policy, [Source("sums", _env)], tasks=6, sampling=Sampling())
    assert (found.solved, found.samples, found.unscored) == (1.0, 5, 1)
    (lost,) = [row for row in found.rows if row["status"] == "error"]
    assert "cannot count to 4" in lost["reason"]


def test_an_endpoint_that_is_down_ends_the_evaluation(serve: Serve, connect: Open) -> None:
    server = serve(lambda body, number: refuse(500, "oops"))
    policy = connect(server, Patience(attempts=2, wait=0.01))
    with pytest.raises(ModelError, match="gave no answer in 2 attempts, at last: status 500: oops"):
        evaluate(policy, [Source("sums", _env)], tasks=6, sampling=Sampling())


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def _sum_env(form: str) -> ToolEnv[Any]:
    return ToolEnv([Task(id="a", prompt="17 + 25 = ?", truth=42)], "number", tools=[add], form=form)


def _uses_tool(body: dict[str, Any], number: int) -> Reply:
    """Call the tool twice at once, then say what the last result was."""
    last = body["messages"][-1]
    if last["role"] == "user":
        calls = [call("add", '{"a": 1, "b": 1}', "x"), call("add", '{"a": 17, "b": 25}', "y")]
        return say(None, "tool_calls", calls)
    return say(last["content"])


@pytest.mark.parametrize("form", ["tags", "openai"])
def test_tools_are_passed_and_their_calls_reach_the_environment(
    form: str, serve: Serve, connect: Open
) -> None:
    server = serve(_uses_tool)
    (found,) = rollout([Episode(env=_sum_env(form), seed=0)], connect(server))
    assert (found.reward, len(found.turns), found.length) == (1.0, 2, 6)
    assert server.bodies[0]["tools"][0]["function"]["name"] == "add"
    asked, called, first, second = server.bodies[1]["messages"]
    assert asked["content"] == "17 + 25 = ?"
    assert [one["id"] for one in called["tool_calls"]] == ["x", "y"]
    assert [first["tool_call_id"], first["content"]] == ["x", "2"]
    assert [second["tool_call_id"], second["content"]] == ["y", "42"]


def test_a_call_in_the_text_is_answered_by_the_user(serve: Serve, connect: Open) -> None:
    # a server without a parser for its model's calls leaves them in the text
    written = '<tool_call>{"name": "add", "arguments": {"a": 17, "b": 25}}</tool_call>'
    server = serve(lambda body, n: say(written) if n == 1 else say(body["messages"][-1]["content"]))
    (found,) = rollout([Episode(env=_sum_env("tags"), seed=0)], connect(server))
    assert found.reward == 1.0
    assert server.bodies[1]["messages"][-1] == {"role": "user", "content": "42"}


def test_arguments_that_are_no_json_are_an_error_that_the_model_is_told(
    serve: Serve, connect: Open
) -> None:
    bad = say(None, "length", [call("add", '{"a": 17, ')])
    server = serve(lambda body, n: bad if n == 1 else say("42"))
    (found,) = rollout([Episode(env=_sum_env("tags"), seed=0)], connect(server))
    last = server.bodies[1]["messages"][-1]
    assert (last["role"], last["tool_call_id"]) == ("tool", "call_1")
    assert last["content"].startswith("Error: the call is not JSON")
    assert (found.reward, found.truncated) == (1.0, True)


def test_a_call_without_a_result_is_told_so() -> None:
    calls = [ToolCall(id=id, name="f", arguments="{}") for id in "ab"]
    transcript = Transcript()
    transcript.say(Answer(text="", calls=calls, stop_reason=StopReason.EOS))
    transcript.hear([{"role": "user", "content": "Error: no"}])
    assert [(m["role"], m.get("tool_call_id")) for m in transcript.messages] == [
        ("assistant", None),
        ("tool", "a"),
        ("tool", "b"),
        ("user", None),
    ]


def test_a_fence_is_longer_than_those_in_its_body() -> None:
    made = ToolCall(id="a", name="python", arguments=json.dumps({"code": "x = '```'"}))
    text = action_of(Answer(text="So:", calls=[made], stop_reason=StopReason.EOS), "code")
    assert text == "So:\n````python\nx = '```'\n````"


LONG = refuse(400, "This model's maximum context length is 100 tokens")


def test_a_prompt_that_fits_without_room_for_all_tokens_is_answered(
    serve: Serve, connect: Open
) -> None:
    server = serve(lambda body, number: LONG if "max_tokens" in body else say("4"))
    assert ask(connect(server)).text == "4"


def test_a_conversation_that_outgrows_the_context_is_truncated_and_paid_nothing(
    serve: Serve, connect: Open
) -> None:
    def grows(body: dict[str, Any], number: int) -> Reply:
        return _uses_tool(body, number) if len(body["messages"]) == 1 else LONG

    (found,) = rollout([Episode(env=_sum_env("tags"), seed=0)], connect(serve(grows)))
    assert (found.reward, found.truncated, found.scored) == (0.0, True, True)
    assert found.completion.startswith("<tool_call>")


def test_a_prompt_longer_than_the_context_is_unscored(serve: Serve, connect: Open) -> None:
    (found,) = rollout([Episode(env=_env(), seed=0, index=0)], connect(serve(lambda b, n: LONG)))
    assert not found.scored
    assert "maximum context length" in found.verdict["evidence"]["reason"]


def test_the_command_evaluates_an_endpoint_and_neither_prints_nor_stores_the_key(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = serve(lambda body, number: say("I do not know", tokens=4))
    out = tmp_path / "samples.jsonl"
    words = ["eval", "rlvr/Arithmetic-v0 size=4", "--policy", "openai", "--model", "some/model"]
    words += ["--base-url", server.url, "--tasks", "4", "--price-out", "10", "--out", str(out)]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert f"policy openai: some/model at {server.url}" in printed.out
    figures = json.loads(out.with_suffix(".json").read_text())
    assert figures["usage"]["completion_tokens"] == 16
    assert figures["usage"]["cost"] == pytest.approx(16 * 10 / 1e6)
    written = printed.out + printed.err + out.read_text() + out.with_suffix(".json").read_text()
    assert KEY not in written


def test_training_is_refused_with_the_reason(serve: Serve, connect: Open) -> None:
    with pytest.raises(UsageError, match=r"evaluation alone.*log-probabilities"):
        TrainConfig.of(policy="openai", model="gpt-x")
    with pytest.raises(UsageError, match="evaluation alone"):
        connect(serve(lambda body, number: say("4"))).sync()


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:80", "ftp://host/v1", "http://", "http://host:port/", "http://h/?key=1"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="an address is like"):
        checked_url(url)


def test_secrets_that_would_leak_are_refused_without_being_shown() -> None:
    with pytest.raises(UsageError, match="holds a name or password") as caught:
        checked_url("http://me:hunter2@host/v1")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(UsageError, match="line break") as caught:
        checked_key("sk-1\nsk-2")
    assert "sk-2" not in str(caught.value)


def test_a_closed_endpoint_says_so() -> None:
    endpoint = Endpoint("http://127.0.0.1:9/v1")
    endpoint.close()
    endpoint.close()
    with pytest.raises(UsageError, match="has been closed"):
        endpoint.submit("/models")
