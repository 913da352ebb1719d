"""How good a policy is: pass@1, pass@k, majority@k, with intervals and counts per status.

Unscored samples leave every figure and are counted; a task without a scored sample leaves it too.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..agents.messages import MessagePolicy
from ..agents.rollouts import rollout
from ..agents.types import Policy, Sampling, Trajectory
from ..verifiers import Status, UsageError
from .sources import Prompt, Source, episodes_of, labelled

Z_95 = 1.959963984540054
"""Normal quantile of a two-sided 95 % interval."""


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the probability that one of k samples is right, unbiased from n of which c are.

    pass@k = 1 − C(n−c, k) / C(n, k)

    Args:
        n: Scored samples, at least k.
        c: Right ones.
        k: Samples that may be tried.

    Example:
        >>> pass_at_k(4, 1, 2)  # 1 − C(3, 2)/C(4, 2) = 1 − 3/6
        0.5

    Reference:
        Chen et al., 2021, arXiv 2107.03374, eq. 1.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise UsageError(f"pass@k needs 0 ≤ c ≤ n and 1 ≤ k ≤ n, got n={n}, c={c}, k={k}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def majority(answers: Sequence[str | None], right: Sequence[bool]) -> float:
    """Return whether the most frequent answer is right; a tie pays each its share.

    Args:
        answers: What was extracted from each sample; `None` abstains.
        right: Whether it is right.

    Example:
        >>> majority(["4", "5", "4", None], [True, False, True, False])
        1.0
        >>> majority(["4", "5"], [True, False])
        0.5
    """
    counts = Counter(answer for answer in answers if answer is not None)
    if not counts:
        return 0.0
    most = max(counts.values())
    top = {answer for answer, count in counts.items() if count == most}
    solved = {answer for answer, good in zip(answers, right, strict=True) if good}
    return len(top & solved) / len(top)


def wilson(p: float, n: float) -> tuple[float, float]:
    """Return the 95 % score interval of a share p seen in n independent trials.

    Example:
        >>> [round(x, 4) for x in wilson(0.5, 100)]  # 0.5 ± 0.0962
        [0.4038, 0.5962]

    Reference:
        Wilson, 1927, Probable inference, the law of succession, and statistical inference.
    """
    if n <= 0:
        return 0.0, 1.0
    spread = Z_95 * math.sqrt(p * (1 - p) / n + Z_95**2 / (4 * n * n))
    centre = p + Z_95**2 / (2 * n)
    scale = 1 + Z_95**2 / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def clustered(shares: Sequence[float], samples: int) -> tuple[float, float]:
    """Return the 95 % interval of the mean of per-task shares, whose samples hang together.

    The score interval with n = p(1−p)/SE², where SE is the standard error over the tasks: between
    the number of tasks (samples of a task all alike) and the number of samples (independent).

    Args:
        shares: Each task's share of right samples.
        samples: Scored samples in all.
    """
    tasks = len(shares)
    if tasks == 0:
        return 0.0, 1.0
    p = float(np.mean(shares))
    error = float(np.std(shares, ddof=1)) / math.sqrt(tasks) if tasks > 1 else 0.0
    effective = p * (1 - p) / error**2 if error > 0 else tasks
    return wilson(p, min(max(effective, tasks), samples))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found."""

    solved: float
    """pass@1: mean over tasks of the share of right samples."""
    interval: tuple[float, float]
    """Its 95 % interval."""
    reward: float
    """Mean reward of the scored samples."""
    tasks: int
    """Tasks with a scored sample."""
    samples: int
    """Scored samples."""
    unscored: int
    """Samples without a score."""
    length: float
    """Mean tokens per sample."""
    truncated: float
    """Share of samples that ran out of tokens."""
    pass_at: Mapping[int, float]
    """pass@k for k = 1, 2, 4, … up to the samples per task."""
    majority: float
    """majority@n over all samples of a task."""
    statuses: Mapping[str, int]
    """Samples per status."""
    groups: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    """Solved share and number of tasks per difficulty, where the tasks state one."""
    environments: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    """Solved share and number of tasks per environment, where there are several."""
    rows: Sequence[Mapping[str, Any]] = ()
    """One JSON row per sample."""

    def metrics(self) -> dict[str, float]:
        """Return the numbers, for a log."""
        low, high = self.interval
        return {
            "eval/solved": self.solved,
            "eval/solved_low": low,
            "eval/solved_high": high,
            "eval/reward": self.reward,
            "eval/length": self.length,
            "eval/unscored": float(self.unscored),
            **{f"eval/env/{name}/solved": s for name, (s, _) in self.environments.items()},
        }


