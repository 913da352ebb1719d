"""The workloads of the step benchmark: a tiny model that writes completions of a known length law.

The model is the embedded default, taught by some supervised steps to write random letters:

- after a prompt that ends in `!`: capitals, and never an end;
- after a prompt that ends in `?`: in 96 % of all cases at least three small letters, then an end
  with probability 1/11 after each; in 4 % capitals without end.

So every system draws its lengths from the same law by its own sampling, and none is told them.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from rlvr.agents import embedded
from rlvr.agents.embedded import EmbeddedConfig, build
from rlvr.agents.scoring import continuation_logits, pad, token_logprobs
from rlvr.verifiers import Task

logging.disable_progress_bar()

LONG_SHARE = 0.04
"""Share of `?` completions that only the token limit ends."""
END_CHANCE = 1 / 11
"""Chance of the end after each letter from the third on."""
SHOWN = 24
"""Letters of an endless completion shown in most supervised steps; every fifth shows them all."""
SMALL, CAPITALS = "abcdefgh", "ABCDEFGH"
PAYS = "abcdABCD"
"""Last letters that are paid: half of them, so that every group has both rewards."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Prompts, and how long a completion may get."""

    name: str
    ending: str
    """Last character of the prompts; decides what the model writes."""
    max_tokens: int

    def tasks(self, count: int) -> list[Task]:
        """Return tasks, the same ones at every call."""
        rng = random.Random(f"prompts {self.name}")
        return [
            Task(id=f"write-{i}", prompt=_prompt(rng, self.ending), truth=PAYS)
            for i in range(count)
        ]


FIXED = Workload(name="eight tokens", ending="!", max_tokens=8)
RAGGED = Workload(name="ragged, 4 to 192 tokens", ending="?", max_tokens=192)


def paid(completion: str, truth: str) -> float:
    """The reward of every system: 1 if the last letter is one of those in `truth`."""
    return float(completion[-1:] in truth and completion != "")


def _prompt(rng: random.Random, ending: str) -> str:
    return f"{rng.randrange(100)} + {rng.randrange(100)} = {ending}"


def _completion(rng: random.Random, ending: str, letters: int) -> tuple[str, bool]:
    """Draw a demonstration: at most so many letters, and whether it ends by itself."""
    if ending == "!" or rng.random() < LONG_SHARE:
        return "".join(rng.choices(CAPITALS, k=letters)), False
    length = 3
    while rng.random() > END_CHANCE:
        length += 1
    return "".join(rng.choices(SMALL, k=length)), True


def writer(folder: Path, steps: int) -> Path:
    """Teach the model to write, unless the folder has it already.

    Args:
        folder: Where models are kept.
        steps: Supervised steps.

    Returns:
        The model's folder.
    """
    settings = f"{EmbeddedConfig()} {steps}".encode()
    sources = Path(__file__).read_bytes() + Path(embedded.__file__).read_bytes()
    key = hashlib.sha256(sources + settings).hexdigest()[:12]
    place = folder / f"writer-{key}"
    if not (place / "tokenizer.json").exists():
        model, tokenizer = build(EmbeddedConfig())
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the same weights whatever the number of threads measured with
        _teach(model, tokenizer, steps)
        torch.set_num_threads(threads)
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
    return place


def _teach(model: Any, tokenizer: Any, steps: int) -> None:
    rng = random.Random("demonstrations")
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 20) * max(0.05, 1 - step / steps)
        whole = step % 5 == 4
        rows = [
            _row(rng, tokenizer, "!" if whole else None, whole) for _ in range(4 if whole else 32)
        ]
        batch = pad([prompt for prompt, _ in rows], [tokens for _, tokens in rows])
        logits = continuation_logits(model, batch, len(tokenizer))
        values = token_logprobs(logits, batch.targets, 1.0)
        loss = -(values * batch.present).sum() / batch.present.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def _row(
    rng: random.Random, tokenizer: Any, ending: str | None, whole: bool
) -> tuple[list[int], list[int]]:
    ending = ending or ("?" if rng.random() < 0.7 else "!")
    text, ends = _completion(rng, ending, RAGGED.max_tokens if whole else SHOWN)
    prompt = rendered(tokenizer, [_prompt(rng, ending)])[0]
    tokens = tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] * ends
    return tokenizer(prompt)["input_ids"], tokens


def rendered(tokenizer: Any, prompts: Sequence[str]) -> list[str]:
    """Return prompts as the texts that the chat template makes of them."""
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return tokenizer.apply_chat_template(chats, add_generation_prompt=True, tokenize=False)
