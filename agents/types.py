"""What passes between a policy, a rollout and a learner.

Tokens are the currency: a policy takes token ids and returns token ids with the log-probability of
each under the distribution it was actually drawn from. Text is only ever derived from them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from ..verifiers import UsageError
from .kept import Kept


class StopReason(StrEnum):
    """Why a completion ended."""

    EOS = "eos"
    """An end-of-sequence token was drawn; it is the last of the tokens."""
    STOP = "stop"
    """A stop string was completed; its tokens are kept."""
    LENGTH = "length"
    """The token limit or the model's context was reached."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to draw a completion.

    Example:
        `Sampling(max_tokens=256, temperature=1.0, seed=7)`
    """

    max_tokens: int = 256
    """Tokens per completion at most, at least 1."""
    temperature: float = 1.0
    """Logits are divided by it, from 1e-6 up; 0 takes the most likely token."""
    top_p: float = 1.0
    """Keep the most likely tokens whose probabilities sum to it, in (0, 1]."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 keeps all."""
    min_p: float = 0.0
    """Keep tokens with at least this share of the most likely one's probability, in [0, 1)."""
    stop: tuple[str, ...] = ()
    """Texts that end the completion."""
    seed: int = 0
    """The episode's seed: the draw at position t depends on (seed, t) alone."""

    def __post_init__(self) -> None:
        """Check every range."""
        ranges = {
            "max_tokens": (self.max_tokens >= 1, "at least 1"),
            "temperature": (
                self.temperature == 0 or 1e-6 <= self.temperature < math.inf,
                "0, or at least 1e-6 and finite",
            ),
            "top_p": (0 < self.top_p <= 1, "in (0, 1]"),
            "top_k": (self.top_k >= 0, "at least 0 (0 keeps all)"),
            "min_p": (0 <= self.min_p < 1, "in [0, 1)"),
            "stop": (
                not isinstance(self.stop, str) and all(self.stop),
                "a list of non-empty texts",
            ),
            "seed": (0 <= self.seed < 2**64, "a 64-bit unsigned integer"),
        }
        for name, (good, expected) in ranges.items():
            if not good:
                raise UsageError(f"{name} must be {expected}, got {getattr(self, name)!r}")

    @property
    def truncated(self) -> bool:
        """Whether part of the distribution is cut off, so that its support is not the model's."""
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0

    @property
    def masked(self) -> bool:
        """Whether log-probabilities are over fewer tokens than the model's, so that a learner needs
        `Completion.kept`; the one token that temperature 0 takes is certain."""
        return self.truncated and self.temperature > 0


class WeightSpan(NamedTuple):
    """Tokens of a completion that were drawn by the same weights."""

    version: int
    """Which weights: the number of weight updates the policy had taken."""
    start: int
    """Index of the first token in the completion."""
    end: int
    """One past the last."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What a policy drew.

    Example:
        `Completion(tokens=[23, 24, 2], logprobs=[-0.1, -1.2, 0.0], stop_reason=StopReason.EOS)`
    """

    tokens: Sequence[int]
    """The sampled ids, a final end-of-sequence token included."""
    logprobs: Sequence[float]
    """Per token, its log-probability in nats under the distribution sampled from."""
    stop_reason: StopReason
    """Why it ended."""
    version: int = 0
    """Which weights drew its last token: the number of weight updates the policy had taken."""
    spans: tuple[WeightSpan, ...] = ()
    """Which weights drew which tokens, where updates came in between; none: `version` drew all."""
    near_ties: int = 0
    """Draws so close to a boundary between two tokens that rounding may decide them."""
    kept: Sequence[Sequence[int]] | None = None
    """Per token, the ids that could be drawn in its place, over which its log-probability is
    normalised; an empty one stands for every id. `None`: nothing was cut off."""


class Policy(Protocol):
    """A language model that continues token ids."""

    tokenizer: Any
    """A transformers tokenizer: encodes prompts, decodes completions, holds the chat template."""
    context: int
    """The longest sequence in tokens, prompt and completion together."""
    format: Any
    """A `ChatFormat`: the tokens of conversations."""

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Draw one completion of a prompt."""
        ...

    def sync(self, weights: Any) -> int:
        """Take new weights; returns the version from now on."""
        ...


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One action of an episode: the span of its sampled tokens and what it was paid."""

    start: int
    """Index of the first sampled token in `Trajectory.tokens`."""
    end: int
    """One past the last."""
    reward: float
    """What the environment paid for it; nan if unscored."""
    stop_reason: StopReason
    """Why the completion ended."""
    version: int = 0
    """The weights that drew its last token."""
    spans: tuple[WeightSpan, ...] = ()
    """As in its `Completion`."""

    @property
    def oldest(self) -> int:
        """The weights that drew its oldest token."""
        return min([self.version, *(span.version for span in self.spans)])


@dataclass(kw_only=True)
class Trajectory:
    """The tokens of an episode, exactly as sampled, with everything that a learner needs."""

    env: str
    """The environment's id."""
    task_id: str
    """The task's id."""
    group: int
    """Which group it belongs to: episodes of one prompt share the number."""
    seed: int
    """The episode's seed."""
    tokens: list[int] = field(default_factory=list)
    """Prompt, completions and environment texts, in order."""
    trained: list[bool] = field(default_factory=list)
    """Per token, whether the policy sampled it."""
    logprobs: list[float] = field(default_factory=list)
    """Per token, the sampler's log-probability in nats; 0 where not sampled."""
    turns: list[Turn] = field(default_factory=list)
    """The actions, in order."""
    messages: list[dict[str, str]] = field(default_factory=list)
    """The conversation as text."""
    reward: float = 0.0
    """The sum of the turns' rewards; nan if unscored."""
    scored: bool = True
    """Whether the reward is one."""
    truncated: bool = False
    """The environment truncated it, a completion ran out of length, or the conversation outgrew the
    model's context."""
    verdict: dict[str, Any] = field(default_factory=dict)
    """The last verdict, as JSON."""
    version: int = 0
    """The weights that drew its last token."""
    near_ties: int = 0
    """Recorded near-ties of its draws."""
    kept: Kept | None = None
    """Per token, the ids that could be drawn in its place; none where nothing was cut off, or the
    policy did not sample it. `None`: nothing was cut off anywhere."""

    @property
    def completion(self) -> str:
        """The text of the last action."""
        return self.messages[-1]["content"] if self.turns else ""

    @property
    def oldest(self) -> int:
        """The weights that drew its oldest token: the episode is as stale as that."""
        return min([self.version, *(turn.oldest for turn in self.turns)])

    @property
    def length(self) -> int:
        """Number of sampled tokens."""
        return sum(turn.end - turn.start for turn in self.turns)
