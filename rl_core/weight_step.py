"""One AdamW step on some weights: clipped, refused if it is not finite, in at least float32.

Weights of half precision cannot hold a small step: bfloat16 has 8 significant bits, so that a
change of less than a 512th of a weight is rounded away. Such weights are therefore stepped as
float32 copies and rounded from them after each step, unless that is switched off.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..verifiers import TrainingStopped

HALF = (torch.bfloat16, torch.float16)
"""Types that cannot hold a small step."""


class WeightStep:
    """Some weights with their optimiser."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        max_norm: float,
        masters: bool,
    ) -> None:
        """Make the optimiser, and copies of weights of half precision.

        Args:
            parameters: What the model computes with.
            lr: Learning rate.
            betas: AdamW's decays.
            weight_decay: AdamW's.
            max_norm: Gradients of a greater norm are scaled down to it.
            masters: Whether weights of half precision are stepped as float32 copies.
        """
        self.parameters, self.max_norm = list(parameters), max_norm
        self.pairs: list[tuple[Tensor, Tensor]] = []
        """Weights of half precision, each with the copy that is stepped."""
        self.stepped: list[Tensor] = []
        """What the optimiser steps: a weight, or its copy."""
        for weight in self.parameters:
            kept = weight
            if masters and weight.dtype in HALF:
                kept = weight.detach().float().requires_grad_()
                self.pairs.append((weight, kept))
            self.stepped.append(kept)
        self.optimizer = torch.optim.AdamW(
            self.stepped, lr=lr, betas=betas, weight_decay=weight_decay
        )

    def set_lr(self, lr: float) -> None:
        """Take another learning rate from now on."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def clear(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad()
        for weight, _ in self.pairs:
            weight.grad = None

    def gather(self) -> None:
        """Add the gradients of half precision to those of the copies; after every `backward`."""
        for weight, kept in self.pairs:
            if weight.grad is not None:
                given = weight.grad.float()
                kept.grad = given if kept.grad is None else kept.grad + given
                weight.grad = None

    def take(self, whose: str, advice: str) -> float:
        """Take a step with the gradients that are there; returns their norm.

        Args:
            whose: Whose gradient it is, for the message.
            advice: What would help.

        Raises:
            TrainingStopped: They are not finite; the weights are as before.
        """
        self.gather()
        norm = float(torch.nn.utils.clip_grad_norm_(self.stepped, self.max_norm))
        if not math.isfinite(norm):
            raise TrainingStopped(f"{whose} norm is {norm}: no step was taken; {advice}")
        self.optimizer.step()
        self._hand_back()
        return norm

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs beside the weights."""
        copies = [kept.detach() for _, kept in self.pairs]
        return {"optimizer": self.optimizer.state_dict(), "copies": copies}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            for (_, kept), saved in zip(self.pairs, state["copies"], strict=True):
                kept.copy_(saved)

    @torch.no_grad()
    def _hand_back(self) -> None:
        for weight, kept in self.pairs:
            weight.copy_(kept)
