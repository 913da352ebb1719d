"""The embedded default policy: batched decoding with exact log-probabilities, on transformers.

Prompts of a batch are prefilled together (equal prompts once), then one token a step is drawn for
every unfinished row; rows that finish leave the batch and its key-value cache. Log-probabilities
are those of the distribution drawn from, so the learner needs no second pass to know them.

Covered: decoder-only models whose cache is keys and values, full or sliding-window attention.
Not covered, and refused by name: encoder-decoders, recurrent and hybrid state, and any model for
which padding a prompt on the left changes the result: `check_decoding` measures that.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch

from ..verifiers import ModelError, UsageError
from .conversation import ChatFormat
from .decoding import Decoding, refuse_unsupported
from .kept import Kept
from .policies import WAITS
from .scoring import continuation_logits, pad, token_logprobs
from .stream import Request, Stream
from .types import Completion, Sampling

LOOKS_AHEAD = 1e-3
"""Share of a token's effect on its own logits that it may have on earlier ones: a causal model's is
0 up to rounding, for which half precision gets more room; that of an encoder with random weights is
from 5e-3 up."""

PROBE_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Nats by which cached decoding may differ from a full forward pass in `check_decoding`; 0.25 for
half precision, where rounding alone gives up to 0.1."""


class TransformersPolicy:
    """A causal language model of transformers as a `Policy`; shares its module with the learner."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_rows: int = 256,
        check: bool = True,
        wait: str = "all",
        min_batch: int = 8,
        max_wait: float = 0.05,
        thoughts: str = "refuse",
    ) -> None:
        """Take over a loaded model.

        Args:
            model: An `AutoModelForCausalLM` model; it is put into evaluation mode, because
                dropout would make the learner's log-probabilities differ from the sampler's.
            tokenizer: Its tokenizer.
            max_rows: Rows decoded together at most; bounds the memory of the cache.
            check: Whether to compare cached decoding with a full pass on a short input first.
            wait: One of `WAITS`; `some` where environments are slow and uneven.
            min_batch: With `wait="some"`, requests that begin or join together at least, unless
            max_wait: one of them has waited this many seconds.
            thoughts: As for `ChatFormat`.

        Raises:
            ModelError: The model cannot be run here, with its class and the reason.
            UsageError: An option is out of range.
        """
        if max_rows < 1 or min_batch < 1:
            raise UsageError(
                f"max_rows and min_batch must be at least 1, got {max_rows} and {min_batch}"
            )
        if wait not in WAITS or not max_wait >= 0:
            raise UsageError(
                f"wait must be one of {', '.join(WAITS)} and max_wait at least 0 seconds, got "
                f"{wait!r} and {max_wait!r}"
            )
        refuse_unsupported(model)
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_rows = max_rows
        self.version = 0
        self.vocabulary = min(len(tokenizer), model.config.get_text_config().vocab_size)
        self.context = context_length(model, tokenizer)
        self.eos_ids = eos_ids(model, tokenizer)
        self.format = ChatFormat(tokenizer, self.eos_ids, thoughts=thoughts)
        self.wait = wait
        self.seconds = 0.0
        """Time spent generating."""
        self._live = 0
        self._waiting: deque[Request] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rlvr-generate")
        self._stream = Stream(
            self, self._thread, lambda: self._live, min_batch=min_batch, max_wait=max_wait
        )
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
            self._stream.wake()

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Draw one completion; calls that wait at the same time are decoded together.

        Raises:
            UsageError: The prompt is empty or leaves no room in the model's context.
        """
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        request = Request(prompt=[*prompt_ids], sampling=sampling, future=future)
        if self.wait == "some":
            self._refuse_unfit(request.prompt)
            self._stream.submit(request)
            return await future
        self._waiting.append(request)
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
            self._refuse_unfit(prompt)
        out: dict[int, Completion] = {}
        began = time.perf_counter()
        with torch.inference_mode():
            for start in range(0, len(prompts), self.max_rows):
                some = range(start, min(start + self.max_rows, len(prompts)))
                rows: Decoding[int] = Decoding(self)
                rows.join(some, [prompts[i] for i in some], [samplings[i] for i in some])
                while len(rows):
                    out.update(rows.step())
        self.seconds += time.perf_counter() - began
        return [out[i] for i in range(len(prompts))]

    def mask_problem(self, sampling: Sampling) -> str:
        """Say why `Completion.kept` cannot be known; it always is."""
        return ""

    def _refuse_unfit(self, prompt: Sequence[int]) -> None:
        if not 0 < len(prompt) < self.context:
            raise UsageError(
                f"a prompt must have 1 to {self.context - 1} tokens for this model's context "
                f"of {self.context}, got {len(prompt)}"
            )

    def logprobs(
        self,
        prompts: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        temperature: float = 1.0,
        kept: Sequence[Sequence[Sequence[int]] | None] | None = None,
    ) -> list[torch.Tensor]:
        """Return each continuation's token log-probabilities by a full forward pass, in nats.

        Args:
            prompts: Token ids, at least one each.
            continuations: Token ids.
            temperature: The sampler's.
            kept: As in `Completion`, where the sampler cut something off.
        """
        left = None if kept is None else [None if one is None else Kept(one) for one in kept]
        batch = pad(prompts, continuations, self.device, left)
        with torch.inference_mode():
            logits = continuation_logits(self.model, batch, self.vocabulary)
            values = token_logprobs(logits, batch.targets, temperature, batch.support)
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


def check_causal(policy: TransformersPolicy) -> None:
    """Change a text's last token and look at the logits of those before it.

    Raises:
        ModelError: They changed: the model is an encoder, which looks at the whole text.
    """
    length = min(4, policy.context)
    texts = torch.arange(length, device=policy.device).repeat(2, 1) % policy.vocabulary
    texts[1, -1] = policy.vocabulary - 1
    with torch.inference_mode():
        logits = policy.model(input_ids=texts, use_cache=False).logits[..., : policy.vocabulary]
    moved = (logits[0] - logits[1]).float().abs().amax(-1)
    most = max(LOOKS_AHEAD, 8 * torch.finfo(policy.model.dtype).eps)
    if length > 1 and float(moved[:-1].max()) > most * float(moved[-1]):
        raise ModelError(
            f"{type(policy.model).__name__} cannot be run by TransformersPolicy: what it says of a "
            "token depends on the tokens after it, as in an encoder such as BERT; use a "
            "decoder-only model"
        )


def check_decoding(policy: TransformersPolicy) -> None:
    """Compare batched, left-padded, cached decoding with one full pass per row.

    Raises:
        ModelError: The two differ by more than rounding, with the class and the difference; or the
            model is not causal.
    """
    check_causal(policy)
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
