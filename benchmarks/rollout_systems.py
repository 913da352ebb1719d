"""The systems of the rollout benchmark, each a function that runs behind a gate.

A step is one batch: each system goes through `WORKS` in turn for as long as it is asked. Those that
know no environments are driven by hand: token ids in, token ids out, no text, no verdict; what the
tools say is put behind a turn as tokens that were made beforehand.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from bare_loop import left_padded
from rollout_work import WORKS, Script, Talk, Work
from workers import Gate

from rlvr.agents import Sampling, load_model, rollout
from rlvr.agents.draws import turn_seed
from rlvr.agents.policies import open_policy
from rlvr.agents.transformers_policy import context_length, eos_ids
from rlvr.agents.vllm_settings import import_vllm

MAX_ROWS = 256
"""Sequences computed at the same time at most, in every system that takes a limit."""
BLOCKS: dict[str, Any] = {"page_size": 32, "num_blocks": 512, "max_batch_tokens": 512}
"""Of transformers' continuous batching, which by default takes all memory and attends to all."""

GENERATE = "/inference/v1/generate"
"""A vLLM server's route from token ids to token ids."""

Draw = Callable[[Work, int], list[int]]
"""Draw a batch of a kind by its number; returns each episode's tokens."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker is told."""

    model: str
    """Folder of the weights."""


