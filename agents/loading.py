"""Loading a causal language model and its tokenizer from a folder or a hub id."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..verifiers import ModelError, UsageError

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "auto": "auto",
}


def resolve_device(device: str) -> torch.device:
    """Return the device to use; `auto` is CUDA where there is one, else the CPU.

    Raises:
        UsageError: The name is not a device, or the device is not on this machine.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"device '{device}' cannot be used here ({reason}); give 'auto', 'cpu' or 'cuda:0'"
        ) from error
    return chosen


def resolve_dtype(dtype: str) -> Any:
    """Return the torch dtype of a name.

    Raises:
        UsageError: The name is unknown.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype must be one of {', '.join(DTYPES)}, got '{dtype}'")
    return DTYPES[dtype]


def load_model(
    path: str | Path,
    *,
    device: str = "auto",
    dtype: str = "float32",
    trust_remote_code: bool = False,
) -> tuple[Any, Any]:
    """Load a model and its tokenizer the usual `from_pretrained` way.

    Args:
        path: A folder, or a hub id such as `Qwen/Qwen3-0.6B`.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, …
        dtype: Of the weights: a key of `DTYPES`; `auto` is what the checkpoint says.
        trust_remote_code: Whether code that comes with the checkpoint may run.

    Returns:
        The model, on the device and in evaluation mode, and the tokenizer.

    Raises:
        UsageError: The folder does not exist, or device or dtype is unknown.
        ModelError: It is no causal language model, or has no tokenizer.
    """
    from transformers import AutoModelForCausalLM

    place, kind = resolve_device(device), resolve_dtype(dtype)
    check_folder(path)
    tokenizer = load_tokenizer(path, trust_remote_code)
    try:
        with quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(
                path, dtype=kind, trust_remote_code=trust_remote_code
            )
    except Exception as error:
        raise ModelError(
            f"'{path}' could not be loaded as a causal language model: {_reason(error)}; expected "
            "a decoder-only model, saved with model.save_pretrained(folder)"
        ) from error
    model.to(device=place)  # pyright: ignore
    return model.eval(), tokenizer


def check_folder(path: str | Path) -> None:
    """Check that what looks like a folder holds a model; a hub id is let pass.

    Raises:
        UsageError: It does not.
    """
    folder = Path(path)
    looks_local = str(path).startswith((".", "/", "~")) or folder.exists()
    if looks_local and not (folder / "config.json").is_file():
        found = "which has no config.json" if folder.is_dir() else "which does not exist"
        raise UsageError(
            f"expected a model folder or a hub id, got '{path}', {found}; a model is saved with "
            "model.save_pretrained(folder) and tokenizer.save_pretrained(folder)"
        )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bars out of the terminal: loading shows nothing to wait for."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load_tokenizer(path: str | Path, trust_remote_code: bool) -> Any:
    """Load a tokenizer that turns texts into tokens.

    Raises:
        ModelError: There is none, or what loads turns every text into nothing.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
        usable = bool(tokenizer("1 + 1")["input_ids"])
    except Exception as error:
        reason = _reason(error)
        if not Path(path).is_dir():
            raise ModelError(
                f"'{path}' is no folder here, and no tokenizer of that name could be had from the "
                f"Hugging Face Hub ({reason}); check the name and the connection"
            ) from error
        files = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model")
        if not any((Path(path) / name).exists() for name in files):
            reason = f"there is no {files[0]}"
        raise _no_tokenizer(path, reason) from error
    if not usable:
        raise _no_tokenizer(path, "what loads turns every text into nothing")
    return tokenizer


def _reason(error: Exception) -> str:
    """Return the first line of an error: the next ones list every model that there is."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _no_tokenizer(path: str | Path, reason: str) -> ModelError:
    return ModelError(
        f"'{path}' has no usable tokenizer ({reason}); save one into the same folder with "
        "tokenizer.save_pretrained(folder)"
    )
