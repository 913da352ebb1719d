"""The command line: `rlvr train`, `sft`, `eval`, `list`, `explain`, `check`, `chat`, `verify`,
`pairs`, `sandbox`.

Every command is a function that takes its arguments as words. Torch and transformers are imported
by the commands that need them alone.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro

from ..verifiers import RlvrError
from ..verifiers.errors import unknown
from .commands import (
    ChatCommand,
    CheckCommand,
    EvalCommand,
    ExplainCommand,
    ListCommand,
    PairsCommand,
    SftCommand,
    TrainCommand,
    VerifyCommand,
)
from .config import TrainConfig
from .plugins import load_plugins

FLAT = (tyro.conf.OmitArgPrefixes,)
"""Flags carry no section: `--lr`, not `--optimizer.lr`."""


def _parse(command: type[Any], words: Sequence[str], name: str, **default: Any) -> Any:
    return tyro.cli(command, prog=f"rlvr {name}", args=list(words), config=FLAT, **default)


def _train(words: Sequence[str]) -> int:
    file = _config_file(words)
    default = TrainCommand.on(TrainConfig.from_toml(file) if file else TrainConfig())
    given = _parse(TrainCommand, words, "train", default=default)
    config = given.settings
    if given.resume and not file:
        config = _resumable(words, config)
    load_plugins()
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
        0, or 2 for an error that its message explains, or 130 after Ctrl-C, or 141 where nobody
        reads on.
    """
    words = list(sys.argv[1:] if words is None else words)
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0
    try:
        if words[0] not in COMMANDS:
            raise unknown("command", words[0], COMMANDS)
        status = COMMANDS[words[0]][0](words[1:])
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader has seen enough: `rlvr list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
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
