"""Training: the loop, on one page.

    prompts → episodes → verdicts → advantages → loss → new weights

`train` opens what a configuration names, and `Trainer.run` goes round: pose tasks, roll them out,
learn from them, write it down; now and then evaluate and save. Everything random follows from
(seed, step), so that a checkpoint needs no generator's state: the weights, the optimiser, the
baseline, and how far each environment's tasks have been walked through.
"""

import ctypes
import gc
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from ..agents.loading import resolve_device
from ..agents.transformers_policy import TransformersPolicy
from ..agents.types import Sampling, Trajectory
from ..envs import contamination
from ..verifiers import TrainingStopped, UsageError, Verifier, class_counts
from .cautions import run_warnings
from .collection import Collected, Collector, lag_warning
from .config import TrainConfig
from .evaluation import Evaluation, evaluate, is_solved, row_of
from .learner import Learner
from .monitor import action_space, token_records
from .progress import Display, shorten
from .records import Run
from .report import before_and_after, write_report
from .sources import Schedule, Source, open_sources, training_tasks
from .warm_start import embedded_default, load_chosen

SHOWN = 10
"""Held-out problems shown in the terminal at the end; the report has more."""

DIAGNOSED = 64
"""Episodes that measure how much probability the likeliest tokens hold."""

MISMATCH = 0.01
"""Mean difference in nats between the sampler's and the learner's log-probabilities above which
float32 training stops: rounding gives less than 1e-5, so one of the two has other weights."""

MAY_CHANGE = {
    *("steps", "out", "eval_every", "eval_tasks", "checkpoint_every", "keep_checkpoints"),
    *("rollouts_per_step", "max_unscored", "max_solved_before", "verifier_timeout"),
    *("device", "max_rows"),
}
"""Settings that may differ on resume: none of them changes what is learned from a step."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's malloc options, from its malloc.h."""

Callback = Callable[["Trainer", dict[str, float]], None]
"""Called after every step with the trainer and the step's metrics, which it may add to."""


@dataclass(kw_only=True)
class Result:
    """What came of a run."""

    folder: Path
    """The run's folder."""
    steps: int
    """Steps done."""
    finished: bool
    """Whether all steps are done; `False` after Ctrl-C."""
    evaluations: list[tuple[int, Evaluation]] = field(default_factory=list)
    """Evaluations of this session with the step after which each was made."""


def train(
    config: TrainConfig | None = None,
    *,
    env: Any = None,
    eval_env: Any = None,
    verifier: Verifier | str | None = None,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Result:
    """Train a language model on environments with verifiable rewards.

    Args:
        config: The settings; the defaults if none.
        env: What to train on in place of the configuration's: an id with options, an environment,
            a function that makes one, or a list of these.
        eval_env: What to evaluate on, likewise.
        verifier: Judges in place of the environments' own.
        callbacks: Called after every step.
        resume: Whether to continue the run in the folder `out`.
        overwrite: Whether a run in that folder may be replaced.
        quiet: Whether to print nothing.
        settings: Single settings by name, as on the command line: `steps=50, lr=1e-3`.

    Returns:
        What came of it; the trained model is in `folder / "model"`.

    Raises:
        UsageError: A setting is unknown, out of range, or does not fit the others.
        TaskError: A task cannot be read.
        ModelError: The model cannot be loaded or run.
        TrainingStopped: Training could not go on; the message says why and what is saved.

    Example:
        `train(env="rlvr/GCD-v0", algorithm="grpo", beta=0, lr=1e-3, steps=50, out="runs/gcd")`
    """
    env, eval_env = _several(env), _several(eval_env)
    for name, given in (("env", env), ("eval_env", eval_env)):
        if given and all(isinstance(one, str) for one in given):
            settings[name] = given
    if "out" in settings:
        settings["out"] = os.fspath(settings["out"])
    config = TrainConfig.of(config, **settings)
    run = _resumed(config) if resume else None
    display = Display(config.run.steps, quiet=quiet)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    _keep_freed_memory()
    sources, held_out = _open(config, env, eval_env, verifier)
    for source in (*sources, *held_out):
        unlimited = source.guard(config.run.verifier_timeout)
        if unlimited:
            display.say(f"warning: {unlimited}")
    try:
        if not resume:
            _check_contamination(config, sources, held_out, display)
            run = Run.create(config, overwrite=overwrite)
        assert run is not None
        trainer = Trainer(config, run, sources, held_out, callbacks, display)
        return trainer.run_all(resume=resume)
    finally:
        display.stop()
        for source in (*sources, *held_out):
            source.close()


def _several(given: Any) -> list[Any]:
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


def _open(
    config: TrainConfig, env: list[Any], eval_env: list[Any], verifier: Verifier | str | None
) -> tuple[list[Source], list[Source]]:
    """Open what is trained on and what is held out.

    Without evaluation environments of its own, a run trains on `split=train` of its environments
    and evaluates on `split=test`, where they have such sides.
    """
    from .sources import EnvChoice, takes_split

    chosen = env or list(config.tasks.env)
    asked = eval_env or list(config.tasks.eval_env)
    wanted = config.evaluation.eval_tasks
    if asked or not wanted:
        return open_sources(chosen, verifier), open_sources(asked, verifier) if wanted else []
    sides = []
    for one in chosen:
        if isinstance(one, str):
            choice = EnvChoice.parse(one)
            if "split" not in choice.options and takes_split(choice.id):
                options = {**choice.options, "size": wanted, "split": "test"}
                texts = [f"{k}={json.dumps(v)}" for k, v in options.items()]
                sides.append(" ".join([choice.id, *map(_quoted, texts)]))
    return open_sources(chosen, verifier, split="train"), open_sources(sides, verifier)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\"'\"'") + "'"


