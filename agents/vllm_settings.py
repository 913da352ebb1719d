"""The settings of vLLM's engines: ours, which must be so, and the user's, which may be any other.

An engine has more than a hundred arguments. Those that decide what a log-probability means belong
to the policy; every other one can be given by its name, and is checked against the names that the
installed version knows.
"""

import dataclasses
import inspect
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..verifiers import UsageError
from ..verifiers.errors import unknown
from . import vllm_masks

ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; by default it takes half of the machine's memory
}
"""Environment variables for vLLM, unless the user has set them."""

PROCESSOR = f"{__package__}.vllm_vocabulary:VocabularyLimit"
"""The logits processor that cuts off padding, by name, for workers in other processes."""

OURS = {
    **dict.fromkeys(("model", "tokenizer", "dtype"), "it follows the learner's model"),
    **dict.fromkeys(("logprobs_mode", "logits_processors", "additional_config", "max_logprobs"),
                    "log-probabilities are those that are drawn from, over the tokenizer's tokens"),
    "generation_config": "the run's own sampling settings alone decide how tokens are drawn",
    **dict.fromkeys(("enable_lora", "max_lora_rank", "max_loras", "lora_target_modules"),
                    "it follows lora_rank"),
    "skip_tokenizer_init": "stop texts need the tokenizer",
}  # fmt: skip
"""Arguments that are not the user's, and why."""

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM makes room for."""


def import_vllm() -> Any:
    """Import vLLM.

    Raises:
        UsageError: It is not installed, or its installation is broken.
    """
    for name, value in {**ENVIRONMENT, "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}.items():
        os.environ.setdefault(name, value)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # an `LLM` is stepped by ourselves
    try:
        import vllm  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UsageError(
            f"the policy 'vllm' needs vLLM, which cannot be imported here ({error}); install "
            "rlvr[vllm], or take --policy transformers"
        ) from error
    return vllm


def read_settings(given: Sequence[str]) -> dict[str, Any]:
    """Read an engine's settings: `"gpu_memory_utilization=0.4 enforce_eager=true"`.

    Args:
        given: Texts of one or several `name=value`; values are JSON where they can be, else text.

    Raises:
        UsageError: One is not of that form, is the policy's own, or is given twice.

    Example:
        >>> read_settings(["gpu_memory_utilization=0.4 enforce_eager=true"])
        {'gpu_memory_utilization': 0.4, 'enforce_eager': True}
    """
    found: dict[str, Any] = {}
    for word in [word for text in given for word in _words(text)]:
        name, equals, value = word.partition("=")
        name = name.removeprefix("--").replace("-", "_")
        if not equals or not name.isidentifier():
            raise UsageError(
                f"a setting of the engine is name=value, got '{word}'; for example "
                '--engine "gpu_memory_utilization=0.4 enforce_eager=true"'
            )
        if name in OURS:
            raise UsageError(f"the engine's '{name}' is set already: {OURS[name]}; leave it out")
        if name in found:
            raise UsageError(f"the engine's '{name}' is given twice; leave one of them out")
        found[name] = _value(value)
    return found


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"settings of the engine {text!r}: {error}") from error


def _value(text: str) -> Any:
    """Read JSON, Python's spelling of truth, or text."""
    if text in ("True", "False"):
        return text == "True"
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def check_names(settings: Mapping[str, Any]) -> None:
    """Check settings against the arguments that the installed vLLM knows.

    Raises:
        UsageError: One is none of them; the nearest name is given.
    """
    if not settings:
        return
    vllm = import_vllm()
    parameters = inspect.signature(vllm.LLM.__init__).parameters.values()
    named = {one.name for one in parameters if one.kind is not one.VAR_KEYWORD} - {"self"}
    named |= _arguments()
    for name in settings:
        if name not in named:
            raise unknown("setting of vLLM's engine", name, named - set(OURS))


def _arguments() -> set[str]:
    """Return the arguments of an engine of the installed version."""
    from vllm.engine.arg_utils import EngineArgs  # pyright: ignore[reportMissingImports]

    return {field.name for field in dataclasses.fields(EngineArgs)}


