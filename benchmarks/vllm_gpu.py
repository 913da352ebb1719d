"""vLLM on a GPU: what it brings over transformers, what it costs, how far it drifts in bfloat16.

    python benchmarks/vllm_gpu.py --out vllm_gpu.json
    python benchmarks/vllm_gpu.py --device cpu --small --steps 2      # whether it all runs

A model of Qwen2.5-0.5B's architecture with random weights (nothing is downloaded), in bfloat16:

- speed: tokens/s of rollouts through vLLM and through the embedded default, and of `model.generate`
- sync: seconds in which an update reaches the engine, seconds of the canary, and what it finds
- memory, sleeping: GiB of the device in use by learner and engine, awake and asleep
- mismatch: the engine's log-probabilities against the learner's, on sampled tokens
- learning: the main job (`examples/arithmetic.toml`) for 100 steps, through both policies

Without a CUDA device it says so and ends. Each part has a process of its own; one that fails says
why and leaves the others.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import report
import studies
import torch
from bare_loop import left_padded
from workers import Gate, Worker

from rlvr.agents import Episode, Sampling, load_model, rollout
from rlvr.agents.embedded import byte_tokenizer
from rlvr.agents.policies import open_policy
from rlvr.agents.scoring import continuation_logits, pad, token_logprobs
from rlvr.envs import PromptEnv
from rlvr.verifiers import Task

Options = argparse.Namespace
Figures = dict[str, Any]

FULL: dict[str, Any] = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "max_position_embeddings": 2048,
}
"""Qwen2.5-0.5B, but for the context."""
SMALL: dict[str, Any] = FULL | {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 512,
    "max_position_embeddings": 512,
}
GIB = 1 << 30


def main() -> None:
    """Measure every part and print the tables."""
    options = _options()
    if options.device == "cuda" and not torch.cuda.is_available():
        print(f"There is no CUDA device here, so nothing is measured.\n\n{__doc__}")
        return
    facts = report.circumstances(torch.get_num_threads())
    device = torch.cuda.get_device_name() if options.device == "cuda" else "the processor"
    print(f"{report.described(facts)} On {device}.", flush=True)
    result: dict[str, Any] = {"circumstances": facts, "device": device, "parts": {}}
    with tempfile.TemporaryDirectory() as folder:
        options.model = folder
        _save_model(options)
        for name in options.only.split(","):
            found = _apart(name, options)
            result["parts"][name] = found
            rows = [[key, f"{value:.4g}"] for key, value in found.items()]
            shown = report.table(["", ""], rows) if rows else "Nothing here."
            print(f"\n### {name}\n\n{shown}", flush=True)
    if options.out:
        report.save(options.out, result)


def _options() -> Options:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="a tiny model and few episodes")
    parser.add_argument("--steps", type=int, default=100, help="training steps of the main job")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--repeats", type=int, default=5, help="batches, syncs by ten")
    parser.add_argument("--engine", nargs="*", default=[], help="settings of vLLM's engine")
    parser.add_argument("--out", default="", help="file for the figures as JSON")
    return parser.parse_args()


def _save_model(options: Options) -> None:
    """Write the model and a tokenizer of bytes: most of the output layer is padding."""
    import transformers

    shape: dict[str, Any] = SMALL if options.small else FULL
    tokenizer: Any = byte_tokenizer(shape["max_position_embeddings"])
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        **shape,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(options.model)
    tokenizer.save_pretrained(options.model)


def _apart(name: str, options: Options) -> Figures:
    """Measure a part in a process of its own."""
    worker = Worker(name, 1, _part, name, options)
    try:
        worker.wait_ready()
        return worker.evaluate()
    except RuntimeError as error:
        print(f"\n{name} failed: {error}", flush=True)
        return {}
    finally:
        worker.close()


def _part(gate: Gate, name: str, options: Options) -> None:
    gate.evaluate = lambda: PARTS[name](options)
    gate.ready()


def _engine(options: Options) -> list[str]:
    """Return the settings of an engine that shares its device."""
    shared = options.device == "cuda" and not any("utilization" in o for o in options.engine)
    return [*options.engine, *(["gpu_memory_utilization=0.4"] if shared else [])]


def _open(options: Options, policy: str, *more: str) -> Any:
    """Return a policy with a model of its own."""
    model, tokenizer = load_model(options.model, device=options.device, dtype="bfloat16")
    engine = [*_engine(options), *more] if policy != "transformers" else ()
    return open_policy(policy, model, tokenizer, max_rows=256, say=print, engine=engine)


def _episodes(options: Options, batch: int) -> list[Episode]:
    """Return single-turn episodes, in groups of eight."""
    count = 16 if options.small else 256
    tasks = [Task(id=f"t{i}", prompt=f"Say {batch} and {i}.", truth="x") for i in range(count // 8)]
    return [
        Episode(env=PromptEnv(tasks, "exact", check=False), seed=i, index=i // 8, group=i // 8)
        for i in range(count)
    ]


def _sampling(options: Options) -> Sampling:
    return Sampling(max_tokens=24 if options.small else 256)


def speed(options: Options) -> Figures:
    """Return tokens a second of both policies and of `model.generate`, medians over batches."""
    found = {}
    for name in ("transformers", "vllm"):
        policy = _open(options, name)
        speeds = []
        for batch in range(options.repeats + 1):  # the first warms up
            episodes, began = _episodes(options, batch), time.perf_counter()
            drawn = rollout(episodes, policy, _sampling(options))
            speeds.append(sum(t.length for t in drawn) / (time.perf_counter() - began))
        found[f"rollout through {name}, tokens/s"] = float(np.median(speeds[1:]))
        if name == "transformers":
            found["model.generate, tokens/s"] = _generate(options, policy)
        getattr(policy, "close", lambda: None)()
    return found


def _generate(options: Options, policy: Any) -> float:
    """Return tokens a second of `model.generate` on the same prompts, padding cut off as well."""
    end, speeds = min(policy.eos_ids), []

    def cut(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, policy.vocabulary :] = -torch.inf
        return scores

    for batch in range(options.repeats + 1):
        asked = [episode.env.reset(options={"index": episode.index})[0]
                 for episode in _episodes(options, batch)]  # fmt: skip
        prompts = [policy.format.prompt([{"role": "user", "content": text}]) for text in asked]
        ids, attention = (one.to(policy.device) for one in left_padded(prompts))
        torch.manual_seed(batch)
        began = time.perf_counter()
        drawn = policy.model.generate(
            ids,
            attention_mask=attention,
            do_sample=True,
            top_k=0,
            max_new_tokens=_sampling(options).max_tokens,
            logits_processor=[cut],
        )
        rows = drawn[:, ids.shape[1] :].tolist()
        tokens = sum(row.index(end) + 1 if end in row else len(row) for row in rows)
        speeds.append(tokens / (time.perf_counter() - began))
    return float(np.median(speeds[1:]))


def sync(options: Options) -> Figures:
    """Return what it takes to hand over an update, medians, and the worst that the canary found."""
    policy = _open(options, "vllm")
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=1e-5)
    found: dict[str, list[float]] = {}
    for number in range(10 * options.repeats):
        torch.manual_seed(number)
        for weight in policy.model.parameters():
            weight.grad = torch.randn_like(weight)
        optimizer.step()
        optimizer.zero_grad()
        policy.sync()
        for key, value in policy.sync_metrics.items():
            found.setdefault(key, []).append(value)
    policy.close()
    times = {key: float(np.median(values)) for key, values in found.items() if "seconds" in key}
    return times | {f"greatest {key}": max(v) for key, v in found.items() if key not in times}


def memory(options: Options) -> Figures:
    """Return GiB of the device in use, by stages, beside an engine that stays awake."""
    if options.device == "cpu":
        return {}
    before, policy = _used(), _open(options, "vllm")
    found = {"learner and engine": _used() - before}
    _update(policy.model)
    return found | {"at an update": _used() - before}


def sleeping(options: Options) -> Figures:
    """Return the same beside an engine that sleeps through the updates."""
    if options.device == "cpu":
        return {}
    before, policy = _used(), _open(options, "vllm", "enable_sleep_mode=true")
    found = {"learner and engine": _used() - before}
    began = time.perf_counter()
    policy.sleep()
    found["seconds to fall asleep"] = time.perf_counter() - began
    found["engine asleep"] = _used() - before
    _update(policy.model)
    found["at an update"] = _used() - before
    torch.cuda.empty_cache()
    began = time.perf_counter()
    policy.wake()
    found["seconds to wake up"] = time.perf_counter() - began
    policy.sync()
    return found | {"awake again": _used() - before}


def _used() -> float:
    free, total = torch.cuda.mem_get_info()
    return (total - free) / GIB


def _update(model: Any) -> None:
    """Take one optimiser step on 8 sequences of 1024 tokens."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    ids = torch.randint(model.config.vocab_size, (8, 1024), device=model.device)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def mismatch(options: Options) -> Figures:
    """Return how far the samplers' log-probabilities are from the learner's, in nats."""
    found = {}
    for name in ("vllm", "transformers"):
        policy = _open(options, name)
        drawn = rollout(_episodes(options, 0), policy, _sampling(options))
        gaps = np.concatenate([_gaps(policy, drawn[at : at + 8]) for at in range(0, len(drawn), 8)])
        for label, value in (
            ("mean", np.abs(gaps).mean()),
            ("99 %", np.quantile(np.abs(gaps), 0.99)),
            ("greatest", np.abs(gaps).max()),
            ("mean importance ratio", np.exp(gaps).mean()),
        ):
            found[f"{name}, {label}"] = float(value)
        getattr(policy, "close", lambda: None)()
    return found