def evaluate(
    policy: Policy | MessagePolicy,
    sources: Sequence[Source],
    *,
    tasks: int,
    samples: int = 1,
    sampling: Sampling,
    seed: int = 0,
    batch: int = 256,
) -> Evaluation:
    """Evaluate a policy on the first `tasks` tasks of the sources, shared out evenly.

    Args:
        policy: Who answers.
        sources: What is asked.
        tasks: Tasks in all, at least 1.
        samples: Samples per task.
        sampling: How to draw.
        seed: Of the draws.
        batch: Episodes run at the same time.
    """
    if tasks < 1 or samples < 1:
        raise UsageError(f"tasks and samples must be at least 1, got {tasks} and {samples}")
    prompts = _prompts(sources, tasks)
    found: list[Trajectory] = []
    per_batch = max(1, batch // samples)
    for start in range(0, len(prompts), per_batch):
        some = prompts[start : start + per_batch]
        episodes = episodes_of(sources, some, samples, [seed, 3, start])
        found += labelled(rollout(episodes, policy, sampling), some, sources)
    return summarise(found, prompts, sources, samples)


def _prompts(sources: Sequence[Source], tasks: int) -> list[Prompt]:
    out: list[Prompt] = []
    for number, source in enumerate(sources):
        share = tasks // len(sources) + (number < tasks % len(sources))
        count = share if source.tasks is None else min(share, len(source.tasks))
        out += [
            Prompt(source=number, index=None if source.tasks is None else i, env_seed=i)
            for i in range(count)
        ]
    return out


def summarise(
    found: Sequence[Trajectory], prompts: Sequence[Prompt], sources: Sequence[Source], samples: int
) -> Evaluation:
    """Turn trajectories, `samples` in a row per prompt, into figures."""
    shares, votes, kept = [], [], []
    by_difficulty: dict[str, list[float]] = defaultdict(list)
    by_source: dict[str, list[float]] = {s.label: [] for s in sources if len(sources) > 1}
    for number, prompt in enumerate(prompts):
        scored = [t for t in found[number * samples : (number + 1) * samples] if t.scored]
        if not scored:
            continue
        right = [is_solved(t) for t in scored]
        kept.append(right)
        shares.append(sum(right) / len(right))
        votes.append(majority([_answer(t) for t in scored], right))
        source = sources[prompt.source]
        difficulty = _difficulty(source, prompt)
        if difficulty:
            by_difficulty[difficulty].append(shares[-1])
        if source.label in by_source:
            by_source[source.label].append(shares[-1])
    total = sum(len(right) for right in kept)
    ks = [2**i for i in range(samples.bit_length()) if 2**i <= samples]
    scored_rewards = [t.reward for t in found if t.scored]
    return Evaluation(
        solved=_mean(shares),
        interval=clustered(shares, total),
        reward=_mean(scored_rewards),
        tasks=len(kept),
        samples=total,
        unscored=len(found) - total,
        length=_mean([t.length for t in found]),
        truncated=_mean([t.truncated for t in found]),
        pass_at={k: _mean([pass_at_k(len(r), sum(r), k) for r in kept if len(r) >= k]) for k in ks},
        majority=_mean(votes),
        statuses=dict(Counter(t.verdict.get("status", "none") for t in found)),
        groups={name: (_mean(v), len(v)) for name, v in sorted(by_difficulty.items())},
        environments={name: (_mean(v), len(v)) for name, v in by_source.items() if v},
        rows=[row_of(t) for t in found],
    )


def is_solved(trajectory: Trajectory) -> bool:
    """Whether an episode was solved in full: a verdict `correct`, or without one a reward of 1."""
    status = trajectory.verdict.get("status")
    if status is None:
        return trajectory.scored and trajectory.reward >= 1
    return status == Status.CORRECT


def row_of(trajectory: Trajectory) -> dict[str, Any]:
    """Return an episode as a JSON row for a log.

    `prompt` is its first message; where more stood before the completion, `messages` has them all.
    `turns` is the number of actions, of which the completion is the last.
    """
    asked = trajectory.messages[:-1] if trajectory.turns else trajectory.messages
    whole = {"messages": [dict(m) for m in asked]} if len(asked) > 1 else {}
    return {
        "env": trajectory.env,
        "task_id": trajectory.task_id,
        "prompt": trajectory.messages[0]["content"] if trajectory.messages else "",
        **whole,
        "completion": trajectory.completion,
        "turns": len(trajectory.turns),
        "reward": trajectory.reward if trajectory.scored else None,
        "solved": is_solved(trajectory),
        "status": trajectory.verdict.get("status"),
        "reason": (trajectory.verdict.get("evidence") or {}).get("reason"),
        "tokens": trajectory.length,
        "truncated": trajectory.truncated,
    }


def _answer(trajectory: Trajectory) -> str | None:
    evidence = trajectory.verdict.get("evidence") or {}
    if trajectory.verdict.get("status") == Status.UNPARSED:
        return None
    answer = evidence.get("answer")
    return str(answer) if answer is not None else trajectory.completion.strip() or None


def _difficulty(source: Source, prompt: Prompt) -> str:
    if source.tasks is None or prompt.index is None:
        return ""
    value = source.tasks[prompt.index].metadata.get("difficulty")
    return "" if value is None else str(value)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
