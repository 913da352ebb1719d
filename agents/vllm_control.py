"""One vLLM server: the connections to it, the weights it has, and its recovery.

The weights of a server have a label. What it has lost by a restart is seen from it, and given back.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..verifiers import ModelError, UsageError
from .endpoints import LOCAL, Endpoint, EndpointError, Patience
from .vllm_process import PROCESSOR, ServerProcess

GENERATE = "/inference/v1/generate"
PAUSE = "/pause?mode=abort"

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


class Server:
    """One server: its connections, and whether it has the weights that it should have."""

    def __init__(
        self,
        where: str | ServerProcess,
        timeout: float,
        recovery: float,
        say: Callable[[str], None],
    ) -> None:
        self.process = where if isinstance(where, ServerProcess) else None
        self.url = where if isinstance(where, str) else where.url
        patience = Patience(timeout=timeout, attempts=3, concurrency=1 << 16)
        self.endpoint = Endpoint(self.url, patience, advice=ADVICE)
        self.recovery, self.label, self.strikes, self._say = recovery, "", 0, say
        self.doubtful = False
        """Whether it may be gone, or have other weights."""
        self._lock = threading.Lock()
        self._reviving = False
        if urlsplit(self.url).hostname not in LOCAL:
            say(
                f"warning: {self.url} is not on this machine; whoever reaches it can change its "
                "weights, so bind it to 127.0.0.1 or keep it behind a firewall"
            )

    async def ask(self, path: str, body: Any, **how: Any) -> Any:
        """Ask once."""
        return await self.endpoint.ask(path, body, attempts=1, **how)

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

    def strike(self, trouble: str) -> None:
        """Note a request without an answer; those that hang together count as one."""
        self.strikes += not self.doubtful
        self.doubt(trouble)

    def doubt(self, trouble: str) -> None:
        """Ask no more until it has been looked after."""
        if not self.doubtful:
            self._say(f"warning: {trouble}; what it was drawing is drawn again")
        self.doubtful = True

    def revive_aside(self, weights: Path | None) -> None:
        """Look after it while others draw."""
        if not self._reviving:
            self._reviving = True
            threading.Thread(target=self._revive_quietly, args=(weights,), daemon=True).start()

    def _revive_quietly(self, weights: Path | None) -> None:
        try:
            self.revive(weights)
        except ModelError as error:
            self._say(f"warning: {error}")
        finally:
            self._reviving = False

    def revive(self, weights: Path | None) -> None:
        """Wait until it is back, restart it if it is ours, and hand it the weights if it lost them.

        Raises:
            ModelError: It does not come back.
        """
        with self._lock:
            if self.doubtful:
                self._mend(weights, anew=False)

    def bring(self, weights: Path) -> None:
        """Hand it new weights, whatever state it is in.

        Raises:
            ModelError: It does not take them, or does not come back.
        """
        with self._lock:
            self._mend(weights, anew=True)

    def _mend(self, weights: Path | None, *, anew: bool) -> None:
        """Try until it is well and has the weights."""
        deadline = time.monotonic() + self.recovery
        while True:
            try:
                self._look_after()
                if weights is not None and (anew or self.has() != weights.name):
                    self._take(weights)
                    if self.doubtful:
                        self._say(f"{self.url} is back and has been handed the weights")
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
            return str(self.tell("/weight_info", timeout=LOOK_SECONDS)["weight_version"])
        except EndpointError as error:
            if error.status != 404:  # before 0.32 there are no labels
                raise
            return ""

    def _take(self, weights: Path) -> None:
        """Have it load a folder's weights, while nothing is drawn."""
        self.tell(PAUSE, {})
        self._name("loading")  # so that half of the weights have no good name
        try:
            asked = {"method": "reload_weights", "kwargs": {"weights_path": str(weights)}}
            self.tell("/collective_rpc", asked)
        except EndpointError as error:
            if error.status != 500 or not self._healthy():
                raise
            raise ModelError(
                f"{error}; the server must see the folder {weights.parent}: on another machine or "
                "in a container, give --server-folder a folder that both share"
            ) from error
        self.forget()
        self._name(weights.name)
        self.label = weights.name
        self.tell("/resume", {})

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

    def forget(self) -> None:
        """Drop its cached prefixes; requests that are being aborted may still hold some."""
        deadline = time.monotonic() + 30
        while not (self.tell("/reset_prefix_cache", {}) or {"success": True})["success"]:
            if time.monotonic() > deadline:
                raise ModelError(f"{self.url} did not drop its cached prefixes")
            time.sleep(0.05)

    def close(self) -> None:
        self.endpoint.close()
        if self.process:
            self.process.close()