@torch.inference_mode()
def _gaps(policy: Any, drawn: Sequence[Any]) -> np.ndarray:
    """Return learner's less sampler's log-probability of every sampled token."""
    turns = [(t, t.turns[0]) for t in drawn]
    prompts = [t.tokens[: turn.start] for t, turn in turns]
    sampled = [t.tokens[turn.start : turn.end] for t, turn in turns]
    batch = pad(prompts, sampled, policy.device)
    logits = continuation_logits(policy.model, batch, policy.vocabulary)
    values = token_logprobs(logits, batch.targets, 1.0).float().cpu().numpy()
    own = [t.logprobs[turn.start : turn.end] for t, turn in turns]
    return np.concatenate([row[: len(o)] - o for row, o in zip(values, own, strict=True)])


def learning(options: Options) -> Figures:
    """Train the main job through both policies."""
    found = {}
    tasks = 16 if options.small else studies.HELD_OUT
    for policy in ("vllm", "transformers"):
        run = studies.run(
            options.steps,
            0,
            keep=("mismatch", "time/sampling"),
            policy=policy,
            device=options.device,
            engine=_engine(options) if policy == "vllm" else (),
            eval_tasks=tasks,
        )
        found |= {
            f"{policy}, solved before": run["before"],
            f"{policy}, solved after": run["after"],
            f"{policy}, seconds a step": run["step_seconds"],
            f"{policy}, of them sampling": float(np.median(run["time/sampling"])),
            f"{policy}, greatest mean mismatch": max(run["mismatch"]),
        }
    return found


PARTS: dict[str, Callable[[Options], Figures]] = {
    "speed": speed,
    "sync": sync,
    "memory": memory,
    "sleeping": sleeping,
    "mismatch": mismatch,
    "learning": learning,
}
"""What is measured."""

if __name__ == "__main__":
    main()
