"""Starting an engine with a learner's weights.

A model with adapters is served as what it was before, adapters beside it, where the engine is
started here and can: then a sync sends the adapters alone. Where it cannot, the reason is said, and
every sync sends the weights with the adapters merged into them.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..verifiers import ModelError, UsageError
from .engines import base_of, has_adapters, named_weights, weights_without_adapters
from .transformers_policy import context_length, eos_ids
from .vllm_adapters import (
    AdapterTransport,
    adapter_problem,
    adapter_rank,
    adapter_targets,
    adapter_tensors,
)
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

    def start(adapted: bool) -> Any:
        engine = _start(kind, model, tokenizer, settings, adapted=adapted)
        return _handed(engine, model, adapted) if has_adapters(model) else engine

    return _adapted_or_merged(model, say, start)


def start_servers(
    servers: Sequence[Any],
    model: Any,
    tokenizer: Any,
    max_rows: int,
    flags: Mapping[str, Any],
    *,
    transport: str,
    folder: str,
    **settings: Any,
) -> Any:
    """Return an engine on servers that have a model's weights.

    Args:
        servers: Addresses, or processes of `start_server`; none: one is started here.
        model: The learner's model.
        tokenizer: Its tokenizer.
        max_rows: Sequences that a server started here computes at the same time at most.
        flags: More flags of such a server.
        transport: As for `open_transport`.
        folder: Likewise.
        settings: More arguments of `ServerEngine`.

    Raises:
        UsageError: A server cannot be trained through, or not with that transport.
        ModelError: A server does not answer, or does not start.
    """
    from .transports import open_transport
    from .vllm_server import ServerEngine

    def start(adapted: bool) -> Any:
        device = model.device
        way = (
            AdapterTransport(folder)
            if adapted
            else open_transport(transport, folder=folder, device=device)
        )
        try:
            chosen = servers or [
                start_own_server(model, tokenizer, max_rows, flags, transport, adapted=adapted)
            ]
            engine = ServerEngine(
                chosen,
                vocabulary=vocabulary_of(model, tokenizer),
                end_ids=eos_ids(model, tokenizer),
                transport=way,
                decode=lambda tokens: tokenizer.decode(tokens, skip_special_tokens=True),
                **settings,
            )
        except BaseException:
            way.close()
            raise
        return _handed(engine, model, adapted)

    say = settings.get("say", lambda text: None)
    problem = "the servers have been started already" if servers else ""
    if transport != "files":
        problem = f"they travel as files, and the transport '{transport}' was asked for"
    return _adapted_or_merged(model, say, start, problem)


def _adapted_or_merged(
    model: Any, say: Say, start: Callable[[bool], Any], problem: str = ""
) -> Any:
    """Start an engine that serves a model's adapters; say why if it gets them merged."""
    if not has_adapters(model):
        return start(False)
    problem = problem or adapter_problem(model)
    if not problem:
        try:
            return start(True)
        except ModelError as error:
            problem = str(error)
    say(f"adapters are merged into the weights that the engine is sent at each sync: {problem}")
    return start(False)


def _handed(engine: Any, model: Any, adapted: bool) -> Any:
    """Return an engine that has been handed a model's weights."""
    try:
        if adapted:
            engine.adapt(adapter_tensors(model), 0)
        else:
            engine.load(named_weights(model), 0)
    except BaseException:
        engine.close()
        raise
    return engine


def _start(
    kind: Any, model: Any, tokenizer: Any, settings: dict[str, Any], *, adapted: bool
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
            **_adapters_of(model, adapted),
            **settings,
        )
    finally:
        if not kind.keeps_folder:
            shutil.rmtree(folder, ignore_errors=True)


def _adapters_of(model: Any, adapted: bool) -> dict[str, Any]:
    """Return the arguments by which an engine makes room for a model's adapters."""
    return {"rank": adapter_rank(model), "targets": adapter_targets(model)} if adapted else {}


def start_own_server(
    model: Any,
    tokenizer: Any,
    max_rows: int,
    settings: Mapping[str, Any],
    transport: str = "files",
    *,
    adapted: bool = False,
) -> Any:
    """Start a server with a model's weights, in a folder that goes when it does.

    Args:
        model: The learner's model.
        tokenizer: Its tokenizer.
        max_rows: Sequences that it computes at the same time at most.
        settings: More of its flags.
        transport: As for `start_server`.
        adapted: Whether it serves the model's adapters beside the weights.
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
        **_adapters_of(model, adapted),
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
