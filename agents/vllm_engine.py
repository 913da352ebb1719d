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
import gc
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..verifiers import ModelError, UsageError
from . import vllm_masks
from .draws import turn_seed
from .types import Completion, Sampling, StopReason
from .vllm_adapters import AdapterFolder
from .vllm_settings import ENVIRONMENT, engine_options, import_vllm, sleeps

__all__ = ["ENVIRONMENT", "LocalEngine", "VLLMEngine", "chosen", "import_vllm"]

Parameters = Mapping[str, Any]
"""Keywords of vLLM's `SamplingParams`."""

SCORED: Parameters = {
    "max_tokens": 1, "prompt_logprobs": 0, "temperature": 1.0, "detokenize": False
}  # fmt: skip
"""How a sequence is scored."""


class VLLMEngine:
    """What engines of vLLM have in common, in this process or in one of their own."""

    keeps_folder = False
    """Whether the folder that it is started from is its own, until it is closed."""

    def __init__(self, options: Mapping[str, Any], *, end_ids: Sequence[int], rank: int) -> None:
        """Note how completions end.

        Args:
            options: The engine's arguments.
            end_ids: Ids that end a completion.
            rank: Of the adapters that are to be served; 0: weights come merged.
        """
        self.context, self.version, self.end_ids = options["max_model_len"], 0, tuple(end_ids)
        self.vocabulary = options["additional_config"]["vocabulary"]
        self.prompt_tokens = self.cached_tokens = 0
        """Tokens of prompts so far, and those that were found in the prefix cache."""
        self.adapters = AdapterFolder() if rank else None
        """Where adapters are handed over, if they are served beside the weights."""
        self._request: Any = None
        """The adapters that each request names."""

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
            "logprobs": vllm_masks.shown(sampling, self.vocabulary),
        }

    def mask_problem(self, sampling: Sampling) -> str:
        """Say why `Completion.kept` cannot be known; empty if it can."""
        return vllm_masks.problem(sampling)

    def _completion(self, output: Any, sampling: Sampling) -> Completion:
        (drawn,) = output.outputs
        reasons = {"stop": StopReason.EOS, "length": StopReason.LENGTH}
        if drawn.finish_reason not in reasons:
            raise ModelError(f"vLLM ended a completion with '{drawn.finish_reason}'")
        self.prompt_tokens += len(output.prompt_token_ids)
        self.cached_tokens += output.num_cached_tokens or 0
        stopped = isinstance(drawn.stop_reason, str)
        return Completion(
            tokens=list(drawn.token_ids),
            logprobs=chosen(drawn.token_ids, drawn.logprobs),
            stop_reason=StopReason.STOP if stopped else reasons[drawn.finish_reason],
            version=self.version,
            kept=vllm_masks.of_tables(drawn.logprobs, sampling, self.vocabulary),
        )

    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return log p of every token but the first, over the whole output layer, in nats."""
        if self.adapters is None:
            found = self._finish(sequences, SCORED)
        else:  # with adapters, vLLM scores the prompts of a batch of one alone
            found = [self._finish([ids], SCORED)[0] for ids in sequences]
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
        raise NotImplementedError

    def _written(self, tensors: Mapping[str, torch.Tensor]) -> Any:
        """Write adapters, and return what a request names them by: a new number each time."""
        if self.adapters is None:
            raise UsageError("the engine was started without adapters; give it their rank")
        from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

        number, place = self.adapters.write(tensors)
        return LoRARequest(f"rlvr-{number}", number, str(place))

    def _drop(self, request: Any) -> None:
        """Remove the files of adapters that no request names any more."""
        if request is not None and self.adapters is not None:
            self.adapters.drop(request.lora_int_id)


class LocalEngine(VLLMEngine):
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
        rank: int = 0,
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
            rank: Of the adapters that are to be served; 0: none are.
            settings: More arguments of `vllm.LLM`, such as `gpu_memory_utilization`.

        Raises:
            UsageError: vLLM is not installed, or knows no such setting.
            ModelError: It cannot run this model.
        """
        vllm = import_vllm()
        options = engine_options(
            folder,
            vocabulary=vocabulary,
            context=context,
            dtype=dtype,
            max_rows=max_rows,
            rank=rank,
            settings=settings,
        )
        super().__init__(options, end_ids=end_ids, rank=rank)
        self._sleeps = sleeps(settings)
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._driver: asyncio.Task[None] | None = None
        self._count = 0
        self._ended = ""
        """Why it cannot be used any more."""
        self._sampling = vllm.SamplingParams
        self._whole = vllm.sampling_params.RequestOutputKind.FINAL_ONLY
        """Nothing is put together for requests that go on."""
        try:
            self._llm = vllm.LLM(**options)
        except Exception as error:
            self.close()
            raise ModelError(f"vLLM could not start with '{folder}': {error}") from error
        self._engine = self._llm.llm_engine

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Draw one completion, in one batch with all others that are asked for meanwhile.

        Raises:
            UsageError: The prompt is empty or leaves no room in the context; the engine is closed.
            ModelError: The engine failed, now or earlier.
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
        return self._completion(output, sampling)

    def _add(self, prompt_ids: Sequence[int], parameters: Parameters) -> str:
        self._check()
        self._count += 1
        name = str(self._count)
        prompt = {"prompt_token_ids": [int(token) for token in prompt_ids]}
        named = {} if self._request is None else {"lora_request": self._request}
        try:
            asked = self._sampling(**parameters, output_kind=self._whole)
            self._engine.add_request(name, prompt, asked, **named)
        except ValueError as error:
            raise UsageError(f"vLLM does not take such a request: {error}") from error
        return name

    def _check(self) -> None:
        """Check that the engine can be asked."""
        if self._ended == "closed":
            raise UsageError("the engine is closed; start another one")
        if self._ended:
            raise ModelError(f"vLLM has failed before ({self._ended}); start it again, and resume")

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
        """Give up: what a step that raised has left behind is not known."""
        self._ended = str(error) or type(error).__name__
        for future in self._waiting.values():
            if not future.done():
                failed = ModelError(f"vLLM failed while generating: {self._ended}")
                failed.__cause__ = error
                future.set_exception(failed)

    def load(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Take new weights, and forget every cached prefix.

        Raises:
            UsageError: Completions are being drawn.
            ModelError: vLLM could not take the weights.
        """
        self._check_idle()
        try:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
        except Exception as error:
            raise ModelError(f"vLLM could not take the new weights: {error}") from error
        self.forget()
        self.version = version

    def adapt(self, tensors: Mapping[str, torch.Tensor], version: int) -> None:
        """Take new adapters in place of the former ones, and forget every cached prefix.

        Raises:
            UsageError: Completions are being drawn.
            ModelError: vLLM could not take the adapters.
        """
        self._check_idle()
        request = self._written(tensors)
        try:
            self._engine.add_lora(request)
        except Exception as error:
            self._drop(request)
            raise ModelError(f"vLLM could not take the adapters: {error}") from error
        former, self._request = self._request, request
        if former is not None:
            self._engine.remove_lora(former.lora_int_id)
        self._drop(former)
        self.forget()
        self.version = version

    def _check_idle(self) -> None:
        self._check()
        if self._waiting:
            raise UsageError(
                f"weights cannot change while {len(self._waiting)} completions are being drawn in "
                "this process; wait for them"
            )

    def forget(self) -> None:
        """Drop all cached prefixes: they were computed with other weights.

        Raises:
            ModelError: vLLM kept them.
        """
        if self._engine.reset_prefix_cache() is False:
            raise ModelError("vLLM did not drop its cached prefixes: requests are running")

    def _finish(self, prompts: Sequence[Sequence[int]], parameters: Parameters) -> list[Any]:
        """Run requests to their end, now."""
        if self._waiting:
            raise UsageError("the engine is drawing completions; check it between two rollouts")
        names = [self._add(prompt, parameters) for prompt in prompts]
        found: dict[str, Any] = {}
        try:
            while self._engine.has_unfinished_requests():
                found |= {one.request_id: one for one in self._engine.step() if one.finished}
        except Exception as error:
            self._fail(error)
            raise ModelError(f"vLLM failed while scoring: {self._ended}") from error
        return [found[name] for name in names]

    def sleep(self) -> None:
        """Give the memory of weights and cache to the learner, if it was started to."""
        if self._sleeps:
            self._check_idle()
            self._llm.sleep(level=1)

    def wake(self) -> None:
        """Take the memory back."""
        if self._sleeps:
            self._check()
            self._llm.wake_up()

    def close(self) -> None:
        """Give the engine's memory back; it cannot be used any more."""
        self._ended = "closed"
        if self.adapters is not None:
            self.adapters.close()
        engine = self.__dict__.pop("_engine", None)
        if self.__dict__.pop("_llm", None) is not None:
            shut = getattr(getattr(engine, "engine_core", None), "shutdown", lambda: None)
            shut()
            del engine
            gc.collect()  # its parts refer to each other
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def chosen(tokens: Sequence[int], ranked: Sequence[Mapping[int, Any]]) -> list[float]:
    """Return the log-probability of each token out of vLLM's tables per position."""
    return [float(table[token].logprob) for token, table in zip(tokens, ranked, strict=True)]
