"""What other systems mean by "GRPO" and "RLOO": their shipped defaults, as rows.

Each says in which columns it differs from the paper's; `rlvr explain trl-grpo grpo` prints it. They
were written down in the course of 2025 and 2026; systems change their defaults.
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
        defaults_from="GRPOTrainer: token mean over the step, no KL, completions masked where the "
        "product of sampler mismatches is above 3",
        mismatch="icepop_seq",
        mismatch_high=3.0,
    ),
    dataclasses.replace(
        _RLOO,
        name="trl-rloo",
        title="RLOO as TRL ships it",
        defaults_from="RLOOTrainer: G 2, KL 0.05 in the reward, clip 0.2 on the product of ratios",
        group_size=2,
    ),
    dataclasses.replace(
        _BARE,
        name="verl-grpo",
        title="GRPO as verl ships it",
        defaults_from="verl: eps 1e-6, token mean, dual clip 3, no KL; G 8 as for grpo here",
        std_eps=1e-6,
        dual_clip=3.0,
    ),
    dataclasses.replace(
        _BARE,
        name="openrlhf-grpo",
        title="GRPO as OpenRLHF ships it (group_norm)",
        defaults_from="OpenRLHF: scores normalised in the group with eps 1e-9 before a KL of 0.01 "
        "is taken off each token; reward-to-go, token mean (its bound of 10 on scores is beyond "
        "what a group of fewer than 100 reaches)",
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
        defaults_from="prime-rl: group mean alone, ratio to the sampler, probabilities within 0.2, "
        "1e-3 (log ratio)², token mean",
    ),
    dataclasses.replace(
        _BARE,
        name="skyrl-grpo",
        title="GRPO as SkyRL ships it",
        defaults_from="SkyRL: eps 1e-6, token mean, k3 in the loss with beta 0.001",
        std_eps=1e-6,
        kl="loss",
        kl_estimator="k3",
        beta=0.001,
    ),
    dataclasses.replace(
        _BARE,
        name="open-instruct-grpo",
        title="GRPO as open-instruct ships it",
        defaults_from="open-instruct: group mean alone, clip 0.2/0.272, token mean, k3 in the loss "
        "with beta 0.05, sampler mismatch of a completion capped at 2",
        scale="none",
        clip_high=0.272,
        kl="loss",
        kl_estimator="k3",
        beta=0.05,
        mismatch="tis_seq",
        mismatch_high=2.0,
    ),
    dataclasses.replace(
        _BARE,
        name="slime-grpo",
        title="GRPO as slime ships it",
        defaults_from="slime: eps 1e-6, mean over completions of token means, no KL",
        std_eps=1e-6,
        aggregate="seq_token",
    ),
    dataclasses.replace(
        _BARE,
        name="nemo-grpo",
        title="GRPO as NeMo-RL ships it",
        defaults_from="NeMo-RL: leave-one-out mean and spread, eps 1e-6, token mean, k3 in the "
        "loss with beta 0.01",
        baseline="loo",
        scale="loo_std",
        std_eps=1e-6,
        kl="loss",
        kl_estimator="k3",
        beta=0.01,
    ),
)
