"""One vLLM server: the connections to it, the weights it has, and its recovery.

The weights of a server have a label. What it has lost by a restart is seen from it, and given back.
Weights change between two pauses: in the first, running completions are frozen where the server can
say afterwards which weights drew which tokens (from vLLM 0.32 on), else they are aborted with what
they have; then the cache is cleared, that of the frozen ones, too, so that they go on as if all
that they hold had been computed with the new weights.
"""

import asyncio
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from ..verifiers import ModelError, UsageError
from .endpoints import LOCAL, Endpoint, EndpointError, Patience
from .transports import Transport
from .vllm_drawing import Piece
from .vllm_masks import MOST_SHOWN
from .vllm_process import PROCESSOR, ServerProcess

GENERATE = "/inference/v1/generate"

LOADING = "loading"
"""Label of weights that are half old, half new."""

ADVICE = {
    401: "a server that is trained through asks for no key; start it without --api-key",
    403: "start it with --enable-scale-out",
    404: "a vLLM server from 0.26 on has this path: from 0.32 on with --enable-scale-out, and the "
    "paths that change weights with the environment variable VLLM_SERVER_DEV_MODE=1; "
    "rlvr.agents.vllm_process.start_server starts one with all that is needed",
    405: "start it with the environment variable VLLM_SERVER_DEV_MODE=1",
}
"""What to do about a status."""

STRIKES = 2
"""Requests that a server may leave unanswered, one after the other, before it is restarted."""


LOOK_SECONDS = 30.0
"""Seconds in which a server says that it is there."""

QUIET_SECONDS = 5.0
"""Seconds after which a server that said nothing may have been restarted: less than a start takes.
It is asked for its label then, because an answer that breaks off has none."""

PREEMPTED = re.compile(
    rb"^vllm:num_preemptions(?:_total)?(?:\{[^\n]*\})? ([0-9.e+]+)$", re.MULTILINE
)
"""Completions that a full cache has put back, in a server's metrics."""


