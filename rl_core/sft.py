"""`rlvr sft`: imitation on a model of the user's own and on tasks or demonstrations of theirs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..agents.embedded import EmbeddedConfig, build
from ..agents.transformers_policy import TransformersPolicy
from ..envs.sources import read_rows
from ..verifiers import Task, TaskError, UsageError
from .demonstrations import has_turns, play_demonstrations
from .progress import Display
from .records import Run, save_model
from .sources import open_sources, training_tasks
from .warm_start import Draw, WarmStart, drawn_from, imitate, load_chosen, solved

if TYPE_CHECKING:
    from .commands import SftCommand


def sft(given: "SftCommand") -> Path:
    """Warm-start a model and write it; returns its folder.

    Raises:
        UsageError: The folder exists, or a setting is out of range.
        TaskError: A task has no solution, or a row of the file no prompt or completion.
        ModelError: The model cannot be loaded or run.
        TrainingStopped: The model could not be written.
    """
    out = Path(given.out)
    if out.exists() and not out.is_dir():
        raise UsageError(f"'{out}' is a file, and a model is a folder; choose another --out")
    if out.exists() and any(out.iterdir()) and not given.overwrite:
        raise UsageError(f"'{out}' exists already; choose another --out, or --overwrite")
    config = WarmStart(
        steps=given.steps,
        batch=given.batch,
        batch_tokens=given.batch_tokens,
        lr=given.lr,
        right=given.right,
        seed=given.seed,
    )
    draw = _from_file(given.data) if given.data else _from_tasks(given.env, config)
    model, tokenizer = _model(given.model)
    TransformersPolicy(model, tokenizer)  # which refuses what could not be run afterwards
    display = Display(config.steps)

    def show(done: int, steps: int, loss: float) -> None:
        if done % max(1, steps // 10) == 0 or done in (1, steps):
            display.say(f"step {done}/{steps}  loss {loss:.4f}")

    with Run(out).guard("make the folder"):
        out.mkdir(parents=True, exist_ok=True)
    imitate(model, tokenizer, draw, config, show)
    with Run(out).guard("write the model"):
        save_model(out, model, tokenizer)
    display.say(f"model  {out}")
    return out


def _model(config: Any) -> tuple[Any, Any]:
    if config.model == "embedded":
        return build(EmbeddedConfig())
    return load_chosen(config)


def _from_tasks(env: Sequence[str], config: WarmStart) -> Draw:
    sources = open_sources(env, split="train")
    if any(has_turns(source) for source in sources):
        return drawn_from(play_demonstrations(sources, config.right, config.seed))
    return solved(training_tasks(sources), config.right)


def _from_file(path: str) -> Draw:
    pairs = []
    for where, row in read_rows(path):
        for column in ("prompt", "completion"):
            if not isinstance(row.get(column), str) or not row[column]:
                raise TaskError(
                    f"{where}: a demonstration needs the texts 'prompt' and "
                    f"'completion', got {json.dumps(row, default=str)[:200]}"
                )
        pairs.append((Task(id=where, prompt=row["prompt"], truth=None), row["completion"]))
    if not pairs:
        raise TaskError(f"{path} has no demonstrations")
    return drawn_from(pairs)
