"""What can only be known of a run, and looks wrong: warned about, or refused, with the way out.

What follows from an algorithm's choices alone is refused when it is made (`refusals`).
"""

import math
from typing import TYPE_CHECKING, Any

from ..verifiers.errors import UsageError
from .choices import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from ..agents import Sampling
    from .stages import Episodes

UNSCORED = 0.1
"""Share of unscored completions in a batch above which a warning is due: by then it matters which
completions they are, and they are seldom a random choice."""

NOISE = 0.02
"""Spread in nats of l^old − l^rollout per token that estimates of dropped shares assume: what an
engine in bfloat16 differs from its trainer by."""

DROPPED = 0.05
"""Share of completions dropped by length alone above which a warning is due."""


def run_warnings(
    row: Algorithm,
    *,
    max_tokens: int,
    prompts_per_step: int | None = None,
    updates: int = 1,
    mini_batch: int | None = None,
    learned_values: bool = False,
) -> list[str]:
    """Check an algorithm against the run that it is to train in.

    Args:
        row: The algorithm.
        max_tokens: Tokens that a completion may have.
        prompts_per_step: Prompts of a training step; none: not known.
        updates: Optimiser steps that share them.
        mini_batch: Completions per optimiser step, where a run says that instead of `updates`.
        learned_values: Whether a critic says V(s_t), rather than rollouts from s_t.

    Returns:
        What is doubtful, in sentences; empty as a rule.

    Raises:
        UsageError: Groups would be torn apart, a completion is compared with a batch that holds no
            other, or the length penalty is longer than a completion.

    Example:
        >>> from rlvr.rl_core.algorithms import algorithm
        >>> masked = algorithm("grpo", mismatch="mask_prod", mismatch_high=3)
        >>> print(run_warnings(masked, max_tokens=4096)[0][:61])
        grpo: mismatch 'mask_prod' bounds a product over the completi
    """
    _check_division(row, prompts_per_step, updates, mini_batch)
    _check_alone(row, prompts_per_step)
    if row.overlong_buffer > max_tokens:
        raise UsageError(
            f"{row.name}: overlong_buffer={row.overlong_buffer} is longer than a completion may "
            f"be, max_tokens={max_tokens}; set it to a part of that, a fifth for example"
        )
    found = _length_warnings(row, max_tokens)
    if row.resamples and row.baseline == "none":
        found.append(
            f"{row.name}: zero_groups='resample' with baseline 'none' samples only failures anew"
        )
    if learned_values and row.psi in ("q", "td", "nstep"):
        found.append(
            f"{row.name}: psi '{row.psi}' credits all but the last tokens by V alone, and the "
            "errors of a learned V are learned as if they were rewards: the solved share may rise "
            "and then fall to 0; set critic='rollouts', or psi='gae' with lam near 1"
        )
    return found


def refuse_truncated(row: Algorithm, policy: Any, sampling: "Sampling") -> None:
    """Refuse to learn from a truncated distribution unless it is known what it was cut down to.

    Log-probabilities are then normalised over fewer tokens by the sampler than by the learner: its
    ratios are off by the mass of what was left, and without a ratio the gradient is that of another
    distribution, whose baseline does not cancel.

    Args:
        row: The algorithm.
        policy: Who samples; its `mask_problem` says why it cannot tell which tokens were left.
        sampling: How.

    Raises:
        UsageError: It cannot.
    """
    if not sampling.masked:
        return
    told = getattr(policy, "mask_problem", None)
    kind = type(policy).__name__
    why = told(sampling) if told else f"{kind} does not say which tokens could be drawn"
    if why:
        raise UsageError(
            f"{row.name}: sampling is cut off by top-p, top-k or min-p, and what is left cannot be "
            f"learned from: {why}; sample with top_p=1, top_k=0, min_p=0, or take another policy "
            "(--policy transformers always tells)"
        )