def engine_options(
    folder: str | Path,
    *,
    vocabulary: int,
    context: int,
    dtype: str,
    max_rows: int,
    rank: int = 0,
    targets: Sequence[str] = (),
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the arguments of an engine.

    Args:
        folder: The model, with its tokenizer.
        vocabulary: Tokens that may be drawn; rows of the output layer beyond are padding.
        context: The longest sequence in tokens; `settings["max_model_len"]` may lower it.
        dtype: Of weights and computation.
        max_rows: Sequences that are computed at the same time at most.
        rank: Of the adapters that are to be served; 0: none are.
        targets: Names of the layers that have them.
        settings: The user's.

    Raises:
        UsageError: A setting has a name that vLLM does not know, or does not work here.
    """
    check_names(settings)
    refuse_on_a_cpu(settings)
    options: dict[str, Any] = {
        "model": str(folder),
        "dtype": dtype,
        "max_num_seqs": max_rows,
        "logprobs_mode": "processed_logprobs",
        "max_logprobs": vllm_masks.MOST_SHOWN,
        "generation_config": "vllm",  # nothing of the checkpoint changes how tokens are drawn
        "logits_processors": [PROCESSOR],
        "additional_config": {"vocabulary": vocabulary},
        "enforce_eager": not torch.cuda.is_available(),
        "disable_log_stats": True,
        **settings,
    }
    options["max_model_len"] = context_of(context, settings.get("max_model_len"))
    if not torch.cuda.is_available():
        options.pop("enable_sleep_mode", None)  # a CPU has nothing to give back
        # on a CPU, vLLM cannot take back the draw behind half a prompt where requests have seeds
        options["enable_chunked_prefill"] = False
    lora = adapter_options(rank, targets)
    return options | {name: lora[name] for name in lora if name in _arguments()}


def says_weights() -> bool:
    """Whether the installed version's completions say which weights drew which tokens."""
    from vllm.outputs import CompletionOutput  # pyright: ignore[reportMissingImports]

    return "weight_versions" in {field.name for field in dataclasses.fields(CompletionOutput)}


def adapter_options(rank: int, targets: Sequence[str] = ()) -> dict[str, Any]:
    """Return the arguments of an engine that serves adapters, one after the other.

    Args:
        rank: Of the adapters; 0: there are none.
        targets: Names of the layers that have them, where the engine takes such: without, it has
            room for adapters in every layer, and cannot score several prompts at a time.
    """
    if not rank:
        return {}
    room = min(one for one in RANKS if one >= rank)
    found: dict[str, Any] = {"enable_lora": True, "max_lora_rank": room, "max_loras": 1}
    return {**found, "lora_target_modules": list(targets)} if targets else found


def refuse_on_a_cpu(settings: Mapping[str, Any]) -> None:
    """Refuse what ends vLLM on a CPU.

    Raises:
        UsageError: Prompts are to be computed in pieces.
    """
    if settings.get("enable_chunked_prefill") and not torch.cuda.is_available():
        raise UsageError(
            "the engine's enable_chunked_prefill cannot be on on a CPU: requests have seeds, and "
            "there vLLM fails at the draw behind half a prompt of such a request; leave it out"
        )


def context_of(longest: int, asked: Any = None) -> int:
    """Return an engine's context: the model's, or less where that is asked for.

    Raises:
        UsageError: More is asked for, or no length.
    """
    if asked is None:
        return longest
    if isinstance(asked, bool) or not isinstance(asked, int) or not 1 < asked <= longest:
        raise UsageError(
            f"the engine's max_model_len must be 2 to {longest}, which is the model's context, got "
            f"{asked!r}"
        )
    return asked


def sleeps(settings: Mapping[str, Any]) -> bool:
    """Whether an engine gives its memory to the learner between two rollouts."""
    return bool(settings.get("enable_sleep_mode")) and torch.cuda.is_available()
