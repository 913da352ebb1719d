"""vLLM in a process of its own, which draws while this one computes.

The engine's client belongs to one event loop for its whole life, and rollouts come and go with
loops of their own: so it has a thread with a loop here, which does nothing but carry messages.

The process may end (killed, out of memory) or stop answering. Either is noticed, another is started
and handed the current weights, and what it was drawing is drawn again: with the same seeds, hence
as it would have been. Nothing of a completion that is not whole is ever handed on.

Weights may change while completions are drawn (`load(..., in_flight=True)`): these are frozen, what
they hold in the cache is computed again with the new weights, and they say which drew which tokens.
"""

import asyncio
import atexit
import shutil
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..verifiers import ModelError, UsageError
from .transports import FileTransport
from .types import Completion, Sampling
from .vllm_child import Child
from .vllm_engine import VLLMEngine
from .vllm_requests import Parameters
from .vllm_settings import engine_options, import_vllm, sleeps

T = TypeVar("T")

STARTS = 3
"""Processes started one after the other, of which none finished a completion, before giving up."""

ATTEMPTS = 6
"""Times that one completion is begun at most."""

PULSE = 5.0
"""Seconds between two looks at whether the process answers, while it draws."""

LOOK = 0.2
"""Seconds between two looks at whether the process lives, while it is asked for something."""


