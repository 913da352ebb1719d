"""Starting an engine with a learner's weights.

A model with adapters is served as what it was before, adapters beside it, where the engine can:
then a sync sends the adapters alone. Where it cannot, the reason is said, and every sync sends the
weights with the adapters merged into them.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..verifiers import ModelError, UsageError
from .engines import base_of, has_adapters, named_weights, weights_without_adapters
from .transformers_policy import context_length, eos_ids
from .vllm_adapters import adapter_problem, adapter_rank, adapter_tensors
from .vllm_settings import check_names, context_of

DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}

Say = Callable[[str], None]


def start_engine(kind: Any, model: Any, tokenizer: Any, say: Say, settings: dict[str, Any]) -> Any:
    """Start an engine that has a model's weights.

    Args:
        kind: `LocalEngine` or `AsyncEngine`.
        model: The learner's model.
        tokenizer: Its tokenizer.
        say: Told where adapters cannot be served beside the weights.
        settings: More arguments of the engine.

    Raises:
        UsageError: vLLM is not installed, or knows no such setting.
        ModelError: It cannot run this model.
    """
    if not has_adapters(model):
        return _start(kind, model, tokenizer, settings)
    problem = adapter_problem(model)
    if not problem:
        try:
            return _start_adapted(kind, model, tokenizer, settings)
        except ModelError as error:
            problem = str(error)
    say(f"adapters are merged into the weights that the engine is sent at each sync: {problem}")
    engine = _start(kind, model, tokenizer, settings)
    try:
        engine.load(named_weights(model), 0)
    except BaseException:
        engine.close()
        raise
    return engine


def _start_adapted(kind: Any, model: Any, tokenizer: Any, settings: dict[str, Any]) -> Any:
    engine = _start(kind, model, tokenizer, settings, rank=adapter_rank(model))
    try:
        engine.adapt(adapter_tensors(model), 0)
    except BaseException:
        engine.close()
        raise
    return engine


def _start(
    kind: Any, model: Any, tokenizer: Any, settings: dict[str, Any], *, rank: int = 0
) -> Any:
    base = base_of(model)
    folder = Path(tempfile.mkdtemp(prefix="rlvr-vllm-"))
    try:
        save_for_engine(model, tokenizer, folder)
        return kind(
            folder,
            vocabulary=vocabulary_of(base, tokenizer),
            end_ids=eos_ids(base, tokenizer),
            context=context_length(base, tokenizer),
            dtype=dtype_of(model),
            rank=rank,
            **settings,
        )
    finally:
        if not kind.keeps_folder:
            shutil.rmtree(folder, ignore_errors=True)


def start_own_server(
    model: Any,
    tokenizer: Any,
    max_rows: int,
    settings: Mapping[str, Any],
    transport: str = "files",
) -> Any:
    """Start a server with a model's weights, in a folder that goes when it does.

    Args:
        model: The learner's model.
        tokenizer: Its tokenizer.
        max_rows: Sequences that it computes at the same time at most.
        settings: More of its flags.
        transport: As for `start_server`.
    """
    from .vllm_process import start_server

    check_names(settings)
    dtype, base = dtype_of(model), base_of(model)
    longest = context_length(base, tokenizer)
    flags: dict[str, Any] = {
        name: json.dumps(value) if isinstance(value, dict | list) else value
        for name, value in settings.items()
    }
    folder = Path(tempfile.mkdtemp(prefix="rlvr-vllm-"))
    save_for_engine(model, tokenizer, folder)
    return start_server(
        folder,
        vocabulary=vocabulary_of(base, tokenizer),
        context=context_of(longest, flags.pop("max_model_len", None)),
        dtype=dtype,
        max_rows=int(flags.pop("max_num_seqs", max_rows)),
        owned=True,
        transport=transport,
        **flags,
    )


def dtype_of(model: Any) -> str:
    """Return the name of the type that a model computes in.

    Raises:
        UsageError: vLLM does not compute in it.
    """
    if model.dtype not in DTYPES:
        raise UsageError(
            f"vLLM computes in {', '.join(DTYPES.values())}, the model is in {model.dtype}"
        )
    return DTYPES[model.dtype]


def vocabulary_of(model: Any, tokenizer: Any) -> int:
    """Return how many tokens can be drawn: rows of the output layer beyond them are padding."""
    return min(len(tokenizer), model.config.get_text_config().vocab_size)


def save_for_engine(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model as a folder that an engine starts from; adapters are left out."""
    base = base_of(model)
    state = weights_without_adapters(model) if has_adapters(model) else None
    base.save_pretrained(folder, state_dict=state)
    tokenizer.save_pretrained(folder)
