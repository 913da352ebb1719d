"""What each command of the command line may be told: its flags, as frozen dataclasses.

The settings of `train` are those of `TrainConfig`.
"""

import dataclasses
from dataclasses import dataclass
from typing import Annotated

import tyro

from ..verifiers import UsageError
from .config import SECTIONS, ModelConfig, TrainConfig
from .settings import EndpointConfig, Imports


def _at_least(command: object, **least: int) -> None:
    for name, low in least.items():
        value = getattr(command, name)
        if value is not None and value < low:
            raise UsageError(f"{name} must be at least {low}, got {value}")


@dataclass(frozen=True, kw_only=True)
class TrainCommand(TrainConfig):
    """Train a language model on environments with verifiable rewards."""

    config: str = ""
    """A TOML file with the settings; flags change what it says."""
    resume: bool = False
    """Continue the run in --out from its last checkpoint."""
    overwrite: bool = False
    """Replace the run in --out."""

    @classmethod
    def on(cls, config: TrainConfig) -> "TrainCommand":
        """Take a configuration as the defaults of the flags."""
        return cls(**{section: getattr(config, section) for section in SECTIONS})

    @property
    def settings(self) -> TrainConfig:
        """The configuration alone."""
        return TrainConfig(**{section: getattr(self, section) for section in SECTIONS})


@dataclass(frozen=True, kw_only=True)
class SftCommand:
    """Warm-start a model by imitation: on the tasks' own solutions, or on your demonstrations."""

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    env: tuple[str, ...] = ("rlvr/Arithmetic-v0",)
    """Environments whose tasks' solutions are imitated."""
    data: str = ""
    """A JSONL file with `prompt` and `completion` in place of --env."""
    out: str = "runs/sft"
    """The folder that the model is written to."""
    steps: int = 800
    """Optimiser steps."""
    batch: int = 128
    """Demonstrations per step, at most."""
    batch_tokens: int = 16384
    """Tokens per step, about: bounds memory."""
    lr: float = 1e-5
    """Peak learning rate; for the embedded model 5e-3 is right."""
    right: float = 1.0
    """Share of the demonstrations whose answer is right; the others repeat a number of the
    question."""
    seed: int = 0
    """Of the choice of demonstrations."""
    overwrite: bool = False
    """Replace the model in --out."""
    imports: Imports = ()
    """Python files that register environments or verifiers."""

    def __post_init__(self) -> None:
        """Check what can be checked before a model is loaded."""
        _at_least(self, steps=1, batch=1, batch_tokens=1, seed=0)


@dataclass(frozen=True, kw_only=True)
class EvalCommand:
    """Evaluate a model: pass@1, pass@k, majority, with intervals and counts per status."""

    env: tyro.conf.Positional[tuple[str, ...]]
    """Environments, each an id with options: "rlvr/GCD-v0 split=test"."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    endpoint: EndpointConfig = dataclasses.field(default_factory=EndpointConfig)
    tasks: int = 200
    """Tasks in all."""
    samples: int = 1
    """Samples per task."""
    max_tokens: int = 256
    """Tokens per completion at most."""
    temperature: float = 1.0
    """Sampling temperature; 0 takes the most likely token."""
    top_p: float = 1.0
    """Keep the most likely tokens whose probabilities sum to it."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 keeps all."""
    min_p: float = 0.0
    """Keep tokens with this share of the most likely one's probability."""
    stop: tuple[str, ...] = ()
    """Texts that end a completion."""
    seed: int = 0
    """Of the draws."""
    max_rows: int = 256
    """Completions decoded together at most."""
    verifier_timeout: float = 10.0
    """Seconds that a verifier of yours may take per completion; over it, the sample is unscored. 0
    is without a limit."""
    out: str = ""
    """A JSONL file for every sample, and the figures beside it as .json."""
    imports: Imports = ()
    """Python files that register environments or verifiers."""

    def __post_init__(self) -> None:
        """Check what can be checked before a model is loaded."""
        _at_least(self, tasks=1, samples=1, seed=0, max_rows=1, verifier_timeout=0)
        if self.out.endswith(".json"):
            raise UsageError(
                f"out is the .jsonl file of the samples, and their figures stand beside it as "
                f".json; got '{self.out}', use '{self.out}l'"
            )


@dataclass(frozen=True, kw_only=True)
class ListCommand:
    """List what there is by name."""

    what: tyro.conf.Positional[str] = "all"
    """`environments`, `verifiers`, `group-verifiers`, `algorithms` or `all`."""
    imports: Imports = ()
    """Python files that register environments or verifiers."""


@dataclass(frozen=True, kw_only=True)
class ExplainCommand:
    """Print an algorithm's formula, choices and sources, or what two of them do differently."""

    name: tyro.conf.Positional[str] = ""
    """An algorithm."""
    other: tyro.conf.Positional[str] = ""
    """Another one: only what differs is printed."""
    page: bool = False
    """Print the page of all algorithms, as in docs/algorithms.md."""


@dataclass(frozen=True, kw_only=True)
class CheckCommand:
    """Check an environment: Gymnasium's contract, the verifier's, seeds, solutions."""

    env: tyro.conf.Positional[str]
    """The environment's id with options."""
    tasks: int = 50
    """Tasks to check."""
    imports: Imports = ()
    """Python files that register environments or verifiers."""

    def __post_init__(self) -> None:
        """Check every range."""
        _at_least(self, tasks=1)


@dataclass(frozen=True, kw_only=True)
class PairsCommand:
    """Write preference pairs (prompt, chosen, rejected) out of the verdicts of a run."""

    run: tyro.conf.Positional[str]
    """The run's folder."""
    out: str = "pairs.jsonl"
    """The JSONL file."""


@dataclass(frozen=True, kw_only=True)
class VerifyCommand:
    """Judge the completions of a file: counts per status and reason, and where a label differs."""

    file: tyro.conf.Positional[str]
    """A .jsonl, .jsonl.gz, .json or .parquet file with a completion and a truth in each row."""
    verifier: str = "math"
    """The verifier's name."""
    option: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """An option of the verifier, name=value; may be given again for another."""
    completion: str = ""
    """Column of the completion; if not given: completion, response, output or generation."""
    truth: str = ""
    """Column of the truth; if not given: truth, answer, ground_truth or target."""
    label: str = ""
    """Column that says whether the completion is right, or its reward; compared if given."""
    workers: int | None = None
    """Worker processes; the number of cores if not given, 0 judges in this process."""
    timeout: float = 10.0
    """Seconds per row for a verifier of your own."""
    show: int = 20
    """Disagreements listed at most."""
    must_agree: bool = False
    """End with status 1 if a verdict differs from its label, or a labelled row is unscored."""
    out: str = ""
    """A JSONL file for the verdicts, one per row."""
    imports: Imports = ()
    """Python files that register environments or verifiers."""


@dataclass(frozen=True, kw_only=True)
class ChatCommand:
    """Try an environment by hand: read its prompts, write the answers, see what they are paid."""

    env: tyro.conf.Positional[str]
    """An environment's id with options: "rlvr/GuessNumber-v0 numbers=7"."""
    index: int | None = None
    """The first task; if not given, tasks are drawn."""
    seed: int = 0
    """Of the draws."""
    imports: Imports = ()
    """Python files that register environments or verifiers."""

    def __post_init__(self) -> None:
        """Check every range."""
        _at_least(self, index=0, seed=0)
