"""Every setting of a run, one frozen dataclass per component.

The same fields are the sections of a TOML file, the flags of the command line (`--lr 1e-3`) and the
keywords of `train`. What a run used is written into its folder as `config.toml`.
"""

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import tomli_w

from ..verifiers import UsageError
from ..verifiers.errors import unknown
from .algorithm_config import AlgorithmConfig, CriticConfig
from .cautions import run_warnings
from .choices import Algorithm


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


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """What is trained on, and what is held out."""

    env: tuple[str, ...] = ("rlvr/Arithmetic-v0",)
    """Environments, each an id with options: `"rlvr/Arithmetic-v0 terms=3 high=10 weight=2"`;
    `weight` is its share of the prompts."""
    eval_env: tuple[str, ...] = ()
    """Environments to evaluate on; none: the same ones with `split=test`, and `split=train` for
    training."""
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
    stop: tuple[str, ...] = ()
    """Texts that end a completion."""
    max_rows: int = 256
    """Completions decoded together at most: bounds the memory of the key-value cache."""
    sample_ahead: int = 0
    """Steps that sampling runs ahead of learning, as with an engine that does not wait: episodes
    are that many weight updates old when they are learned from."""
    max_redraws: int = 4
    """Further rounds of prompts that dynamic sampling may draw in a step; what is still missing
    then is done without."""

    def __post_init__(self) -> None:
        """Check every range."""
        _positive(self, "prompts_per_step", "max_tokens", "max_rows")
        for name in ("max_redraws", "sample_ahead"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        good = 0 < self.temperature < math.inf
        _check("temperature", self.temperature, good, "above 0 and finite to train on its samples")


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
            *("seed", "checkpoint_every", "rollouts_per_step", "threads", "diagnostics_every"),
        ):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        _check("verifier_timeout", self.verifier_timeout, self.verifier_timeout >= 0, "at least 0")
        _check("max_unscored", self.max_unscored, 0 <= self.max_unscored <= 1, "in [0, 1]")


