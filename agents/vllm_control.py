"""One vLLM server: the weights it has, and its recovery.

The weights of a server have a label. What it has lost by a restart is seen from it, and given back.
Weights change between two pauses: in the first, running completions are frozen where the server can
say afterwards which weights drew which tokens (from vLLM 0.32 on), else they are aborted with what
they have; then the cache is cleared, that of the frozen ones, too, so that they go on as if all
that they hold had been computed with the new weights.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

from ..verifiers import ModelError, UsageError
from .endpoints import EndpointError
from .transports import Transport
from .vllm_drawing import Piece
from .vllm_endpoint import GENERATE, LOOK_SECONDS, VLLMEndpoint
from .vllm_process import ServerProcess

LOADING = "loading"
"""Label of weights that are half old, half new."""

STRIKES = 2
"""Requests that a server may leave unanswered, one after the other, before it is restarted."""


QUIET_SECONDS = 5.0
"""Seconds after which a server that said nothing may have been restarted: less than a start takes.
It is asked for its label then, because an answer that breaks off has none."""


class Server(VLLMEndpoint):
    """One server, and whether it has the weights that it should have."""

    def __init__(
        self,
        where: str | ServerProcess,
        timeout: float,
        recovery: float,
        transport: Transport,
        say: Callable[[str], None],
    ) -> None:
        super().__init__(where, timeout, recovery, say)
        self.transport = transport
        self.label = ""
        """Of the weights that it was last handed."""
        self.labelled = False
        """Whether it keeps a label of its weights."""
        self._under_way: set[object] = set()
        """Requests for completions that have not been answered."""
        self.updates = 0
        """How often it was handed weights."""
        self.updating = False
        self.strikes = 0
        self.doubtful = False
        """Whether it may be gone, or have other weights."""
        self._heard = 0.0
        self._lock = threading.Lock()
        self._reviving = False

    async def draw(self, body: Mapping[str, Any]) -> Piece:
        """Ask once for a completion; what comes of a request that fails is what it had drawn.

        Raises:
            EndpointError: No request of the kind will do.
        """
        mark = object()
        self._under_way.add(mark)
        try:
            if self.named and self.updating:  # an update waits for the end of what it finds here
                return Piece(trouble="an update of the adapters")
            content = await self.endpoint.ask(GENERATE, body, attempts=1, raw=True)
        except EndpointError as error:
            unknown = error.status == 404 and "model" in body  # adapters that it does not have
            if 400 <= error.status < 500 and error.status not in (408, 429) and not unknown:
                raise
            found = Piece.read(error.heard)
            found.trouble = str(error)
            return found
        finally:
            self._under_way.discard(mark)
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
        # where tokens do not tell, or a request keeps its adapters, completions are aborted
        keep = keep and self.says_weights and not self.transport.names
        self.updating = True
        self.updates += 1
        try:
            self._pause(keep)
            if self.transport.names:
                self._take_back()
            self._name(LOADING)  # so that half of the weights have no good name
            self._load(again)
            self.forget(running=keep)
            self._name(label)
            self.named = {"model": label} if self.transport.names else {}
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

    def _take_back(self) -> None:
        """Wait until nothing is asked for by the name of adapters that are about to go.

        A request that came behind the pause waits in the server, and would load them again.
        """
        deadline = time.monotonic() + LOOK_SECONDS
        while self._under_way:
            if time.monotonic() > deadline:
                raise EndpointError(
                    f"{self.url} holds on to {len(self._under_way)} requests in a pause"
                )
            time.sleep(0.01)
            self._pause(keep=False)

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
