"""What other systems mean by "GRPO" and "RLOO": their shipped defaults, as rows.

Each says in which columns it differs from the paper's; `rlvr explain trl-grpo grpo` prints it.
Systems change their defaults, so each row names the version that it was compared with.
"""

import dataclasses

from .groups import GRPO
from .surrogates import ROWS as _SURROGATES
from .textbook import ROWS as _TEXTBOOK

_RLOO = next(row for row in _TEXTBOOK if row.name == "rloo")
_DPPO = next(row for row in _SURROGATES if row.name == "dppo")
_BARE = dataclasses.replace(GRPO, kl="none", kl_estimator="k1", beta=0.0, aggregate="token")

ROWS = (
    dataclasses.replace(
        _BARE,
        name="trl-grpo",
        title="GRPO as TRL ships it",
        defaults_from="GRPOTrainer of TRL 1.16.0: token mean over the step, completions masked "
        "where the product of sampler mismatches is above 3, no KL (where one is set, its k3 is "
        "weighted by the ratio, as kl_estimator='rho_k3' does)",
        mismatch="icepop_seq",
        mismatch_high=3.0,
    ),
    dataclasses.replace(
        _RLOO,
        name="trl-rloo",
        title="RLOO as TRL ships it",
        defaults_from="RLOOTrainer of TRL 1.16.0: G 2, KL 0.05 in the reward, clip 0.2 on the "
        "product of ratios",
        group_size=2,
    ),
    dataclasses.replace(
        _BARE,
        name="verl-grpo",
        title="GRPO as verl ships it",
        defaults_from="verl 0.9.1: eps 1e-6, token mean, dual clip 3, no KL; G 8 as for grpo here",
        std_eps=1e-6,
        dual_clip=3.0,
    ),
    dataclasses.replace(
        _BARE,
        name="openrlhf-grpo",
        title="GRPO as OpenRLHF ships it (group_norm)",
        defaults_from="OpenRLHF 0.11.2: scores normalised in the group with eps 1e-9 before a KL "
        "of 0.01 is taken off each token; reward-to-go, token mean (its bound of 10 on scores is "
        "beyond what a group of fewer than 100 reaches)",
        reward="parts",
        psi="rtg",
        baseline="none",
        scale="none",
        std_eps=1e-9,
        kl="reward",
        kl_estimator="k1",
        beta=0.01,
    ),
    dataclasses.replace(
        _DPPO,
        name="prime-rl",
        title="GRPO as prime-rl ships it",
        defaults_from="prime-rl 0.8.0: group mean alone, ratio to the sampler, probabilities "
        "within 0.2, 1e-3 (log ratio)², token mean over tokens with an advantage",
        zero_groups="filter",
    ),
    dataclasses.replace(
        _BARE,
        name="skyrl-grpo",
        title="GRPO as SkyRL ships it",
        defaults_from="SkyRL 0.3.0: eps 1e-6, token mean, k3 in the loss with beta 0.001, which is "
        "averaged over completions",
        std_eps=1e-6,
        kl="loss",
        kl_estimator="k3",
        beta=0.001,
        kl_aggregate="seq_token",
    ),
    dataclasses.replace(
        _BARE,
        name="open-instruct-grpo",
        title="GRPO as open-instruct ships it",
        defaults_from="open-instruct of August 2026: group mean alone, groups of equal scores left "
        "out, clip 0.2/0.272, token mean, k3 in the loss with beta 0.05, a token's sampler "
        "mismatch capped at 2",
        scale="none",
        zero_groups="filter",
        clip_high=0.272,
        kl="loss",
        kl_estimator="k3",
        beta=0.05,
        mismatch="tis_token",
        mismatch_high=2.0,
    ),
    dataclasses.replace(
        _BARE,
        name="slime-grpo",
        title="GRPO as slime ships it",
        defaults_from="slime 0.3.1: eps 1e-6, mean over completions of token means, no KL",
        std_eps=1e-6,
        aggregate="seq_token",
    ),
    dataclasses.replace(
        _BARE,
        name="nemo-grpo",
        title="GRPO as NeMo-RL ships it",
        defaults_from="NeMo-RL 0.6.0: leave-one-out mean and spread, eps 1e-6, token mean, k3 in "
        "the loss with beta 0.01 and a score-function term, which makes its gradient that of k2 "
        "(up to June 2026 it was that of k3)",
        baseline="loo",
        scale="loo_std",
        std_eps=1e-6,
        kl="loss",
        kl_estimator="st_k2",
        beta=0.01,
    ),
)