def serve(gate: Gate, draw: Draw, close: Callable[[], Any] = lambda: None) -> None:
    """Draw batch after batch; `close` is what the parent asks for at the end, if it still can."""

    def end() -> None:
        gate.leave = lambda: None
        close()

    gate.evaluate = gate.leave = end
    gate.ready()
    for number in itertools.count():
        gate.lengths += draw(WORKS[number % len(WORKS)], number // len(WORKS))
        gate.tick()


def ours(gate: Gate, job: Job, policy: str, wait: str = "all") -> None:
    """Our rollout, as a trainer calls it: environments, verdicts, exact trajectories."""
    model, tokenizer = load_model(job.model, device="cpu")
    made = {work.name: work.environments() for work in WORKS}
    opened = open_policy(
        policy, model, tokenizer, max_rows=MAX_ROWS, wait=wait, say=lambda text: None
    )

    def draw(work: Work, number: int) -> list[int]:
        sampling = Sampling(max_tokens=work.max_tokens)
        found = rollout(work.posed(made[work.name], number), opened, sampling)
        return [trajectory.length for trajectory in found]

    serve(gate, draw, getattr(opened, "close", lambda: None))


def _script(job: Job) -> tuple[Any, Any, Script]:
    """Return model, tokenizer and the batches by hand."""
    from rlvr.agents.conversation import ChatFormat

    model, tokenizer = load_model(job.model, device="cpu")
    ends = eos_ids(model, tokenizer)
    return model, tokenizer, Script(ChatFormat(tokenizer, ends), ends[0])


def _in_lock_step(
    talks: Sequence[Talk], complete: Callable[[Sequence[Talk]], list[list[int]]]
) -> list[int]:
    """Draw turn after turn, all conversations at once."""
    open_ones = [*talks]
    while open_ones:
        turns = complete(open_ones)
        open_ones = [t for t, drawn in zip(open_ones, turns, strict=True) if t.take(drawn)]
    return [talk.drawn for talk in talks]


def by_generate(gate: Gate, job: Job) -> None:
    """`model.generate`: the batch is decoded until its last row has finished."""
    model, tokenizer, script = _script(job)
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id

    def complete(work: Work, talks: Sequence[Talk]) -> list[list[int]]:
        ids, attention = left_padded([talk.ids for talk in talks])
        found = model.generate(
            ids,
            attention_mask=attention,
            do_sample=True,
            top_k=0,
            max_new_tokens=work.max_tokens,
            pad_token_id=pad,
        )
        rows = found[:, ids.shape[1] :].tolist()
        return [row[: row.index(eos) + 1] if eos in row else row for row in rows]

    def draw(work: Work, number: int) -> list[int]:
        torch.manual_seed(number)
        return _in_lock_step(script.talks(work, number), partial(complete, work))

    serve(gate, draw)


def by_generate_batch(gate: Gate, job: Job) -> None:
    """Transformers' continuous batching."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    model, tokenizer, script = _script(job)

    def complete(work: Work, number: int, talks: Sequence[Talk]) -> list[list[int]]:
        asked = GenerationConfig(
            do_sample=True,
            top_k=0,
            max_new_tokens=work.max_tokens,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        batching = ContinuousBatchingConfig(return_logprobs=True, seed=number, **BLOCKS)
        found = model.generate_batch(
            [talk.ids for talk in talks], asked, continuous_batching_config=batching
        )
        outputs = sorted(found.values(), key=lambda one: int(one.request_id.rpartition("_")[2]))
        if any(one.error or not one.generated_tokens for one in outputs):
            raise RuntimeError(f"a request failed: {[one.error for one in outputs if one.error]}")
        return [one.generated_tokens for one in outputs]

    def draw(work: Work, number: int) -> list[int]:
        return _in_lock_step(script.talks(work, number), partial(complete, work, number))

    serve(gate, draw)


def _settings(job: Job, model: Any, tokenizer: Any) -> dict[str, Any]:
    """Return the engine's settings, the same as ours."""
    return {
        "model": job.model,
        "dtype": "float32",
        "max_model_len": context_length(model, tokenizer),
        "max_num_seqs": MAX_ROWS,
        "logprobs_mode": "processed_logprobs",
        "generation_config": "vllm",
        "enforce_eager": True,
        "enable_chunked_prefill": False,  # with a seed per request it fails on a CPU
        "disable_log_stats": True,
    }


def _parameters(work: Work, talk: Talk) -> dict[str, Any]:
    """Return how a turn is sampled: the same draws as ours, with their log-probabilities."""
    return {
        "max_tokens": work.max_tokens,
        "temperature": 1.0,
        "seed": turn_seed(talk.seed, len(talk.ids)),
        "stop_token_ids": [talk.eos],
        "detokenize": False,
        "logprobs": 0,
    }


def _sampling(vllm: Any, work: Work, talk: Talk) -> Any:
    kind = vllm.sampling_params.RequestOutputKind.FINAL_ONLY
    return vllm.SamplingParams(**_parameters(work, talk), output_kind=kind)


def bare_vllm(gate: Gate, job: Job, door: str) -> None:
    """The engine in this process, by `LLM.generate` or by its own `add_request` and `step`."""
    vllm = import_vllm()
    model, tokenizer, script = _script(job)
    llm = vllm.LLM(**_settings(job, model, tokenizer))

    def complete(work: Work, talks: Sequence[Talk]) -> list[list[int]]:
        prompts = [{"prompt_token_ids": talk.ids} for talk in talks]
        asked = [_sampling(vllm, work, talk) for talk in talks]
        found = llm.generate(prompts, asked, use_tqdm=False)
        return [list(one.outputs[0].token_ids) for one in found]

    def stepped(work: Work, talks: Sequence[Talk]) -> list[int]:
        engine, running, names = llm.llm_engine, {}, map(str, itertools.count())

        def add(talk: Talk) -> None:
            running[name := next(names)] = talk
            prompt = {"prompt_token_ids": talk.ids}
            engine.add_request(name, prompt, _sampling(vllm, work, talk))

        for talk in talks:
            add(talk)
        while engine.has_unfinished_requests():
            for one in engine.step():
                if one.finished:
                    talk = running.pop(one.request_id)
                    if talk.take(one.outputs[0].token_ids):
                        add(talk)
        return [talk.drawn for talk in talks]

    def draw(work: Work, number: int) -> list[int]:
        talks = script.talks(work, number)
        if door == "step":
            return stepped(work, talks)
        return _in_lock_step(talks, partial(complete, work))

    serve(gate, draw)


Complete = Callable[[Work, Talk], Any]
"""Draw one turn; a coroutine of its tokens."""


async def _each_at_its_pace(work: Work, talks: Sequence[Talk], complete: Complete) -> list[int]:
    async def one(talk: Talk) -> None:
        while talk.take(await complete(work, talk)):
            pass

    await asyncio.gather(*map(one, talks))
    return [talk.drawn for talk in talks]


def bare_async(gate: Gate, job: Job) -> None:
    """The asynchronous engine by hand: a task for each conversation."""
    vllm = import_vllm()
    from vllm.v1.engine.async_llm import AsyncLLM  # pyright: ignore[reportMissingImports]

    model, tokenizer, script = _script(job)
    names = map(str, itertools.count())
    with asyncio.Runner() as runner:

        async def start() -> Any:
            return AsyncLLM.from_engine_args(
                vllm.AsyncEngineArgs(**_settings(job, model, tokenizer))
            )

        engine = runner.run(start())

        async def complete(work: Work, talk: Talk) -> list[int]:
            prompt = {"prompt_token_ids": talk.ids}
            found: Sequence[int] = ()
            async for one in engine.generate(prompt, _sampling(vllm, work, talk), next(names)):
                found = one.outputs[0].token_ids
            return list(found)

        def draw(work: Work, number: int) -> list[int]:
            return runner.run(_each_at_its_pace(work, script.talks(work, number), complete))

        serve(gate, draw, engine.shutdown)


def bare_server(gate: Gate, job: Job) -> None:
    """A server on loopback, asked by hand: a connection for each conversation."""
    import aiohttp  # pyright: ignore[reportMissingImports]

    from rlvr.agents.vllm_process import start_server

    model, tokenizer, script = _script(job)
    context = context_length(model, tokenizer)
    server = start_server(job.model, vocabulary=len(tokenizer), context=context, max_rows=MAX_ROWS)

    async def batch(work: Work, number: int) -> list[int]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def complete(work: Work, talk: Talk) -> list[int]:
                asked = {"token_ids": talk.ids, "sampling_params": _parameters(work, talk)}
                async with session.post(server.url + GENERATE, json=asked) as answer:
                    answer.raise_for_status()
                    return (await answer.json())["choices"][0]["token_ids"]

            return await _each_at_its_pace(work, script.talks(work, number), complete)

    serve(gate, lambda work, number: asyncio.run(batch(work, number)), server.close)


SYSTEMS: dict[str, Callable[[Gate, Job], None]] = {
    "ours, transformers": partial(ours, policy="transformers"),
    "ours, transformers, wait=some": partial(ours, policy="transformers", wait="some"),
    "model.generate": by_generate,
    "generate_batch": by_generate_batch,
    "ours, vllm": partial(ours, policy="vllm"),
    "bare engine": partial(bare_vllm, door="step"),
    "LLM.generate": partial(bare_vllm, door="generate"),
    "ours, vllm-async": partial(ours, policy="vllm-async"),
    "bare AsyncLLM": bare_async,
    "ours, vllm-server": partial(ours, policy="vllm-server"),
    "bare server": bare_server,
}
"""Every system by name; those that are compared stand beside each other."""
