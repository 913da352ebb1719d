"""One completion on its way: what has been drawn of it, by however many requests.

A server streams the tokens that it draws, so that those of a request that was aborted, hung or died
with its server are not lost: the next request continues behind them, with what is left of the
limit. A token's log-probability is the one recorded when it was drawn.

A request draws with the seed of (episode, position of its first token): were it the completion's,
a continuation would repeat the random numbers that drew its beginning.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..verifiers import ModelError
from . import vllm_masks
from .draws import turn_seed
from .endpoints import reason_of
from .kept import Kept
from .types import Completion, Sampling, StopReason, WeightSpan

LEAST = -9999.0
"""What vLLM writes in place of a log-probability that is none."""


@dataclass(kw_only=True)
class Piece:
    """What one request brought."""

    tokens: list[int] = field(default_factory=list)
    """Ids."""
    logprobs: list[float] = field(default_factory=list)
    """Their log-probabilities in nats."""
    content: list[dict[str, Any]] = field(default_factory=list)
    """Per token, all that the server said of it."""
    labels: list[tuple[str, int, int]] | None = None
    """Label of the weights, start and end of each span; `None` where the server does not say."""
    finish: str = ""
    """Why it ended, in vLLM's words; empty if it broke off."""
    trouble: str = ""
    """Why it is not whole; empty if it is."""

    @classmethod
    def read(cls, content: bytes) -> "Piece":
        """Read an event stream, or as much as there is of it; a whole JSON is one event."""
        out = cls()
        whole = content.lstrip().startswith(b"{")
        lines = [b"data: " + content] if whole else content.split(b"\n")[:-1]
        for line in lines:
            data = line.strip().removeprefix(b"data: ")
            if data == line.strip() or data == b"[DONE]":
                continue
            try:
                out._take(json.loads(data))
            except (KeyError, TypeError, ValueError, RecursionError):
                out.trouble = f"an answer that is no completion: {data[:200]!r}"
            if out.trouble:
                break
        if not out.finish and not out.trouble:
            out.trouble = "an answer that broke off"
        return out

    def _take(self, event: Any) -> None:
        """Add one event."""
        if "error" in event:
            self.trouble = f"an error while it was drawn: {reason_of(event)}"
            return
        for choice in event["choices"]:
            tokens = [int(token) for token in choice["token_ids"] or ()]
            content = choice["logprobs"]["content"] if tokens else []
            if [one["token_id"] for one in content] != tokens:
                self.trouble = "log-probabilities of other tokens"
                return
            logprobs = [float(one["logprob"]) for one in content]
            if any(not LEAST < one <= 1e-3 for one in logprobs):
                self.trouble = "a token without a log-probability"
                return
            self.tokens += tokens
            self.logprobs += logprobs
            self.content += content
            self.finish = choice["finish_reason"] or ""
            spans = choice.get("weight_versions")
            if spans is not None:
                self.labels = [(one["version"], one["start"], one["end"]) for one in spans]


