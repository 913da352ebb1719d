"""The floor: a policy-gradient step without a framework, about sixty lines.

The same way of drawing tokens as ours (a uniform number per row and position, inverted over the
batch) and the RLOO loss; no environments, no logs, no checks. The batch is decoded until its last
row has finished, and learned on as one padded rectangle.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from stopwatch import Stopwatch
from transformers import DynamicCache

from rlvr.agents import Sampling
from rlvr.agents.draws import Warp, draw, uniforms

Tensors = tuple[torch.Tensor, torch.Tensor]


def left_padded(prompts: Sequence[Sequence[int]]) -> Tensors:
    """Return ids and attention of prompts padded on the left."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts])
    return ids, torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])


@torch.inference_mode()
def sample(model: Any, eos: int, prompts: Tensors, seeds: np.ndarray, max_tokens: int) -> Tensors:
    """Draw completions; returns ids `[B, T]` and which of them count `[B, T]`."""
    ids, attention = prompts
    starts = attention.sum(1).numpy().astype(np.uint64)
    warp = Warp.of([Sampling()] * len(ids), torch.device("cpu"))
    cache = DynamicCache(config=model.config)
    alive = torch.ones(len(ids), dtype=torch.bool)
    place, drawn, present = (attention.cumsum(1) - 1).clamp(min=0), [], []
    for step in range(max_tokens):
        logits = model(
            input_ids=ids,
            attention_mask=attention,
            position_ids=place,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        uniform = torch.from_numpy(uniforms(seeds, starts + np.uint64(step)))
        token = draw(logits, warp, uniform)[0]
        drawn.append(token)
        present.append(alive)
        alive = alive & (token != eos)
        if not alive.any():
            break
        ids, place = token[:, None], place[:, -1:] + 1
        attention = torch.nn.functional.pad(attention, (0, 1), value=1)
    return torch.stack(drawn, 1), torch.stack(present, 1)


def leave_one_out(rewards: torch.Tensor, group_size: int) -> torch.Tensor:
    """Return each reward less the mean of its siblings' `[B]`."""
    groups = rewards.view(-1, group_size)
    others = (groups.sum(1, keepdim=True) - groups) / (group_size - 1)
    return (groups - others).view(-1)


def step(
    model: Any,
    tokenizer: Any,
    optimizer: torch.optim.Optimizer,
    watch: Stopwatch,
    prompts: Sequence[Sequence[int]],
    truths: Sequence[Any],
    reward: Callable[[str, Any], float],
    *,
    group_size: int,
    max_tokens: int,
    seeds: np.ndarray,
) -> None:
    """Take one step on a batch of prompts, `group_size` completions each."""
    with watch.part("sampling"):
        ids, attention = left_padded([p for p in prompts for _ in range(group_size)])
        drawn = sample(model, tokenizer.eos_token_id, (ids, attention), seeds, max_tokens)
        tokens, present = (tensor.clone() for tensor in drawn)  # out of inference mode
        kept = [row[mask] for row, mask in zip(tokens, present, strict=True)]
        texts = tokenizer.batch_decode(kept, skip_special_tokens=True)
    with watch.part("verify"):
        repeated = [truth for truth in truths for _ in range(group_size)]
        scores = [reward(text, truth) for text, truth in zip(texts, repeated, strict=True)]
        rewards = torch.tensor(scores)
    with watch.part("learn"):
        whole, width = torch.cat([ids, tokens], 1), tokens.shape[1]
        mask = torch.cat([attention, present.long()], 1)
        logits = model(
            input_ids=whole,
            attention_mask=mask,
            use_cache=False,
            logits_to_keep=width + 1,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        ).logits[:, :-1]
        logprobs = -torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), tokens, reduction="none"
        )
        loss = -((logprobs * present).sum(1) * leave_one_out(rewards, group_size)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
