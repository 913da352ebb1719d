"""Rows on their way: one key-value cache for a batch that rows join and leave.

A row is a prompt that is being continued. Rows that join are prefilled together (equal prompts
once) and their cache is put beside the running one; what lies to the left of a row's first token is
masked, so that rows of different lengths and ages share the columns. Rows that finish are taken
out, and columns that no row uses any more with them.
"""

import inspect
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from ..verifiers import ModelError
from .draws import Warp, draw, uniforms
from .kept import Kept
from .scoring import forward_inputs, pad, positions
from .types import Completion, Sampling, StopReason

COMPACT_BELOW = 0.8
"""Share of unfinished rows below which the batch is repacked: copying the cache costs about what
a step costs, so repacking at every finished row would double the price of a token."""

K = TypeVar("K")
"""What the caller tells rows apart by."""


class Decoding(Generic[K]):
    """The rows of one batch, their cache, and what was drawn so far."""

    def __init__(self, policy: Any) -> None:
        """Begin without rows.

        Args:
            policy: A `TransformersPolicy`.
        """
        self.policy, self.model, self.device = policy, policy.model, policy.model.device
        self._end = torch.tensor(sorted(policy.eos_ids), device=self.device)
        self._empty()

    def __len__(self) -> int:
        """Return how many rows are unfinished."""
        return int(self.alive.sum())

    @property
    def running(self) -> list[K]:
        """What the unfinished rows were told apart by."""
        return [key for key, alive in zip(self.keys, self.alive, strict=True) if alive]

    @property
    def open(self) -> bool:
        """Whether rows can join: into a sliding window, whose columns roll on, none can."""
        if not len(self):
            return True
        return all(type(layer) is DynamicLayer for layer in self._layers)

    @property
    def _layers(self) -> list[Any]:
        """The cache's layers: keys and values `[B, H, L, D]` each."""
        return self.cache.layers

    def _empty(self) -> None:
        self.keys: list[K] = []
        self.samplings: list[Sampling] = []
        self.kept: list[Kept | None] = []
        self.alive = np.zeros(0, bool)
        self.seeds = self.lengths = np.zeros(0, np.uint64)
        self.limit = self.count = self.near = np.zeros(0, np.int64)
        self.tokens, self.logprobs = np.zeros((0, 0), np.int64), np.zeros((0, 0), np.float32)

    def join(
        self, keys: Sequence[K], prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling]
    ) -> None:
        """Let rows join.

        Args:
            keys: What `step` returns their completions under.
            prompts: Token ids, at least one each and fewer than the model's context.
            samplings: How each is continued.
        """
        if len(self):
            self._compact()
            self._forward_drawn()
        else:
            self._empty()
        lengths = np.array([len(prompt) for prompt in prompts])
        room = np.minimum([s.max_tokens for s in samplings], self.policy.context - lengths)
        self._widen(int(room.max()))
        count, width = len(keys), self.tokens.shape[1]
        first = not self.keys
        self.keys, self.samplings = [*self.keys, *keys], [*self.samplings, *samplings]
        self.kept += [Kept() if sampling.masked else None for sampling in samplings]
        self.alive = _joined(self.alive, np.ones(count, bool))
        self.seeds = _joined(self.seeds, np.array([s.seed for s in samplings], np.uint64))
        self.lengths = _joined(self.lengths, lengths.astype(np.uint64))
        self.limit = _joined(self.limit, room)
        self.count, self.near = (
            _joined(one, np.zeros(count, np.int64)) for one in (self.count, self.near)
        )
        self.tokens = _joined(self.tokens, np.zeros((count, width), np.int64))
        self.logprobs = _joined(self.logprobs, np.zeros((count, width), np.float32))
        self._describe()
        self._prefill(prompts, first)

    def step(self) -> list[tuple[K, Completion]]:
        """Draw one token for every unfinished row; return the rows that this finishes."""
        if self.drawn is not None:
            if self.alive.mean() < COMPACT_BELOW:
                self._compact()
            self._forward_drawn()
        reasons = self._draw()
        done = [(self.keys[row], self._completion(row, reason)) for row, reason in reasons.items()]
        self.alive[list(reasons)] = False
        return done

    def _widen(self, width: int) -> None:
        """Make room for longer completions."""
        more = width - self.tokens.shape[1]
        if more > 0:
            self.tokens = np.pad(self.tokens, ((0, 0), (0, more)))
            self.logprobs = np.pad(self.logprobs, ((0, 0), (0, more)))

    def _describe(self) -> None:
        self.warp = Warp.of(self.samplings, self.device)
        self.stops = np.array([bool(s.stop) for s in self.samplings])

    def _prefill(self, prompts: Sequence[Sequence[int]], first: bool) -> None:
        """Run the distinct prompts once, spread cache and logits over their rows, and join them."""
        distinct: dict[tuple[int, ...], int] = {}
        rows = [distinct.setdefault(tuple(prompt), len(distinct)) for prompt in prompts]
        batch = pad(list(distinct), [()] * len(distinct), self.device)
        ids, attention = batch.ids[:, :-1], batch.attention[:, :-1]
        cache = DynamicCache(config=self.model.config)
        logits = self._forward(ids, attention, positions(attention), cache)
        if rows != list(range(len(rows))):
            index = torch.tensor(rows, device=self.device)
            cache.batch_select_indices(index)
            attention, logits = attention[index], logits[index]
        place = attention.sum(-1, keepdim=True)
        if first:
            self.cache, self.attention, self.logits, self.place = cache, attention, logits, place
        else:
            width = max(attention.shape[1], self.attention.shape[1])
            layers: list[Any] = cache.layers
            for mine, theirs in zip(self._layers, layers, strict=True):
                mine.keys = _stacked(mine.keys, theirs.keys, width)
                mine.values = _stacked(mine.values, theirs.values, width)
            both = [_left(one, width) for one in (self.attention, attention)]
            self.attention = torch.cat(both)
            self.logits = torch.cat([self.logits, logits])
            self.place = torch.cat([self.place, place])
        self.drawn: torch.Tensor | None = None

    def _forward(
        self, ids: torch.Tensor, attention: torch.Tensor, place: torch.Tensor, cache: DynamicCache
    ) -> torch.Tensor:
        inputs = forward_inputs(self.model, attention, place, 1)
        out = self.model(input_ids=ids, past_key_values=cache, use_cache=True, **inputs)
        return out.logits[:, -1, : self.policy.vocabulary]

    def _forward_drawn(self) -> None:
        """Run the tokens that were drawn last, for the logits of the next ones."""
        if self.drawn is None:
            return
        self.attention = torch.nn.functional.pad(self.attention, (0, 1), value=1)
        self.logits = self._forward(self.drawn[:, None], self.attention, self.place, self.cache)
        self.place = self.place + 1
        self.drawn = None

    def _draw(self) -> dict[int, StopReason]:
        """Draw and book a token for every row; return why rows end here."""
        u = uniforms(self.seeds, self.lengths + self.count.astype(np.uint64))
        uniform = torch.from_numpy(u).to(self.device)
        self.drawn, logprobs, near, kept = draw(self.logits, self.warp, uniform)
        ended = torch.isin(self.drawn, self._end).cpu().numpy()
        rows = np.flatnonzero(self.alive)
        at = self.count[rows]
        self.tokens[rows, at] = self.drawn.cpu().numpy()[rows]
        self.logprobs[rows, at] = logprobs.cpu().numpy()[rows]
        self.near[rows] += near.cpu().numpy()[rows]
        self.count[rows] += 1
        if kept is not None:
            self._keep(kept)
        reasons = dict.fromkeys(rows[ended[rows]].tolist(), StopReason.EOS)
        for row in rows[~ended[rows] & self.stops[rows]].tolist():
            if self._at_stop(row):
                reasons[row] = StopReason.STOP
        for row in rows[self.count[rows] >= self.limit[rows]].tolist():
            reasons.setdefault(row, StopReason.LENGTH)
        return reasons

    def _keep(self, kept: torch.Tensor) -> None:
        """Book which ids could be drawn `[B, V]`, where not all could."""
        rows = [row for row in np.flatnonzero(self.alive) if self.kept[row] is not None]
        if not rows:
            return
        table = kept[torch.tensor(rows, device=self.device)]
        ids = table.nonzero()[:, 1].cpu().numpy()
        counts = table.sum(1).cpu().numpy()
        for row, some in zip(rows, np.split(ids, np.cumsum(counts)[:-1]), strict=True):
            mine = self.kept[row]
            assert mine is not None
            mine.append(some.tolist() if len(some) < table.shape[1] else ())

    def _at_stop(self, row: int) -> bool:
        """Whether the row's text now holds a stop string, looking back no further than needed."""
        stops, count = self.samplings[row].stop, int(self.count[row])
        reach = 4 * max(len(stop) for stop in stops) + 4  # a character is up to 4 byte tokens
        tail = self.tokens[row, max(0, count - reach) : count]
        text = self.policy.format.spell(tail.tolist())
        return any(stop in text for stop in stops)

    def _compact(self) -> None:
        """Take out finished rows, and columns that are padding in all others."""
        if self.alive.all():
            return
        keep = np.flatnonzero(self.alive)
        index = torch.from_numpy(keep).to(self.device)
        self.cache.batch_select_indices(index)
        self.attention, self.logits = self.attention[index], self.logits[index]
        self.place = self.place[index]
        if self.drawn is not None:
            self.drawn = self.drawn[index]
        self.keys = [self.keys[row] for row in keep]
        self.samplings = [self.samplings[row] for row in keep]
        self.kept = [self.kept[row] for row in keep]
        for name in ("seeds", "lengths", "limit", "count", "near", "tokens", "logprobs", "alive"):
            setattr(self, name, getattr(self, name)[keep])
        self.warp, self.stops = self.warp.rows(index), self.stops[keep]
        self._trim()

    def _trim(self) -> None:
        """Drop the first columns if no row has a token there."""
        if not self.open:
            return
        unused = int(self.attention.shape[1] - self.attention.sum(-1).max())
        if unused > 0:
            self.attention = self.attention[:, unused:]
            for layer in self._layers:
                layer.keys, layer.values = layer.keys[:, :, unused:], layer.values[:, :, unused:]

    def _completion(self, row: int, reason: StopReason) -> Completion:
        count = int(self.count[row])
        return Completion(
            tokens=self.tokens[row, :count].tolist(),
            logprobs=self.logprobs[row, :count].tolist(),
            stop_reason=reason,
            version=self.policy.version,
            near_ties=int(self.near[row]),
            kept=self.kept[row],
        )


