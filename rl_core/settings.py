"""The settings of each component of a run, as frozen dataclasses that check their ranges.

Those of the algorithm and of its critic stand in `algorithm_config`.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from ..agents import Sampling, policies
from ..envs.conversation import THOUGHTS
from ..verifiers import UsageError
from ..verifiers.errors import unknown

Imports = Annotated[tuple[str, ...], tyro.conf.arg(name="import", metavar="FILE.py ...")]
"""Files that are imported first: `--import my_tasks.py`."""


def _check(name: str, value: object, good: bool, expected: str) -> None:
    if not good:
        raise UsageError(f"{name} must be {expected}, got {value!r}")


def _positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _check(name, value, value >= 1, "at least 1")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which language model is trained."""

    model: str = "embedded"
    """A folder or hub id of any causal language model; `embedded`: the small model that the
    project builds and warm-starts itself."""
    device: str = "auto"
    """Where it runs: `auto` (CUDA where there is one), `cpu`, `cuda:0`, …"""
    dtype: str = "float32"
    """Type of the weights: `float32`, `bfloat16`, `float16`, or `auto` (the checkpoint's)."""
    trust_remote_code: bool = False
    """Whether code that comes with a checkpoint may run."""
    policy: str = "auto"
    """What draws from it: `transformers`, `vllm` (in this process), `vllm-async` (in a process of
    its own), `vllm-server`, or `auto` (vLLM where the model is on a CUDA device and vLLM is
    installed); for `rlvr eval` also `openai`, which has a model of its own."""
    engine: tuple[str, ...] = field(default=(), metadata={"mapping": True})
    """Arguments of vLLM's engine: `gpu_memory_utilization=0.4 enable_sleep_mode=true` shares the
    device with the learner, whose updates the engine then sleeps through."""
    server_url: tuple[str, ...] = ()
    """Addresses of running vLLM servers for `vllm-server`, `http://127.0.0.1:8000`; none: one is
    started here."""
    server_folder: str = ""
    """Where those servers are handed weights as files, a folder that they see, too; none: shared
    memory."""
    server_transport: str = "files"
    """How those servers are handed weights: `files`, or on GPUs `nccl` (they compute on other
    devices than the learner) or `ipc` (on the same one)."""

    def __post_init__(self) -> None:
        """Check what can be checked without loading."""
        if self.policy not in policies.NAMES:
            raise unknown("policy", self.policy, policies.NAMES)
        if self.engine and self.policy not in policies.WITH_ENGINE:
            raise UsageError(
                f"engine is for vLLM, got the policy '{self.policy}' and engine="
                f"{' '.join(self.engine)}; give --policy vllm, or leave engine out"
            )
        if self.server_transport not in policies.TRANSPORTS:
            raise unknown("transport", self.server_transport, policies.TRANSPORTS)
        if self.server_folder and self.server_transport != "files":
            raise UsageError(
                f"server_folder is for files, got the transport '{self.server_transport}'; leave "
                "one of them out"
            )
        for name in ("server_url", "server_folder", "server_transport"):
            if getattr(self, name) not in ((), "", "files") and self.policy != "vllm-server":
                raise UsageError(
                    f"{name} is for the policy 'vllm-server', got the policy '{self.policy}'; "
                    f"give --policy vllm-server, or leave {name} out"
                )


