"""PPO and TRPO: a learned value, and a bound on the step."""

from ..choices import Algorithm

ROWS = (
    Algorithm(
        name="ppo",
        title="Proximal policy optimisation",
        paper="Schulman et al., 2017, arXiv 1707.06347; Ziegler et al., 2019, arXiv 1909.08593",
        defaults_from="as TRL ships it: lambda 0.95, clip 0.2, value clip 0.2, value weight 0.1, "
        "4 epochs, KL 0.05 in the reward; gamma 1",
        psi="gae",
        lam=0.95,
        scale="whiten",
        std_eps=1e-8,
        ratio="token",
        trust="clip",
        kl="reward",
        kl_estimator="k1",
        beta=0.05,
        aggregate="token",
        epochs=4,
        value_clip=0.2,
        value_coef=0.1,
    ),
    Algorithm(
        name="trpo",
        title="Trust region policy optimisation",
        paper="Schulman et al., 2015, arXiv 1502.05477",
        defaults_from="sb3-contrib: KL 0.01, 15 iterations, damping 0.1, shrink 0.8 ten times, "
        "lambda 0.95; gamma 1 in place of 0.99, as usual for language models",
        psi="gae",
        lam=0.95,
        scale="whiten",
        std_eps=1e-8,
        ratio="token",
        trust="ratio",
        aggregate="token",
        optimizer="natural",
    ),
)
