"""Any OpenAI-compatible endpoint as a policy, for evaluation.

It answers messages through `/chat/completions`: text, and tool calls where the environment lists
tools. There are no token ids and no log-probabilities of the distribution drawn from, so nothing
can be learned from its samples, and training with it is refused.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..verifiers import UsageError
from .draws import turn_seed
from .endpoints import Endpoint, EndpointError, Patience
from .messages import Answer, ToolCall
from .policies import check_trains
from .types import Sampling, StopReason

OPENAI = "https://api.openai.com/v1"
"""Where to ask if nothing else is said."""

NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
"""Values that change nothing. They are sent, because servers have defaults of their own, and left
out for an endpoint that refuses them."""

_TOO_LONG = re.compile(
    r"context_length_exceeded|(maximum|max|model'?s) (context|model|input) len"
    r"|context (length|window)|prompt is too long|too many tokens|max_model_len",
    re.IGNORECASE,
)

ADVICE = {
    400: "see what it says; if it is about tools, give the environment describe=true",
    401: "set OPENAI_API_KEY to a key of this endpoint",
    402: "the account has run out of credit",
    403: "this key may not do that; set OPENAI_API_KEY to one that may",
    404: "check --model, and --base-url, which mostly ends in /v1",
    422: "see what it says; if it is about tools, give the environment describe=true",
    429: "the account's quota is used up",
}
"""What to do about a status."""


@dataclass(kw_only=True)
class Usage:
    """What an endpoint was asked for so far, as it counts itself."""

    prompt_tokens: int = 0
    """Tokens read."""
    completion_tokens: int = 0
    """Tokens written, hidden reasoning included."""
    uncounted: int = 0
    """Answers that came without counts."""
    filtered: int = 0
    """Answers that a content filter cut off."""

    def add(self, counts: Any) -> int:
        """Add the counts of an answer; returns the tokens that it has."""
        read, written = (
            counts.get(name) if isinstance(counts, dict) else None
            for name in ("prompt_tokens", "completion_tokens")
        )
        if type(read) is not int or type(written) is not int:
            self.uncounted += 1
            return 0
        self.prompt_tokens += read
        self.completion_tokens += written
        return written


class OpenAIPolicy:
    """A model behind an OpenAI-compatible endpoint, as a `MessagePolicy`.

    Example:
        `OpenAIPolicy("gpt-4.1-mini")`, or `OpenAIPolicy("my-model", "http://127.0.0.1:8000/v1")`
    """

    def __init__(
        self,
        model: str,
        url: str = "",
        patience: Patience | None = None,
        *,
        prices: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Take over an endpoint; nothing is asked yet. The key is `OPENAI_API_KEY`, if set.

        Args:
            model: Its name there.
            url: The address before `/chat/completions`; empty: `OPENAI_BASE_URL`, else OpenAI's.
            patience: How often and how fast it is asked.
            prices: Of a million tokens read and a million written, in any currency.

        Raises:
            UsageError: An argument or the key cannot be used.
        """
        if not model:
            raise UsageError("a model has a name at its endpoint, got an empty one; give --model")
        if not all(price >= 0 for price in prices):
            raise UsageError(f"prices must be at least 0 per million tokens, got {prices}")
        key = os.environ.get("OPENAI_API_KEY", "")
        address = url or os.environ.get("OPENAI_BASE_URL", "") or OPENAI
        self.model, self.prices = model, prices
        self.endpoint = Endpoint(address, patience, key=key, advice=ADVICE)
        self.usage = Usage()
        self._without: set[str] = set()
        self._limit = "max_tokens"

    @property
    def cost(self) -> float:
        """What the tokens cost at `prices`."""
        counts = (self.usage.prompt_tokens, self.usage.completion_tokens)
        return sum(price * count for price, count in zip(self.prices, counts, strict=True)) / 1e6

    async def reply(
        self,
        messages: Sequence[Mapping[str, Any]],
        sampling: Sampling,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Answer:
        """Answer a conversation.

        Raises:
            EndpointError: There is no answer; `outgrown` if the conversation is too long.
        """
        wanted = _parameters(sampling, turn_seed(sampling.seed, len(messages)))
        fixed = {"model": self.model, "messages": list(messages)}
        if tools:
            fixed["tools"] = list(tools)
        unlimited = False
        while True:
            body = {**fixed, **self._taken(wanted)}
            if not unlimited:
                body[self._limit] = sampling.max_tokens
            try:
                found = await self.endpoint.ask("/chat/completions", body, check=_problem)
                return self._answer(found)
            except EndpointError as error:
                if self._adapts(error, body):
                    continue
                error.outgrown = _is_too_long(error)
                if unlimited or not error.outgrown:
                    raise
                unlimited = True  # a prompt that fits with less room than max_tokens

    def _taken(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters without those that the endpoint refuses and that change nothing."""
        spare = {n for n in self._without if n not in NEUTRAL or wanted[n] == NEUTRAL[n]}
        return {name: value for name, value in wanted.items() if name not in spare}

    def _adapts(self, error: EndpointError, body: Mapping[str, Any]) -> bool:
        """Do without a parameter that the endpoint refuses; returns whether there is one."""
        if error.status not in (400, 422) or _is_too_long(error):
            return False
        if "max_tokens" in body and "max_completion_tokens" in error.said:
            self._limit = "max_completion_tokens"
            return True
        named = [n for n in (*NEUTRAL, "seed") if n in body and re.search(rf"\b{n}\b", error.said)]
        spare = {n for n in named if n == "seed" or body[n] == NEUTRAL[n]}
        self._without |= spare
        return bool(spare)

    def _answer(self, found: Mapping[str, Any]) -> Answer:
        choice = found["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        self.usage.filtered += reason == "content_filter"
        return Answer(
            text=message.get("content") or message.get("refusal") or "",
            calls=[_call(one, n) for n, one in enumerate(message.get("tool_calls") or ())],
            stop_reason=StopReason.LENGTH if reason == "length" else StopReason.EOS,
            tokens=self.usage.add(found.get("usage")),
        )

    def figures(self) -> dict[str, float]:
        """Return what the evaluation has taken, for its report."""
        counted = {"requests": self.endpoint.requests, "retries": self.endpoint.retries}
        counted |= asdict(self.usage)
        return {**counted, "cost": self.cost}

    def sync(self, weights: Any = None) -> int:
        """Refuse: there are no weights to be changed.

        Raises:
            UsageError: Always.
        """
        check_trains("openai")
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Drop the connections."""
        self.endpoint.close()


def _parameters(sampling: Sampling, seed: int) -> dict[str, Any]:
    wanted: dict[str, Any] = {name: getattr(sampling, name) for name in NEUTRAL}
    wanted["seed"] = seed
    if sampling.stop:
        wanted["stop"] = list(sampling.stop)
    return wanted


def _is_too_long(error: EndpointError) -> bool:
    return error.status in (400, 413, 422) and bool(_TOO_LONG.search(error.said))


def _problem(found: Any) -> str:
    """Say what is wrong with an answer; empty if nothing is."""
    try:
        (choice,) = found["choices"]
        message = choice["message"]
        content, calls = message.get("content"), message.get("tool_calls")
        good = isinstance(content, str | None) and isinstance(calls, list | None)
        for number, one in enumerate(calls or ()):
            _call(one, number)
    except (KeyError, TypeError, ValueError, AttributeError):
        good = False
    return "" if good else f"an answer that is no chat completion: {found!r:.200}"


def _call(one: Mapping[str, Any], number: int) -> ToolCall:
    """Read a call; some servers name none, or give the arguments as a value."""
    function = one["function"]
    arguments = function.get("arguments") or "{}"
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments)
    return ToolCall(
        id=str(one.get("id") or f"call_{number}"), name=str(function["name"]), arguments=arguments
    )
