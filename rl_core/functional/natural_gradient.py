"""The natural gradient: the direction that improves most for a given change of the distribution.

    maximise gᵀx  subject to  ½ xᵀ F x ≤ δ   ⟹   x = √(2δ / gᵀF⁻¹g) · F⁻¹ g

F is the Hessian of KL(π_old ‖ π_θ) at θ = θ_old, which is the Fisher matrix. It is never formed:
conjugate gradients ask for products F v alone, and those are differences of two first-order
gradients, because fused attention has no second derivative. Vectors are flat `[n]`; the functions
know no model, only callables.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""v → F v, both `[n]`."""


def conjugate_gradient(
    product: Product, target: Tensor, *, steps: int, tolerance: float = 1e-10
) -> tuple[Tensor, float]:
    """Solve F x = g for a symmetric positive definite F that is known by its products alone.

        x₀ = 0,  p₀ = r₀ = g;   α = rᵀr / pᵀFp,  x ← x + αp,  r ← r − αFp,  p ← r + (r'ᵀr'/rᵀr) p

    After n iterations the solution is exact but for rounding; a few suffice for a good direction.
    A direction along which F is not positive ends the search: what was found so far is kept.

    Args:
        product: v → F v.
        target: g `[n]`.
        steps: Iterations at most.
        tolerance: The search ends where |r|² is below this share of |g|².

    Returns:
        x `[n]`, and |F x − g| / |g| as the recursion carries it; 0 for g = 0.

    Example:
        >>> x, error = conjugate_gradient(lambda v: 4 * v, torch.tensor([2.0, 8.0]), steps=5)
        >>> x, error
        (tensor([0.5000, 2.0000]), 0.0)

    Reference:
        Hestenes and Stiefel, 1952, "Methods of conjugate gradients for solving linear systems".
    """
    x, residual, direction = torch.zeros_like(target), target.clone(), target.clone()
    size = first = float(residual @ residual)
    for _ in range(steps):
        if size <= tolerance * first:
            break
        moved = product(direction)
        curvature = float(direction @ moved)
        if not curvature > 0:
            break
        alpha = size / curvature
        x = x + alpha * direction
        residual = residual - alpha * moved
        before, size = size, float(residual @ residual)
        direction = residual + (size / before) * direction
    return x, math.sqrt(size / first) if first else 0.0


def difference_product(gradient: Product, vector: Tensor, *, damping: float = 0.0) -> Tensor:
    """Multiply a Hessian with a vector by a central difference of gradients.

        F v ≈ ( ∇f(+εv) − ∇f(−εv) ) / 2ε + c v,   ε|v| = (machine precision)^⅓

    That ε balances rounding against curvature; the error is of the order of its square.

    Args:
        gradient: d → ∇f(θ + d) `[n]`.
        vector: v `[n]`.
        damping: c ≥ 0, a multiple of the identity that is added to F.

    Returns:
        (F + cI) v `[n]`; 0 for v = 0.

    Example:
        >>> cube = lambda d: 3 * (1 + d) ** 2  # f = θ³ at θ = 1, f'' = 6
        >>> v = torch.tensor([2.0], dtype=torch.float64)
        >>> round(float(difference_product(cube, v)), 6)
        12.0
    """
    size = float(vector.norm())
    if size == 0:
        return torch.zeros_like(vector)
    step = torch.finfo(vector.dtype).eps ** (1 / 3) / size
    product = (gradient(step * vector) - gradient(-step * vector)) / (2 * step)
    return product + damping * vector


def trust_region_step(direction: Tensor, product: Tensor, *, limit: float) -> Tensor:
    """Stretch a direction until the quadratic model of the divergence reaches its limit.

        √(2δ / xᵀFx) · x

    Args:
        direction: x = F⁻¹g `[n]`.
        product: F x `[n]`.
        limit: δ > 0, in nats.

    Returns:
        The step `[n]`; 0 where xᵀFx is not positive, so that no step is taken.

    Example:
        >>> trust_region_step(torch.tensor([1.0]), torch.tensor([2.0]), limit=0.01)
        tensor([0.1000])

    Reference:
        Schulman et al., 2015, arXiv 1502.05477, appendix C.
    """
    curvature = float(direction @ product)
    if not curvature > 0:
        return torch.zeros_like(direction)
    return math.sqrt(2 * limit / curvature) * direction


def backtrack(
    measure: Callable[[float], tuple[float, float]],
    *,
    before: float,
    limit: float,
    shrink: float,
    steps: int,
) -> tuple[float, float, float]:
    """Shorten a step until the surrogate improves and the divergence is within its limit.

        the greatest s ∈ {1, q, q², …, qⁿ} with  L(s) > L(0)  and  KL(s) ≤ δ;   0 if there is none

    Args:
        measure: s → (surrogate, KL) after s times the step; neither need be finite.
        before: L(0).
        limit: δ in nats.
        shrink: q in (0, 1).
        steps: n, shortenings at most.

    Returns:
        s (0: the step is refused), and surrogate and KL there.

    Example:
        >>> backtrack(lambda s: (s, s * s), before=0.0, limit=0.3, shrink=0.5, steps=10)
        (0.5, 0.5, 0.25)
    """
    share = 1.0
    for _ in range(steps + 1):
        gain, divergence = measure(share)
        if math.isfinite(gain) and gain > before and divergence <= limit:
            return share, gain, divergence
        share *= shrink
    return 0.0, before, 0.0
