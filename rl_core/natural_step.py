"""A natural-gradient step on a language model: TRPO, for small models and adapters.

The direction is F⁻¹g by conjugate gradients, its length follows from the limit on KL(π_old ‖ π_θ),
taken over the whole vocabulary at every trained token, and it is shortened until that limit holds
in fact and the surrogate has grown. A step for which that cannot be had is refused: the weights
stay as they were, bit for bit. Only parameters that require a gradient are moved.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..verifiers import TrainingStopped, UsageError
from . import functional as F
from .choices import Algorithm
from .functional.natural_gradient import (
    backtrack,
    conjugate_gradient,
    difference_product,
    trust_region_step,
)

REMEMBERED = 2**27
"""Old logits that are kept, in numbers; beyond, each product computes them again, which takes one
forward pass more and no memory."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """The batch, as a natural step sees it: functions of the model's present weights."""

    parts: Sequence[Sequence[int]]
    """Micro-batches."""
    evaluate: Callable[[Sequence[int]], tuple[Tensor, Tensor, Tensor]]
    """A micro-batch's part of the surrogate's loss, its logits at the sampling temperature
    `[B, T, V]` and its mask `[B, T]`, with gradient."""
    tokens: float
    """Trained tokens of the whole batch."""


class NaturalStep:
    """One step; made anew for every batch."""

    def __init__(self, parameters: Sequence[Tensor], region: Region, row: Algorithm) -> None:
        """Remember where the step begins.

        Args:
            parameters: What is moved; all of at least single precision.
            region: The batch.
            row: The algorithm's limits.

        Raises:
            UsageError: A parameter is of half precision.
        """
        low = [p.dtype for p in parameters if p.dtype not in (torch.float32, torch.float64)]
        if low:
            raise UsageError(
                f"optimizer 'natural' moves weights by differences that {low[0]} cannot hold; use "
                "dtype=float32"
            )
        self.parameters, self.region, self.row = parameters, region, row
        self.start = _flat([p.detach() for p in parameters]).clone()
        self._old: dict[int, Tensor] = {}
        self._kept = 0

    def take(self) -> dict[str, float]:
        """Move the parameters, or leave them.

        Returns:
            `grad_norm`, `natural/kl`, `natural/gain` (of the surrogate), `natural/share` (of the
            full step; 0: refused), `natural/residual` (of the conjugate gradients).

        Raises:
            TrainingStopped: The gradient is not finite.
        """
        gradient, before = self._surrogate_gradient()
        norm = float(gradient.norm())
        if not math.isfinite(norm):
            raise TrainingStopped(
                f"the gradient's norm is {norm}: no step was taken; lower kl_limit, or look for "
                "rewards that are not finite"
            )
        metrics = {"grad_norm": norm, "natural/kl": 0.0, "natural/gain": 0.0}
        metrics |= {"natural/share": 0.0, "natural/residual": 0.0}
        if norm == 0:
            return metrics
        try:
            x, residual = conjugate_gradient(self.product, gradient, steps=self.row.cg_steps)
            step = trust_region_step(x, self.product(x), limit=self.row.kl_limit)
            if not torch.isfinite(step).all():
                step = torch.zeros_like(step)
            share, gain, kl = backtrack(
                lambda share: self._measure(share * step),
                before=before,
                limit=self.row.kl_limit,
                shrink=self.row.search_shrink,
                steps=self.row.search_steps,
            )
        except BaseException:
            self._place(None)
            raise
        self._place(share * step if share else None)
        found = {"natural/kl": kl, "natural/gain": gain - before, "natural/share": share}
        return metrics | found | {"natural/residual": residual}

    def product(self, vector: Tensor) -> Tensor:
        """Return (F + cI) v, from gradients of the divergence on both sides of the start."""
        found = difference_product(self._kl_gradient, vector, damping=self.row.cg_damping)
        self._place(None)
        return found

    def _surrogate_gradient(self) -> tuple[Tensor, float]:
        """Return the gradient of the surrogate, which is to grow, and its value."""
        self._clear()
        total = 0.0
        for number, part in enumerate(self.region.parts):
            loss, logits, _ = self.region.evaluate(part)
            loss.backward()
            total -= float(loss.detach())
            if self._kept + logits.numel() <= REMEMBERED:
                self._kept += logits.numel()
                self._old[number] = logits.detach()
        return -self._gradients(), total

    def _kl_gradient(self, move: Tensor) -> Tensor:
        gradient = torch.zeros_like(move)
        for number, part in enumerate(self.region.parts):
            old = self._before(number, part)
            self._place(move)
            self._clear()
            _, logits, mask = self.region.evaluate(part)
            (F.full_kl(old, logits, mask).sum() / self.region.tokens).backward()
            gradient += self._gradients()
        return gradient

    @torch.no_grad()
    def _measure(self, move: Tensor) -> tuple[float, float]:
        """Return surrogate and divergence at a place."""
        gain = divergence = 0.0
        for number, part in enumerate(self.region.parts):
            old = self._before(number, part)
            self._place(move)
            try:
                loss, logits, mask = self.region.evaluate(part)
                divergence += float(F.full_kl(old, logits, mask).sum()) / self.region.tokens
            except (ValueError, UsageError):  # logits that are not finite: a step far too long
                return math.nan, math.inf
            gain -= float(loss)
        return gain, divergence

    def _before(self, number: int, part: Sequence[int]) -> Tensor:
        if number in self._old:
            return self._old[number]
        self._place(None)
        with torch.no_grad():
            return self.region.evaluate(part)[1]

    @torch.no_grad()
    def _place(self, move: Tensor | None) -> None:
        """Set the parameters to where the step begins, plus a move."""
        place = self.start if move is None else self.start + move
        for parameter, values in zip(
            self.parameters, place.split([p.numel() for p in self.parameters]), strict=True
        ):
            parameter.copy_(values.view_as(parameter))

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _gradients(self) -> Tensor:
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        return _flat(found)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
