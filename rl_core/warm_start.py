"""Supervised warm start: teach a model the form of an answer before rewarding it for the right one.

Reinforcement learning cannot begin with a model that never answers. A *demonstration* is a task's
prompt with an answer in the right form; which share of the answers is right is a setting, and for
the embedded default most are wrong on purpose: what is left to learn is the task, from the reward.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..agents.conversation import ChatFormat
from ..agents.embedded import EmbeddedConfig, build
from ..agents.loading import load_model
from ..agents.scoring import Padded, continuation_logits, pad, token_logprobs
from ..agents.transformers_policy import context_length, eos_ids
from ..verifiers import Task, TaskError, UsageError
from .config import ModelConfig
from .records import save_model

RECIPE = 2
"""Number of the embedded default's recipe: part of the cache's key."""

_NUMBER = re.compile(r"\d+")
_LAST_NUMBER = re.compile(r"\d+(?!.*\d)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """How long and on what to learn by imitation."""

    steps: int = 600
    """Optimiser steps."""
    batch: int = 128
    """Demonstrations per step, at most."""
    batch_tokens: int = 4096
    """Tokens per step, about: long demonstrations make smaller batches, not longer warm starts."""
    lr: float = 5e-3
    """Peak learning rate; rises over 20 steps, then falls along a cosine to a twentieth."""
    right: float = 0.35
    """Share of demonstrations whose answer is right; the others repeat a number of the question."""
    seed: int = 0
    """Of the choice of tasks and of the wrong answers."""

    def __post_init__(self) -> None:
        """Check every range."""
        if min(self.steps, self.batch, self.batch_tokens) < 1 or not self.lr > 0:
            raise UsageError(
                f"steps, batch and batch_tokens must be at least 1 and lr above 0, got {self}"
            )
        if not 0 <= self.right <= 1:
            raise UsageError(f"right must be a share in [0, 1], got {self.right}")


Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, loss)."""


def wrong_answer(task: Task, other: Task, rng: np.random.Generator) -> str:
    """Return a wrong answer in the right form: a number of the question in place of the answer's.

    Args:
        task: Has a solution; its last whole number is replaced.
        other: Its solution is taken where question or solution has no number to take.
        rng: Source of the choice.

    Example:
        >>> task = Task(id="a", prompt="12 + 7 = ?", truth=19, solution="19")
        >>> wrong_answer(task, task, np.random.default_rng(0))
        '7'
    """
    assert task.solution is not None
    assert other.solution is not None
    found = _LAST_NUMBER.search(task.solution)
    read = [] if found is None else [n for n in _NUMBER.findall(task.text) if n != found.group()]
    if found is None or not read:
        return other.solution
    number = read[rng.integers(len(read))]
    return task.solution[: found.start()] + number + task.solution[found.end() :]


def demonstrations(
    tasks: Sequence[Task], count: int, right: float, rng: np.random.Generator
) -> list[tuple[Task, str]]:
    """Draw tasks with answers.

    Raises:
        TaskError: A task has no solution to show.
    """
    picks = rng.integers(len(tasks), size=(count, 2))
    out = []
    for first, second in picks.tolist():
        task, other = tasks[first], tasks[second]
        if task.solution is None or other.solution is None:
            missing = task if task.solution is None else other
            raise TaskError(
                f"task '{missing.id}' has no solution to demonstrate; give tasks a `solution`, or "
                "demonstrations of your own with --data"
            )
        good = rng.random() < right
        out.append((task, task.solution if good else wrong_answer(task, other, rng)))
    return out


def imitate(
    model: Any,
    tokenizer: Any,
    draw: Callable[[int, np.random.Generator], Sequence[tuple[Task, str]]],
    config: WarmStart,
    progress: Progress | None = None,
) -> float:
    """Maximise the likelihood of demonstrations, in place.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        draw: Given a number and a generator, returns that many (task, completion).
        config: Steps, batch and learning rate.
        progress: Told the loss after every step.

    Returns:
        The last step's loss, in nats per token.
    """
    encoder = _Encoder(model, tokenizer)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, betas=(0.9, 0.95), weight_decay=0.0
    )
    rng = np.random.default_rng(np.random.SeedSequence([config.seed, 4]))
    count = encoder.fitting(draw(64, rng), config.batch, config.batch_tokens)
    loss = 0.0
    model.eval()
    for step in range(config.steps):
        rising = min(1.0, (step + 1) / 20)
        falling = 0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * step / config.steps))
        optimizer.param_groups[0]["lr"] = config.lr * rising * falling
        batch = encoder.rectangle(draw(count, rng))
        logits = continuation_logits(model, batch, encoder.vocabulary)
        objective = -token_logprobs(logits, batch.targets, 1.0)[batch.present].mean()
        optimizer.zero_grad()
        objective.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss = float(objective.detach())
        if progress:
            progress(step + 1, config.steps, loss)
    return loss


