"""The systems under test, each a function that runs its own training loop behind a gate."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import bare_loop
import numpy as np
import torch
from stopwatch import PARTS
from trl_trainers import Knobs, Shape, make_trainer
from workers import Gate
from workloads import rendered

from rlvr.agents import Sampling, TransformersPolicy, load_model
from rlvr.envs import PromptEnv
from rlvr.rl_core import training
from rlvr.rl_core.sources import Schedule, open_sources
from rlvr.verifiers import Task, verifier

Reward = Callable[[str, Any], float]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker is told."""

    tasks: list[Task]
    """What is trained on."""
    reward: Reward
    """Of a completion and a truth; the same function in every system."""
    model: str
    """Folder of the initial weights."""
    scratch: str
    """Folder for whatever the system writes."""
    shape: Shape
    """Sizes and optimiser."""
    planned: int = 200
    """Steps for which prompts are laid out in our trainer's order; then TRL and the bare loop
    begin again."""
    held_out: list[Task] = field(default_factory=list)
    """What is evaluated on between blocks."""
    knobs: Knobs = field(default_factory=Knobs)
    """What may make it faster."""


def recording(reward: Reward, gate: Gate) -> Reward:
    """Return a reward function that notes each length and reward at the gate."""

    def noted(completion: str, truth: Any) -> float:
        value = reward(completion, truth)
        gate.lengths.append(len(completion))
        gate.rewards.append(value)
        return value

    return noted


def environment(job: Job, gate: Gate) -> PromptEnv:
    """Return our environment of the job."""
    return PromptEnv(job.tasks, verifier(recording(job.reward, gate)))


def plan(job: Job) -> list[list[Task]]:
    """Return which tasks our trainer poses at each step."""
    env = PromptEnv(job.tasks, verifier(job.reward))
    schedule = Schedule(open_sources([env]), job.shape.seed)
    steps = (schedule.step(step, job.shape.prompts_per_step) for step in range(job.planned))
    return [[job.tasks[prompt.index or 0] for prompt in step] for step in steps]


def solved_share(job: Job, model: Any, tokenizer: Any, samples: int = 4) -> float:
    """Return the share of samples on the held-out tasks that are right, with fixed draws."""
    training_mode = model.training
    policy = TransformersPolicy(model, tokenizer, check=False)
    tasks = [task for task in job.held_out for _ in range(samples)]
    prompts = tokenizer(rendered(tokenizer, [str(task.prompt) for task in tasks]))["input_ids"]
    samplings = [Sampling(max_tokens=job.shape.max_tokens, seed=i) for i in range(len(tasks))]
    drawn = policy.generate_batch(prompts, samplings)
    texts = [policy.format.text(completion.tokens) for completion in drawn]
    model.train(training_mode)
    return float(np.mean([job.reward(t, task.truth) for t, task in zip(texts, tasks, strict=True)]))


def run_bare(gate: Gate, job: Job) -> None:
    """The loop without a framework."""
    model, tokenizer = load_model(job.model, device="cpu")
    shape, reward = job.shape, recording(job.reward, gate)
    truths = [[task.truth for task in step] for step in plan(job)]
    texts = [rendered(tokenizer, [str(task.prompt) for task in step]) for step in plan(job)]
    prompts = [tokenizer(step)["input_ids"] for step in texts]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=shape.lr, betas=(0.9, shape.beta2), weight_decay=0.0
    )
    rng = np.random.default_rng(shape.seed)
    gate.ready()
    for number in range(shape.steps):
        at = number % len(prompts)
        bare_loop.step(
            model,
            tokenizer,
            optimizer,
            gate.watch,
            prompts[at],
            truths[at],
            reward,
            group_size=shape.group_size,
            max_tokens=shape.max_tokens,
            seeds=rng.integers(2**63, size=shape.episodes).astype(np.uint64),
        )
        gate.tick()


def run_trl(gate: Gate, job: Job, kind: str) -> None:
    """One of TRL's trainers."""
    model, tokenizer = load_model(job.model, device="cpu")
    tasks = [task for step in plan(job) for task in step]
    texts = rendered(tokenizer, [str(task.prompt) for task in tasks])
    rows = [{"prompt": text, "truth": task.truth} for text, task in zip(texts, tasks, strict=True)]
    reward = recording(job.reward, gate)
    gate.evaluate = partial(solved_share, job, model, tokenizer)
    trainer = make_trainer(
        kind, gate, model, tokenizer, rows, reward, job.shape, job.knobs, job.scratch
    )
    trainer.train()


def run_ours(gate: Gate, job: Job, algorithm: str) -> None:
    """Our trainer, with the split that it measures itself."""
    shape = job.shape
    training.Trainer = partial(_gated, gate, job)  # pyright: ignore
    training.train(
        env=environment(job, gate),
        quiet=True,
        model=job.model,
        device="cpu",
        algorithm=algorithm,
        beta=0.0,
        group_size=shape.group_size,
        prompts_per_step=shape.prompts_per_step,
        max_tokens=shape.max_tokens,
        lr=shape.lr,
        beta2=shape.beta2,
        max_grad_norm=shape.max_grad_norm,
        warmup_steps=0,
        eval_tasks=0,
        checkpoint_every=0,
        steps=shape.steps,
        seed=shape.seed,
        out=f"{job.scratch}/run",
        verifier_timeout=0.0,  # the reward function runs in this process, as it does in TRL
        **job.knobs.ours,
    )


def _gated(gate: Gate, job: Job, *args: Any) -> training.Trainer:
    """Make a trainer that waits at the gate when it has written a step's line, and before all.

    The line is the last that a step does, and the first place where its times are known.
    """
    trainer = _Trainer(*args)
    append, run_all = trainer.run.append, trainer.run_all
    model, tokenizer = trainer.policy.model, trainer.policy.tokenizer

    def then_tick(name: str, lines: Iterable[Mapping[str, Any]]) -> None:
        append(name, lines)
        if name == "metrics.jsonl":
            (line,) = lines
            gate.tick({part: line[f"time/{part}"] for part in PARTS if part != "other"})

    def when_ready(*, resume: bool) -> training.Result:
        gate.evaluate = partial(solved_share, job, model, tokenizer)
        gate.ready()
        return run_all(resume=resume)

    trainer.run.append, trainer.run_all = then_tick, when_ready  # pyright: ignore
    return trainer


_Trainer = training.Trainer

RUNNERS: dict[str, Callable[[Gate, Job], None]] = {
    "bare loop": run_bare,
    "TRL RLOO": partial(run_trl, kind="rloo"),
    "TRL GRPO": partial(run_trl, kind="grpo"),
    "ours rloo": partial(run_ours, algorithm="rloo"),
    "ours grpo": partial(run_ours, algorithm="grpo"),
}
"""Every system by name."""
