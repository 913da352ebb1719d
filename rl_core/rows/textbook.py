"""The policy gradient as it is derived, and REINFORCE with its baselines: no bound, no old policy.

One gradient, Σ_t Ψ_t ∇ log π(a_t|s_t), with every Ψ that leaves its expectation as it is. They
differ in variance and in what they need: nothing, siblings, a greedy completion, a critic.
"""

from ..choices import Algorithm

_GAE = "Schulman et al., 2015, arXiv 1506.02438, eq. 1"
_WILLIAMS = "Williams, 1992, Simple statistical gradient-following algorithms, Machine Learning 8"
_FORMULA = "the formula; gamma 1 as usual for language models"

ROWS = (
    Algorithm(
        name="vpg",
        title="Vanilla policy gradient, total reward",
        paper=f"{_GAE}, case 1",
        defaults_from="the formula",
    ),
    Algorithm(
        name="vpg-rtg",
        title="Vanilla policy gradient, reward-to-go",
        paper=f"{_GAE}, case 2",
        defaults_from=_FORMULA,
        psi="rtg",
    ),
    Algorithm(
        name="vpg-baseline",
        title="Vanilla policy gradient, reward-to-go less a value",
        paper=f"{_GAE}, case 3",
        defaults_from=_FORMULA,
        psi="rtg",
        baseline="value",
    ),
    Algorithm(
        name="vpg-q",
        title="Vanilla policy gradient, action value",
        paper=f"{_GAE}, case 4",
        defaults_from=_FORMULA,
        psi="q",
    ),
    Algorithm(
        name="vpg-advantage",
        title="Vanilla policy gradient, generalised advantage",
        paper=f"{_GAE}, case 5, and eq. 16",
        defaults_from=f"{_FORMULA}; lambda 0.95 from the paper's experiments",
        psi="gae",
        lam=0.95,
    ),
    Algorithm(
        name="vpg-td",
        title="Vanilla policy gradient, temporal difference",
        paper=f"{_GAE}, case 6",
        defaults_from=_FORMULA,
        psi="td",
    ),
    Algorithm(
        name="reinforce",
        title="REINFORCE with the batch mean as baseline",
        paper=_WILLIAMS,
        defaults_from="the formula",
        baseline="batch_mean",
    ),
    Algorithm(
        name="reinforce-ema",
        title="REINFORCE with a moving average as baseline",
        paper=f"{_WILLIAMS}; Liu et al., 2025, arXiv 2506.24119",
        defaults_from="arXiv 2506.24119 (decay 0.95)",
        baseline="ema",
    ),
    Algorithm(
        name="remax",
        title="ReMax: REINFORCE with the greedy completion as baseline",
        paper="Li et al., 2023, arXiv 2310.10505",
        defaults_from="the paper; beta 0 (it adds a KL penalty in the reward where a reward model "
        "is learned)",
        baseline="greedy",
    ),
    Algorithm(
        name="opo",
        title="OPO: exactly on-policy, with the length-weighted baseline",
        paper="Hao et al., 2025, arXiv 2505.23585",
        defaults_from="the paper (no KL, no clip, one update); G 8 as for grpo here",
        baseline="length_weighted",
        aggregate="token",
        group_size=8,
    ),
    Algorithm(
        name="rloo",
        title="REINFORCE leave-one-out",
        paper="Ahmadian et al., 2024, arXiv 2402.14740",
        defaults_from="G 4 from the paper (2 or 4); beta and clip range as TRL ships them",
        baseline="loo",
        ratio="seq_prod",
        trust="clip",
        kl="reward",
        kl_estimator="k1",
        beta=0.05,
        aggregate="seq",
        group_size=4,
    ),
)
