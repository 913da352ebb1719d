"""The command line: `rlvr train`, `sft`, `eval`, `list`, `explain`, `check`, `verify`, `pairs`,
`sandbox`.

Every command is a function that takes its arguments as words. Torch and transformers are imported
by the commands that need them alone.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..verifiers import RlvrError
from ..verifiers.errors import unknown
from .config import SECTIONS, ModelConfig, TrainConfig
from .plugins import load_plugins
from .settings import EndpointConfig

FLAT = (tyro.conf.OmitArgPrefixes,)
"""Flags carry no section: `--lr`, not `--optimizer.lr`."""

Imports = Annotated[tuple[str, ...], tyro.conf.arg(name="import", metavar="FILE.py ...")]


@dataclass(frozen=True, kw_only=True)
class TrainCommand(TrainConfig):
    """Train a language model on environments with verifiable rewards."""

    config: str = ""
    """A TOML file with the settings; flags change what it says."""
    resume: bool = False
    """Continue the run in --out from its last checkpoint."""
    overwrite: bool = False
    """Replace the run in --out."""
    imports: Imports = ()
    """Python files that register environments or verifiers."""

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
    out: str = ""
    """A JSONL file for every sample, and the figures beside it as .json."""
    imports: Imports = ()
    """Python files that register environments or verifiers."""


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


def _parse(command: type[Any], words: Sequence[str], name: str, **default: Any) -> Any:
    return tyro.cli(command, prog=f"rlvr {name}", args=list(words), config=FLAT, **default)


def _train(words: Sequence[str]) -> int:
    file = _config_file(words)
    default = TrainCommand.on(TrainConfig.from_toml(file) if file else TrainConfig())
    given = _parse(TrainCommand, words, "train", default=default)
    load_plugins(given.imports)
    config = given.settings
    if given.resume and not file:
        config = _resumable(words, config)
    from .training import train

    result = train(config, resume=given.resume, overwrite=given.overwrite)
    return 0 if result.finished else 130


def _config_file(words: Sequence[str]) -> str:
    """Find `--config FILE` or `--config=FILE`: its values are the defaults of the other flags."""
    for at, word in enumerate(words):
        if word.startswith("--config="):
            return word.removeprefix("--config=")
        if word == "--config" and at + 1 < len(words):
            return words[at + 1]
    return ""


def _resumable(words: Sequence[str], config: TrainConfig) -> TrainConfig:
    """Take the settings of the run that is resumed, changed by the flags that were given."""
    saved = Path(config.run.out) / "config.toml"
    if not saved.is_file():
        return config
    default = TrainCommand.on(TrainConfig.from_toml(saved))
    return _parse(TrainCommand, words, "train", default=default).settings


def _sft(words: Sequence[str]) -> int:
    given = _parse(SftCommand, words, "sft")
    load_plugins(given.imports)
    from .sft import sft

    sft(given)
    return 0


def _eval(words: Sequence[str]) -> int:
    given = _parse(EvalCommand, words, "eval")
    load_plugins(given.imports)
    from .eval_command import run_eval

    run_eval(given)
    return 0


def _list(words: Sequence[str]) -> int:
    given = _parse(ListCommand, words, "list")
    load_plugins(given.imports)
    from .. import envs, verifiers
    from .algorithms import TABLE
    from .progress import print_table

    tables: dict[str, Callable[[], list[tuple[str, str]]]] = {
        "environments": lambda: list(envs.names().items()),
        "verifiers": lambda: [(name, verifiers.describe(name)) for name in verifiers.names()],
        "group-verifiers": lambda: [
            (name, verifiers.describe_group(name)) for name in verifiers.group_names()
        ],
        "algorithms": lambda: [(row.name, row.title) for row in TABLE.values()],
    }
    if given.what not in (*tables, "all"):
        raise unknown("list", given.what, [*tables, "all"])
    for title, rows in tables.items():
        if given.what in (title, "all"):
            print_table(title, ["name", "what it is"], rows())
    return 0


def _explain(words: Sequence[str]) -> int:
    given = _parse(ExplainCommand, words, "explain")
    from .explain_command import run_explain

    run_explain(given.name, given.other, given.page)
    return 0


def _check(words: Sequence[str]) -> int:
    given = _parse(CheckCommand, words, "check")
    load_plugins(given.imports)
    from .check_command import run_check

    return 0 if run_check(given.env, given.tasks) else 1


def _verify(words: Sequence[str]) -> int:
    given = _parse(VerifyCommand, words, "verify")
    load_plugins(given.imports)
    from .verify_command import run_verify

    tally = run_verify(given)
    return 1 if given.must_agree and not tally.agrees else 0


def _chat(words: Sequence[str]) -> int:
    given = _parse(ChatCommand, words, "chat")
    load_plugins(given.imports)
    from .chat_command import run_chat

    run_chat(given)
    return 0


def _pairs(words: Sequence[str]) -> int:
    given = _parse(PairsCommand, words, "pairs")
    from .pairs import write_pairs

    print(f"{write_pairs(given.run, given.out)} pairs  {given.out}")
    return 0


def _sandbox(words: Sequence[str]) -> int:
    from .sandbox_command import run_sandbox

    return run_sandbox(words)


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "train": (_train, "train a model by reinforcement learning"),
    "sft": (_sft, "warm-start a model by imitation"),
    "eval": (_eval, "measure a model: pass@k, majority, intervals"),
    "list": (_list, "list environments, verifiers and algorithms"),
    "explain": (_explain, "print an algorithm, or what two of them do differently"),
    "check": (_check, "check an environment and its verifier"),
    "chat": (_chat, "try an environment by hand"),
    "verify": (_verify, "judge the completions of a file"),
    "pairs": (_pairs, "write preference pairs out of the verdicts of a run"),
    "sandbox": (_sandbox, "test the sandbox that programs run in"),
}
"""Command → (function, summary)."""


def _usage() -> str:
    lines = [f"  {name:<8}{summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(["usage: rlvr COMMAND ...", "", *lines, "", "rlvr COMMAND --help says more."])


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; the console script.

    Returns:
        0, or 2 for an error that its message explains, or 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if words is None else words)
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0
    try:
        if words[0] not in COMMANDS:
            raise unknown("command", words[0], COMMANDS)
        return COMMANDS[words[0]][0](words[1:])
    except RlvrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "transformers", "matplotlib", "jinja2", "tokenizers"):
            raise
        print(
            f"error: 'rlvr {words[0]}' needs {error.name}; install it with "
            "pip install 'rlvr[train]'",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