def _check_contamination(
    config: TrainConfig, sources: Sequence[Source], held_out: Sequence[Source], display: Display
) -> None:
    """Look for evaluation prompts among the training prompts."""
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
                display.say(f"warning: {held.name} in {source.name}: {found}")


def _resumed(config: TrainConfig) -> Run:
    """Return the run to continue, if its settings are the same.

    Raises:
        UsageError: There is none, it has no checkpoint, or a setting that matters differs.
    """
    run = Run(config.run.out)
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
    return run


class Interrupt:
    """Ctrl-C as a wish: the step is finished first; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        """Nothing is asked for yet."""
        self.asked = False

    def __enter__(self) -> Self:
        """Take over SIGINT where that is possible: in the main thread."""
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        """Give SIGINT back."""
        if self._main:
            signal.signal(signal.SIGINT, self._before)

    def _ask(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def _keep_freed_memory() -> None:
    """Have glibc keep freed blocks for the next step.

    By default it gives large ones back to the system at once, and a step on a CPU then spends a
    fifth of its time having the same pages zeroed again. Elsewhere than on glibc, nothing happens.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, 1 << 30)
        set_option(_M_TRIM_THRESHOLD, (1 << 31) - 1)


@contextmanager
def _long_lived_objects_left_alone() -> Iterator[None]:
    """Keep the garbage collector from walking through libraries and model at every full round."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class Trainer:
    """A run in progress: what callbacks see."""

    def __init__(
        self,
        config: TrainConfig,
        run: Run,
        sources: Sequence[Source],
        held_out: Sequence[Source],
        callbacks: Sequence[Callback],
        display: Display,
    ) -> None:
        """Load the model and make policy and learner."""
        self.config, self.run, self.display = config, run, display
        self.sources, self.held_out, self.callbacks = sources, held_out, callbacks
        self.row = config.algorithm.row()
        self.schedule = Schedule(sources, config.run.seed)
        self.step = 0
        """Steps done."""
        self._silent, self._spoken = 0, False
        self._doubts: set[str] = set()
        self._spelt: dict[int, str] = {}
        self._cursors = list(self.schedule.cursors)
        self._ahead: list[Collected] = []
        saved = run.checkpoints()
        display.say(f"run {run.folder}: {self.row.title}\n{config.to_toml()}")
        doubts = run_warnings(self.row, max_tokens=config.rollout.max_tokens)
        for doubt in (*doubts, lag_warning(self.row, config.rollout.sample_ahead)):
            if doubt:
                display.say(f"warning: {doubt}")
        model, tokenizer = self._load(saved[-1][1] if saved else None)
        self.policy = TransformersPolicy(model, tokenizer, max_rows=config.rollout.max_rows)
        reference = self._load(None)[0] if self.row.needs_reference else None
        self.learner = Learner(
            model,
            self.row,
            config.optimizer,
            vocabulary=self.policy.vocabulary,
            temperature=config.rollout.temperature,
            max_tokens=config.rollout.max_tokens,
            reference=None if reference is None else reference.requires_grad_(False),
            critic=config.critic,
            kl_target=config.algorithm.kl_target,
            kl_horizon=config.algorithm.kl_horizon,
            decode=self.policy.format.spell,
        )
        self.sampling = Sampling(
            max_tokens=config.rollout.max_tokens,
            temperature=config.rollout.temperature,
            stop=config.rollout.stop,
        )
        self.collector = Collector(
            config, self.row, sources, self.schedule, self.policy, self.sampling
        )
        if saved:
            self._restore(saved[-1][1])

    def run_all(self, *, resume: bool) -> Result:
        """Train until the last step or Ctrl-C; leaves a checkpoint, the model and the report."""
        config, result = self.config, Result(folder=self.run.folder, steps=0, finished=False)
        every, save = config.evaluation.eval_every, config.run.checkpoint_every
        if resume:
            self.display.say(f"resumed after step {self.step}")
        else:
            self._evaluate(result)
        self.display.start(self.step)
        with Interrupt() as interrupt, _long_lived_objects_left_alone():
            while self.step < config.run.steps and not interrupt.asked:
                metrics = self._one_step()
                last = self.step == config.run.steps
                if last or (every and self.step % every == 0):
                    metrics |= self._evaluate(result)
                self.run.append("metrics.jsonl", [{"step": self.step, **metrics}])
                self.display.step(self.step, metrics)
                if last or interrupt.asked or (save and self.step % save == 0):
                    self._save()
        self.display.stop()
        result.steps, result.finished = self.step, self.step >= config.run.steps
        self._close(result)
        return result

    def _one_step(self) -> dict[str, float]:
        """Pose tasks, roll them out, learn from them: one training step."""
        config, began, drawn = self.config, time.perf_counter(), self.policy.seconds
        clock: dict[str, float] = {}
        found = self.collector.next(self.step, clock)
        self._check_unscored(found.drawn)
        learning = time.perf_counter()
        metrics = describe(found.drawn) | found.metrics
        metrics |= self.learner.update(
            found.trajectories,
            self.step,
            version=self.policy.version,
            greedy=found.greedy,
            values=found.values,
        )
        learned = time.perf_counter() - learning
        self.policy.sync()
        self.step, self._cursors = self.step + 1, list(self.schedule.cursors)
        self._ahead = list(self.collector.waiting)
        self._check_mismatch(metrics)
        self._say_if_silent(metrics)
        self._say_doubts()
        self._write_rollouts(found.trajectories[: config.run.rollouts_per_step])
        if config.run.diagnostics_every and self.step % config.run.diagnostics_every == 0:
            metrics |= action_space(self.learner, DIAGNOSED)
        for callback in self.callbacks:
            callback(self, metrics)
        total = time.perf_counter() - began
        metrics["time/step"] = total
        metrics["time/sampling"] = self.policy.seconds - drawn
        metrics["time/verify"] = clock["environments"]
        metrics["time/learn"] = learned
        metrics["time/other"] = total - learned - metrics["time/sampling"] - metrics["time/verify"]
        metrics["time/tokens_per_second"] = sum(t.length for t in found.drawn) / total
        return metrics

    def _write_rollouts(self, kept: Sequence[Trajectory]) -> None:
        """Write episodes with the record of every token."""
        told = token_records(self.learner, len(kept), self._spell, self.step - 1)
        records = [*told, *[None] * (len(kept) - len(told))]
        self.run.append(
            "rollouts.jsonl",
            [
                {"step": self.step, **row_of(trajectory), "token_records": record}
                for trajectory, record in zip(kept, records, strict=True)
            ],
        )

    def _spell(self, token: int) -> str:
        if token not in self._spelt:
            self._spelt[token] = self.policy.format.spell([token])
        return self._spelt[token]

    def _evaluate(self, result: Result) -> dict[str, float]:
        """Evaluate on the held-out tasks; returns the metrics."""
        config = self.config.evaluation
        if not self.held_out or not config.eval_tasks:
            return {}
        found = evaluate(
            self.policy,
            self.held_out,
            tasks=config.eval_tasks,
            sampling=Sampling(
                max_tokens=self.sampling.max_tokens,
                temperature=config.eval_temperature,
                stop=self.sampling.stop,
            ),
            seed=self.config.run.seed,
            batch=self.config.rollout.max_rows,
        )
        result.evaluations.append((self.step, found))
        self.run.append("evaluations.jsonl", [{"step": self.step, **row} for row in found.rows])
        low, high = found.interval
        self.display.say(
            f"step {self.step}: solved {found.solved:.3f} [{low:.3f}, {high:.3f}] of "
            f"{found.tasks} held-out tasks"
            + (f", {found.unscored} unscored" if found.unscored else "")
        )
        if self.step == 0:
            self._before(found)
        return found.metrics()

    def _before(self, found: Evaluation) -> None:
        """Say how hard the task is before training, and refuse one that is solved already."""
        for name, (share, count) in found.groups.items():
            self.display.say(f"  difficulty {name}: solved {share:.3f} of {count}")
        self.run.append("metrics.jsonl", [{"step": 0, **found.metrics()}])
        limit = self.config.evaluation.max_solved_before
        if found.solved > limit:
            raise TrainingStopped(
                f"the model solves {found.solved:.3f} of the held-out tasks before training, more "
                f"than max_solved_before={limit:g}; choose harder tasks, or raise the limit"
            )

    def _check_unscored(self, trajectories: Sequence[Trajectory]) -> None:
        """Stop where verifiers fail more often than allowed."""
        failed = [t for t in trajectories if not t.scored]
        share = len(failed) / len(trajectories)
        if share <= self.config.run.max_unscored:
            return
        reasons = Counter(
            str((t.verdict.get("evidence") or {}).get("reason", "no reason given")) for t in failed
        )
        worst = "; ".join(f"{reason} ({count}×)" for reason, count in reasons.most_common(3))
        saved = f", saved as {self._save()}" if self.step else ""
        raise TrainingStopped(
            f"{len(failed)} of {len(trajectories)} episodes of step {self.step + 1} are unscored, "
            f"more than max_unscored={self.config.run.max_unscored:g}: {worst}; mend the verifier "
            f"or the tasks, or raise the limit (weights are as after step {self.step}{saved})"
        )

    def _check_mismatch(self, metrics: dict[str, float]) -> None:
        """Stop where sampler and learner disagree about the same tokens."""
        exact = self.policy.model.dtype == torch.float32
        one = self.config.updates * self.row.epochs == 1 and not self.config.rollout.sample_ahead
        if exact and one and metrics["mismatch"] > MISMATCH:
            raise TrainingStopped(
                f"step {self.step}: log-probabilities of sampler and learner differ by "
                f"{metrics['mismatch']:.3g} nats on average (rounding gives less than 1e-5): the "
                "sampler does not draw from the weights that are trained"
            )

    def _say_if_silent(self, metrics: dict[str, float]) -> None:
        """Say when a batch taught nothing: the first time, and after 10, 100, … such steps on end.

        The share of groups without gradient is in every line of the log.
        """
        self._silent = self._silent + 1 if metrics["dead_groups"] >= 1 else 0
        first, self._spoken = not self._spoken, self._spoken or self._silent > 0
        if (self._silent and first) or (self._silent > 1 and np.log10(self._silent) % 1 == 0):
            self.display.say(
                f"step {self.step}: every reward is equal within its group (mean "
                f"{metrics['reward']:.3f}), 100 % of the groups carry no gradient"
                + (f", for {self._silent} steps in a row" if self._silent > 1 else "")
                + "; tasks of mixed difficulty or a larger group_size would"
            )

    def _say_doubts(self) -> None:
        """Say what looks wrong with the batch, each kind of doubt once."""
        work = self.learner.last
        for doubt in work.found.warnings if work else ():
            kind = "".join(char for char in doubt if not char.isdigit())
            if kind not in self._doubts and not doubt.startswith("all "):  # silence has its own
                self._doubts.add(kind)
                self.display.say(f"step {self.step}: {doubt}")

    def _load(self, checkpoint: Path | None) -> tuple[Any, Any]:
        """Load the weights of a checkpoint, or those that training begins with."""
        config = self.config.model
        if checkpoint is None and config.model == "embedded":
            self.display.say("warm start of the embedded model (cached after the first time)")
            model, tokenizer = embedded_default(training_tasks(self.sources), progress=self._warm)
            return model.to(resolve_device(config.device)), tokenizer
        return load_chosen(config, checkpoint)

    def _warm(self, done: int, steps: int, loss: float) -> None:
        if done % 100 == 0 or done == steps:
            self.display.say(f"  warm start {done}/{steps}  loss {loss:.3f}")

    def _save(self) -> Path:
        state = {
            "cursors": self._cursors,
            "ahead": [collected.to_json() for collected in self._ahead],
            "version": self.policy.version,
        }
        return self.run.save_checkpoint(
            self.step,
            self.policy.model,
            self.policy.tokenizer,
            self.learner.optimizer,
            state,
            self.config.run.keep_checkpoints,
            self.learner.state(),
        )

    def _restore(self, checkpoint: Path) -> None:
        state = json.loads((checkpoint / "state.json").read_text())
        self.learner.optimizer.load_state_dict(
            torch.load(checkpoint / "optimizer.pt", weights_only=True)
        )
        self.learner.load(torch.load(checkpoint / "learner.pt", weights_only=True))
        self.step = state["step"]
        self._cursors, self.policy.version = state["cursors"], state["version"]
        self.schedule.cursors = list(self._cursors)
        self._ahead = [Collected.from_json(one) for one in state["ahead"]]
        self.collector.waiting.extend(self._ahead)
        for name in ("metrics.jsonl", "rollouts.jsonl", "evaluations.jsonl"):
            self.run.cut(name, self.step)

    def _close(self, result: Result) -> None:
        """Leave the model and the report, and say where they are."""
        say, folder = self.display.say, self.run.folder
        if not result.finished:
            say(
                f"stopped after step {self.step}, saved; continue with "
                f"`rlvr train --resume --out {folder}`"
            )
            return
        self.run.save_final(self.policy.model, self.policy.tokenizer)
        pairs = before_and_after(self.run)[:SHOWN]
        if pairs:
            self.display.table(
                "held-out problems before and after",
                ["prompt", "before", "after"],
                [
                    (shorten(p["prompt"], 60), _outcome(p["before"]), _outcome(p["after"]))
                    for p in pairs
                ],
            )
        say(f"model   {folder / 'model'}\nreport  {write_report(self.run, self.config)}")
        say(f"curve   {folder / 'curve.png'}")


def _outcome(row: Mapping[str, Any]) -> str:
    return f"{shorten(row['completion'], 40)}  {row['status'] or ''}"


def describe(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Return the metrics of a batch of episodes: means over scored ones, counts of the rest."""
    scored = [t for t in trajectories if t.scored]
    rewards = np.array([t.reward for t in scored] or [0.0])
    out = {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std()),
        "solved": float(np.mean([is_solved(t) for t in scored] or [0.0])),
        "length": float(np.mean([t.length for t in trajectories])),
        "truncated": float(np.mean([t.truncated for t in trajectories])),
        "unscored": float(len(trajectories) - len(scored)),
        "near_ties": float(sum(t.near_ties for t in trajectories)),
    }
    for status, count in sorted(
        Counter(t.verdict.get("status", "none") for t in trajectories).items()
    ):
        out[f"status/{status}"] = float(count)
    out |= class_counts(t.verdict for t in trajectories)
    names = sorted({t.env for t in trajectories})
    for name in names if len(names) > 1 else ():
        own = [t for t in scored if t.env == name]
        out[f"env/{name}/reward"] = float(np.mean([t.reward for t in own] or [0.0]))
        out[f"env/{name}/solved"] = float(np.mean([is_solved(t) for t in own] or [0.0]))
    parts: dict[str, list[float]] = {}
    for t in scored:
        for name, value in (t.verdict.get("parts") or {}).items():
            if value is not None:
                parts.setdefault(name, []).append(value)
    return out | {f"parts/{name}": float(np.mean(v)) for name, v in sorted(parts.items())}
