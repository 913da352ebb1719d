"""Which policy draws: one line a policy, and the rule where none is asked for."""

import importlib.util
from collections.abc import Callable
from typing import Any

from ..verifiers.errors import unknown

WAITS = ("all", "some")
"""When `TransformersPolicy` begins to decode: once every live episode waits for it, so that the
composition of batches follows from seeds and runs repeat to the bit; or as soon as some do, which
join a running batch."""


def _transformers(model: Any, tokenizer: Any, *, wait: str, **options: Any) -> Any:
    from .transformers_policy import TransformersPolicy

    return TransformersPolicy(model, tokenizer, wait=wait, **options)


def _vllm(model: Any, tokenizer: Any, *, wait: str, **options: Any) -> Any:
    from .vllm_policy import VLLMPolicy

    return VLLMPolicy.start(model, tokenizer, **options)  # it never waits for all


POLICIES: dict[str, Callable[..., Any]] = {
    "transformers": _transformers,
    "vllm": _vllm,
}
"""From a name to what makes the policy of a model and its tokenizer, with the same options."""

NAMES = ("auto", *POLICIES)
"""What can be asked for."""


def choose_policy(asked: str, device: str) -> tuple[str, str]:
    """Return which policy draws, and why.

    Args:
        asked: A name of `POLICIES`, or `auto`: vLLM where the model is on a CUDA device and vLLM
            is installed, else transformers.
        device: Type of the model's device: `cpu`, `cuda`.

    Raises:
        UsageError: There is no such policy.

    Example:
        >>> choose_policy("auto", "cpu")
        ('transformers', 'the model is on the device cpu')
    """
    if asked not in NAMES:
        raise unknown("policy", asked, NAMES)
    if asked != "auto":
        return asked, "as asked for"
    if device != "cuda":
        return "transformers", f"the model is on the device {device}"
    if importlib.util.find_spec("vllm") is None:
        return "transformers", "vLLM is not installed"
    return "vllm", "the model is on a CUDA device and vLLM is installed"


def open_policy(
    asked: str,
    model: Any,
    tokenizer: Any,
    *,
    max_rows: int,
    say: Callable[[str], None],
    wait: str = "all",
    thoughts: str = "refuse",
) -> Any:
    """Make the policy of a model.

    Args:
        asked: As for `choose_policy`.
        model: A causal language model.
        tokenizer: Its tokenizer.
        max_rows: Sequences drawn together at most.
        say: Told which policy it is, and why.
        wait: One of `WAITS`.
        thoughts: One of `THOUGHTS`.

    Raises:
        UsageError: There is no such policy, or what it needs is not installed.
        ModelError: It cannot run this model.
    """
    name, reason = choose_policy(asked, model.device.type)
    say(f"policy {name}: {reason}")
    options = {"max_rows": max_rows, "wait": wait, "thoughts": thoughts}
    return POLICIES[name](model, tokenizer, **options)
