"""Drawing tokens: one uniform number per (episode seed, position), inverted over the whole batch.

A draw depends on its episode's seed and its position alone, not on which rows share the batch or
in which order they finish: the generator is counter-based, so there is no state to keep in step.
Matrix products differ in the last bits with the batch size; a draw that falls that close to the
boundary between two tokens may differ with it and is reported as a *near-tie*.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from .types import Sampling

NEAR_TIE = 1e-6
"""Distance to a boundary, in probability, below which rounding may decide a draw: ten times what
log-probabilities were seen to move when the batch size changes."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


def uniforms(seeds: NDArray[np.uint64], positions: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return one uniform number per pair, u = mix(mix(seed) + (position + 1)·γ) / 2⁶⁴.

    `mix` is SplitMix64's finaliser and γ its odd constant, so that for one seed the numbers are
    that generator's stream, addressed by position.

    Args:
        seeds: Episode seeds `[B]`.
        positions: Index of the token to be drawn in its sequence `[B]`.

    Returns:
        Numbers in [0, 1) with 53 random bits `[B]`.

    Example:
        >>> pair = uniforms(np.array([7, 7], np.uint64), np.array([0, 1], np.uint64))
        >>> [round(float(u), 6) for u in pair]
        [0.524346, 0.302139]

    Reference:
        Steele, Lea & Flood, 2014, "Fast splittable pseudorandom number generators", fig. 14.
    """
    with np.errstate(over="ignore"):
        z = _mix(seeds) + (positions + np.uint64(1)) * _GOLDEN
    return (_mix(z) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def turn_seed(seed: int, position: int) -> int:
    """Return a seed for an engine that has a generator of its own: one per (episode, position).

    Args:
        seed: The episode's.
        position: Index of the first token to be drawn in its sequence.

    Returns:
        A number of 63 bits: mix(mix(seed) + (position + 1)·γ), halved.

    Example:
        >>> turn_seed(7, 0) == turn_seed(7, 1)
        False
    """
    with np.errstate(over="ignore"):
        z = _mix(np.array([seed], np.uint64)) + np.uint64(position + 1) * _GOLDEN
    return int(_mix(z)[0] >> np.uint64(1))


@dataclass(frozen=True)
class Warp:
    """The rows' sampling settings as columns, made once per batch."""

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor
    greedy: bool
    truncated: bool

    @classmethod
    def of(cls, samplings: Sequence[Sampling], device: torch.device) -> "Warp":
        """Collect the settings of the rows, in order."""

        def column(name: str) -> torch.Tensor:
            values = [getattr(sampling, name) for sampling in samplings]
            return torch.tensor(values, device=device)[:, None]

        return cls(
            temperature=column("temperature").float(),
            top_k=column("top_k"),
            top_p=column("top_p").double(),
            min_p=column("min_p").double(),
            greedy=any(sampling.temperature == 0 for sampling in samplings),
            truncated=any(sampling.truncated for sampling in samplings),
        )

    def rows(self, keep: torch.Tensor) -> "Warp":
        """Keep some rows."""
        columns = (self.temperature[keep], self.top_k[keep], self.top_p[keep], self.min_p[keep])
        return Warp(*columns, greedy=self.greedy, truncated=self.truncated)


def log_probabilities(logits: torch.Tensor, warp: Warp) -> torch.Tensor:
    """Return the log-probabilities of the distribution that is sampled from.

    log p = logits/T − logsumexp(logits/T), after min-p, top-k and top-p (in this order, each on
    what the one before left) have set the rest to −∞. Temperature 0 is a point mass.

    Args:
        logits: `[B, V]`.
        warp: The rows' settings.

    Returns:
        `[B, V]` in float32.
    """
    logits = logits.float()
    if warp.greedy:
        cold = warp.temperature == 0
        point = torch.full_like(logits, -torch.inf)
        point.scatter_(1, logits.argmax(-1, keepdim=True), 0.0)
        logits = torch.where(cold, point, logits / warp.temperature.masked_fill(cold, 1.0))
    else:
        logits = logits / warp.temperature
    if warp.truncated:
        logits = logits.masked_fill(_cut(logits, warp), -torch.inf)
    return torch.log_softmax(logits, -1)


def _cut(logits: torch.Tensor, warp: Warp) -> torch.Tensor:
    """Return which tokens fall to min-p, top-k or top-p `[B, V]`."""
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    p = torch.softmax(ordered.double(), -1)
    rank = torch.arange(p.shape[1], device=p.device)[None]
    cut = p < warp.min_p * p[:, :1]
    cut |= (warp.top_k > 0) & (rank >= warp.top_k)
    kept = p.masked_fill(cut, 0.0)
    kept = kept / kept.sum(-1, keepdim=True)
    before = kept.cumsum(-1) - kept
    cut |= (before >= warp.top_p) & (warp.top_p < 1)
    cut[:, 0] = False
    return torch.empty_like(cut).scatter_(1, order, cut)


class Drawn(NamedTuple):
    """One token per row."""

    tokens: torch.Tensor
    """Ids `[B]`."""
    logprobs: torch.Tensor
    """Their log-probabilities under what was drawn from, in nats `[B]`."""
    near: torch.Tensor
    """Which were near-ties `[B]`, boolean."""
    kept: torch.Tensor | None
    """Which ids could be drawn `[B, V]`, boolean; none if no row's distribution is truncated."""


def draw(logits: torch.Tensor, warp: Warp, uniform: torch.Tensor) -> Drawn:
    """Draw one token per row by inversion: the first with cumulative probability above u.

    Args:
        logits: `[B, V]`.
        warp: The rows' settings.
        uniform: `[B]` in [0, 1), float64.
    """
    logp = log_probabilities(logits, warp)
    cdf = logp.exp().double().cumsum(-1)
    target = (uniform * cdf[:, -1])[:, None]
    token = torch.searchsorted(cdf, target, right=True).clamp_(max=cdf.shape[1] - 1)
    above = cdf.gather(1, token) - target
    below = torch.where(token > 0, target - cdf.gather(1, (token - 1).clamp_(min=0)), 1.0)
    inside = cdf[:, -1:] - target
    near = (torch.minimum(above, below) < NEAR_TIE) & (inside > 0)
    if warp.greedy:
        two = logits.float().topk(min(2, logits.shape[1]), -1).values
        tied = (two[:, :1] - two[:, -1:] < NEAR_TIE) & (logits.shape[1] > 1)
        near = torch.where(warp.temperature == 0, tied, near)
    kept = logp > -torch.inf if warp.truncated else None
    return Drawn(token[:, 0], logp.gather(1, token)[:, 0], near[:, 0], kept)
