"""Which policy draws: one line a policy, and the rule where none is asked for."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..verifiers import UsageError
from ..verifiers.errors import unknown

WAITS = ("all", "some")
"""When `TransformersPolicy` begins to decode: once every live episode waits for it, so that the
composition of batches follows from seeds and runs repeat to the bit; or as soon as some do, which
join a running batch."""


def _transformers(model: Any, tokenizer: Any, *, wait: str, **options: Any) -> Any:
    from .transformers_policy import TransformersPolicy

    return TransformersPolicy(model, tokenizer, wait=wait, **options)


def _vllm(
    model: Any, tokenizer: Any, *, wait: str, engine: Mapping[str, Any], **options: Any
) -> Any:
    from .vllm_policy import VLLMPolicy

    options |= engine
    options["max_rows"] = options.pop("max_num_seqs", options["max_rows"])  # vLLM's name for it
    return VLLMPolicy.start(model, tokenizer, **options)  # it never waits for all


def _vllm_async(model: Any, tokenizer: Any, **options: Any) -> Any:
    return _vllm(model, tokenizer, aside=True, **options)


def _vllm_server(
    model: Any,
    tokenizer: Any,
    *,
    wait: str,
    servers: Sequence[str] = (),
    engine: Mapping[str, Any],
    **options: Any,
) -> Any:
    from .vllm_policy import VLLMPolicy

    return VLLMPolicy.connect(model, tokenizer, servers, flags=engine, **options)


POLICIES: dict[str, Callable[..., Any]] = {
    "transformers": _transformers,
    "vllm": _vllm,
    "vllm-async": _vllm_async,
    "vllm-server": _vllm_server,
}
"""From a name to what makes the policy of a model and its tokenizer, with the same options."""

WITH_ENGINE = ("auto", *(name for name in POLICIES if name.startswith("vllm")))
"""Policies that settings of vLLM's engine may be given for."""

EVALUATION_ONLY = {
    "openai": "an endpoint for messages returns neither the ids of the tokens that it drew nor "
    "their log-probabilities, and training needs both"
}
"""Policies that have no model of ours, and why nothing can be learned from their samples."""

TRANSPORTS = ("files", "nccl", "ipc")
"""How vLLM servers are handed weights: by files, or by vLLM from CUDA device to CUDA device."""

NAMES = ("auto", *POLICIES, *EVALUATION_ONLY)
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


def _settings(engine: Sequence[str]) -> dict[str, Any]:
    from .vllm_settings import read_settings

    return read_settings(engine)


def check_trains(asked: str) -> None:
    """Check that a policy's samples can be learned from.

    Raises:
        UsageError: They cannot.
    """
    if asked in EVALUATION_ONLY:
        others = ", ".join(POLICIES)
        raise UsageError(
            f"the policy '{asked}' is for evaluation alone: {EVALUATION_ONLY[asked]}; train with "
            f"--policy {others}"
        )


def open_policy(
    asked: str,
    model: Any,
    tokenizer: Any,
    *,
    max_rows: int,
    say: Callable[[str], None],
    wait: str = "all",
    thoughts: str = "refuse",
    server_url: Sequence[str] = (),
    server_folder: str = "",
    server_transport: str = "files",
    engine: Sequence[str] = (),
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
        server_url: Addresses of vLLM servers; none: one is started here.
        server_folder: Where they are handed weights as files; empty: in shared memory.
        server_transport: How they are: one of `TRANSPORTS`.
        engine: Arguments of vLLM's engine, as for `read_settings`.

    Raises:
        UsageError: There is no such policy, it has no model of ours, what it needs is not
            installed, or vLLM's engine has no such argument.
        ModelError: It cannot run this model.
    """
    check_trains(asked)
    name, reason = choose_policy(asked, model.device.type)
    say(f"policy {name}: {reason}")
    options: dict[str, Any] = {"max_rows": max_rows, "wait": wait, "thoughts": thoughts}
    if name != "transformers":
        options |= {"say": say, "engine": _settings(engine)}
    elif engine:
        say(f"engine settings are for vLLM, and are not used: {' '.join(engine)}")
    if name == "vllm-server":
        options |= {"servers": server_url, "folder": server_folder}
        options["transport"] = server_transport
    return POLICIES[name](model, tokenizer, **options)
