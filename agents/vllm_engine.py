"""vLLM in this process: its steps run on the event loop that asks for completions.

The engine batches continuously: a request joins the running batch at the next step, so that
episodes advance independently and a finished one makes room at once. Between two steps the loop
serves whoever waits: environments that have answered, requests that are taken back.

Sampling is vLLM's own, seeded by (episode's seed, position), so that runs repeat. Log-probabilities
are those of the distribution drawn from (`logprobs_mode="processed_logprobs"`), over the
tokenizer's tokens alone, as the learner computes them.

Covered: decoder-only models on one device, CPU or GPU. Not covered: several GPUs; run servers.
"""

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..verifiers import ModelError, UsageError
from .draws import turn_seed
from .types import Completion, Sampling, StopReason

ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; by default it takes half of the machine's memory
}
"""Environment variables for vLLM, unless the user has set them."""

Parameters = Mapping[str, Any]
"""Keywords of vLLM's `SamplingParams`."""


def import_vllm() -> Any:
    """Import vLLM.

    Raises:
        UsageError: It is not installed, or its installation is broken.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine is stepped by ourselves
    try:
        import vllm  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UsageError(
            f"the policy 'vllm' needs vLLM, which cannot be imported here ({error}); install "
            "rlvr[vllm], or take --policy transformers"
        ) from error
    return vllm


class LocalEngine:
    """An engine in this process."""

    def __init__(
        self,
        folder: str | Path,
        *,
        vocabulary: int,
        end_ids: Sequence[int],
        context: int,
        dtype: str = "float32",
        max_rows: int = 256,
        **settings: Any,
    ) -> None:
        """Start the engine.

        Args:
            folder: The model, with its tokenizer.
            vocabulary: Tokens that may be drawn; rows of the output layer beyond are padding.
            end_ids: Ids that end a completion.
            context: The longest sequence in tokens.
            dtype: Of weights and computation.
            max_rows: Sequences that are computed at the same time at most.
            settings: More arguments of `vllm.LLM`, such as `gpu_memory_utilization`.

        Raises:
            UsageError: vLLM is not installed.
            ModelError: It cannot run this model.
        """
        vllm = import_vllm()
        from .vllm_vocabulary import VocabularyLimit

        self.context, self.version, self.end_ids = context, 0, tuple(end_ids)
        options = {
            "model": str(folder),
            "dtype": dtype,
            "max_model_len": context,
            "max_num_seqs": max_rows,
            "logprobs_mode": "processed_logprobs",
            "generation_config": "vllm",  # nothing of the checkpoint changes how tokens are drawn
            "logits_processors": [VocabularyLimit],
            "additional_config": {"vocabulary": vocabulary},
            "enforce_eager": not torch.cuda.is_available(),
            "disable_log_stats": True,
        }
        try:
            self._llm = vllm.LLM(**{**options, **settings})
        except Exception as error:
            raise ModelError(f"vLLM could not start with '{folder}': {error}") from error
        self._sampling = vllm.SamplingParams
        self._engine = self._llm.llm_engine
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._driver: asyncio.Task[None] | None = None
        self._count = 0

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Draw one completion, in one batch with all others that are asked for meanwhile.

        Raises:
            UsageError: The prompt is empty or leaves no room in the context.
            ModelError: The engine failed.
        """
        name = self._add(prompt_ids, self._parameters(prompt_ids, sampling))
        self._waiting[name] = asyncio.get_running_loop().create_future()
        if self._driver is None or self._driver.done():
            self._driver = asyncio.get_running_loop().create_task(self._drive())
        try:
            output = await self._waiting[name]
        except asyncio.CancelledError:
            self._engine.abort_request([name])
            raise
        finally:
            self._waiting.pop(name, None)
        return self._completion(output)

    def _parameters(self, prompt_ids: Sequence[int], sampling: Sampling) -> Parameters:
        if not 0 < len(prompt_ids) < self.context:
            raise UsageError(
                f"a prompt must have 1 to {self.context - 1} tokens for this engine's context of "
                f"{self.context}, got {len(prompt_ids)}"
            )
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

    def _add(self, prompt_ids: Sequence[int], parameters: Parameters) -> str:
        self._count += 1
        name = str(self._count)
        prompt = {"prompt_token_ids": [int(token) for token in prompt_ids]}
        self._engine.add_request(name, prompt, self._sampling(**parameters))
        return name

    async def _drive(self) -> None:
        """Step the engine for as long as somebody waits."""
        while self._waiting:
            try:
                outputs = self._engine.step()
            except Exception as error:
                self._fail(error)
                return
            for output in outputs:
                future = self._waiting.get(output.request_id)
                if output.finished and future is not None and not future.done():
                    future.set_result(output)
            await asyncio.sleep(0)

    def _fail(self, error: Exception) -> None:
        self._engine.abort_request(list(self._waiting))
        for future in self._waiting.values():
            if not future.done():
                failed = ModelError(f"vLLM failed while generating: {error}")
                failed.__cause__ = error
                future.set_exception(failed)

    def _completion(self, output: Any) -> Completion:
        (drawn,) = output.outputs
        reasons = {"stop": StopReason.EOS, "length": StopReason.LENGTH}
        if drawn.finish_reason not in reasons:
            raise ModelError(f"vLLM ended a completion with '{drawn.finish_reason}'")
        stopped = isinstance(drawn.stop_reason, str)
        return Completion(
            tokens=list(drawn.token_ids),
            logprobs=chosen(drawn.token_ids, drawn.logprobs),
            stop_reason=StopReason.STOP if stopped else reasons[drawn.finish_reason],
            version=self.version,
        )

    def load(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Take new weights, and forget every cached prefix.

        Raises:
            UsageError: Completions are being drawn.
            ModelError: vLLM could not take the weights.
        """
        if self._waiting:
            raise UsageError(
                f"weights cannot change while {len(self._waiting)} completions are being drawn in "
                "this process; wait for them"
            )
        try:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
        except Exception as error:
            raise ModelError(f"vLLM could not take the new weights: {error}") from error
        self.forget()
        self.version = version

    def forget(self) -> None:
        """Drop all cached prefixes: they were computed with other weights.

        Raises:
            ModelError: vLLM kept them.
        """
        if self._engine.reset_prefix_cache() is False:
            raise ModelError("vLLM did not drop its cached prefixes: requests are running")

    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return log p of every token but the first, over the whole output layer, in nats."""
        asked = {"max_tokens": 1, "prompt_logprobs": 0, "temperature": 1.0, "detokenize": False}
        found = self._finish(sequences, asked)
        return [
            chosen(ids[1:], one.prompt_logprobs[1:])
            for ids, one in zip(sequences, found, strict=True)
        ]

    def resume(
        self, prompts: Sequence[Sequence[int]], count: int
    ) -> list[tuple[list[int], list[float]]]:
        """Draw exactly `count` tokens behind each prompt, through the prefix cache."""
        asked = {"max_tokens": count, "logprobs": 0, "temperature": 1.0, "seed": 0}
        asked |= {"ignore_eos": True, "detokenize": False}
        found = [one.outputs[0] for one in self._finish(prompts, asked)]
        return [(list(one.token_ids), chosen(one.token_ids, one.logprobs)) for one in found]

    def _finish(self, prompts: Sequence[Sequence[int]], parameters: Parameters) -> list[Any]:
        """Run requests to their end, now."""
        if self._waiting:
            raise UsageError("the engine is drawing completions; check it between two rollouts")
        names = [self._add(prompt, parameters) for prompt in prompts]
        found: dict[str, Any] = {}
        while self._engine.has_unfinished_requests():
            found |= {one.request_id: one for one in self._engine.step() if one.finished}
        return [found[name] for name in names]

    def sleep(self) -> None:
        """Give the memory of weights and cache to the learner, where the device can."""
        if torch.cuda.is_available():
            self._llm.sleep(level=1)

    def wake(self) -> None:
        """Take the memory back."""
        if torch.cuda.is_available():
            self._llm.wake_up()

    def close(self) -> None:
        """Give the engine's memory back; it cannot be used any more."""
        self.__dict__.pop("_engine", None)
        self.__dict__.pop("_llm", None)


def chosen(tokens: Sequence[int], ranked: Sequence[Mapping[int, Any]]) -> list[float]:
    """Return the log-probability of each token out of vLLM's tables per position."""
    return [float(table[token].logprob) for token, table in zip(tokens, ranked, strict=True)]
