"""GRPO and its relatives: token ratios with a clip, completions compared with their siblings.

They differ in what is subtracted, what is divided by, and how tokens are averaged.
"""

import dataclasses

from ..choices import Algorithm

GRPO = Algorithm(
    name="grpo",
    title="Group relative policy optimisation",
    paper="Shao et al., 2024, arXiv 2402.03300, eq. 3",
    defaults_from="beta and aggregation from the paper (its G is 64; it names no clip "
    "range); clip 0.2 and eps 1e-4 as TRL ships them",
    baseline="group_mean",
    scale="group_std",
    ratio="token",
    trust="clip",
    kl="loss",
    kl_estimator="k3",
    beta=0.04,
    aggregate="seq_token",
    group_size=8,
)

_TOKEN_MEAN = dataclasses.replace(GRPO, kl="none", kl_estimator="k1", beta=0.0, aggregate="token")
"""GRPO without a reference, averaged over all tokens: what most of the others start from."""

ROWS = (
    GRPO,
    dataclasses.replace(
        GRPO,
        name="grpo-process",
        title="GRPO with a reward for every reasoning step",
        paper="Shao et al., 2024, arXiv 2402.03300, section 4.1.3",
        reward="process",
        psi="rtg",
        baseline="step_mean",
        scale="step_std",
    ),
    Algorithm(
        name="dr-grpo",
        title="Dr. GRPO: GRPO without the division by length and by spread",
        paper="Liu et al., 2025, arXiv 2503.20783",
        defaults_from="the paper (G 8, clip 0.2, beta 0)",
        baseline="group_mean",
        ratio="token",
        trust="clip",
        aggregate="const",
        group_size=8,
    ),
    dataclasses.replace(
        _TOKEN_MEAN,
        name="dapo",
        title="DAPO: clip higher, token mean, dynamic sampling, overlong completions left out",
        paper="Yu et al., 2025, arXiv 2503.14476",
        defaults_from="the paper (G 16, clip 0.2/0.28, 16 updates); its soft penalty, the last "
        "fifth of 20480 tokens, is off until overlong_buffer is set",
        clip_high=0.28,
        overlong="filter",
        zero_groups="resample",
        group_size=16,
        updates=16,
    ),
    Algorithm(
        name="reinforce++",
        title="REINFORCE++: whitened reward-to-go with the KL in the reward",
        paper="Hu et al., 2025, arXiv 2501.03262",
        defaults_from="beta and clip as OpenRLHF ships them",
        psi="rtg",
        scale="whiten",
        std_eps=1e-8,
        ratio="token",
        trust="clip",
        kl="reward",
        kl_estimator="k1",
        beta=0.01,
        aggregate="token",
    ),
    Algorithm(
        name="reinforce++-baseline",
        title="REINFORCE++ with the group mean as baseline",
        paper="Hu et al., 2025, arXiv 2501.03262, section on the baseline variant",
        defaults_from="beta and clip as OpenRLHF ships them; G 8 as for grpo here",
        baseline="group_mean",
        scale="whiten",
        std_eps=1e-8,
        ratio="token",
        trust="clip",
        kl="loss",
        kl_estimator="k2",
        beta=0.01,
        aggregate="token",
        group_size=8,
    ),
    dataclasses.replace(
        _TOKEN_MEAN,
        name="lite-ppo",
        title="LitePPO: group mean, batch spread, token mean",
        paper="Liu et al., 2025, arXiv 2508.08221",
        defaults_from="the paper; clip 0.2 and eps 1e-4 as for grpo here",
        scale="batch_std",
    ),
    dataclasses.replace(
        _TOKEN_MEAN,
        name="maxrl",
        title="MaxRL: rewards relative to the group's mean",
        paper="arXiv 2602.02710",
        defaults_from="the formula; clip 0.2 and G 8 as for grpo here",
        scale="group_mean",
    ),
    dataclasses.replace(
        _TOKEN_MEAN,
        name="gdpo",
        title="GDPO: every part of the reward normalised before they are summed",
        paper="arXiv 2601.05242",
        defaults_from="the formula; clip 0.2, eps 1e-4 and G 8 as for grpo here",
        reward="parts",
        baseline="batch_mean",
        scale="batch_std",
    ),
    dataclasses.replace(
        _TOKEN_MEAN,
        name="gigpo",
        title="GiGPO: credit to whole episodes and to turns at the same state",
        paper="Feng et al., 2025, arXiv 2505.10978",
        defaults_from="the paper (w 1, gamma 0.95 per turn); clip 0.2 and G 8 as for grpo here",
        reward="process",
        psi="segment",
        gamma=0.95,
    ),
)
