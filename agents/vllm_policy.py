"""The policy on vLLM: an engine draws, the learner's weights follow it, a canary watches.

The engine has a copy of the weights; `sync` hands it the learner's after every update and has the
canary compare the two, so that training on stale or different weights stops instead of going on.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..verifiers import UsageError
from .canary import Canary, Sighting
from .conversation import ChatFormat
from .engines import Engine, named_weights
from .transformers_policy import context_length, eos_ids
from .types import Completion, Sampling

DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


class VLLMPolicy:
    """A causal language model as a `Policy`, drawn from by vLLM.

    Example:
        `policy = VLLMPolicy.start(model, tokenizer)`, train `model`, `policy.sync()`
    """

    def __init__(
        self, engine: Engine, model: Any, tokenizer: Any, *, thoughts: str = "refuse"
    ) -> None:
        """Take over an engine that has been started with this model's weights.

        Args:
            engine: What draws.
            model: The learner's model, an `AutoModelForCausalLM`: the weights to follow.
            tokenizer: Its tokenizer.
            thoughts: As for `ChatFormat`.

        Raises:
            TrainingStopped: Engine and model have different weights.
        """
        self.engine, self.model, self.tokenizer = engine, model.eval(), tokenizer
        self.context = engine.context
        self.vocabulary = vocabulary_of(model, tokenizer)
        self.eos_ids = eos_ids(model, tokenizer)
        self.format = ChatFormat(tokenizer, self.eos_ids, thoughts=thoughts)
        self.max_rows = 1 << 30
        """Rows handed over together at most: the engine queues what it cannot hold."""
        self.seconds = 0.0
        """Time in which at least one completion was being drawn."""
        self._drawing, self._since = 0, 0.0
        self.canary = Canary(model, context=engine.context, vocabulary=self.vocabulary)
        self.sighting: Sighting = self.canary.check(engine, self.version)
        """What the canary last found."""
        self.sync_metrics: dict[str, float] = {}
        """Figures of the last sync."""

    @classmethod
    def start(
        cls, model: Any, tokenizer: Any, *, thoughts: str = "refuse", **settings: Any
    ) -> "VLLMPolicy":
        """Start an engine in this process with a model's weights.

        Args:
            model: The learner's model.
            tokenizer: Its tokenizer.
            thoughts: As for `ChatFormat`.
            settings: More arguments of `LocalEngine`.

        Raises:
            UsageError: vLLM is not installed.
            ModelError: It cannot run this model.
        """
        from .vllm_engine import LocalEngine

        if model.dtype not in DTYPES:
            raise UsageError(
                f"vLLM computes in {', '.join(DTYPES.values())}, the model is in {model.dtype}"
            )
        base = model.get_base_model() if hasattr(model, "peft_config") else model
        with tempfile.TemporaryDirectory(prefix="rlvr-vllm-") as folder:
            save_for_engine(base, tokenizer, Path(folder))
            engine = LocalEngine(
                folder,
                vocabulary=vocabulary_of(model, tokenizer),
                end_ids=eos_ids(model, tokenizer),
                context=context_length(base, tokenizer),
                dtype=DTYPES[model.dtype],
                **settings,
            )
        return cls(engine, model, tokenizer, thoughts=thoughts)

    @classmethod
    def connect(
        cls,
        model: Any,
        tokenizer: Any,
        servers: Sequence[Any] = (),
        *,
        thoughts: str = "refuse",
        max_rows: int = 256,
        **settings: Any,
    ) -> "VLLMPolicy":
        """Draw through running vLLM servers, which are handed the model's weights.

        Args:
            model: The learner's model.
            tokenizer: Its tokenizer.
            servers: Addresses, or processes of `start_server`; none: one is started here.
            thoughts: As for `ChatFormat`.
            max_rows: Sequences that a server started here computes at the same time at most.
            settings: More arguments of `ServerEngine`.

        Raises:
            UsageError: A server cannot be trained through.
            ModelError: A server does not answer, or does not start.
            TrainingStopped: It computes something else than the model.
        """
        from .vllm_server import ServerEngine

        engine = ServerEngine(
            servers or [_started(model, tokenizer, max_rows)],
            vocabulary=vocabulary_of(model, tokenizer),
            end_ids=eos_ids(model, tokenizer),
            dtype=model.dtype,
            **settings,
        )
        try:
            engine.load(named_weights(model), 0)
            return cls(engine, model, tokenizer, thoughts=thoughts)
        except BaseException:
            engine.close()
            raise

    @property
    def version(self) -> int:
        """Number of weight updates so far; a resumed run sets it to where it was."""
        return self.engine.version

    @version.setter
    def version(self, value: int) -> None:
        self.engine.version = value

    @property
    def device(self) -> torch.device:
        """Where the learner's model lies."""
        return self.model.device

    @contextmanager
    def episode(self) -> Iterator[None]:
        """Announce an episode; the engine batches what there is, so nothing waits for it."""
        yield

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Draw one completion.

        Raises:
            UsageError: The prompt is empty or leaves no room in the context.
            ModelError: The engine failed.
        """
        if not self._drawing:
            self._since = time.perf_counter()
        self._drawing += 1
        try:
            return await self.engine.generate(prompt_ids, sampling)
        finally:
            self._drawing -= 1
            if not self._drawing:
                self.seconds += time.perf_counter() - self._since

    def sync(self, weights: Mapping[str, torch.Tensor] | None = None) -> int:
        """Hand the engine the weights, and look whether they have arrived.

        Args:
            weights: A state dict that the learner's model takes first; `None`: its own.

        Returns:
            The version that completions carry from now on.

        Raises:
            TrainingStopped: They have not arrived as they are.
        """
        if weights is not None:
            self.model.load_state_dict(weights)
        version, began = self.version + 1, time.perf_counter()
        self.engine.load(named_weights(self.model), version)
        loaded = time.perf_counter()
        found = self.sighting = self.canary.check(self.engine, version)
        self.sync_metrics = {
            "sync/seconds": loaded - began,
            "sync/canary_seconds": time.perf_counter() - loaded,
            "sync/gap": found.gap,
            "sync/cached_gap": found.cached_gap,
        }
        if found.share is not None:
            self.sync_metrics["sync/share"] = found.share
        return version

    def close(self) -> None:
        """Stop the engine."""
        self.engine.close()


def _started(model: Any, tokenizer: Any, max_rows: int) -> Any:
    """Start a server with a model's weights, in a folder that goes when it does."""
    from .vllm_process import start_server

    base = model.get_base_model() if hasattr(model, "peft_config") else model
    folder = Path(tempfile.mkdtemp(prefix="rlvr-vllm-"))
    save_for_engine(base, tokenizer, folder)
    return start_server(
        folder,
        vocabulary=vocabulary_of(model, tokenizer),
        context=context_length(base, tokenizer),
        dtype=DTYPES[model.dtype],
        max_rows=max_rows,
        owned=True,
    )


def vocabulary_of(model: Any, tokenizer: Any) -> int:
    """Return how many tokens can be drawn: rows of the output layer beyond them are padding."""
    return min(len(tokenizer), model.config.get_text_config().vocab_size)


def save_for_engine(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model as a folder that an engine starts from."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
