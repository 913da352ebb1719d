"""The embedded default policy: batched decoding with exact log-probabilities, on transformers.

Prompts of a batch are prefilled together (equal prompts once), then one token a step is drawn for
every unfinished row; rows that finish leave the batch and its key-value cache. Log-probabilities
are those of the distribution drawn from, so the learner needs no second pass to know them.

Covered: decoder-only models whose cache is keys and values, full or sliding-window attention.
Not covered, and refused by name: encoder-decoders, recurrent and hybrid state, and any model for
which padding a prompt on the left changes the result: `check_decoding` measures that.
"""

import asyncio
import inspect
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from ..verifiers import ModelError, UsageError
from .conversation import ChatFormat
from .draws import Warp, draw, uniforms
from .scoring import continuation_logits, forward_inputs, pad, positions, token_logprobs
from .types import Completion, Sampling, StopReason

COMPACT_BELOW = 0.8
"""Share of unfinished rows below which the batch is repacked: copying the cache costs about what
a step costs, so repacking at every finished row would double the price of a token."""

PROBE_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Nats by which cached decoding may differ from a full forward pass in `check_decoding`; 0.25 for
half precision, where rounding alone gives up to 0.1."""


@dataclass
class _Request:
    prompt: Sequence[int]
    sampling: Sampling
    future: asyncio.Future[Completion]


class TransformersPolicy:
    """A causal language model of transformers as a `Policy`; shares its module with the learner."""

    def __init__(
        self, model: Any, tokenizer: Any, *, max_rows: int = 256, check: bool = True
    ) -> None:
        """Take over a loaded model.

        Args:
            model: An `AutoModelForCausalLM` model; it is put into evaluation mode, because
                dropout would make the learner's log-probabilities differ from the sampler's.
            tokenizer: Its tokenizer.
            max_rows: Rows decoded together at most; bounds the memory of the cache.
            check: Whether to compare cached decoding with a full pass on a short input first.

        Raises:
            ModelError: The model cannot be run here, with its class and the reason.
            UsageError: `max_rows` is less than 1.
        """
        if max_rows < 1:
            raise UsageError(f"max_rows must be at least 1, got {max_rows}")
        refuse_unsupported(model)
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_rows = max_rows
        self.version = 0
        self.vocabulary = min(len(tokenizer), model.config.get_text_config().vocab_size)
        self.context = context_length(model, tokenizer)
        self.eos_ids = eos_ids(model, tokenizer)
        self.format = ChatFormat(tokenizer, self.eos_ids)
        self.seconds = 0.0
        """Time spent generating."""
        self._live = 0
        self._waiting: deque[_Request] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rlvr-generate")
        if check:
            check_decoding(self)

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.model.device

    def sync(self, weights: Mapping[str, torch.Tensor] | None = None) -> int:
        """Count an update of the weights; load them first if they are not the learner's own.

        Args:
            weights: A state dict, or `None` where the learner trains this very module.

        Returns:
            The version that completions carry from now on.
        """
        if weights is not None:
            self.model.load_state_dict(weights)
        self.version += 1
        return self.version

    @contextmanager
    def episode(self) -> Iterator[None]:
        """Announce an episode: a batch starts when every announced episode waits for it."""
        self._live += 1
        try:
            yield
        finally:
            self._live -= 1
            self._start_if_all_wait()

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Draw one completion; calls that wait at the same time are decoded together.

        Raises:
            UsageError: The prompt is empty or leaves no room in the model's context.
        """
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(prompt_ids, sampling, future))
        if self._live:
            self._start_if_all_wait()
        else:
            asyncio.get_running_loop().call_soon(self._start)
        return await future

    def _start_if_all_wait(self) -> None:
        if self._waiting and len(self._waiting) >= self._live:
            self._start()

    def _start(self) -> None:
        """Decode what waits.

        Where every announced episode waits, the event loop has nothing else to do, and its own
        thread decodes: on a CPU the learner's thread then decodes too, and torch keeps one team of
        worker threads instead of two that take the cores from each other.
        """
        batch = [request for request in self._waiting if not request.future.done()]
        self._waiting.clear()
        if not batch:
            return
        prompts, samplings = [r.prompt for r in batch], [r.sampling for r in batch]
        if self._live:
            done: Future[list[Completion]] = Future()
            try:
                done.set_result(self.generate_batch(prompts, samplings))
            except Exception as error:
                done.set_exception(error)
            _settle([r.future for r in batch], done)
            return
        job = self._thread.submit(self.generate_batch, prompts, samplings)
        job.add_done_callback(lambda done: _hand_over([r.future for r in batch], done))

    def generate_batch(
        self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling]
    ) -> list[Completion]:
        """Draw one completion per prompt.

        Args:
            prompts: Token ids, at least one each.
            samplings: One per prompt.

        Returns:
            The completions in the order of the prompts.

        Raises:
            UsageError: A prompt is empty or leaves no room in the model's context.
        """
        for prompt in prompts:
            if not 0 < len(prompt) < self.context:
                raise UsageError(
                    f"a prompt must have 1 to {self.context - 1} tokens for this model's context "
                    f"of {self.context}, got {len(prompt)}"
                )
        out: list[Completion] = []
        began = time.perf_counter()
        for start in range(0, len(prompts), self.max_rows):
            rows = slice(start, start + self.max_rows)
            with torch.inference_mode():
                out += _Decoding(self, prompts[rows], samplings[rows]).run()
        self.seconds += time.perf_counter() - began
        return out

    def logprobs(
        self,
        prompts: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        temperature: float = 1.0,
    ) -> list[torch.Tensor]:
        """Return each continuation's token log-probabilities by a full forward pass, in nats."""
        batch = pad(prompts, continuations, self.device)
        with torch.inference_mode():
            logits = continuation_logits(self.model, batch, self.vocabulary)
            values = token_logprobs(logits, batch.targets, temperature)
        return [row[: len(tokens)].cpu() for row, tokens in zip(values, continuations, strict=True)]


