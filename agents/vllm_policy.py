"""The policy on vLLM: an engine draws, the learner's weights follow it, a canary watches.

The engine has a copy of the weights; `sync` hands it the learner's after every update and has the
canary compare the two, so that training on stale or different weights stops instead of going on.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..verifiers import UsageError
from .canary import Canary, Sighting
from .conversation import ChatFormat
from .engines import AdaptedEngine, Engine, named_weights
from .transformers_policy import eos_ids
from .types import Completion, Sampling
from .vllm_adapters import adapter_tensors
from .vllm_starting import start_engine, start_servers, vocabulary_of


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
        self._drawing, self._since, self._tokens = 0, 0.0, [0, 0]
        self.canary = Canary(model, context=engine.context, vocabulary=self.vocabulary)
        self.sighting: Sighting = self.canary.check(engine, self.version)
        """What the canary last found."""
        self.sync_metrics: dict[str, float] = {}
        """Figures of the last sync."""

    @classmethod
    def start(
        cls,
        model: Any,
        tokenizer: Any,
        *,
        thoughts: str = "refuse",
        aside: bool = False,
        say: Callable[[str], None] = lambda text: None,
        **settings: Any,
    ) -> "VLLMPolicy":
        """Start an engine with a model's weights.

        Args:
            model: The learner's model.
            tokenizer: Its tokenizer.
            thoughts: As for `ChatFormat`.
            aside: Whether it has a process of its own, so that drawing overlaps with whatever this
                one computes; else it is in this process.
            say: Told what goes wrong and what is done about it.
            settings: More arguments of `LocalEngine`, or of `AsyncEngine`.

        Raises:
            UsageError: vLLM is not installed, or knows no such setting.
            ModelError: It cannot run this model.
            TrainingStopped: It computes something else than the model.
        """
        from .vllm_async import AsyncEngine
        from .vllm_local import LocalEngine

        kind: Any = LocalEngine
        if aside:
            kind, settings = AsyncEngine, {"say": say, **settings}
        engine = start_engine(kind, model, tokenizer, say, settings)
        try:
            return cls(engine, model, tokenizer, thoughts=thoughts)
        except BaseException:
            engine.close()
            raise

    @classmethod
    def connect(
        cls,
        model: Any,
        tokenizer: Any,
        servers: Sequence[Any] = (),
        *,
        thoughts: str = "refuse",
        max_rows: int = 256,
        flags: Mapping[str, Any] | None = None,
        transport: str = "files",
        folder: str = "",
        **settings: Any,
    ) -> "VLLMPolicy":
        """Draw through running vLLM servers, which are handed the model's weights.

        Args:
            model: The learner's model.
            tokenizer: Its tokenizer.
            servers: Addresses, or processes of `start_server`; none: one is started here.
            thoughts: As for `ChatFormat`.
            max_rows: Sequences that a server started here computes at the same time at most.
            flags: More flags of such a server, as arguments of vLLM's engine.
            transport: As for `open_transport`.
            folder: Likewise.
            settings: More arguments of `ServerEngine`.

        Raises:
            UsageError: A server cannot be trained through, or not with that transport.
            ModelError: A server does not answer, or does not start.
            TrainingStopped: It computes something else than the model.
        """
        if servers and flags:
            raise UsageError(
                f"{', '.join(flags)}: a running server has its settings already; start it with "
                "them, or name no server, and one is started here"
            )
        engine = start_servers(
            servers,
            model,
            tokenizer,
            max_rows,
            flags or {},
            transport=transport,
            folder=folder,
            **settings,
        )
        try:
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
    def apart(self) -> bool:
        """Whether it draws in another process, so that the learner may work at the same time."""
        return getattr(self.engine, "apart", False)

    @property
    def device(self) -> torch.device:
        """Where the learner's model lies."""
        return self.model.device

    def mask_problem(self, sampling: Sampling) -> str:
        """Say why `Completion.kept` cannot be known; empty if it can."""
        told = getattr(self.engine, "mask_problem", None)
        return told(sampling) if told else "this engine does not list the tokens that were left"

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

    def sync(
        self, weights: Mapping[str, torch.Tensor] | None = None, *, in_flight: bool = False
    ) -> int:
        """Hand the engine the weights, and look whether they have arrived.

        Args:
            weights: A state dict that the learner's model takes first; `None`: its own.
            in_flight: Whether completions that are being drawn, from another thread, go on with
                the new weights, as far as the engine can (`updates_in_flight`).

        Returns:
            The version that completions carry from now on.

        Raises:
            UsageError: The engine takes weights between completions alone.
            TrainingStopped: They have not arrived as they are.
        """
        if weights is not None:
            self.model.load_state_dict(weights)
        version, began = self.version + 1, time.perf_counter()
        self._hand_over(version, in_flight)
        loaded = time.perf_counter()
        found = self.sighting = self.canary.check(self.engine, version)
        self.sync_metrics = {
            "sync/seconds": loaded - began,
            "sync/canary_seconds": time.perf_counter() - loaded,
            "sync/gap": found.gap,
            "sync/cached_gap": found.cached_gap,
        }
        if share := self._cached_share():
            self.sync_metrics["engine/cached_share"] = share
        if found.share is not None:
            self.sync_metrics["sync/share"] = found.share
        self.sync_metrics |= getattr(self.engine, "figures", dict)()
        return version

    def _hand_over(self, version: int, in_flight: bool) -> None:
        """Send the weights, or the adapters alone where they are served beside them."""
        if in_flight and not getattr(self.engine, "updates_in_flight", False):
            raise UsageError(
                "this engine takes weights between completions alone; wait for them, or draw "
                "through servers (--policy vllm-server)"
            )
        how: dict[str, Any] = {"in_flight": True} if in_flight else {}
        if isinstance(self.engine, AdaptedEngine) and self.engine.adapters is not None:
            self.engine.adapt(adapter_tensors(self.model), version, **how)
        else:
            self.engine.load(named_weights(self.model), version, **how)

    def _cached_share(self) -> float:
        """Return the share of prompts' tokens that a prefix cache had, since the last time."""
        now = [getattr(self.engine, name, 0) for name in ("cached_tokens", "prompt_tokens")]
        found, asked = (one - before for one, before in zip(now, self._tokens, strict=True))
        self._tokens = now
        return found / asked if asked else 0.0

    def sleep(self) -> None:
        """Give the engine's memory to the learner, where the engine was started to do so."""
        getattr(self.engine, "sleep", lambda: None)()

    def wake(self) -> None:
        """Take it back, before a sync."""
        getattr(self.engine, "wake", lambda: None)()

    def close(self) -> None:
        """Stop the engine."""
        self.engine.close()
