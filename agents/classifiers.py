"""Loading a sequence classifier with one output: what a reward model is."""

from pathlib import Path
from typing import Any

from ..verifiers import ModelError

_UNBOUNDED = 1 << 30
"""Tokens that a model reads where neither it nor its tokenizer states a limit."""


def longest_input(config: Any, tokenizer: Any) -> int:
    """Return how many tokens a model reads: the smaller of what it and its tokenizer state."""
    stated = getattr(config.get_text_config(), "max_position_embeddings", None)
    return min([int(n) for n in (stated, tokenizer.model_max_length) if n] or [_UNBOUNDED])


def load_classifier(
    path: str | Path,
    *,
    device: str = "auto",
    dtype: str = "float32",
    trust_remote_code: bool = False,
) -> tuple[Any, Any]:
    """Load a sequence classifier with one output, and its tokenizer.

    Raises:
        UsageError: The folder does not exist, or device or dtype is unknown.
        ModelError: It is no such model: another number of labels, a head that was never trained, no
            tokenizer, no chat template.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from .loading import (
        check_folder,
        load_tokenizer,
        quiet_transformers,
        resolve_device,
        resolve_dtype,
    )

    place, kind = resolve_device(device), resolve_dtype(dtype)
    check_folder(path)
    tokenizer = load_tokenizer(path, trust_remote_code)
    if not tokenizer.chat_template:
        raise ModelError(
            f"the reward model '{path}' has no chat template to put prompt and completion into; "
            "set tokenizer.chat_template to the one that it was trained with, and save it"
        )
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        if config.num_labels != 1:
            raise ModelError(
                f"'{path}' has {config.num_labels} labels; a reward model has one: save it with "
                "num_labels=1"
            )
        with quiet_transformers():
            model, report = AutoModelForSequenceClassification.from_pretrained(
                path, dtype=kind, trust_remote_code=trust_remote_code, output_loading_info=True
            )
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"'{path}' could not be loaded as a sequence classifier: {error}"
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"'{path}' has no weights for {', '.join(missing[:3])}: its scores would be random; "
            "train it as a reward model first"
        )
    model.to(device=place)  # pyright: ignore
    return model.eval(), tokenizer