def _hand_over(futures: Sequence["asyncio.Future[Completion]"], done: Any) -> None:
    """Settle the futures on their own event loop, if it still runs."""
    with suppress(RuntimeError):  # it has ended: nobody waits any more
        futures[0].get_loop().call_soon_threadsafe(_settle, futures, done)


def _settle(futures: Sequence["asyncio.Future[Completion]"], done: Any) -> None:
    """Hand a finished batch, or its error, to those who wait; runs on their event loop."""
    error = done.exception()
    results: Sequence[Any] = [None] * len(futures) if error else done.result()
    for future, result in zip(futures, results, strict=True):
        if future.done():
            continue
        if error:
            future.set_exception(error)
        else:
            future.set_result(result)


class _Decoding:
    """One batch on its way: the rows still alive, their cache, and what was drawn so far."""

    def __init__(
        self, policy: TransformersPolicy, prompts: Sequence[Any], samplings: Sequence[Sampling]
    ) -> None:
        self.policy, self.model, self.device = policy, policy.model, policy.device
        self.samplings = samplings
        lengths = np.array([len(prompt) for prompt in prompts])
        room = policy.context - lengths
        self.limit = np.minimum([s.max_tokens for s in samplings], room)
        self.seeds = np.array([s.seed for s in samplings], np.uint64)
        self.lengths = lengths.astype(np.uint64)
        shape = (len(prompts), int(self.limit.max()))
        self.tokens = np.zeros(shape, np.int64)
        self.logprobs = np.zeros(shape, np.float32)
        self.near = np.zeros(len(prompts), np.int64)
        self.count = np.zeros(len(prompts), np.int64)
        self.reasons = [StopReason.LENGTH] * len(prompts)
        self.eos = torch.tensor(sorted(policy.eos_ids), device=self.device)
        self.warp = Warp.of(samplings, self.device)
        self.stops = np.array([bool(s.stop) for s in samplings])
        self.rows = np.arange(len(prompts))
        """Which prompt each row of the running batch continues."""
        self.alive = np.ones(len(prompts), bool)
        self._prefill(prompts)

    def _prefill(self, prompts: Sequence[Any]) -> None:
        """Run the distinct prompts once and spread cache and logits over their rows."""
        distinct: dict[tuple[int, ...], int] = {}
        place = [distinct.setdefault(tuple(prompt), len(distinct)) for prompt in prompts]
        batch = pad(list(distinct), [()] * len(distinct), self.device)
        ids, attention = batch.ids[:, :-1], batch.attention[:, :-1]
        self.cache = DynamicCache(config=self.model.config)
        logits = self._forward(ids, attention, positions(attention))
        index = torch.tensor(place, device=self.device)
        self.attention, self.logits = attention, logits
        if place != list(range(len(place))):
            self._take(index)
        self.place = self.attention.sum(-1, keepdim=True)

    def _forward(
        self, ids: torch.Tensor, attention: torch.Tensor, place: torch.Tensor
    ) -> torch.Tensor:
        inputs = forward_inputs(self.model, attention, place, 1)
        out = self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, **inputs)
        return out.logits[:, -1, : self.policy.vocabulary]

    def _take(self, index: torch.Tensor) -> None:
        """Keep, repeat or reorder rows."""
        self.cache.batch_select_indices(index)
        self.attention, self.logits = self.attention[index], self.logits[index]

    def run(self) -> list[Completion]:
        """Draw until every row has finished."""
        step = 0
        while True:
            self._draw(step)
            step += 1
            if not self.alive.any():
                return self._completions()
            if self.alive.mean() < COMPACT_BELOW:
                self._compact()
            self.attention = torch.nn.functional.pad(self.attention, (0, 1), value=1)
            self.logits = self._forward(self.drawn[:, None], self.attention, self.place)
            self.place = self.place + 1

    def _draw(self, step: int) -> None:
        rows = self.rows
        u = uniforms(self.seeds[rows], self.lengths[rows] + np.uint64(step))
        uniform = torch.from_numpy(u).to(self.device)
        self.drawn, logprobs, near = draw(self.logits, self.warp, uniform)
        ended = torch.isin(self.drawn, self.eos).cpu().numpy()
        alive, live = self.alive, rows[self.alive]
        self.tokens[live, step] = self.drawn.cpu().numpy()[alive]
        self.logprobs[live, step] = logprobs.cpu().numpy()[alive]
        self.near[live] += near.cpu().numpy()[alive]
        self.count[live] += 1
        for row in rows[alive & ended]:
            self.reasons[row] = StopReason.EOS
        stopped = np.zeros(len(rows), bool)
        for at in np.flatnonzero(alive & ~ended & self.stops[rows]):
            if self._at_stop(rows[at], step + 1):
                self.reasons[rows[at]] = StopReason.STOP
                stopped[at] = True
        self.alive = alive & ~ended & ~stopped & (step + 1 < self.limit[rows])

    def _at_stop(self, row: int, count: int) -> bool:
        """Whether the row's text now holds a stop string, looking back no further than needed."""
        stops = self.samplings[row].stop
        reach = 4 * max(len(stop) for stop in stops) + 4  # a character is up to 4 byte tokens
        tail = self.tokens[row, max(0, count - reach) : count]
        text = self.policy.tokenizer.decode(tail, skip_special_tokens=False)
        return any(stop in text for stop in stops)

    def _compact(self) -> None:
        keep = np.flatnonzero(self.alive)
        index = torch.from_numpy(keep).to(self.device)
        self._take(index)
        self.drawn, self.place = self.drawn[index], self.place[index]
        self.warp = self.warp.rows(index)
        self.rows, self.alive = self.rows[keep], self.alive[keep]

    def _completions(self) -> list[Completion]:
        return [
            Completion(
                tokens=self.tokens[row, :count].tolist(),
                logprobs=self.logprobs[row, :count].tolist(),
                stop_reason=self.reasons[row],
                version=self.policy.version,
                near_ties=int(self.near[row]),
            )
            for row, count in enumerate(self.count)
        ]


