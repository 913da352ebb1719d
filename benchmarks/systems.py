"""The systems of the step benchmark, each a function that runs its own loop behind a gate."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import bare_loop
import numpy as np
import torch
import workloads
from workers import Gate
from workloads import Workload

from rlvr.envs import PromptEnv
from rlvr.rl_core.sources import Schedule, open_sources
from rlvr.verifiers import Task, verifier


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker is told."""

    workload: Workload
    model: str
    """Folder of the initial weights."""
    scratch: str
    """Folder for whatever the system writes."""
    shape: "Any"
    """A `trl_trainers.Shape`."""
    pool: int = 1024
    """Different prompts, walked through in the order of our schedule by every system."""
    knobs: Any = field(default=None)
    """A `trl_trainers.Knobs`, for TRL."""


def environment(job: Job, gate: Gate) -> PromptEnv:
    """Return our environment of the workload, with the reward that every system gets."""
    reward = workloads.recording(workloads.paid, gate.lengths, gate.rewards)
    tasks = [
        Task(id=f"write-{i}", prompt=prompt, truth=None)
        for i, prompt in enumerate(job.workload.prompts(job.pool))
    ]
    return PromptEnv(tasks, verifier(lambda completion, truth: reward(completion)))


def order(env: PromptEnv, shape: Any, steps: int) -> list[list[int]]:
    """Return which tasks our trainer poses at each step."""
    schedule = Schedule(open_sources([env]), shape.seed)
    picks = (schedule.step(step, shape.prompts_per_step) for step in range(steps))
    return [[int(p.index or 0) for p in prompts] for prompts in picks]


def run_bare(gate: Gate, job: Job) -> None:
    """The loop without a framework."""
    model, tokenizer = workloads.load(job.model)
    shape, env = job.shape, environment(job, gate)
    texts = workloads.rendered(tokenizer, [str(task.prompt) for task in env.tasks])
    prompts = tokenizer(texts)["input_ids"]
    reward = workloads.recording(workloads.paid, gate.lengths, gate.rewards)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=shape.lr, betas=(0.9, shape.beta2), weight_decay=0.0
    )
    rng = np.random.default_rng(shape.seed)
    cycle = order(env, shape, job.pool // shape.prompts_per_step)
    gate.ready()
    for step in range(shape.steps):
        bare_loop.step(
            model,
            tokenizer,
            optimizer,
            gate.watch,
            [prompts[i] for i in cycle[step % len(cycle)]],
            reward,
            group_size=shape.group_size,
            max_tokens=shape.max_tokens,
            seeds=rng.integers(2**63, size=shape.episodes).astype(np.uint64),
        )
        gate.tick()


def run_trl(gate: Gate, job: Job, kind: str) -> None:
    """One of TRL's trainers."""
    from trl_trainers import make_trainer

    model, tokenizer = workloads.load(job.model)
    env = environment(job, gate)
    cycle = order(env, job.shape, job.pool // job.shape.prompts_per_step)
    chosen = [str(env.tasks[i].prompt) for step in cycle for i in step]
    rows = [{"prompt": text, "truth": ""} for text in workloads.rendered(tokenizer, chosen)]
    reward = workloads.recording(workloads.paid, gate.lengths, gate.rewards)
    trainer = make_trainer(
        kind,
        gate,
        model,
        tokenizer,
        rows,
        lambda text, _: reward(text),
        job.shape,
        job.knobs,
        job.scratch,
    )
    trainer.train()


run_trl_rloo, run_trl_grpo = partial(run_trl, kind="rloo"), partial(run_trl, kind="grpo")


def run_ours(gate: Gate, job: Job, algorithm: str) -> None:
    """Our trainer."""
    raise NotImplementedError


run_ours_rloo = partial(run_ours, algorithm="rloo")
run_ours_grpo = partial(run_ours, algorithm="grpo")


def scratch(folder: Path, name: str) -> str:
    """Make a folder for a system's files."""
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    return str(place)