class AsyncEngine(VLLMEngine):
    """An engine in a process of its own."""

    apart = True
    """Whether it draws in another process."""
    keeps_folder = True

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
        patience: float = 300.0,
        say: Callable[[str], None] = lambda text: None,
        **settings: Any,
    ) -> None:
        """Start the process.

        Args:
            folder: The model, with its tokenizer; it is removed when the engine is closed.
            vocabulary: Tokens that may be drawn; rows of the output layer beyond are padding.
            end_ids: Ids that end a completion.
            context: The longest sequence in tokens.
            dtype: Of weights and computation.
            max_rows: Sequences that are computed at the same time at most.
            rank: Of the adapters that are to be served; 0: none are.
            targets: Names of the layers that have them.
            patience: Seconds without an answer after which the process counts as hung.
            say: Told what goes wrong and what is done about it.
            settings: More arguments of `vllm.LLM`, such as `gpu_memory_utilization`.

        Raises:
            UsageError: vLLM is not installed, or knows no such setting.
            ModelError: It cannot run this model.
        """
        self._vllm = import_vllm()
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
        self.redone = 0
        """Completions that were drawn again."""
        self._sleeps, self._patience, self._say = sleeps(settings), patience, say
        self._folder, self._closed, self._asleep = Path(folder), False, False
        self._files = FileTransport()
        self.child = Child(options, self._folder)
        self._coming = self._label
        """Label of what the process is to have."""
        self._count = self._starts = self._drawing = 0
        self._under_way = self._lost = 0
        self._ready = False
        """Whether the process has the current weights."""
        self._mending = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        atexit.register(self.close)
        try:
            self._call(self._start())
        except BaseException:
            self.close()
            raise

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Draw one completion; if the process ends or hangs, it is drawn again by another.

        Raises:
            UsageError: The prompt is empty or leaves no room in the context; the engine is closed.
            ModelError: The engine failed again and again.
        """
        parameters = self._parameters(prompt_ids, sampling)
        self._drawing += 1
        try:
            drawn = await asyncio.wrap_future(self._send(self._drawn(prompt_ids, parameters)))
        finally:
            self._drawing -= 1
        return self._completion(drawn, sampling)

    def _send(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Have the engine's thread do something."""
        if self._closed:
            work.close()
            raise UsageError("the engine is closed; start another one")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        """The same, and wait for it."""
        return self._send(work).result()

    async def _drawn(self, prompt_ids: Sequence[int], parameters: Parameters) -> Any:
        """Run one request to its end, by however many processes it takes."""
        from vllm.sampling_params import RequestOutputKind  # pyright: ignore[reportMissingImports]

        prompt = {"prompt_token_ids": [int(token) for token in prompt_ids]}
        asked = self._vllm.SamplingParams(**parameters, output_kind=RequestOutputKind.FINAL_ONLY)
        for _ in range(ATTEMPTS):
            llm = await self._well()
            self._under_way += 1
            try:
                found = await self._once(llm, prompt, asked)
            finally:
                self._under_way -= 1
            if found is not None:
                return found
            self.redone += 1
            self._lost += 1
        raise ModelError(
            f"the engine's process ended {ATTEMPTS} times under one completion; {self.child.tail()}"
        )

    async def _once(self, llm: Any, prompt: Mapping[str, Any], asked: Any) -> Any:
        """Run one request; returns nothing if the process has ended."""
        self._count += 1
        named = {} if self._request is None else {"lora_request": self._request}
        try:
            async for output in llm.generate(prompt, asked, str(self._count), **named):
                if output.finished:
                    self._starts = 0
                    return output
        except ValueError as error:
            raise UsageError(f"vLLM does not take such a request: {error}") from error
        except Exception as error:
            if llm is self.child.llm and self.child.alive:
                raise ModelError(f"vLLM failed while generating: {error}") from error
        return None

    async def _well(self) -> Any:
        """Return the running engine; if its process is gone, start another with its weights.

        Raises:
            ModelError: One after the other did not live.
        """
        async with self._mending:
            while not self._ready or not self.child.alive:
                if self._starts >= STARTS:
                    raise ModelError(
                        f"the engine's process ended {STARTS} times without drawing anything; at "
                        f"last: {self.child.tail()}"
                    )
                self._say(
                    "warning: the engine's process has ended, and another one is started; its log "
                    f"ends with: {self.child.tail(1)}"
                )
                try:
                    await self._start()
                    await self._bring()
                except ModelError as error:
                    self._say(f"warning: {error}")
                else:
                    version = self._versions[self._coming]
                    self._say(
                        f"the engine has the weights of update {version} again; "
                        f"{self._lost} completions are drawn again"
                    )
                    self._lost = 0
            return self.child.llm

    async def _start(self) -> None:
        """Start a process in place of the one there was; it has the weights of the folder."""
        self._ready = False
        self._starts += 1
        self.child.start()
        self._ready = self._files.current is None and self._request is None
        self._watch = asyncio.get_running_loop().create_task(self._look_after(self.child.llm))

    async def _look_after(self, llm: Any) -> None:
        """End a process that does not answer, so that it is noticed."""
        while llm is self.child.llm and self.child.alive:
            await asyncio.sleep(min(PULSE, self._patience))
            if not self._under_way or self._asleep:
                continue
            with suppress(ModelError):
                await self._asked(llm.is_sleeping())

    async def _asked(self, call: Any) -> Any:
        """Wait for an answer of the process, which is ended if there is none.

        Raises:
            ModelError: It refuses, does not answer, or has ended.
        """
        answer, until = asyncio.ensure_future(call), time.monotonic() + self._patience
        while not answer.done() and self.child.alive and time.monotonic() < until:
            await asyncio.wait([answer], timeout=min(LOOK, self._patience))
        if not answer.done():
            answer.cancel()
            if not self.child.alive:  # then vLLM's client waits for ever
                raise ModelError("the engine's process has ended")
            self._say(f"warning: the engine has not answered for {self._patience:g} s")
            self.child.kill()
            raise ModelError("the engine does not answer")
        try:
            return answer.result()
        except Exception as error:
            raise ModelError(f"the engine failed: {error or type(error).__name__}") from error

    async def _bring(self, *, keep: bool = False) -> None:
        """Hand it the current weights, and drop every cached prefix; `keep`: freeze completions."""
        self._ready, llm = False, self.child.llm
        if keep:
            await self._asked(llm.pause_generation(mode="keep", clear_cache=False))
        if self._files.current is not None:
            asked = {"weights_path": str(self._files.current)}
            await self._asked(llm.collective_rpc("reload_weights", kwargs=asked))
        if self._request is not None:
            await self._asked(llm.add_lora(self._request))
        await self._forget(running=keep)
        if self.labelled:
            await self._asked(llm.update_weight_version(self._coming))
        if keep:
            await self._asked(llm.resume_generation())
        self._ready = True

    def load(
        self,
        weights: Iterable[tuple[str, torch.Tensor]],
        version: int,
        *,
        in_flight: bool = False,
    ) -> None:
        """Take new weights, and forget every cached prefix; as for `LocalEngine.load`.

        Raises:
            UsageError: Completions are being drawn.
            ModelError: vLLM could not take the weights.
        """
        keep = in_flight and self.updates_in_flight
        if not keep:
            self._check_idle()
        coming = self._new_label(version)
        self._files.publish(weights, coming)
        self._coming = coming
        self._call(self._renew(keep=keep))
        self._files.drop_former()
        self._label = coming

    def adapt(self, tensors: Mapping[str, torch.Tensor], version: int) -> None:
        """Take new adapters in place of the former ones, and forget every cached prefix.

        Raises:
            UsageError: Completions are being drawn.
            ModelError: vLLM could not take the adapters.
        """
        self._check_idle()
        former = self._request
        self._request = self._written(tensors)
        self._coming = self._new_label(version)
        self._call(self._renew(former))
        self._drop(former)
        self._label = self._coming

    async def _renew(self, former: Any = None, *, keep: bool = False) -> None:
        """Hand over what is current now; a process that has ended is started again first."""
        while True:
            llm = await self._well()
            try:
                async with self._mending:
                    await self._bring(keep=keep)
                if former is not None:
                    await self._asked(llm.remove_lora(former.lora_int_id))
                return
            except ModelError:
                if keep:  # what it has frozen is drawn again, by another process
                    self.child.kill()
                if llm is self.child.llm and self.child.alive:
                    raise

    def _check_idle(self) -> None:
        if self._drawing:
            raise UsageError(
                f"weights cannot change while {self._drawing} completions are being drawn; wait "
                "for them"
            )

    def forget(self) -> None:
        """Drop all cached prefixes: they were computed with other weights.

        Raises:
            ModelError: vLLM kept them.
        """
        self._call(self._forget())

    async def _forget(self, *, running: bool = False) -> None:
        how = [True] if running else []
        for _ in range(100):  # requests that are being aborted may still hold some
            if await self._asked(self.child.llm.reset_prefix_cache(*how)) is not False:
                return
            await asyncio.sleep(0.05)
        raise ModelError("vLLM did not drop its cached prefixes: requests are running")

    def _finish(self, prompts: Sequence[Sequence[int]], parameters: Parameters) -> list[Any]:
        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*[self._drawn(prompt, parameters) for prompt in prompts])

        return self._call(all_of_them())

    def sleep(self) -> None:
        """Give the memory of weights and cache to the learner, if it was started to."""
        if self._sleeps and self.child.alive:
            self._check_idle()
            self._asleep = True
            self._call(self._asked(self.child.llm.sleep(level=1)))

    def wake(self) -> None:
        """Take the memory back."""
        if self._asleep and self.child.alive:
            self._call(self._asked(self.child.llm.wake_up()))
        self._asleep = False

    def close(self) -> None:
        """End the process and give everything back; it cannot be used any more."""
        if self._closed:
            return
        done = self._send(self._shut())
        self._closed = True
        with suppress(Exception):
            done.result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        if not self._thread.is_alive():
            self._loop.close()
        self._watch = None  # its last frame holds the client
        self.child.kill()
        self._files.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self.adapters is not None:
            self.adapters.close()
        atexit.unregister(self.close)

    async def _shut(self) -> None:
        self.child.end()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
