"""What is settled before the first step: which run, which tasks, and that none are in both sides.

A run that is resumed keeps its settings, except for those that change nothing of what is learned
from a step. Without evaluation environments of its own, a run trains on `split=train` of its
environments and is evaluated on `split=test`.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from ..envs import contamination
from ..envs.procedural import DEFAULT_SIZE
from ..verifiers import UsageError, Verifier
from .cautions import run_warnings
from .collection import lag_warning
from .config import TrainConfig
from .records import Run
from .sources import EnvChoice, Source, open_sources, spelt, takes_split

MAY_CHANGE = {
    *("steps", "out", "eval_every", "eval_tasks", "checkpoint_every", "keep_checkpoints"),
    *("rollouts_per_step", "token_records_every", "diagnostics_every"),
    *("max_unscored", "max_solved_before", "verifier_timeout", "device", "max_rows"),
    *("imports", "server_url", "server_folder", "server_transport", "engine"),
}
"""Settings that may differ on resume: none of them changes what is learned from a step."""


def several(given: Any) -> list[Any]:
    """Return one thing or several as a list; none as an empty one."""
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


def recorded(
    config: TrainConfig, env: list[Any], eval_env: list[Any], verifier: Verifier | str | None
) -> TrainConfig:
    """Return the settings with what was given in Python in their place, by name.

    What is stored with a run is then what it is trained on; a run that is continued without those
    objects is refused, by `open_sources`.

    Args:
        config: The settings.
        env: What is trained on in place of the configuration's environments; empty: those.
        eval_env: What is held out, likewise.
        verifier: Judges in place of the environments' own.
    """
    judge = "" if verifier is None else " " + _quoted(f"verifier={spelt(verifier)}")

    def named(one: Any) -> str:
        return spelt(one).removesuffix(judge) + judge

    return TrainConfig.of(
        config,
        env=[named(one) for one in env or config.tasks.env],
        eval_env=[named(one) for one in eval_env or config.tasks.eval_env],
    )


def open_sides(
    config: TrainConfig, env: list[Any], eval_env: list[Any], verifier: Verifier | str | None
) -> tuple[list[Source], list[Source]]:
    """Open what is trained on and what is held out.

    Args:
        config: The settings.
        env: What is trained on in place of the configuration's environments; empty: those.
        eval_env: What is held out, likewise.
        verifier: Judges in place of the environments' own.
    """
    chosen = env or list(config.tasks.env)
    asked = eval_env or list(config.tasks.eval_env)
    wanted = config.evaluation.eval_tasks
    if config.rewards.pairs:
        # what is trained on is the pairs; environments but warm up the embedded model
        warm = chosen if config.model.model == "embedded" else []
        return open_sources(warm, verifier, split="train"), open_sources(asked, verifier)
    if asked or not wanted:
        return open_sources(chosen, verifier), open_sources(asked, verifier) if wanted else []
    sides = []
    for one in chosen:
        if isinstance(one, str):
            choice = EnvChoice.parse(one)
            if "split" not in choice.options and takes_split(choice.id):
                options = {**choice.options, "split": "test"}
                options.pop("size", None)  # of the training side
                if wanted > DEFAULT_SIZE:
                    options["size"] = wanted
                texts = [f"{k}={json.dumps(v)}" for k, v in options.items()]
                sides.append(" ".join([choice.id, *map(_quoted, texts)]))
    return open_sources(chosen, verifier, split="train"), open_sources(sides, verifier)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\"'\"'") + "'"


def limit_verifiers(sources: Sequence[Source], seconds: float, say: Callable[[str], None]) -> None:
    """Let no verifier take longer than it may; those that cannot be stopped are named.

    Args:
        sources: Where verifiers stand.
        seconds: What each may take per completion; 0 is without a limit.
        say: Prints a line that stays.
    """
    for source in sources:
        unlimited = source.guard(seconds)
        if unlimited:
            say(f"warning: {unlimited}")


def check_contamination(
    config: TrainConfig,
    sources: Sequence[Source],
    held_out: Sequence[Source],
    say: Callable[[str], None],
) -> None:
    """Look for evaluation prompts among the training prompts.

    Args:
        config: The settings; `contamination` says what to do about them.
        sources: What is trained on.
        held_out: What is held out.
        say: Told of those that are let pass.

    Raises:
        UsageError: There are some, and they are to be refused.
    """
    policy, wanted = config.tasks.contamination, config.evaluation.eval_tasks
    if policy == "ignore":
        return
    for held in held_out:
        for source in sources:
            if held.tasks is None or source.tasks is None:
                continue
            asked = [held.tasks[i] for i in range(min(wanted, len(held.tasks)))]
            found = contamination(source.tasks, asked)
            if found.exact and policy == "refuse":
                raise UsageError(
                    f"evaluation tasks of {held.name} are training tasks of {source.name}: "
                    f"{found}; give other --eval-env, or --contamination warn"
                )
            if found:
                say(f"warning: {held.name} in {source.name}: {found}")


def announce(config: TrainConfig, run: Run, say: Callable[[str], None]) -> None:
    """Say what is run, with every setting, and what is doubtful about it.

    Args:
        config: The settings.
        run: Where it is kept.
        say: Prints a line that stays.
    """
    row = config.algorithm.row()
    say(f"run {run.folder}: {row.title}\n{config.to_toml()}")
    doubts = run_warnings(
        row,
        max_tokens=config.rollout.max_tokens,
        learned_values=row.needs_values and config.critic.critic != "rollouts",
    )
    for doubt in (*doubts, lag_warning(row, config.rollout.sample_ahead)):
        if doubt:
            say(f"warning: {doubt}")


def begun(config: TrainConfig, *, resume: bool, overwrite: bool) -> Run:
    """Return the run to write, if its folder is free, or to continue, if its settings are the same.

    Args:
        config: The settings.
        resume: Whether to continue the run in the folder.
        overwrite: Whether a run in the folder may be replaced; that is left to `Run.create`.

    Raises:
        UsageError: The folder is taken; or there is nothing to continue, it has no checkpoint, or
            a setting that matters differs.
    """
    run = Run(config.run.out)
    if resume and overwrite:
        raise UsageError(
            f"--resume continues the run in '{run.folder}' and --overwrite deletes it; give one"
        )
    if not resume:
        run.check_free(overwrite=overwrite)
        return run
    _check_resumable(run, config)
    return run


def _check_resumable(run: Run, config: TrainConfig) -> None:
    if not (run.folder / "config.toml").is_file():
        raise UsageError(f"no run to resume in '{run.folder}': it has no config.toml; check --out")
    if not run.checkpoints():
        raise UsageError(
            f"the run in '{run.folder}' has no checkpoint to resume from; start it again with "
            "--overwrite"
        )
    saved = TrainConfig.from_toml(run.folder / "config.toml").to_dict()
    for section, values in config.to_dict().items():
        for name in {*values, *saved[section]} - MAY_CHANGE:
            before, now = saved[section].get(name), values.get(name)
            if before != now:
                raise UsageError(
                    f"cannot resume '{run.folder}' with {name}={now!r}: it was begun with "
                    f"{before!r}; leave it out, or begin a new run"
                )
