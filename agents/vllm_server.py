"""vLLM in processes of its own: one or several servers, asked for token ids with token ids.

Weights reach a server as a safetensors file that both sides can read, under a label of which every
completion says by which it was drawn. So a server that has been restarted, and has the weights that
it started with, is noticed by its first answer: the answer is thrown away, the server is handed the
current weights, and the completion is drawn again. A request that is not answered in time is taken
back by closing its connection, and drawn again, elsewhere where there is another server.

An episode stays with its server, whose prefix cache knows it, as long as the server is well.

Covered: servers on this machine or ones that share a folder with it. Not covered: transfer over
NCCL; servers that serve others, too: an update of the weights aborts their requests.
"""

import asyncio
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from ..verifiers import ModelError, UsageError
from .draws import turn_seed
from .endpoints import EndpointError
from .types import Completion, Sampling, StopReason
from .vllm_control import GENERATE, Server
from .vllm_process import ServerProcess

DIFFER = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Mean gap in nats between two servers above which one has other weights; `HALF_PRECISION` else."""
HALF_PRECISION = 0.05


class ServerEngine:
    """An engine of one or several servers.

    Example:
        `ServerEngine(["http://127.0.0.1:8000"], vocabulary=len(tokenizer), end_ids=(2,))`
    """

    def __init__(
        self,
        servers: Sequence[str | ServerProcess],
        *,
        vocabulary: int,
        end_ids: Sequence[int],
        folder: str = "",
        timeout: float = 600.0,
        attempts: int = 6,
        recovery: float = 300.0,
        dtype: torch.dtype = torch.float32,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Take over running servers; they get the weights by `load`.

        Args:
            servers: Addresses, or processes, which are restarted if they end.
            vocabulary: Tokens that may be drawn.
            end_ids: Ids that end a completion.
            folder: Where weights are handed over; empty: in shared memory. Servers on other
                machines need one that they see under the same path.
            timeout: Seconds that one completion may take before it is drawn again.
            attempts: Draws of one completion at most.
            recovery: Seconds that a server may be away.
            dtype: What the servers compute in.
            say: Told what goes wrong and what is done about it.

        Raises:
            UsageError: There is no server, or one that cannot be trained through.
            ModelError: A server does not answer.
        """
        if not servers:
            raise UsageError("no server is named; give --server-url http://127.0.0.1:8000")
        self.vocabulary, self.end_ids, self.attempts = vocabulary, tuple(end_ids), attempts
        self.timeout, self.version, self.dtype, self._say = timeout, 0, dtype, say
        self.redone = 0
        """Completions that were drawn again."""
        self._folder = Path(tempfile.mkdtemp(prefix="rlvr-weights-", dir=folder or _memory()))
        self._name, self._loads = uuid.uuid4().hex[:8], 0
        self._weights: Path | None = None
        self._drawing = 0
        self._servers = [Server(one, timeout, recovery, say) for one in servers]
        try:
            self.context = min(server.context() for server in self._servers)
            for server in self._servers:
                server.check(vocabulary)
                server.label = server.has()
        except BaseException:
            self.close()
            raise

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Draw one completion; one that a server does not finish is drawn again.

        Raises:
            UsageError: The prompt is empty or leaves no room in the context.
            ModelError: No server drew it.
        """
        if not 0 < len(prompt_ids) < self.context:
            raise UsageError(
                f"a prompt must have 1 to {self.context - 1} tokens for these servers' context of "
                f"{self.context}, got {len(prompt_ids)}"
            )
        body = {
            "token_ids": [int(token) for token in prompt_ids],
            "sampling_params": self._parameters(prompt_ids, sampling),
        }
        self._drawing += 1
        try:
            return await self._drawn(body, sampling)
        finally:
            self._drawing -= 1

    async def _drawn(self, body: Mapping[str, Any], sampling: Sampling) -> Completion:
        trouble = ""
        for attempt in range(self.attempts):
            server = await self._well(sampling.seed, attempt)
            try:
                found = await server.ask(GENERATE, body, check=_problem)
            except EndpointError as error:
                if 400 <= error.status < 500 and error.status not in (408, 429):
                    raise
                trouble = str(error)
                server.strike(trouble)
            else:
                choice = found["choices"][0]
                drawn_by = {span["version"] for span in choice.get("weight_versions") or ()}
                if drawn_by <= {server.label}:
                    server.strikes = 0
                    return self._completion(choice)
                trouble = f"{server.url} has other weights than it was handed ({drawn_by})"
                server.doubt(trouble)
            self.redone += 1
        raise ModelError(f"a completion failed {self.attempts} times, at last: {trouble}")

    async def _well(self, seed: int, attempt: int) -> Server:
        """Return an episode's server, or another one while it is not well."""
        count = len(self._servers)
        order = [self._servers[(seed + attempt + i) % count] for i in range(count)]
        well = [server for server in order if not server.doubtful]
        for server in order:
            if server.doubtful and well:
                server.revive_aside(self._weights)
        if not well:
            await asyncio.to_thread(order[0].revive, self._weights)
        return well[0] if well else order[0]

    def _parameters(self, prompt_ids: Sequence[int], sampling: Sampling) -> dict[str, Any]:
        return {
            "max_tokens": min(sampling.max_tokens, self.context - len(prompt_ids)),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "stop": list(sampling.stop),
            "detokenize": bool(sampling.stop),
            "stop_token_ids": list(self.end_ids),
            "seed": turn_seed(sampling.seed, len(prompt_ids)),
            "logprobs": 0,
        }

    def _completion(self, choice: Mapping[str, Any]) -> Completion:
        tokens = choice["token_ids"]
        if max(tokens, default=0) >= self.vocabulary:
            raise ModelError(
                f"a server drew token {max(tokens)} of {self.vocabulary}: it does not run the "
                "logits processor VocabularyLimit"
            )
        reasons = {"stop": StopReason.EOS, "length": StopReason.LENGTH}
        stopped = isinstance(choice.get("stop_reason"), str)
        return Completion(
            tokens=tokens,
            logprobs=[one["logprob"] for one in choice["logprobs"]["content"]],
            stop_reason=StopReason.STOP if stopped else reasons[choice["finish_reason"]],
            version=self.version,
        )

    def load(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Hand all servers new weights, and have them forget every cached prefix.

        Raises:
            UsageError: Completions are being drawn, or a server cannot be handed weights.
            ModelError: A server did not take them.
        """
        if self._drawing:
            raise UsageError(
                f"weights cannot change while {self._drawing} completions are being drawn; wait "
                "for them"
            )
        self._loads += 1
        folder = self._folder / f"{self._name}-{self._loads}"
        _write(weights, folder)
        former, self._weights = self._weights, folder
        with ThreadPoolExecutor(len(self._servers)) as pool:
            list(pool.map(lambda server: server.bring(folder), self._servers))
        if former is not None:
            shutil.rmtree(former)
        self.forget()
        self.version = version

    def forget(self) -> None:
        """Drop all cached prefixes: they were computed with other weights.

        Raises:
            ModelError: A server kept them.
        """
        for server in self._servers:
            server.forget()

    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return log p of every token but the first, over the whole output layer, in nats.

        Raises:
            ModelError: Two servers differ.
        """
        asked = {"max_tokens": 1, "prompt_logprobs": 0, "temperature": 1.0, "detokenize": False}
        found = [
            [
                _scores(ids[1:], answer["prompt_logprobs"][1:])
                for ids, answer in zip(sequences, server.all(sequences, asked), strict=True)
            ]
            for server in self._servers
        ]
        rows = [torch.tensor([*chain(*one)], dtype=torch.float64) for one in found]
        for server, row in zip(self._servers, rows, strict=True):
            gap = float((row - rows[0]).abs().mean())
            if not gap <= DIFFER.get(self.dtype, HALF_PRECISION):
                raise ModelError(
                    f"the servers {self._servers[0].url} and {server.url} differ by {gap:.3g} nats "
                    "on average: one of them has other weights, or computes in another dtype"
                )
        return found[0]

    def resume(
        self, prompts: Sequence[Sequence[int]], count: int
    ) -> list[tuple[list[int], list[float]]]:
        """Draw exactly `count` tokens behind each prompt, through the prefix cache.

        The prompts are dealt out, so that each server's cache is looked at.
        """
        asked: dict[str, Any] = {"max_tokens": count, "logprobs": 0, "temperature": 1.0, "seed": 0}
        asked |= {"ignore_eos": True, "detokenize": False}
        dealt = [self._servers[i % len(self._servers)] for i in range(len(prompts))]
        found = [
            server.all([prompt], asked)[0]["choices"][0]
            for server, prompt in zip(dealt, prompts, strict=True)
        ]
        return [
            (one["token_ids"], [float(c["logprob"]) for c in one["logprobs"]["content"]])
            for one in found
        ]

    def close(self) -> None:
        """Drop the connections and the weights' file, and end the processes that were handed in."""
        for server in self._servers:
            server.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _problem(found: Any) -> str:
    """Say what is wrong with a completion; empty if nothing is."""
    try:
        (choice,) = found["choices"]
        tokens, content = choice["token_ids"], choice["logprobs"]["content"]
        good = [one["token_id"] for one in content] == tokens
        good = good and all(isinstance(one["logprob"], float | int) for one in content)
        reason = choice["finish_reason"]
    except (KeyError, TypeError, ValueError):
        return f"an answer that is no completion: {found!r:.200}"
    if reason not in ("stop", "length"):
        return f"a completion that ended with {reason!r}"
    return "" if good else "log-probabilities of other tokens"


def _scores(tokens: Sequence[int], ranked: Sequence[Mapping[str, Any]]) -> list[float]:
    return [float(table[str(t)]["logprob"]) for t, table in zip(tokens, ranked, strict=True)]


def _memory() -> str | None:
    """Return the folder of shared memory, where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _write(weights: Iterable[tuple[str, torch.Tensor]], folder: Path) -> None:
    """Write weights as a checkpoint; a tensor under two names is written twice."""
    from safetensors.torch import save_file

    seen: set[int] = set()
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in weights:
        plain = tensor.detach().cpu().contiguous()
        tensors[name] = plain.clone() if plain.data_ptr() in seen else plain
        seen.add(plain.data_ptr())
    folder.mkdir(parents=True)
    try:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    except OSError as error:
        raise ModelError(
            f"the weights could not be written to '{folder}' ({error}); give --server-folder a "
            "folder with room for them"
        ) from error