@dataclass(frozen=True, kw_only=True)
class EndpointConfig:
    """An OpenAI-compatible endpoint to be evaluated, with `--policy openai --model NAME`; its key
    is the environment variable `OPENAI_API_KEY`."""

    base_url: str = ""
    """Its address, before `/chat/completions`; none: `OPENAI_BASE_URL`, else OpenAI's."""
    concurrency: int = 32
    """Requests under way at the same time."""
    requests_per_minute: float = 0.0
    """Requests begun per minute at most; 0 is without a limit."""
    request_timeout: float = 600.0
    """Seconds that one attempt at a request may take."""
    attempts: int = 8
    """Attempts per request, the waits between them doubling."""
    price_in: float = 0.0
    """Price of a million tokens read, for the costs."""
    price_out: float = 0.0
    """Price of a million tokens written."""

    def __post_init__(self) -> None:
        """Check every range."""
        _positive(self, "concurrency", "attempts")
        _check("request_timeout", self.request_timeout, self.request_timeout > 0, "above 0")
        for name in ("requests_per_minute", "price_in", "price_out"):
            good = 0 <= getattr(self, name) < math.inf
            _check(name, getattr(self, name), good, "at least 0 and finite")


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters in place of all weights: W x + (α / r) B A x, where A and B are trained."""

    lora_rank: int = 0
    """r, the rank of each adapter; 0 trains all weights."""
    lora_alpha: float | None = None
    """α, the adapters' scale times their rank; none: twice the rank."""
    lora_targets: tuple[str, ...] = ()
    """Linear layers that carry an adapter, each by the end of its name: `q_proj`; none: all but the
    output layer."""

    def __post_init__(self) -> None:
        """Check every range."""
        _check("lora_rank", self.lora_rank, self.lora_rank >= 0, "at least 0")
        alpha = self.lora_alpha
        good = alpha is None or 0 < alpha < math.inf
        _check("lora_alpha", alpha, good, "above 0 and finite")
        _check("lora_targets", self.lora_targets, all(self.lora_targets), "names of layers")
        if not self.lora_rank and (alpha is not None or self.lora_targets):
            name = "lora_targets" if self.lora_targets else "lora_alpha"
            raise UsageError(
                f"{name} says how adapters look, and lora_rank=0 trains all weights without any; "
                "set lora_rank=8, or leave it out"
            )

    @property
    def scale(self) -> float:
        """α / r."""
        return 2.0 if self.lora_alpha is None else self.lora_alpha / self.lora_rank


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """What is trained on, and what is held out."""

    env: tuple[str, ...] = ("rlvr/Arithmetic-v0",)
    """Environments, each an id with options: `"rlvr/Arithmetic-v0 terms=3 high=10 weight=2"`;
    `weight` is its share of the prompts."""
    eval_env: tuple[str, ...] = ()
    """Environments to evaluate on; none: the same ones with `split=test`, and `split=train` for
    training."""
    imports: Imports = ()
    """Python files that register environments or verifiers."""
    contamination: str = "refuse"
    """What to do if an evaluation prompt is a training prompt: `refuse`, `warn` or `ignore`."""

    def __post_init__(self) -> None:
        """Check what can be checked without loading."""
        _check("env", self.env, bool(self.env), "at least one environment")
        choices = ("refuse", "warn", "ignore")
        if self.contamination not in choices:
            raise unknown("choice for contamination", self.contamination, choices)


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """How episodes are sampled: `prompts_per_step × group_size = episodes_per_step`."""

    prompts_per_step: int = 32
    """Prompts per training step."""
    max_tokens: int = 256
    """Tokens per completion at most."""
    temperature: float = 1.0
    """Sampling temperature; the learner's log-probabilities use it too."""
    top_p: float = 1.0
    """Training samples are drawn from the most likely tokens whose probabilities sum to it, and the
    learner's log-probabilities are over the same tokens; evaluations draw from all."""
    top_k: int = 0
    """Likewise from the k most likely tokens; 0 is from all."""
    min_p: float = 0.0
    """Likewise from the tokens with at least this share of the most likely one's probability."""
    stop: tuple[str, ...] = ()
    """Texts that end a completion."""
    max_rows: int = 256
    """Completions decoded together at most: bounds the memory of the key-value cache."""
    sample_ahead: int = 0
    """Steps that sampling runs ahead of learning: episodes are that many weight updates old when
    they are learned from. An engine in a process of its own then draws while the learner works."""
    wait: str = "all"
    """When the policy `transformers` begins to decode: once `all` live episodes wait for it, which
    repeats to the bit; or once `some` do, which others join: for slow, uneven environments."""
    thoughts: str = "refuse"
    """What to do where a chat template drops earlier thoughts when a turn is added: `refuse`, or
    `keep` them as they were sampled."""
    max_redraws: int = 4
    """Further rounds of prompts that dynamic sampling may draw in a step; what is still missing
    then is done without."""

    def __post_init__(self) -> None:
        """Check every range."""
        _positive(self, "prompts_per_step", "max_tokens", "max_rows")
        for name, known in (("wait", policies.WAITS), ("thoughts", THOUGHTS)):
            if getattr(self, name) not in known:
                raise unknown(f"choice for {name}", str(getattr(self, name)), known)
        for name in ("max_redraws", "sample_ahead"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        good = 0 < self.temperature < math.inf
        _check("temperature", self.temperature, good, "above 0 and finite to train on its samples")
        _check("top_k", self.top_k, self.top_k != 1, "0, or at least 2 to learn which is better")
        self.sampling()

    def sampling(self) -> Sampling:
        """Return how a completion is drawn.

        Raises:
            UsageError: A setting is out of range.
        """
        names = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "stop")
        return Sampling(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW and how a step is cut up."""

    lr: float = 1e-5
    """Learning rate after the warm-up."""
    warmup_steps: int = 5
    """Steps over which the learning rate rises linearly from 0."""
    beta1: float = 0.9
    """Decay of AdamW's first moment."""
    beta2: float = 0.99
    """Decay of AdamW's second moment."""
    weight_decay: float = 0.0
    """AdamW's weight decay."""
    max_grad_norm: float = 1.0
    """Gradients of a greater norm are scaled down to it."""
    updates_per_step: int | None = None
    """Optimiser steps per pass over a training step's episodes, each on its share of the groups;
    none: the algorithm's own."""
    master_weights: bool = True
    """Whether weights of half precision are stepped as float32 copies, from which they are rounded:
    4 bytes a weight more, and small steps are not lost; the optimiser's state is float32 too."""
    micro_batch_tokens: int = 4096
    """Tokens, padding included, of one forward and backward pass; bounds memory, and does not
    change the result."""

    def __post_init__(self) -> None:
        """Check every range."""
        _positive(self, "micro_batch_tokens")
        updates = self.updates_per_step
        _check("updates_per_step", updates, updates is None or updates >= 1, "at least 1")
        for name in ("lr", "max_grad_norm"):
            value = getattr(self, name)
            _check(name, value, 0 < value < math.inf, "above 0 and finite")
        for name in ("beta1", "beta2"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) < 1, "in [0, 1)")
        for name in ("warmup_steps", "weight_decay"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Periodic evaluation on the held-out tasks."""

    eval_every: int = 20
    """Training steps between evaluations; 0: only before and after."""
    eval_tasks: int = 200
    """Held-out tasks per evaluation, the same ones every time; 0: no evaluation."""
    eval_temperature: float = 1.0
    """Temperature of the evaluation's samples; 0 takes the most likely token."""
    max_solved_before: float = 1.0
    """Training is refused if a larger share is solved before it."""

    def __post_init__(self) -> None:
        """Check every range."""
        for name in ("eval_every", "eval_tasks", "eval_temperature"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How long, where, and what is kept."""

    steps: int = 100
    """Training steps."""
    seed: int = 0
    """Decides the order of the tasks and every draw."""
    out: str = "runs/latest"
    """The run's folder."""
    checkpoint_every: int = 50
    """Steps between checkpoints; 0: only at the end and on Ctrl-C."""
    keep_checkpoints: int = 2
    """Checkpoints kept, the newest."""
    rollouts_per_step: int = 16
    """Episodes per step written to `rollouts.jsonl`."""
    token_records_every: int = 10
    """Training steps between those whose episodes are written with a record of every token (why it
    moved); the first and the last step have one too; 0: never."""
    max_unscored: float = 0.5
    """Share of unscored episodes in a step above which training stops."""
    verifier_timeout: float = 10.0
    """Seconds that a verifier of yours may take per completion: it runs in worker processes, and an
    episode over the limit is unscored. 0 runs it in this process, without a limit."""
    diagnostics_every: int = 10
    """Training steps between measurements of how much probability the likeliest tokens hold; 0:
    never."""
    threads: int = 0
    """Threads of torch on the CPU; 0 leaves torch's own choice. Bit-exact repetition needs the
    same number."""

    def __post_init__(self) -> None:
        """Check every range."""
        _positive(self, "steps", "keep_checkpoints")
        for name in (
            *("seed", "checkpoint_every", "rollouts_per_step", "threads"),
            *("diagnostics_every", "token_records_every"),
        ):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        _check("verifier_timeout", self.verifier_timeout, self.verifier_timeout >= 0, "at least 0")
        _check("max_unscored", self.max_unscored, 0 <= self.max_unscored <= 1, "in [0, 1]")