def _joined(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([first, second])


def _left(one: torch.Tensor, width: int) -> torch.Tensor:
    """Pad a mask `[B, L]` on the left."""
    return torch.nn.functional.pad(one, (width - one.shape[1], 0))


def _stacked(first: torch.Tensor, second: torch.Tensor, width: int) -> torch.Tensor:
    """Put keys or values `[B, H, L, D]` on top of each other, padded on the left."""

    def wide(one: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(one, (0, 0, width - one.shape[2], 0))

    return torch.cat([wide(first), wide(second)])


def refuse_unsupported(model: Any) -> None:
    """Refuse models that cannot be decoded here.

    Raises:
        ModelError: With the model's class and the reason.
    """
    name = type(model).__name__
    reason = ""
    if getattr(model.config, "is_encoder_decoder", False):
        reason = "it is an encoder-decoder"
    elif getattr(model, "_is_stateful", False) or "cache_params" in (
        inspect.signature(type(model).forward).parameters
    ):
        reason = "it keeps recurrent state, from which finished rows cannot be taken out"
    elif not getattr(model, "can_generate", lambda: False)():
        reason = "it has no language-modelling head"
    if reason:
        raise ModelError(
            f"{name} cannot be run by TransformersPolicy: {reason}; use a decoder-only model with "
            "a key-value cache"
        )
