"""What one vLLM server is asked for: facts about it, log-probabilities, tokens behind prompts."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ..verifiers import UsageError
from .endpoints import LOCAL, Endpoint, EndpointError, Patience
from .vllm_masks import MOST_SHOWN
from .vllm_process import PROCESSOR, TARGETS, ServerProcess
from .vllm_requests import SCORED, Parameters, resumed

GENERATE = "/inference/v1/generate"

ADVICE = {
    401: "a server that is trained through asks for no key; start it without --api-key",
    403: "start it with --enable-scale-out",
    404: "a vLLM server from 0.26 on has this path: from 0.32 on with --enable-scale-out, and the "
    "paths that change weights with the environment variable VLLM_SERVER_DEV_MODE=1; "
    "rlvr.agents.vllm_process.start_server starts one with all that is needed",
    405: "start it with the environment variable VLLM_SERVER_DEV_MODE=1",
}
"""What to do about a status."""

LOOK_SECONDS = 30.0
"""Seconds in which a server says that it is there."""

PREEMPTED = re.compile(
    rb"^vllm:num_preemptions(?:_total)?(?:\{[^\n]*\})? ([0-9.e+]+)$", re.MULTILINE
)
"""Completions that a full cache has put back, in a server's metrics."""


class VLLMEndpoint:
    """One server, asked."""

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
        self.recovery, self._say = recovery, say
        self.named: dict[str, str] = {}
        """What a request names the adapters by that draw it; nothing where there are none."""
        self.says_weights = False
        """Whether completions say which weights drew which tokens."""
        if urlsplit(self.url).hostname not in LOCAL:
            say(
                f"warning: {self.url} is not on this machine; whoever reaches it can change its "
                "weights, so bind it to 127.0.0.1 or keep it behind a firewall"
            )

    def tell(self, path: str, body: Any = None, **how: Any) -> Any:
        """Ask once, from a thread."""
        how = {"attempts": 1, "timeout": self.recovery, **how}
        return self.endpoint.submit(path, body, **how).result()

    def all(self, prompts: Sequence[Sequence[int]], parameters: Parameters) -> list[dict[str, Any]]:
        """Draw behind prompts, all at the same time."""
        asked = {**self.named, "sampling_params": parameters}
        bodies = [{**asked, "token_ids": list(ids)} for ids in prompts]
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
        (drawn,) = found["choices"]
        self.says_weights = bool(drawn.get("weight_versions"))
        return float(drawn["logprobs"]["content"][0]["logprob"])

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

    @property
    def scores_together(self) -> bool:
        """Whether it can score a prompt while it computes anything else."""
        words = self.process.words if self.process else ()
        return "--enable-lora" not in words or TARGETS in words  # else its output layer is adapted

    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return log p of every token but the first, over the whole output layer, in nats."""
        if self.scores_together:
            found = self.all(sequences, SCORED)
        else:
            found = [self.all([ids], SCORED)[0] for ids in sequences]
        return [
            _scores(ids[1:], answer["prompt_logprobs"][1:])
            for ids, answer in zip(sequences, found, strict=True)
        ]

    def resume(
        self, prompts: Sequence[Sequence[int]], count: int
    ) -> list[tuple[list[int], list[float]]]:
        """Draw exactly `count` tokens behind each prompt, through the prefix cache."""
        drawn = [answer["choices"][0] for answer in self.all(prompts, resumed(count))]
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
