"""Training: the loop, on one page.

    prompts → episodes → verdicts → advantages → loss → new weights

`train` opens what a configuration names, and `Trainer.run_all` goes round: pose tasks, roll them
out, learn from them, write it down; now and then evaluate and save. Everything random follows from
(seed, step), so that a checkpoint needs no generator's state: the weights, the optimiser, the
baseline, and how far each environment's tasks have been walked through.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..agents.policies import open_policy
from ..verifiers import GroupVerifier, Verifier
from .cautions import refuse_truncated
from .collection import Collected, collector_of
from .config import TrainConfig
from .evaluation import Evaluation
from .held_out import HeldOut
from .learner import Learner
from .monitor import action_space
from .opening import (
    announce,
    begun,
    check_contamination,
    limit_verifiers,
    open_sides,
    recorded,
    several,
)
from .plugins import load_files
from .progress import Display
from .records import Run
from .report import conclude
from .rollout_log import RolloutLog
from .runtime import Interrupt, keep_freed_memory, long_lived_objects_left_alone
from .sources import Schedule, Source, spelt
from .summary import describe, equal_rewards
from .watch import Watch
from .weights import open_weights

DIAGNOSED = 64
"""Episodes that measure how much probability the likeliest tokens hold."""

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
    group_verifier: GroupVerifier | str | None = None,
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
        group_verifier: Judges the completions of a prompt beside one another, in place of the
            configuration's; `group_weight` and `group_gate` say what that is worth.
        callbacks: Called after every step.
        resume: Whether to continue the run in the folder `out`.
        overwrite: Whether a run in that folder may be replaced; it is, once everything that the
            new one needs is loaded.
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
    env, eval_env = several(env), several(eval_env)
    if group_verifier is not None:
        settings["group_verifier"] = spelt(group_verifier)
    if "out" in settings:
        settings["out"] = os.fspath(settings["out"])
    config = recorded(TrainConfig.of(config, **settings), env, eval_env, verifier)
    load_files(config.tasks.imports)
    group = config.rewards.group_reward(group_verifier)
    run = begun(config, resume=resume, overwrite=overwrite)
    display = Display(config.run.steps, quiet=quiet)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    keep_freed_memory()
    sources, held_out = open_sides(config, env, eval_env, verifier)
    try:
        limit_verifiers((*sources, *held_out), config.run.verifier_timeout, display.say)
        if not resume:
            check_contamination(config, sources, held_out, display.say)
        judge = None if group is None else group.verifier
        saved = [place for _, place in run.checkpoints()] if resume else []
        trainer = Trainer(config, run, sources, held_out, callbacks, display, judge, saved[-1:])
        with closing(trainer):
            if not resume:
                run.create(config, overwrite=overwrite)
            return trainer.run_all(resume=resume)
    finally:
        display.stop()
        for source in (*sources, *held_out):
            source.close()


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
        group_verifier: GroupVerifier | None = None,
        saved: Sequence[Path] = (),
    ) -> None:
        """Load the model, or the checkpoint `saved`, and make policy and learner."""
        self.config, self.run, self.display = config, run, display
        self.sources, self.callbacks = sources, callbacks
        self.row = config.algorithm.row()
        self.step = 0
        """Steps done."""
        announce(config, run, display.say)
        self.weights = open_weights(config, sources, saved[-1] if saved else None, display.say)
        model, tokenizer = self.weights.model, self.weights.tokenizer
        self.policy = open_policy(
            config.model.policy,
            model,
            tokenizer,
            max_rows=config.rollout.max_rows,
            wait=config.rollout.wait,
            thoughts=config.rollout.thoughts,
            server_url=config.model.server_url,
            server_folder=config.model.server_folder,
            server_transport=config.model.server_transport,
            engine=config.model.engine,
            say=display.say,
        )
        self.sampling = config.rollout.sampling()
        refuse_truncated(self.row, self.policy, self.sampling)
        self.learner = self._learner()
        self.schedule = Schedule(sources, config.run.seed)
        self.collector = collector_of(
            config, sources, self.schedule, self.policy, self.sampling, group_verifier
        )
        self.held_out = HeldOut(config, run, held_out, self.policy, self.sampling, display.say)
        self.rollouts = RolloutLog(config.run, run, self.learner, self.policy.format)
        self.watch = Watch(display.say, max_unscored=config.run.max_unscored)
        self._note_progress()
        for place in saved:
            self._restore(place)

    def run_all(self, *, resume: bool) -> Result:
        """Train until the last step or Ctrl-C; leaves a checkpoint, the model and the report."""
        config, every = self.config.run, self.config.evaluation.eval_every
        if resume:
            self.display.say(f"resumed after step {self.step}")
        else:
            self.held_out.evaluate(0)
        self.display.start(self.step)
        with Interrupt() as interrupt, long_lived_objects_left_alone():
            while self.step < config.steps and not interrupt.asked:
                metrics = self._one_step()
                if self._due(every):
                    metrics |= self.held_out.evaluate(self.step)
                self.run.append("metrics.jsonl", [{"step": self.step, **metrics}])
                self.display.step(self.step, metrics)
                if interrupt.asked or self._due(config.checkpoint_every):
                    self._save()
        self.display.stop()
        done, found = self.step >= config.steps, self.held_out.found
        if done:
            self.weights.leave(self.run)
        conclude(self.run, self.config, self.display, self.step, finished=done)
        return Result(folder=self.run.folder, steps=self.step, finished=done, evaluations=found)

    def _one_step(self) -> dict[str, float]:
        """Pose tasks, roll them out, learn from them: one training step.

        Between the collector and the learner, `found` holds whole groups of finished episodes with
        their verdicts; whatever acts on a batch of them stands there.
        """
        began, drawn, clock = time.perf_counter(), self.policy.seconds, {}
        found = self.collector.next(self.step, clock)
        self.watch.unscored(found.drawn, self.step, self._save)
        metrics = describe(found.drawn) | found.metrics
        self._engine("sleep")
        learning = time.perf_counter()
        metrics |= self.learner.update(
            found.trajectories,
            self.step,
            version=self.policy.version,
            greedy=found.greedy,
            values=found.values,
        )
        learned = time.perf_counter() - learning
        both = self.collector.settle(learning)
        self._engine("wake")
        self.policy.sync()
        metrics |= getattr(self.policy, "sync_metrics", {})
        self.step += 1
        self._note_progress()
        self._look(metrics, equal=equal_rewards(found.trajectories, self.row))
        self.rollouts.write(found.trajectories, self.step)
        diagnosed = self.config.run.diagnostics_every
        if diagnosed and self.step % diagnosed == 0:
            metrics |= action_space(self.learner, DIAGNOSED)
        for callback in self.callbacks:
            callback(self, metrics)
        total, sampled = time.perf_counter() - began, self.policy.seconds - drawn
        metrics["time/step"] = total
        metrics["time/sampling"] = sampled
        metrics["time/verify"] = clock["environments"]
        metrics["time/learn"] = learned
        metrics["time/both"] = both
        metrics["time/other"] = total - learned - sampled - clock["environments"] + both
        metrics["time/tokens_per_second"] = sum(t.length for t in found.drawn) / total
        return metrics

    def _engine(self, what: str) -> None:
        """Have an engine that shares the learner's device sleep or wake."""
        getattr(self.policy, what, lambda: None)()

    def close(self) -> None:
        """Give back what sampling holds: workers, and an engine where there is one."""
        self.collector.close()
        getattr(self.policy, "close", lambda: None)()

    def _due(self, every: int) -> bool:
        """Whether something done every so many steps, and at the end, is to be done now."""
        return self.step == self.config.run.steps or (every > 0 and self.step % every == 0)

    def _look(self, metrics: dict[str, float], *, equal: bool) -> None:
        """Stop, or say it, where the step looks wrong."""
        one = self.config.updates * self.row.epochs == 1 and not self.config.rollout.sample_ahead
        dtype = self.policy.model.dtype
        self.watch.mismatch(metrics["mismatch"], self.step, exact=one, dtype=dtype)
        dead, reward = metrics["dead_groups"], metrics["reward"]
        self.watch.silence(self.step, dead_groups=dead, reward=reward, equal=equal)
        work = self.learner.last
        self.watch.doubts(work.found.warnings if work else (), self.step)

    def _learner(self) -> Learner:
        config, reference = self.config, None
        if self.row.needs_reference:
            reference = self.weights.reference(config.model, self.sources, self.display.say)
        return Learner(
            self.weights.model,
            self.row,
            config.optimizer,
            vocabulary=self.policy.vocabulary,
            temperature=config.rollout.temperature,
            max_tokens=config.rollout.max_tokens,
            reference=reference,
            critic=config.critic,
            kl_target=config.algorithm.kl_target,
            kl_horizon=config.algorithm.kl_horizon,
            decode=self.policy.format.spell,
        )

    def _note_progress(self) -> None:
        """Remember what a checkpoint after this step holds; sampling may be further on."""
        self._cursors = list(self.schedule.cursors)
        self._ahead = list(self.collector.waiting)

    def _save(self) -> Path:
        state = {
            "cursors": self._cursors,
            "ahead": [collected.to_json() for collected in self._ahead],
            "version": self.policy.version,
        }
        return self.run.save_checkpoint(
            self.step,
            self.weights.save,
            state,
            self.config.run.keep_checkpoints,
            self.learner.state(),
        )

    def _restore(self, checkpoint: Path) -> None:
        state = json.loads((checkpoint / "state.json").read_text())
        learned = torch.load(checkpoint / "learner.pt", weights_only=True, map_location="cpu")
        self.learner.load(learned)
        self.step, self.policy.version = state["step"], state["version"]
        self.schedule.cursors = list(state["cursors"])
        self.collector.waiting.extend(Collected.from_json(one) for one in state["ahead"])
        self._note_progress()
        for name in ("metrics.jsonl", "rollouts.jsonl", "evaluations.jsonl"):
            self.run.cut(name, self.step)