class Drawing:
    """A completion that is being drawn."""

    def __init__(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        context: int,
        vocabulary: int,
        end_ids: Sequence[int],
        decode: Callable[[Sequence[int]], str] | None,
    ) -> None:
        """Begin with nothing.

        Args:
            prompt: Token ids.
            sampling: How to draw.
            context: The longest sequence in tokens.
            vocabulary: Tokens that may be drawn.
            end_ids: Ids that end it.
            decode: The text of tokens, in which stop strings are looked for across two requests;
                without one, a completion with stop strings that breaks off is begun again.
        """
        self.prompt, self.sampling, self.end_ids = list(prompt), sampling, frozenset(end_ids)
        self.limit = min(sampling.max_tokens, context - len(prompt))
        self.vocabulary, self._decode = vocabulary, decode
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.kept = Kept() if sampling.masked else None
        self.spans: list[WeightSpan] = []
        self.stop_reason: StopReason | None = None
        """Why it has ended; `None` as long as it has not."""

    @property
    def seed(self) -> int:
        """The seed of the next request."""
        return turn_seed(self.sampling.seed, len(self.prompt) + len(self.tokens))

    @property
    def left(self) -> int:
        """Tokens that may still be drawn."""
        return self.limit - len(self.tokens)

    def add(self, piece: Piece, version: Callable[[str | None], int | None]) -> str:
        """Take what a request brought, as far as it was drawn by weights that are known.

        Args:
            piece: What it brought.
            version: From the label of some weights to their version; `None` if they are not known.

        Returns:
            What was wrong with it; empty if nothing was.

        Raises:
            ModelError: It does not say what could be drawn, where that is to be known.
        """
        seam, good, trouble = len(self.tokens), len(piece.tokens), piece.trouble
        finished = not trouble and piece.finish in ("stop", "length")
        if not finished and self.sampling.stop and self._decode is None:
            return trouble or "aborted"
        labels: Sequence[tuple[str | None, int, int]]
        labels = [(None, 0, good)] if piece.labels is None else piece.labels
        for label, start, end in labels:
            found = version(label)
            if found is None:
                good, finished, trouble = start, False, f"weights that were not handed: '{label}'"
                break
            if end > start:
                self._span(found, seam + start, seam + end)
        self.tokens += piece.tokens[:good]
        self.logprobs += piece.logprobs[:good]
        if self.kept is not None:
            found = vllm_masks.of_content(piece.content[:good], self.sampling, self.vocabulary)
            if found is None:  # there is no bound on what could be drawn
                self.kept = None
            else:
                self.kept.extend(found)
        self._end(piece.finish if finished else "", seam)
        return trouble if self.stop_reason is None else ""

    def _span(self, version: int, start: int, end: int) -> None:
        if self.spans and self.spans[-1].version == version:
            start = self.spans.pop().start
        self.spans.append(WeightSpan(version, start, end))

    def _end(self, finish: str, seam: int) -> None:
        """See whether it has ended, at a stop string across the seam before anything else."""
        cut = self._stop_across(seam) if seam and self.sampling.stop else 0
        if cut:
            self._shorten(cut)
            self.stop_reason = StopReason.STOP
        elif self.tokens and self.tokens[-1] in self.end_ids:
            self.stop_reason = StopReason.EOS
        elif finish == "stop":  # without stop strings, at an end that the model has and we have not
            self.stop_reason = StopReason.STOP if self.sampling.stop else StopReason.EOS
        elif finish == "length" or self.left <= 0:
            self.stop_reason = StopReason.LENGTH

    def _stop_across(self, seam: int) -> int:
        """Return how many tokens complete the first stop string that begins before the seam.

        Those behind it the engine has looked for, from the first one's text on.
        """
        assert self._decode is not None
        longest = max(map(len, self.sampling.stop))
        before = len(self._decode(self.tokens[:seam]))
        for count in range(seam + 1, len(self.tokens) + 1):
            text = self._decode(self.tokens[:count])
            if any(stop in text for stop in self.sampling.stop):
                return count
            if len(text) >= before + longest:
                break
        return 0

    def _shorten(self, count: int) -> None:
        """Keep the first tokens alone."""
        del self.tokens[count:], self.logprobs[count:]
        self.kept = None if self.kept is None else self.kept[:count]
        self.spans = [
            span._replace(end=min(span.end, count)) for span in self.spans if span.start < count
        ]

    def completion(self) -> Completion:
        """Return it, now that it has ended.

        Raises:
            ModelError: A token was drawn that is none.
        """
        assert self.stop_reason is not None
        if max(self.tokens) >= self.vocabulary:
            raise ModelError(
                f"a server drew token {max(self.tokens)} of {self.vocabulary}: it does not run the "
                "logits processor VocabularyLimit"
            )
        return Completion(
            tokens=self.tokens,
            logprobs=self.logprobs,
            stop_reason=self.stop_reason,
            version=self.spans[-1].version,
            spans=tuple(self.spans) if len(self.spans) > 1 else (),
            kept=self.kept,
        )
