"""vLLM in processes of its own: one or several servers, asked for token ids with token ids.

Weights reach a server by a transport, under a label of which every completion says by which it was
drawn. So a server that has been restarted, and has the weights that it started with, is noticed by
its first answer: the tokens are thrown away, the server is handed the current weights, and they are
drawn again. A request that is not answered in time is taken back by closing its connection. What a
request had drawn by the right weights when it was aborted, hung or lost its server is kept, and the
next one continues behind it, elsewhere where there is another server.

Weights may change while completions are drawn (`load(..., in_flight=True)`): these go on with the
new ones, and say which weights drew which tokens (`Completion.spans`).

An episode stays with its server, whose prefix cache knows it, as long as the server is well.

Covered: servers on this machine or ones that share a folder or a CUDA device with it. Not covered:
servers that serve others, too: an update of the weights aborts their requests; servers before 0.32
that somebody else restarts: they have no labels, and are noticed at the next update alone.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from ..verifiers import ModelError, UsageError
from . import vllm_masks, vllm_requests
from .transports import FileTransport, Transport, new_name
from .types import Completion, Sampling
from .vllm_control import Server
from .vllm_drawing import Drawing
from .vllm_process import STREAMED, ServerProcess


class ServerEngine:
    """An engine of one or several servers.

    Example:
        `ServerEngine(["http://127.0.0.1:8000"], vocabulary=len(tokenizer), end_ids=(2,))`
    """

    apart = True
    """Whether it draws in other processes."""

    def __init__(
        self,
        servers: Sequence[str | ServerProcess],
        *,
        vocabulary: int,
        end_ids: Sequence[int],
        transport: Transport | None = None,
        decode: Callable[[Sequence[int]], str] | None = None,
        timeout: float = 600.0,
        attempts: int = 6,
        recovery: float = 300.0,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Take over running servers; they get the weights by `load`.

        Args:
            servers: Addresses, or processes, which are restarted if they end.
            vocabulary: Tokens that may be drawn.
            end_ids: Ids that end a completion.
            transport: How weights get there; `None`: by files in shared memory.
            decode: As for `Drawing`.
            timeout: Seconds that one request may take before it is taken back.
            attempts: Requests in a row for one completion that bring nothing, at most.
            recovery: Seconds that a server may be away.
            say: Told what goes wrong and what is done about it.

        Raises:
            UsageError: There is no server, or one that cannot be trained through.
            ModelError: A server does not answer.
        """
        if not servers:
            raise UsageError("no server is named; give --server-url http://127.0.0.1:8000")
        self.vocabulary, self.end_ids, self.attempts = vocabulary, tuple(end_ids), attempts
        self.transport = transport or FileTransport()
        self.redone = self.continued = self.tokens_kept = 0
        """Requests that were made again, those of them that went on behind tokens drawn before, and
        these tokens."""
        self._decode, self._say = decode, say
        self.version = 0
        self._name, self._label, self._settled = new_name(), "", ""
        self._numbers: dict[str, tuple[int, int]] = {}
        """From the label of each load to its number and version."""
        self._drawing, self._preempted = 0, 0.0
        self._servers = [Server(one, timeout, recovery, self.transport, say) for one in servers]
        try:
            self.context = min(server.context() for server in self._servers)
            for server in self._servers:
                server.check(vocabulary)
                server.label = server.has()
        except BaseException:
            self.close()
            raise

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Draw one completion, by further requests where one does not finish it.

        Raises:
            UsageError: The prompt is empty or leaves no room in the context.
            ModelError: No server drew it.
        """
        vllm_requests.check_prompt(len(prompt_ids), self.context)
        drawing = Drawing(
            [int(token) for token in prompt_ids],
            sampling,
            context=self.context,
            vocabulary=self.vocabulary,
            end_ids=self.end_ids,
            decode=self._decode,
        )
        self._drawing += 1
        try:
            await self._draw(drawing)
        finally:
            self._drawing -= 1
        return drawing.completion()

    async def _draw(self, drawing: Drawing) -> None:
        """Ask servers until a completion has ended."""
        vain = 0
        while drawing.stop_reason is None:
            server = await self._well(drawing.sampling.seed, vain)
            trouble = await server.settled()
            if trouble:
                server.doubt(trouble)
            else:
                trouble = await self._ask(server, drawing)
            if drawing.stop_reason is not None:
                return
            vain = vain + 1 if trouble else 0
            if vain >= self.attempts:
                raise ModelError(f"a completion failed {vain} times in a row, at last: {trouble}")

    async def _ask(self, server: Server, drawing: Drawing) -> str:
        """Send one request; returns what was wrong, unless it brought tokens nevertheless."""
        label, updates, before = server.label, server.updates, len(drawing.tokens)
        piece = await server.draw(self._body(drawing, server))
        floor = self._numbers.get(label, (0, 0))[0]

        def version(found: str | None) -> int | None:
            name = label if found is None else found
            number, version = self._numbers.get(name, (-1, 0))
            if number < floor:
                return None
            return self.version if name == self._settled else version

        trouble = drawing.add(piece, version)
        if drawing.stop_reason is not None:
            server.strikes = 0
            return ""
        self.redone += 1
        gained = len(drawing.tokens) - before
        self.continued += gained > 0
        self.tokens_kept += gained
        if server.updates != updates or server.updating:
            return ""  # an update took it: no fault of anybody's
        trouble = trouble or "a completion that somebody aborted"
        if piece.finish:
            server.doubt(f"{server.url} has {trouble}")
        else:
            server.strike(trouble)
        return "" if gained else trouble

    async def _well(self, seed: int, attempt: int) -> Server:
        """Return an episode's server, or another one while it is not well."""
        count = len(self._servers)
        order = [self._servers[(seed + attempt + i) % count] for i in range(count)]
        well = [server for server in order if not server.doubtful]
        for server in order:
            if server.doubtful and well:
                server.revive_aside(self._label)
        if not well:
            await asyncio.to_thread(order[0].revive, self._label)
        return well[0] if well else order[0]

    def _body(self, drawing: Drawing, server: Server) -> dict[str, Any]:
        pieces = {"stream_interval": STREAMED} if server.labelled else {}  # known as long as labels
        parameters = vllm_requests.drawn(
            drawing.sampling,
            tokens=drawing.left,
            seed=drawing.seed,
            end_ids=self.end_ids,
            vocabulary=self.vocabulary,
        )
        return {
            **server.named,
            "token_ids": [*drawing.prompt, *drawing.tokens],
            "sampling_params": {**parameters, **pieces},
            "stream": True,
        }

    def mask_problem(self, sampling: Sampling) -> str:
        """Say why `Completion.kept` cannot be known; empty if it can."""
        asked = vllm_masks.shown(sampling, self.vocabulary)
        if not asked:
            return vllm_masks.problem(sampling)
        return next(filter(None, (server.lists(asked) for server in self._servers)), "")

    def load(
        self,
        weights: Iterable[tuple[str, torch.Tensor]],
        version: int,
        *,
        in_flight: bool = False,
    ) -> None:
        """Hand all servers new weights, and have them forget every cached prefix.

        Args:
            weights: Names of a checkpoint, and their tensors.
            version: How the caller counts them.
            in_flight: Whether completions that are being drawn go on with them, from another
                thread than this one; without it there may be none.

        Raises:
            UsageError: Completions are being drawn, or a server cannot be handed weights.
            ModelError: A server did not take them.
        """
        if self._drawing and not in_flight:
            raise UsageError(
                f"weights cannot change while {self._drawing} completions are being drawn; wait "
                "for them, or load with in_flight=True"
            )
        number = len(self._numbers) + 1
        label = f"{self._name}-{number}"
        self.transport.publish(weights, label)
        if self._settled:
            self._numbers[self._settled] = (self._numbers[self._settled][0], self.version)
        self._numbers[label], self._label, self._settled = (number, version), label, ""
        with ThreadPoolExecutor(len(self._servers)) as pool:
            list(pool.map(lambda server: server.bring(label, keep=in_flight), self._servers))
        self.transport.drop_former()
        self.version, self._settled = version, label

    @property
    def adapters(self) -> Transport | None:
        """How adapters get there, if they are served beside the weights."""
        return self.transport if self.transport.names else None

    @property
    def updates_in_flight(self) -> bool:
        """Whether `load` and `adapt` can leave completions running while the canary looks."""
        return all(server.scores_together for server in self._servers)

    def adapt(
        self, tensors: Mapping[str, torch.Tensor], version: int, *, in_flight: bool = False
    ) -> None:
        """Hand all servers new adapters in place of the former ones.

        Args:
            tensors: Under the names of peft's files.
            version: As for `load`.
            in_flight: As for `load`; what is being drawn by the former ones is taken back, and goes
                on behind its tokens with the new ones.

        Raises:
            UsageError: Completions are being drawn, or the servers were started without adapters.
            ModelError: A server did not take them.
        """
        if self.adapters is None:
            raise UsageError("the servers serve no adapters; load the weights, merged")
        self.load(tensors.items(), version, in_flight=in_flight)

    def forget(self) -> None:
        """Drop all cached prefixes: they were computed with other weights.

        Raises:
            ModelError: A server kept them.
        """
        for server in self._servers:
            server.forget()

    def copies(self) -> Mapping[str, Server]:
        """Return what has weights of its own, by address: each is compared with the learner."""
        return {server.url: server for server in self._servers}

    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return the first server's log p of every token but the first, in nats."""
        return self._servers[0].score(sequences)

    def resume(
        self, prompts: Sequence[Sequence[int]], count: int
    ) -> list[tuple[list[int], list[float]]]:
        """Draw exactly `count` tokens behind each prompt, through the first server's cache."""
        return self._servers[0].resume(prompts, count)

    def figures(self) -> dict[str, float]:
        """Return what went wrong so far, for a step's metrics, and say when caches were full."""
        now = sum(server.preempted() for server in self._servers)
        fresh = now - self._preempted if now >= self._preempted else now
        if fresh:
            self._say(
                f"warning: the servers' key-value cache was full: {fresh:.0f} completions had to "
                "wait and be computed again; nothing is lost but time: start the servers with more "
                "--gpu-memory-utilization, or draw fewer at a time (--max-rows)"
            )
        self._preempted = now
        return {
            "server/redone": float(self.redone),
            "server/continued": float(self.continued),
            "server/tokens_kept": float(self.tokens_kept),
            "server/preempted": fresh,
        }

    def close(self) -> None:
        """Drop connections and transport, and end the processes that were handed in."""
        for server in self._servers:
            server.close()
        self.transport.close()
