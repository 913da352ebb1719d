"""Combinations of choices that are refused: each with the reason and the way out.

Every rule stands for something that was shipped somewhere and went unnoticed, or that cannot be
computed at all. `RULES` is checked whenever an `Algorithm` is made; what can only be known of a run
(its lengths, its sampler, its batches) is checked by `rl_core.cautions`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from .options import CRITIC_PSI, GROUP_BASELINES, PAIR_LOSSES

if TYPE_CHECKING:
    from .choices import Algorithm

_REWARD: tuple[tuple[Callable[["Algorithm"], bool], str], ...] = (
    (
        lambda row: row.baseline == "step_mean" and (row.reward, row.psi) != ("process", "rtg"),
        "baseline 'step_mean' centres span rewards before they are summed; set reward='process' "
        "and psi='rtg', or baseline='group_mean'",
    ),
    (
        lambda row: row.scale == "step_std" and row.baseline != "step_mean",
        "scale 'step_std' divides span rewards, which baseline '{row.baseline}' does not centre; "
        "set baseline='step_mean', or scale='group_std'",
    ),
    (
        lambda row: row.reward in ("best", "positive") and row.overlong_buffer > 0,
        "reward '{row.reward}' selects completions, a length penalty would change its 0 and 1; "
        "set overlong='filter' and overlong_buffer=0",
    ),
)

_CREDIT: tuple[tuple[Callable[["Algorithm"], bool], str], ...] = (
    (
        lambda row: row.psi == "total" and row.gamma != 1,
        "gamma={row.gamma} discounts a reward-to-go, but psi is 'total'; set psi='rtg', or gamma=1",
    ),
    (
        lambda row: row.psi in ("td", "gae") and row.baseline not in ("none", "ema", "const"),
        "psi '{row.psi}' contains the baseline V(s_t), baseline '{row.baseline}' would take "
        "another one off; set baseline='none', or psi='q' or 'rtg'",
    ),
    (
        lambda row: row.psi == "total" and row.baseline == "value",
        "baseline 'value' knows the tokens before it, so that the rewards among them must be out "
        "of the return too; set psi='rtg'",
    ),
    (
        lambda row: row.psi == "segment" and row.reward != "process",
        "psi 'segment' compares turns by what each was paid, reward '{row.reward}' pays the whole "
        "episode at its end; set reward='process'",
    ),
    (
        lambda row: row.psi == "segment" and row.scale not in ("none", "group_std"),
        "psi 'segment' scales each level by its own group, scale '{row.scale}' has no such form; "
        "set scale='group_std' or 'none'",
    ),
    (
        lambda row: row.psi == "segment" and row.baseline != "group_mean",
        "psi 'segment' centres each level on its own group, baseline '{row.baseline}' has no such "
        "form; set baseline='group_mean'",
    ),
)

_GROUPS: tuple[tuple[Callable[["Algorithm"], bool], str], ...] = (
    (
        lambda row: row.baseline in GROUP_BASELINES and row.group_size == 1,
        "baseline '{row.baseline}' compares a completion with its siblings, but group_size is 1; "
        "set group_size=2 or more, or baseline='batch_mean' or 'ema'",
    ),
    (
        lambda row: (
            row.scale in ("group_std", "group_mean")
            and row.baseline not in ("loo", "group_mean", "length_weighted")
        ),
        "scale '{row.scale}' divides by a number taken within a group, but baseline "
        "'{row.baseline}' does not centre on the group; set baseline='group_mean', or scale='none'",
    ),
    (
        lambda row: row.needs_group and row.group_size == 1,
        "it compares a completion with its siblings (loss '{row.loss}', reward '{row.reward}'), "
        "but group_size is 1; set group_size=2 or more",
    ),
    (
        lambda row: row.scale == "loo_std" and row.group_size < 3,
        "scale 'loo_std' is the spread of the other members, and group_size={row.group_size} "
        "leaves one of them, which has none; set group_size=3 or more, or scale='group_std'",
    ),
    (
        lambda row: row.scale == "loo_std" and row.baseline != "loo",
        "scale 'loo_std' leaves the completion itself out, baseline '{row.baseline}' does not; "
        "set baseline='loo', or scale='group_std'",
    ),
)

_RATIO: tuple[tuple[Callable[["Algorithm"], bool], str], ...] = (
    (
        lambda row: row.ratio == "none" and row.trust != "logp",
        "trust '{row.trust}' needs a ratio, but ratio is 'none'; set ratio='token', or "
        "trust='logp'",
    ),
    (
        lambda row: row.ratio != "none" and row.trust == "logp",
        "trust 'logp' never reads ratio '{row.ratio}'; set ratio='none', or trust='clip'",
    ),
    (
        lambda row: row.trust in ("geo_clip", "tv_mask", "sg_clip") and row.ratio != "token",
        "trust '{row.trust}' is made of each token's own ratio, ratio is '{row.ratio}'; set "
        "ratio='token', or trust='clip'",
    ),
    (
        lambda row: row.trust == "sg_clip" and row.cap_high <= 1,
        "cap_high={row.cap_high:g} caps the weight itself, not its distance from 1: no token "
        "would weigh more than that, on-policy ones included; set cap_high above 1, for example 5",
    ),
    (
        lambda row: row.trust == "sg_clip" and row.cap_low > 1,
        "cap_low={row.cap_low:g} would raise the weight of every on-policy token above 1; set "
        "cap_low in [0, 1]",
    ),
    (
        lambda row: 0 < row.dual_clip <= 1 + row.clip_high,
        "dual_clip={row.dual_clip:g} cuts inside the clip range that ends at 1 + "
        "clip_high={row.clip_high:g}; set dual_clip above it, for example 3, or 0 to switch it off",
    ),
    (
        lambda row: row.trust == "geo_clip" and row.aggregate != "seq",
        "trust 'geo_clip' makes one term per completion, aggregate '{row.aggregate}' sums over "
        "tokens; set aggregate='seq', or trust='clip'",
    ),
    (
        lambda row: row.per_completion and row.aggregate != "seq",
        "ratio '{row.ratio}' makes one term per completion, aggregate '{row.aggregate}' sums over "
        "tokens; set aggregate='seq', or ratio='token'",
    ),
    (
        lambda row: row.ratio == "seq_geo_token" and row.aggregate not in ("seq_token", "prompt"),
        "ratio 'seq_geo_token' gives every token its completion's ratio, aggregate "
        "'{row.aggregate}' would weigh completions by their length; set aggregate='seq_token'",
    ),
    (
        lambda row: row.aggregate == "seq" and not row.per_completion,
        "aggregate 'seq' takes one term per completion, ratio '{row.ratio}' makes one per token; "
        "set ratio='seq_prod' with trust='clip', or aggregate='seq_sum'",
    ),
    (
        lambda row: row.per_completion and row.psi != "total",
        "ratio '{row.ratio}' multiplies one advantage per completion, psi '{row.psi}' makes one "
        "per token; set psi='total', or ratio='token' with aggregate='seq_sum'",
    ),
    (
        lambda row: row.per_completion and row.scale == "whiten",
        "scale 'whiten' weighs completions by their length, ratio '{row.ratio}' makes each of "
        "them one term; set scale='batch_std', or ratio='token'",
    ),
    (
        lambda row: row.per_completion and row.entropy_quantile > 0,
        "entropy_quantile={row.entropy_quantile:g} drops single tokens, and here a completion is "
        "one term; set entropy_quantile=0, or ratio='token'",
    ),
    (
        lambda row: row.per_completion and row.entropy_bonus > 0,
        "entropy_bonus={row.entropy_bonus:g} pays single tokens, and here a completion is one "
        "term; set entropy_bonus=0, or ratio='token'",
    ),
    (
        lambda row: row.per_completion and row.mismatch in ("tis_token", "icepop"),
        "mismatch '{row.mismatch}' weighs single tokens, and here a completion is one term; set "
        "mismatch='tis_seq' or 'icepop_seq', or ratio='token'",
    ),
    (
        lambda row: row.mismatch != "none" and row.ratio != "none" and row.anchor == "rollout",
        "with anchor 'rollout' the ratio itself corrects for the sampler, mismatch "
        "'{row.mismatch}' would be 1 everywhere; set mismatch='none', or anchor='old'",
    ),
    (
        lambda row: row.mismatch != "none" and row.mismatch_low >= row.mismatch_high,
        "mismatch_low={row.mismatch_low:g} is not below mismatch_high={row.mismatch_high:g}, so "
        "that nothing would be trained on; set mismatch_low below 1 and mismatch_high above it",
    ),
    (
        lambda row: row.optimizer == "natural" and row.trust not in ("ratio", "logp"),
        "optimizer 'natural' bounds the step by its divergence, trust '{row.trust}' would bound "
        "it once more; set trust='ratio'",
    ),
)

_KL: tuple[tuple[Callable[["Algorithm"], bool], str], ...] = (
    (
        lambda row: row.kl == "none" and row.beta > 0 and row.loss not in PAIR_LOSSES,
        "beta={row.beta} has no place, because kl is 'none'; set kl='reward' with "
        "kl_estimator='k1', or kl='loss' with kl_estimator='k2', 'k3' or 'rho_k3', or beta=0",
    ),
    (
        lambda row: row.kl == "loss" and row.kl_estimator == "k1",
        "k1 in the loss has the expected gradient 0: it adds noise and holds nothing back; set "
        "kl='reward', or kl_estimator='k2' (gradient of KL(π‖ref))",
    ),
    (
        lambda row: row.kl == "reward" and row.kl_estimator != "k1",
        "{row.kl_estimator} in the reward loses its own expected gradient, which is 0 only for "
        "k1; set kl_estimator='k1', or kl='loss'",
    ),
    (
        lambda row: row.kl == "reward" and row.kl_to == "rollout",
        "the policy that sampled is the one that is paid, so that a KL to it in the reward is "
        "nothing but rounding; set kl_to='reference', or kl='loss'",
    ),
    (
        lambda row: row.kl_estimator == "full" and row.kl_to == "rollout",
        "the sampler returns log-probabilities of sampled tokens alone, not of the whole "
        "vocabulary; set kl_to='reference', or kl_estimator='k2'",
    ),
    (
        lambda row: row.value_clip > 0 and row.psi not in CRITIC_PSI and row.baseline != "value",
        "value_clip={row.value_clip:g} bounds a critic, and psi '{row.psi}' with baseline "
        "'{row.baseline}' has none; set value_clip=0, or psi='gae'",
    ),
    (
        lambda row: row.loss in PAIR_LOSSES and row.beta == 0,
        "loss '{row.loss}' with beta=0 is constant; set beta above 0, for example 0.1",
    ),
    (
        lambda row: row.loss in PAIR_LOSSES and row.kl != "none",
        "loss '{row.loss}' holds the policy near the reference by itself, kl '{row.kl}' would "
        "have no place; set kl='none'",
    ),
)

RULES = (*_REWARD, *_CREDIT, *_GROUPS, *_RATIO, *_KL)
"""Combinations that are refused: the test, the reason and the way out."""