def _check_alone(row: Algorithm, prompts: int | None) -> None:
    """Refuse statistics over a batch of one completion."""
    if prompts is None or prompts * row.group_size > 1:
        return
    what = f"baseline '{row.baseline}'" if row.baseline == "batch_mean" else ""
    if row.scale == "batch_std" or (row.scale == "whiten" and row.psi == "total"):
        what = f"scale '{row.scale}'"
    if what:
        raise UsageError(
            f"{row.name}: {what} compares a completion with the others of its batch, and "
            f"prompts_per_step={prompts} with group_size={row.group_size} leaves none: every "
            "advantage would be 0 or undefined; raise one of the two"
        )


def _check_division(
    row: Algorithm, prompts: int | None, updates: int, mini_batch: int | None
) -> None:
    if mini_batch is not None and mini_batch % row.group_size:
        raise UsageError(
            f"{row.name}: mini_batch={mini_batch} is not divisible by group_size={row.group_size}: "
            "a group would be torn apart; change one of the two"
        )
    if prompts is not None and prompts % updates:
        raise UsageError(
            f"{row.name}: prompts_per_step={prompts} is not divisible by updates={updates}: every "
            "update takes whole groups; change one of the two"
        )


def _length_warnings(row: Algorithm, max_tokens: int) -> list[str]:
    """Warn of masks that drop completions for their length."""
    found = []
    product = row.mismatch in ("mask_prod", "icepop_seq")
    if product and row.mismatch_high > 1:
        share = _tail(math.log(row.mismatch_high), NOISE * math.sqrt(max_tokens))
        if row.mismatch_low > 0:
            share += _tail(-math.log(row.mismatch_low), NOISE * math.sqrt(max_tokens))
        if share > DROPPED:
            found.append(
                f"{row.name}: mismatch '{row.mismatch}' bounds a product over the completion, "
                f"whose spread grows with its length: with {NOISE} nats a token, {share:.0%} of "
                f"the completions of {max_tokens} tokens are dropped for being long; set "
                "mismatch='tis_token' or 'icepop', or shorten max_tokens"
            )
    if row.mismatch == "mask_geo":
        found.append(
            f"{row.name}: mismatch 'mask_geo' bounds a mean over the completion, whose spread "
            "shrinks with its length: short completions are dropped more often than long ones; "
            "set mismatch='tis_token' or 'icepop' to treat them alike"
        )
    return found


def _tail(bound: float, spread: float) -> float:
    """P(N(0, spread²) > bound)."""
    return 0.5 * math.erfc(bound / (spread * math.sqrt(2)))


def batch_warnings(
    row: Algorithm, given: "Episodes", totals: "Tensor", rows: "Tensor"
) -> tuple[str, ...]:
    """Say what looks wrong with a batch.

    Args:
        row: The algorithm.
        given: The batch.
        totals: R of each row `[B]`.
        rows: Rows that stay in the loss `[B]`.

    Returns:
        Sentences; empty as a rule.
    """
    found, scored = [], given.scored
    count, size = int(scored.sum()), len(scored)
    if count < (1 - UNSCORED) * size:
        found.append(
            f"{size - count} of {size} completions are unscored: what is left may be a skewed "
            "choice; look at the reasons in the metrics and mend the verifier or the truths"
        )
    if count > 1:
        known = totals[scored]
        low, high = float(known.min()), float(known.max())
        if low == high and row.baseline not in ("none", "const"):
            found.append(
                f"all {count} scored completions were paid {low:g}: there is nothing to learn from "
                "this batch; take tasks that are solved sometimes, or check the verifier"
            )
    if count and not rows.any():
        found.append(
            f"none of {count} scored completions stays in the loss ({_reasons(row)}): no step is "
            "taken; loosen that choice, or take easier tasks"
        )
    return tuple(found)


def _reasons(row: Algorithm) -> str:
    chosen = {
        f"reward='{row.reward}'": row.reward in ("best", "positive"),
        "overlong='filter'": row.overlong == "filter",
        f"max_staleness={row.max_staleness}": row.max_staleness >= 0,
        f"zero_groups='{row.zero_groups}'": row.zero_groups != "keep",
    }
    return ", ".join(name for name, is_on in chosen.items() if is_on)
