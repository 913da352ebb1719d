"""Supervised warm start: teach a model the form of an answer before rewarding it for the right one.

Reinforcement learning cannot begin with a model that never answers. A *demonstration* is a task's
prompt with an answer in the right form; which share of the answers is right is a setting, and for
the embedded default most are wrong on purpose: what is left to learn is the task, from the reward.
For environments of several turns a demonstration is a whole episode (`demonstrations`).
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
from .demonstrations import Demonstration, fingerprint, has_turns, play_demonstrations
from .records import Run, save_model
from .sources import Source, training_tasks

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


EPISODES = WarmStart(steps=900, right=0.2)
"""For environments of several turns, where a mistake in one of them is one too many."""

Shown = tuple[Task, str] | Demonstration
"""A task with an answer, or an episode."""
Draw = Callable[[int, np.random.Generator], Sequence[Shown]]
"""Given a number and a generator, draws that many demonstrations."""
Tokens = tuple[list[int], list[int], list[bool]]
"""Prompt, continuation, and which of the continuation's tokens are imitated."""
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
    draw: Draw,
    config: WarmStart,
    progress: Progress | None = None,
) -> float:
    """Maximise the likelihood of demonstrations, in place.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        draw: Given a number and a generator, returns that many demonstrations.
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
        batch, shown = encoder.rectangle(draw(count, rng))
        logits = continuation_logits(model, batch, encoder.vocabulary)
        objective = -token_logprobs(logits, batch.targets, 1.0)[shown].mean()
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
        self.known: dict[int, tuple[Demonstration, Tokens]] = {}
        """What has been encoded, by identity; the object is kept so that it stays its own."""

    def pair(self, task: Task, text: str) -> Tokens:
        """Return prompt and answer; of a prompt that is too long, its end."""
        prompt = list(self.chat.prompt(task.messages))[-(self.context - 1) :]
        answer = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.end]
        answer = answer[: self.context - len(prompt)]
        return prompt, answer, [True] * len(answer)

    def episode(self, shown: Demonstration) -> Tokens:
        """Return a conversation as a rollout would; of one that is too long, its beginning.

        Raises:
            TaskError: Not even its prompt fits into the model's context.
        """
        if id(shown) in self.known:
            return self.known[id(shown)][1]
        prompt = list(self.chat.prompt(shown.opening, shown.tools))
        if len(prompt) >= self.context:
            raise TaskError(
                f"a demonstration's prompt has {len(prompt)} tokens, the model's context is "
                f"{self.context}: {shown.opening[-1]['content']!r:.80}"
            )
        history, tokens, trained = list(shown.opening), [], []
        for action, said in zip(shown.actions, shown.said, strict=True):
            own = [*self.tokenizer(action, add_special_tokens=False)["input_ids"], self.end]
            delta: Sequence[int] = ()
            if said:
                delta = self.chat.delta(said, own, history=history, tools=shown.tools)
            tokens += [*own, *delta]
            trained += [True] * len(own) + [False] * len(delta)
            history += [{"role": "assistant", "content": action}, *said]
        room = self.context - len(prompt)
        self.known[id(shown)] = shown, (prompt, tokens[:room], trained[:room])
        return self.known[id(shown)][1]

    def rectangle(self, shown: Sequence[Shown]) -> tuple[Padded, torch.Tensor]:
        """Return demonstrations as a batch, and which columns are imitated `[B, T]`."""
        rows = [self.pair(*s) if isinstance(s, tuple) else self.episode(s) for s in shown]
        batch = pad([row[0] for row in rows], [row[1] for row in rows], self.device)
        imitated = torch.zeros(batch.present.shape, dtype=torch.bool)
        for number, (_, _, trained) in enumerate(rows):
            imitated[number, : len(trained)] = torch.tensor(trained)
        return batch, imitated.to(self.device)

    def fitting(self, sample: Sequence[Shown], most: int, tokens: int) -> int:
        """Return how many demonstrations like the sample have about `tokens` tokens."""
        places = self.rectangle(sample)[0].ids.numel() / len(sample)
        return max(1, min(most, int(tokens / places)))


def embedded_default(
    tasks: Sequence[Task],
    size: EmbeddedConfig | None = None,
    config: WarmStart | None = None,
    progress: Progress | None = None,
    *,
    shown: Sequence[Demonstration] = (),
) -> tuple[Any, Any]:
    """Return the embedded model, warm-started on tasks; built once, then taken from the cache.

    Args:
        tasks: The training tasks; each must have a solution, unless episodes are shown.
        size: The model's size.
        config: The warm start.
        progress: Told about a build.
        shown: Episodes to imitate in place of the tasks' solutions.

    Returns:
        The model and its tokenizer.

    Raises:
        TaskError: A task has no solution to demonstrate.
        TrainingStopped: The model could not be written into the cache.
    """
    size, config = size or EmbeddedConfig(), config or WarmStart()
    place = cache_folder() / f"embedded-{_key(tasks, size, config, shown)}"
    if not (place / "config.json").is_file():
        model, tokenizer = build(size)
        draw = drawn_from(shown) if shown else solved(tasks, config.right)
        imitate(model, tokenizer, draw, config, progress)
        part = place.with_name(f".{place.name}.{os.getpid()}")
        with Run(place.parent).guard("write the warm-started model", part):
            save_model(part, model, tokenizer)
        try:
            os.replace(part, place)
        except OSError:  # somebody else was faster: the same weights stand there
            shutil.rmtree(part, ignore_errors=True)
            if not (place / "config.json").is_file():
                raise
    return load_model(place, device="cpu")


def embedded_for(
    sources: Sequence[Source], config: WarmStart | None = None, progress: Progress | None = None
) -> tuple[Any, Any]:
    """Return the embedded model, warm-started for environments, of one turn or several.

    Args:
        sources: The environments.
        config: The warm start; none: `WarmStart()`, or `EPISODES` where there are turns.
        progress: Told about a build.
    """
    tasks = training_tasks(sources)
    if not any(has_turns(source) for source in sources):
        return embedded_default(tasks, None, config, progress)
    config = config or EPISODES
    shown = play_demonstrations(sources, config.right, config.seed)
    return embedded_default(tasks, None, config, progress, shown=shown)


def solved(tasks: Sequence[Task], right: float) -> Draw:
    """Demonstrate tasks by their solutions, of which a share is right."""
    return lambda count, rng: demonstrations(tasks, count, right, rng)


def drawn_from(shown: Sequence[Shown]) -> Draw:
    """Draw from given demonstrations."""
    return lambda count, rng: [shown[i] for i in rng.integers(len(shown), size=count)]


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the folder '{folder}' for built models: {error.strerror}; set the "
            "environment variable RLVR_CACHE to another"
        ) from error
    return folder


def _key(
    tasks: Sequence[Task],
    size: EmbeddedConfig,
    config: WarmStart,
    shown: Sequence[Demonstration] = (),
) -> str:
    """Hash everything that the built weights depend on."""
    digest = hashlib.sha256()
    settings = [RECIPE, asdict(size), asdict(config), torch.__version__, torch.get_num_threads()]
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for task in tasks:
        digest.update(json.dumps([task.messages, task.solution]).encode())
    if shown:
        digest.update(fingerprint(shown).encode())
    return digest.hexdigest()[:16]