SECTIONS: dict[str, type[Any]] = {
    "model": ModelConfig,
    "tasks": TaskConfig,
    "algorithm": AlgorithmConfig,
    "critic": CriticConfig,
    "rollout": RolloutConfig,
    "optimizer": OptimizerConfig,
    "evaluation": EvalConfig,
    "run": RunConfig,
}
"""The sections of a configuration, in the order in which they are printed."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that a training run is told.

    Example:
        `TrainConfig.of(env="rlvr/GCD-v0", algorithm="grpo", steps=50, lr=1e-3)`
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    """The language model."""
    tasks: TaskConfig = field(default_factory=TaskConfig)
    """Environments."""
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    """The algorithm."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    """The critic."""
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    """Sampling."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimiser."""
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    """Evaluation."""
    run: RunConfig = field(default_factory=RunConfig)
    """The run."""

    def __post_init__(self) -> None:
        """Check what concerns more than one component."""
        row = self.algorithm.row()
        prompts, updates = self.rollout.prompts_per_step, self.updates
        if prompts % updates:
            raise UsageError(
                f"prompts_per_step={prompts} is not divisible by updates_per_step={updates}"
                f"{'' if self.optimizer.updates_per_step else f' of {row.name}'}: every update "
                "takes whole groups; change one of the two"
            )
        for name, several in (("updates_per_step", updates), ("epochs", row.epochs)):
            if several > 1 and not row.needs_old and not row.on_pairs:
                raise UsageError(
                    f"algorithm '{row.name}' has no importance ratio, so that {name}={several} "
                    f"would be biased after the first; use {name}=1, or an algorithm with a ratio "
                    "such as 'grpo'"
                )
        self._check_natural(row, updates)
        self._check_values(row)
        if 0 <= row.max_staleness < self.rollout.sample_ahead:
            raise UsageError(
                f"max_staleness={row.max_staleness} leaves out every episode that is "
                f"sample_ahead={self.rollout.sample_ahead} updates old; raise the one or lower the "
                "other"
            )
        run_warnings(row, max_tokens=self.rollout.max_tokens, prompts_per_step=prompts)

    def _check_natural(self, row: Algorithm, updates: int) -> None:
        if row.optimizer == "natural" and (updates > 1 or row.epochs > 1):
            raise UsageError(
                f"{row.name} takes one natural step on the whole batch, got updates_per_step="
                f"{updates} and epochs={row.epochs}; set both to 1"
            )
        if row.optimizer == "natural" and self.model.dtype not in ("float32", "auto"):
            raise UsageError(
                f"{row.name} moves weights by differences that {self.model.dtype} cannot hold; "
                "use dtype='float32'"
            )

    def _check_values(self, row: Algorithm) -> None:
        critic = self.critic
        if not row.needs_values or critic.critic != "rollouts":
            return
        whole = row.baseline == "value" or (row.psi == "gae" and row.lam == 1)
        if critic.value_every > 1 and not whole:
            raise UsageError(
                f"value_every={critic.value_every} leaves one value for several tokens, so that "
                f"psi '{row.psi}' with lam={row.lam:g} would credit each place's last token alone; "
                "set value_every=1, or psi='gae' with lam=1"
            )
        if critic.critic_warmup_steps:
            raise UsageError(
                "critic='rollouts' has nothing to warm up; leave critic_warmup_steps out, or set "
                "critic='head' or 'model'"
            )

    @property
    def updates(self) -> int:
        """Optimiser steps per pass, as given or the algorithm's own."""
        return self.optimizer.updates_per_step or self.algorithm.row().updates

    @property
    def group_size(self) -> int:
        """Completions per prompt, the row's own or as given."""
        return self.algorithm.row().group_size

    @classmethod
    def of(cls, base: Self | None = None, **settings: Any) -> Self:
        """Make a configuration from flat settings, as on the command line.

        Args:
            base: What holds where nothing is given; the defaults if none.
            settings: Fields of any section, by name; a single `env` need not be in a tuple.

        Raises:
            UsageError: A name is in no section, or a value is out of range.

        Example:
            >>> TrainConfig.of(steps=7, lr=0.001).run.steps
            7
        """
        base = base or cls()
        sections: dict[str, dict[str, Any]] = {}
        for name, value in settings.items():
            section = _section_of(name)
            sections.setdefault(section, {})[name] = _as_given(SECTIONS[section], name, value)
        changed = {
            section: dataclasses.replace(getattr(base, section), **values)
            for section, values in sections.items()
        }
        return dataclasses.replace(base, **changed)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return the sections as plain values, without what is unset."""
        whole = dataclasses.asdict(self)
        return {
            section: {k: v for k, v in whole[section].items() if v is not None}
            for section in SECTIONS
        }

    def to_toml(self) -> str:
        """Return the configuration as TOML."""
        return tomli_w.dumps(self.to_dict())

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a TOML file; what it leaves out has its default.

        Raises:
            UsageError: The file is missing or malformed, or a section or field is unknown.
        """
        try:
            data = tomllib.loads(Path(path).read_text())
        except OSError as error:
            raise UsageError(f"cannot read the configuration '{path}': {error.strerror}") from error
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"the configuration '{path}' is not TOML: {error}") from error
        flat: dict[str, Any] = {}
        for section, values in data.items():
            if section not in SECTIONS:
                raise unknown(f"section in '{path}'", section, SECTIONS)
            if not isinstance(values, Mapping):
                raise UsageError(f"'{path}': [{section}] must be a table, got {values!r}")
            known = [f.name for f in dataclasses.fields(SECTIONS[section])]
            for name in values:
                if name not in known:
                    raise unknown(f"field of [{section}] in '{path}'", name, known)
            flat |= values
        return cls.of(**flat)


def _section_of(name: str) -> str:
    fields = {f.name: s for s, kind in SECTIONS.items() for f in dataclasses.fields(kind)}
    if name not in fields:
        raise unknown("setting", name, fields)
    return fields[name]


def _as_given(section: type[Any], name: str, value: Any) -> Any:
    """Check a plain value's type, and take one text where several may stand."""
    kind = next(f.type for f in dataclasses.fields(section) if f.name == name)
    if kind == tuple[str, ...]:
        value = (value,) if isinstance(value, str) else tuple(value)
        if not all(isinstance(item, str) for item in value):
            raise UsageError(f"{name} must be texts, got {value!r}")
        return value
    plain = _PLAIN.get(kind)
    if plain is None or (value is None and "None" in str(kind)):
        return value
    if not isinstance(value, plain) or isinstance(value, bool) != (plain == (bool,)):
        expected = " or ".join(one.__name__ for one in plain)
        raise UsageError(f"{name} must be of type {expected}, got {value!r}")
    return float(value) if float in plain else value  # pyright: ignore


_PLAIN: dict[Any, tuple[type, ...]] = {
    int: (int,),
    int | None: (int,),
    float: (int, float),
    float | None: (int, float),
    bool: (bool,),
    str: (str,),
    str | None: (str,),
}
"""Annotation → the types that a value may have."""
