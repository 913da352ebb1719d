"""vLLM in this process: its steps run on the event loop that asks for completions.

The engine batches continuously: a request joins the running batch at the next step, so that
episodes advance independently and a finished one makes room at once. Between two steps the loop
serves whoever waits: environments that have answered, requests that are taken back.

Weights may change while completions are drawn (`load(..., in_flight=True)`), between two steps and
from any thread: what these hold in the cache is computed again with the new weights, and they say
which weights drew which tokens.

Covered: decoder-only models on one device, CPU or GPU. Not covered: several GPUs; run servers.
"""

import asyncio
import gc
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from ..verifiers import ModelError, UsageError
from .types import Completion, Sampling
from .vllm_engine import VLLMEngine
from .vllm_requests import Parameters
from .vllm_settings import engine_options, import_vllm, sleeps


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
        targets: Sequence[str] = (),
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
            targets: Names of the layers that have them.
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
            targets=targets,
            settings=settings,
        )
        super().__init__(options, end_ids=end_ids, rank=rank)
        self._sleeps = sleeps(settings)
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._driver: asyncio.Task[None] | None = None
        self._count = 0
        self._turn = threading.RLock()
        """Held by whoever asks the engine for something."""
        self._halts: list[None] = []
        """One for each who waits for a turn, or has one that lasts."""
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
        future = asyncio.get_running_loop().create_future()
        name = self._add(prompt_ids, self._parameters(prompt_ids, sampling), future)
        if self._driver is None or self._driver.done():
            self._driver = asyncio.get_running_loop().create_task(self._drive())
        try:
            output = await future
        except asyncio.CancelledError:
            with self._turn:
                self._engine.abort_request([name])
            raise
        finally:
            self._waiting.pop(name, None)
        return self._completion(output, sampling)

    def _add(
        self,
        prompt_ids: Sequence[int],
        parameters: Parameters,
        future: asyncio.Future[Any] | None = None,
    ) -> str:
        self._check()
        prompt = {"prompt_token_ids": [int(token) for token in prompt_ids]}
        named = {} if self._request is None else {"lora_request": self._request}
        with self._turn:
            self._count += 1
            name = str(self._count)
            try:
                asked = self._sampling(**parameters, output_kind=self._whole)
                self._engine.add_request(name, prompt, asked, **named)
            except ValueError as error:
                raise UsageError(f"vLLM does not take such a request: {error}") from error
            if future is not None:
                self._waiting[name] = future
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
            if not self._halts:
                try:
                    with self._turn:
                        self._step()
                except Exception as error:
                    self._fail(error)
                    return
            await asyncio.sleep(0.001 if self._halts else 0)

    def _step(self) -> list[Any]:
        """Compute a step; returns what it has finished, and hands it to those who wait."""
        finished = [output for output in self._engine.step() if output.finished]
        for output in finished:
            future = self._waiting.get(output.request_id)
            if future is not None:
                _settle(future, output)
        return finished

    @contextmanager
    def _between_steps(self) -> Iterator[None]:
        """Keep the loop from stepping, whichever thread asks for it."""
        self._halts.append(None)
        try:
            with self._turn:
                yield
        finally:
            self._halts.pop()

    def _fail(self, error: Exception) -> None:
        """Give up: what a step that raised has left behind is not known."""
        self._ended = str(error) or type(error).__name__
        for future in list(self._waiting.values()):
            failed = ModelError(f"vLLM failed while generating: {self._ended}")
            failed.__cause__ = error
            _settle(future, failed)

    def load(
        self,
        weights: Iterable[tuple[str, torch.Tensor]],
        version: int,
        *,
        in_flight: bool = False,
    ) -> None:
        """Take new weights, and forget every cached prefix.

        Args:
            weights: Names of a checkpoint, and their tensors.
            version: How the caller counts them.
            in_flight: Whether completions that are being drawn go on with them, where
                `updates_in_flight`; else there may be none.

        Raises:
            UsageError: Completions are being drawn.
            ModelError: vLLM could not take the weights.
        """
        keep = in_flight and self.updates_in_flight
        if not keep:
            self._check_idle()
        with self._between_steps():
            asked = {"weights_iterator": iter(weights)}
            try:
                self._llm.collective_rpc("reload_weights", kwargs=asked)
            except Exception as error:
                raise ModelError(f"vLLM could not take the new weights: {error}") from error
            self.forget(running=keep)
            self._relabel(version)

    def _relabel(self, version: int) -> None:
        """Have tokens tell from now on that these weights draw them."""
        label = self._new_label(version)
        if self.labelled:
            self._llm.update_weight_version(label)
        self._label = label

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
        self._relabel(version)

    def _check_idle(self) -> None:
        self._check()
        if self._waiting:
            raise UsageError(
                f"weights cannot change while {len(self._waiting)} completions are being drawn in "
                "this process; wait for them"
            )

    def forget(self, *, running: bool = False) -> None:
        """Drop all cached prefixes: they were computed with other weights.

        Args:
            running: Whether those of completions that go on are dropped, too, and computed again.

        Raises:
            ModelError: vLLM kept them.
        """
        if self._engine.reset_prefix_cache(*([True] if running else [])) is False:
            raise ModelError("vLLM did not drop its cached prefixes: requests are running")

    def _finish(self, prompts: Sequence[Sequence[int]], parameters: Parameters) -> list[Any]:
        """Run requests to their end, now."""
        if self._waiting and not self.updates_in_flight:
            raise UsageError("the engine is drawing completions; check it between two rollouts")
        with self._between_steps():
            names = [self._add(prompt, parameters) for prompt in prompts]
            found: dict[str, Any] = dict.fromkeys(names)
            try:
                while None in found.values() and self._engine.has_unfinished_requests():
                    done = {one.request_id: one for one in self._step()}
                    found |= {name: done[name] for name in names if name in done}
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


def _settle(future: asyncio.Future[Any], outcome: Any) -> None:
    """Give a future its output or its error, on the loop that waits for it."""

    def put() -> None:
        if future.done():
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    if future.get_loop() is here:
        put()
    else:
        with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            future.get_loop().call_soon_threadsafe(put)