class Server:
    """One server: its connections, and whether it has the weights that it should have."""

    def __init__(
        self,
        where: str | ServerProcess,
        timeout: float,
        recovery: float,
        transport: Transport,
        say: Callable[[str], None],
    ) -> None:
        self.process = where if isinstance(where, ServerProcess) else None
        self.url = where if isinstance(where, str) else where.url
        patience = Patience(timeout=timeout, attempts=3, concurrency=1 << 16)
        self.endpoint = Endpoint(self.url, patience, advice=ADVICE)
        self.recovery, self.transport, self._say = recovery, transport, say
        self.label = ""
        """Of the weights that it was last handed."""
        self.labelled = False
        """Whether it says which weights drew which tokens."""
        self.updates = 0
        """How often it was handed weights."""
        self.updating = False
        self.strikes = 0
        self.doubtful = False
        """Whether it may be gone, or have other weights."""
        self._heard = 0.0
        self._lock = threading.Lock()
        self._reviving = False
        if urlsplit(self.url).hostname not in LOCAL:
            say(
                f"warning: {self.url} is not on this machine; whoever reaches it can change its "
                "weights, so bind it to 127.0.0.1 or keep it behind a firewall"
            )

    async def draw(self, body: Mapping[str, Any]) -> Piece:
        """Ask once for a completion; what comes of a request that fails is what it had drawn.

        Raises:
            EndpointError: No request of the kind will do.
        """
        try:
            content = await self.endpoint.ask(GENERATE, body, attempts=1, raw=True)
        except EndpointError as error:
            if 400 <= error.status < 500 and error.status not in (408, 429):
                raise
            found = Piece.read(error.heard)
            found.trouble = str(error)
            return found
        self._heard = time.monotonic()
        return Piece.read(content)

    async def settled(self) -> str:
        """Wait for the end of an update; returns what is wrong with it after a time of silence."""
        while self.updating:
            await asyncio.sleep(0.01)
        if not self.labelled or time.monotonic() - self._heard < QUIET_SECONDS:
            return ""
        try:
            found = await self.endpoint.ask("/weight_info", attempts=1, timeout=LOOK_SECONDS)
        except EndpointError as error:
            return str(error)
        self._heard = time.monotonic()
        if found["weight_version"] == self.label:
            return ""
        return f"{self.url} has weights that were not handed: '{found['weight_version']}'"

    def tell(self, path: str, body: Any = None, **how: Any) -> Any:
        """Ask once, from a thread."""
        how = {"attempts": 1, "timeout": self.recovery, **how}
        return self.endpoint.submit(path, body, **how).result()

    def all(
        self, prompts: Sequence[Sequence[int]], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Draw behind prompts, all at the same time."""
        bodies = [{"token_ids": list(ids), "sampling_params": parameters} for ids in prompts]
        futures = [self.endpoint.submit(GENERATE, body) for body in bodies]
        return [future.result() for future in futures]

    def context(self) -> int:
        """Return the longest sequence in tokens."""
        found = self.tell("/v1/models")
        try:
            return int(found["data"][0]["max_model_len"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise UsageError(
                f"{self.url} is no vLLM server: /v1/models gives no max_model_len; give the "
                "address without /v1"
            ) from error

    def check(self, vocabulary: int) -> None:
        """Check that log-probabilities are those of the distribution drawn from.

        With one token allowed, that token's is 0; before processing it is the model's. So it is
        with a row of padding allowed besides, if that is cut off as it should be.

        Raises:
            UsageError: They are not.
        """
        if abs(self._allowed([0])) > 1e-3:
            raise UsageError(
                f"{self.url} gives log-probabilities of another distribution than it draws from; "
                "start it with --logprobs-mode processed_logprobs"
            )
        if abs(self._allowed([0, vocabulary])) > 1e-3:
            raise UsageError(
                f"{self.url} draws from more tokens than the tokenizer's {vocabulary}; start it "
                f"with --logits-processors {PROCESSOR} --additional-config "
                f"'{{\"vocabulary\": {vocabulary}}}'"
            )

    def _allowed(self, tokens: Sequence[int]) -> float:
        """Return log p of a token drawn from some alone; 0 if there are no such tokens."""
        asked = {"max_tokens": 1, "logprobs": 0, "temperature": 1.0, "detokenize": False}
        try:
            (found,) = self.all([[0]], {**asked, "allowed_token_ids": list(tokens)})
        except EndpointError as error:
            if error.status == 400 and len(tokens) > 1:  # the output layer has no padding
                return 0.0
            raise
        return float(found["choices"][0]["logprobs"]["content"][0]["logprob"])

    def lists(self, count: int) -> str:
        """Say why it cannot list so many of the likeliest tokens; empty if it can."""
        asked = {"max_tokens": 1, "logprobs": count, "temperature": 1.0, "detokenize": False}
        try:
            self.all([[0]], asked)
        except EndpointError as error:
            if error.status != 400:
                raise
            return (
                f"{self.url} does not list {count} tokens; start it with --max-logprobs "
                f"{MOST_SHOWN}"
            )
        return ""

    def strike(self, trouble: str) -> None:
        """Note a request without an answer; those that hang together count as one."""
        self.strikes += not self.doubtful
        self.doubt(trouble)

    def doubt(self, trouble: str) -> None:
        """Ask no more until it has been looked after."""
        if not self.doubtful:
            self._say(f"warning: {trouble}; what it was drawing is drawn again")
        self.doubtful = True

    def revive_aside(self, label: str) -> None:
        """Look after it while others draw."""
        if not self._reviving:
            self._reviving = True
            threading.Thread(target=self._revive_quietly, args=(label,), daemon=True).start()

    def _revive_quietly(self, label: str) -> None:
        try:
            self.revive(label)
        except CancelledError:
            pass  # the engine was closed meanwhile
        except (ModelError, UsageError) as error:
            self._say(f"warning: {error}")
        finally:
            self._reviving = False

    def revive(self, label: str) -> None:
        """Wait until it is back, restart it if it is ours, and hand it the weights if it lost them.

        Args:
            label: Of the weights that it should have; empty: whatever it has.

        Raises:
            ModelError: It does not come back.
        """
        with self._lock:
            if self.doubtful:
                self._mend(label, anew=False, keep=False)

    def bring(self, label: str, *, keep: bool) -> None:
        """Hand it the weights that were published last, whatever state it is in.

        Args:
            label: Their name.
            keep: Whether running completions go on with them.

        Raises:
            ModelError: It does not take them, or does not come back.
        """
        with self._lock:
            self._mend(label, anew=True, keep=keep)

    def _mend(self, label: str, *, anew: bool, keep: bool) -> None:
        """Try until it is well and has the weights."""
        deadline = time.monotonic() + self.recovery
        while True:
            try:
                self._look_after()
                has = self.has()
                if label and (anew or has != label):
                    self._take(label, keep=keep, again=self.doubtful or has != self.label)
                    if self.doubtful:
                        self._say(f"{self.url} is back and has been handed the weights")
                elif label:
                    self.tell("/resume", {})  # whoever may have paused it
                self.doubtful = False
                return
            except EndpointError as error:
                if 400 <= error.status < 500:
                    raise
                self.strikes += 1
                if time.monotonic() > deadline:
                    raise ModelError(
                        f"the server {self.url} has not come back within {self.recovery:g} s "
                        f"({error}); start it again, and resume the run"
                    ) from error
            time.sleep(0.2)

    def _look_after(self) -> None:
        if self.process and (not self.process.alive or self.strikes >= STRIKES):
            self._say(f"restarting {self.url}")
            self.process.restart()
            self.strikes = 0
        self.tell("/v1/models", timeout=LOOK_SECONDS)

    def has(self) -> str:
        """Return the label of its weights; empty where it keeps none."""
        try:
            found = str(self.tell("/weight_info", timeout=LOOK_SECONDS)["weight_version"])
        except EndpointError as error:
            if error.status != 404:  # before 0.32 there are no labels
                raise
            self.labelled = False
            return ""
        self.labelled, self._heard = True, time.monotonic()
        return found

    def _take(self, label: str, *, keep: bool, again: bool) -> None:
        """Have it load the published weights, while nothing is drawn."""
        keep = keep and self.labelled
        self.updating = True
        self.updates += 1
        try:
            self._pause(keep)
            self._name(LOADING)  # so that half of the weights have no good name
            self._load(again)
            self.forget(running=keep)
            self._name(label)
            self.label = label
            self.tell("/resume", {})
        except BaseException:
            self.doubtful = True
            self._free()
            raise
        finally:
            self.updating = False

    def _pause(self, keep: bool) -> None:
        """Stop drawing: freeze what runs, or have it end as it is."""
        self.tell("/pause?mode=keep&clear_cache=false" if keep else "/pause?mode=abort", {})

    def _free(self) -> None:
        """Let those who wait for frozen completions know that these do not go on."""
        with suppress(EndpointError):
            self._pause(keep=False)

    def _load(self, again: bool) -> None:
        try:
            self.transport.hand(self, again=again)
        except EndpointError as error:
            if error.status != 500 or not self._healthy():
                raise
            raise ModelError(f"{error}; {self.transport.advice}") from error

    def _healthy(self) -> bool:
        """Whether its engine lives."""
        try:
            self.tell("/health", timeout=LOOK_SECONDS)
        except EndpointError:
            return False
        return True

    def _name(self, label: str) -> None:
        try:
            self.tell("/update_weight_version", {"new_version": label})
        except EndpointError as error:
            if error.status != 404:
                raise

    def forget(self, *, running: bool = False) -> None:
        """Drop its cached prefixes; requests that are being aborted may still hold some.

        Args:
            running: Whether those of frozen completions are dropped, too, and computed again.
        """
        path = f"/reset_prefix_cache?reset_running_requests={str(running).lower()}"
        deadline = time.monotonic() + 30
        while not (self.tell(path, {}) or {"success": True})["success"]:
            if time.monotonic() > deadline:
                raise ModelError(f"{self.url} did not drop its cached prefixes")
            time.sleep(0.05)

    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return log p of every token but the first, over the whole output layer, in nats."""
        asked = {"max_tokens": 1, "prompt_logprobs": 0, "temperature": 1.0, "detokenize": False}
        found = self.all(sequences, asked)
        return [
            _scores(ids[1:], answer["prompt_logprobs"][1:])
            for ids, answer in zip(sequences, found, strict=True)
        ]

    def resume(
        self, prompts: Sequence[Sequence[int]], count: int
    ) -> list[tuple[list[int], list[float]]]:
        """Draw exactly `count` tokens behind each prompt, through the prefix cache."""
        asked: dict[str, Any] = {"max_tokens": count, "logprobs": 0, "temperature": 1.0, "seed": 0}
        found = self.all(prompts, {**asked, "ignore_eos": True, "detokenize": False})
        drawn = [answer["choices"][0] for answer in found]
        return [
            (one["token_ids"], [float(c["logprob"]) for c in one["logprobs"]["content"]])
            for one in drawn
        ]

    def preempted(self) -> float:
        """Return how many completions a full cache has put back since it was started."""
        try:
            text = self.tell("/metrics", raw=True, timeout=LOOK_SECONDS)
        except EndpointError:
            return 0.0
        return sum(float(count) for count in PREEMPTED.findall(text))

    def close(self) -> None:
        self.endpoint.close()
        if self.process:
            self.process.close()


def _scores(tokens: Sequence[int], ranked: Sequence[Mapping[str, Any]]) -> list[float]:
    return [float(table[str(t)]["logprob"]) for t, table in zip(tokens, ranked, strict=True)]