def context_length(model: Any, tokenizer: Any) -> int:
    """Return the longest sequence in tokens: the smaller of what model and tokenizer state."""
    config = model.config.get_text_config()
    stated = getattr(config, "max_position_embeddings", None)
    limits = [stated, getattr(tokenizer, "model_max_length", None)]
    return min([int(limit) for limit in limits if limit] or [2048])


def eos_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Return every id that ends a completion, from the generation config and the tokenizer.

    Raises:
        ModelError: There is none, so that no completion could end.
    """
    config = getattr(model, "generation_config", None)
    stated = getattr(config, "eos_token_id", None)
    several = stated if isinstance(stated, list | tuple) else [stated]
    ids = [int(i) for i in (*several, tokenizer.eos_token_id) if i is not None]
    if not ids:
        raise ModelError(
            f"{type(model).__name__}: neither the generation config nor the tokenizer names an "
            "end-of-sequence token, so no completion could end; set tokenizer.eos_token"
        )
    return tuple(sorted(set(ids)))


def refuse_unsupported(model: Any) -> None:
    """Refuse models that this policy cannot decode.

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


def check_decoding(policy: TransformersPolicy) -> None:
    """Compare batched, left-padded, cached decoding with one full pass per row.

    Raises:
        ModelError: The two differ by more than rounding, with the class and the difference.
    """
    generator = np.random.default_rng(0)
    lengths = [n for n in (11, 5, 2) if n + 4 < policy.context] or [1]
    prompts = [generator.integers(policy.vocabulary, size=n).tolist() for n in lengths]
    sampling = Sampling(max_tokens=min(4, policy.context - 1), seed=0)
    try:
        drawn = policy.generate_batch(prompts, [sampling] * len(prompts))
        worst = 0.0
        for prompt, completion in zip(prompts, drawn, strict=True):
            (full,) = policy.logprobs([prompt], [completion.tokens])
            worst = max(worst, float((full - torch.tensor(completion.logprobs)).abs().max()))
    except (TypeError, AttributeError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{type(policy.model).__name__} cannot be run by TransformersPolicy: batched decoding "
            f"with a key-value cache failed with {type(error).__name__}: {error}"
        ) from error
    allowed = PROBE_TOLERANCE.get(policy.model.dtype, 0.25)
    if not worst <= allowed:
        raise ModelError(
            f"{type(policy.model).__name__} cannot be run by TransformersPolicy: log-probabilities "
            f"of batched decoding differ from a full pass by {worst:.3g} nats (at most {allowed:g} "
            "is rounding), as for models whose positions move when a prompt is padded on the left"
        )