class _Encoder:
    """Turns demonstrations into rectangles of tokens that fit the model's context."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        ends = eos_ids(model, tokenizer)
        self.device, self.tokenizer = model.device, tokenizer
        self.chat = ChatFormat(tokenizer, ends)
        self.end = tokenizer.eos_token_id if tokenizer.eos_token_id in ends else ends[0]
        self.vocabulary = min(len(tokenizer), model.config.get_text_config().vocab_size)
        self.context = context_length(model, tokenizer)

    def pair(self, task: Task, text: str) -> tuple[list[int], list[int]]:
        """Return prompt and answer; of a prompt that is too long, its end."""
        prompt = list(self.chat.prompt(task.messages))[-(self.context - 1) :]
        answer = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.end]
        return prompt, answer[: self.context - len(prompt)]

    def rectangle(self, pairs: Sequence[tuple[Task, str]]) -> Padded:
        """Return demonstrations as a batch."""
        encoded = [self.pair(task, text) for task, text in pairs]
        return pad([prompt for prompt, _ in encoded], [text for _, text in encoded], self.device)

    def fitting(self, sample: Sequence[tuple[Task, str]], most: int, tokens: int) -> int:
        """Return how many demonstrations like the sample have about `tokens` tokens."""
        places = self.rectangle(sample).ids.numel() / len(sample)
        return max(1, min(most, int(tokens / places)))


def embedded_default(
    tasks: Sequence[Task],
    size: EmbeddedConfig | None = None,
    config: WarmStart | None = None,
    progress: Progress | None = None,
) -> tuple[Any, Any]:
    """Return the embedded model, warm-started on tasks; built once, then taken from the cache.

    Args:
        tasks: The training tasks; each must have a solution.
        size: The model's size.
        config: The warm start.
        progress: Told about a build.

    Returns:
        The model and its tokenizer.

    Raises:
        TaskError: A task has no solution to demonstrate.
    """
    size, config = size or EmbeddedConfig(), config or WarmStart()
    place = cache_folder() / f"embedded-{_key(tasks, size, config)}"
    if not (place / "config.json").is_file():
        model, tokenizer = build(size)
        imitate(
            model,
            tokenizer,
            lambda count, rng: demonstrations(tasks, count, config.right, rng),
            config,
            progress,
        )
        part = place.with_name(f".{place.name}.{os.getpid()}")
        save_model(part, model, tokenizer)
        try:
            os.replace(part, place)
        except OSError:  # somebody else was faster: the same weights stand there
            shutil.rmtree(part, ignore_errors=True)
            if not (place / "config.json").is_file():
                raise
    return load_model(place, device="cpu")


def load_chosen(config: ModelConfig, checkpoint: Path | None = None) -> tuple[Any, Any]:
    """Load the model that a configuration names, or a checkpoint in its place."""
    return load_model(
        checkpoint or config.model,
        device=config.device,
        dtype=config.dtype,
        trust_remote_code=config.trust_remote_code,
    )


def cache_folder() -> Path:
    """Return where built models are kept: `RLVR_CACHE`, else the user's cache folder."""
    chosen = os.environ.get("RLVR_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "rlvr"
    )
    folder = Path(chosen)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _key(tasks: Sequence[Task], size: EmbeddedConfig, config: WarmStart) -> str:
    """Hash everything that the built weights depend on."""
    digest = hashlib.sha256()
    settings = [RECIPE, asdict(size), asdict(config), torch.__version__, torch.get_num_threads()]
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for task in tasks:
        digest.update(json.dumps([task.messages, task.solution]).encode())
    return digest.hexdigest()[:16]
