"""The metrics of a batch of episodes, as the policy sampled them."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from ..agents.types import Trajectory
from ..verifiers import class_counts
from .choices import Algorithm
from .evaluation import is_solved


def describe(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Return the metrics of a batch of episodes: means over scored ones, counts of the rest."""
    scored = [t for t in trajectories if t.scored]
    rewards = np.array([t.reward for t in scored] or [0.0])
    out = {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std()),
        "solved": _share([is_solved(t) for t in scored]),
        "length": _share([t.length for t in trajectories]),
        "truncated": _share([t.truncated for t in trajectories]),
        "unscored": float(len(trajectories) - len(scored)),
        "near_ties": float(sum(t.near_ties for t in trajectories)),
    }
    statuses = Counter(t.verdict.get("status", "none") for t in trajectories)
    out |= {f"status/{status}": float(count) for status, count in sorted(statuses.items())}
    out |= class_counts(t.verdict for t in trajectories)
    return out | _by_environment(trajectories, scored) | _parts(scored)


def equal_rewards(trajectories: Sequence[Trajectory], row: Algorithm) -> bool:
    """Whether an algorithm compares rewards and all that it compares are equal.

    Args:
        trajectories: What a step learns from.
        row: The algorithm.
    """
    compares = row.needs_group or row.baseline == "batch_mean"
    if not compares or row.on_pairs or row.needs_values or row.reward in ("process", "parts"):
        return False
    seen: dict[int, set[float]] = defaultdict(set)
    for t in trajectories:
        if t.scored:
            seen[t.group if row.needs_group else 0].add(t.reward)
    return bool(seen) and all(len(rewards) == 1 for rewards in seen.values())


def _by_environment(
    trajectories: Sequence[Trajectory], scored: Sequence[Trajectory]
) -> dict[str, float]:
    """Return reward and solved share of each environment, where there are several."""
    names = sorted({t.env for t in trajectories})
    out: dict[str, float] = {}
    for name in names if len(names) > 1 else ():
        own = [t for t in scored if t.env == name]
        out[f"env/{name}/reward"] = _share([t.reward for t in own])
        out[f"env/{name}/solved"] = _share([is_solved(t) for t in own])
    return out


def _parts(scored: Sequence[Trajectory]) -> dict[str, float]:
    """Return the mean of each part over the verdicts that have it."""
    parts: dict[str, list[float]] = {}
    for t in scored:
        for name, value in (t.verdict.get("parts") or {}).items():
            if value is not None:
                parts.setdefault(name, []).append(value)
    return {f"parts/{name}": _share(values) for name, values in sorted(parts.items())}


def _share(values: Sequence[float]) -> float:
    """Return the mean; 0 over nothing."""
    return sum(values) / len(values) if values else 0.0
