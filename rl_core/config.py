"""Every setting of a run, one frozen dataclass per component.

The same fields are the sections of a TOML file, the flags of the command line (`--lr 1e-3`) and the
keywords of `train`. What a run used is written into its folder as `config.toml`.
"""

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self, get_args, get_origin

import tomli_w

from ..agents.policies import check_trains
from ..verifiers import UsageError
from ..verifiers.errors import unknown
from .algorithm_config import AlgorithmConfig, CriticConfig
from .cautions import run_warnings
from .choices import Algorithm
from .reward_config import RewardConfig
from .settings import (
    EvalConfig,
    LoraConfig,
    ModelConfig,
    OptimizerConfig,
    RolloutConfig,
    RunConfig,
    TaskConfig,
)

SECTIONS: dict[str, type[Any]] = {
    "model": ModelConfig,
    "lora": LoraConfig,
    "tasks": TaskConfig,
    "rewards": RewardConfig,
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
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Adapters."""
    tasks: TaskConfig = field(default_factory=TaskConfig)
    """Environments."""
    rewards: RewardConfig = field(default_factory=RewardConfig)
    """What is paid beside the verdicts."""
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
        check_trains(self.model.policy)
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
        self._check_pairs(row)
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

    def _check_pairs(self, row: Algorithm) -> None:
        pairs = self.rewards.pairs
        if pairs and not row.on_pairs:
            raise UsageError(
                f"{row.name} does not learn from pairs (pairs='{pairs}'); use algorithm='dpo' or "
                "'ipo'"
            )
        if pairs and self.rollout.sample_ahead:
            raise UsageError(
                f"pairs of a file are not sampled, so sample_ahead={self.rollout.sample_ahead} has "
                "no meaning; leave it out"
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
            data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(
                f"cannot read the configuration '{path}': {error.strerror}; check --config"
            ) from error
        except UnicodeDecodeError as error:
            raise UsageError(f"the configuration '{path}' is not TOML: {error}") from error
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
    found = next(f for f in dataclasses.fields(section) if f.name == name)
    kind = get_args(found.type)[0] if get_origin(found.type) is Annotated else found.type
    if kind == tuple[str, ...]:
        if found.metadata.get("mapping") and isinstance(value, Mapping):
            value = [f"{key}={one}" for key, one in value.items()]
        given = (value,) if isinstance(value, str) else value
        texts = isinstance(given, Iterable) and not isinstance(given, Mapping)
        several = tuple(given) if texts else ()
        if not texts or not all(isinstance(item, str) for item in several):
            raise UsageError(f"{name} must be texts, got {value!r}")
        return several
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
