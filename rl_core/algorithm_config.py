"""The settings of the algorithm and of its critic."""

import math
from dataclasses import dataclass

from ..verifiers import UsageError
from ..verifiers.errors import unknown
from .algorithms import COLUMNS, Algorithm, algorithm

CRITICS = ("head", "model", "rollouts")
"""Where values come from."""


@dataclass(frozen=True, kw_only=True)
class AlgorithmConfig:
    """Which algorithm, and what is changed of its row; what is not set is the row's own."""

    algorithm: str = "rloo"
    """A name in the table of algorithms."""
    loss: str | None = None
    """Whether completions are weighted by advantages, or pairs of them compared."""
    label_smoothing: float | None = None
    """Share of the pairs taken to be labelled the wrong way round."""
    reward: str | None = None
    """Which rewards are booked, and where."""
    booking: str | None = None
    """Where in its span a process reward is booked."""
    reward_threshold: float | None = None
    """τ above which a completion is positive."""
    overlong_buffer: int | None = None
    """Tokens before the limit over which the soft length penalty grows to −1; 0 is off."""
    psi: str | None = None
    """What a token is credited with."""
    gamma: float | None = None
    """Discount per trained token, with psi `segment` per turn."""
    lam: float | None = None
    """λ of GAE."""
    n_steps: int | None = None
    """Rewards that are summed before the value."""
    level_weight: float | None = None
    """w of the turn's advantage."""
    baseline: str | None = None
    """What the return is compared with; all but `value` and `step_mean` are made of totals R."""
    ema_decay: float | None = None
    """Share of the old average that is kept at each step."""
    baseline_value: float | None = None
    """The constant."""
    centred_clip: float | None = None
    """Bound on the size of the centred return, before the scale; 0 is off."""
    scale: str | None = None
    """What the centred return is divided by."""
    std_eps: float | None = None
    """ε added to a standard deviation."""
    std_ddof: int | None = None
    """1 for the unbiased standard deviation, 0 for that of the population."""
    overlong: str | None = None
    """What happens to completions that ran out of length."""
    zero_groups: str | None = None
    """What happens to groups in which every advantage is 0."""
    max_staleness: int | None = None
    """Weight updates since the sampling above which a completion leaves the loss; −1 is off."""
    entropy_quantile: float | None = None
    """Share of the tokens, those of least entropy, that get no advantage; 0 is off."""
    ratio: str | None = None
    """Which importance ratio corrects for the policy having moved since it sampled."""
    anchor: str | None = None
    """What the ratio compares the policy with."""
    trust: str | None = None
    """The surrogate, and whether it is bounded."""
    clip_low: float | None = None
    """How far below 1 a ratio may fall."""
    clip_high: float | None = None
    """How far above 1 a ratio may rise."""
    dual_clip: float | None = None
    """Ratio above which a negative advantage no longer pushes; 0 is off."""
    cap_low: float | None = None
    """Least weight."""
    cap_high: float | None = None
    """Greatest weight."""
    log_clip: float | None = None
    """Bound on a token's log-ratio."""
    gate_positive: float | None = None
    """Temperature τ for positive advantages."""
    gate_negative: float | None = None
    """Temperature τ for the others."""
    tv_limit: float | None = None
    """How far a token's probability may move."""
    opsm_delta: float | None = None
    """Mean log-ratio in nats above which a completion with A < 0 is masked; 0 is off."""
    mismatch: str | None = None
    """How the difference between sampler and learner is weighed."""
    mismatch_low: float | None = None
    """a, the least ω that is let through."""
    mismatch_high: float | None = None
    """C, the greatest ω."""
    kl: str | None = None
    """Where the divergence is paid for."""
    kl_estimator: str | None = None
    """How it is estimated from the sampled tokens."""
    kl_to: str | None = None
    """What the policy is kept near."""
    beta: float | None = None
    """Its price per nat; 0 switches it off, and no reference model is loaded."""
    kl_aggregate: str | None = None
    """How its estimates become one number."""
    entropy_bonus: float | None = None
    """What a nat of entropy is paid in the loss; 0 is off."""
    aggregate: str | None = None
    """How terms become one number."""
    group_size: int | None = None
    """Completions per prompt, G."""
    epochs: int | None = None
    """Passes over the episodes of a step, unless the run says otherwise."""
    value_clip: float | None = None
    """How far a value may move from what it was; 0 is off."""
    value_coef: float | None = None
    """Weight of the critic's loss where it shares the policy's weights."""
    optimizer: str | None = None
    """How a gradient becomes a step."""
    kl_limit: float | None = None
    """δ in nats of the trust region."""
    cg_steps: int | None = None
    """Iterations of conjugate gradient."""
    cg_damping: float | None = None
    """Multiple of the identity added to the Fisher matrix."""
    search_shrink: float | None = None
    """Factor of each back-tracking."""
    search_steps: int | None = None
    """Back-trackings at most."""
    kl_target: float = 0.0
    """KL to the reference per token, in nats, that beta is adapted to; 0 leaves beta as it is."""
    kl_horizon: float = 10000.0
    """Completions over which beta may grow or shrink by a fifth; read with kl_target."""

    def __post_init__(self) -> None:
        """Check what is not the row's."""
        for name, good, expected in (
            ("kl_target", 0 <= self.kl_target < math.inf, "0 (off) or more, and finite"),
            ("kl_horizon", 0 < self.kl_horizon < math.inf, "above 0 and finite"),
        ):
            if not good:
                raise UsageError(f"{name} must be {expected}, got {getattr(self, name)!r}")

    def row(self) -> Algorithm:
        """Return the resolved row.

        Raises:
            UsageError: A name is unknown or the combination is refused, with the reason.
        """
        changed = {name: getattr(self, name) for name in COLUMNS if hasattr(self, name)}
        row = algorithm(self.algorithm, **{k: v for k, v in changed.items() if v is not None})
        if self.kl_target and not (row.needs_reference and row.kl != "none"):
            raise UsageError(
                f"kl_target={self.kl_target:g} adapts beta, but {row.name} pays for no KL to the "
                "reference; set kl='reward' or 'loss' with beta above 0, or leave kl_target out"
            )
        return row


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """Where V(s_t) comes from, for algorithms that read it; others have no critic."""

    critic: str = "head"
    """`head`: a value head on the policy; `model`: a model of its own, begun as the policy's copy;
    `rollouts`: the mean reward of episodes branched off at s_t."""
    critic_lr: float = 1e-4
    """Learning rate of the critic's own optimiser."""
    critic_warmup_steps: int = 0
    """Training steps in which the critic alone is trained."""
    critic_epochs: int | None = None
    """Passes of a critic that takes steps of its own; none: the algorithm's epochs, 10 beside a
    natural step."""
    critic_max_grad_norm: float = 1.0
    """Gradients of a greater norm are scaled down to it."""
    value_rollouts: int = 4
    """Completions branched off at each place; read by critic `rollouts`."""
    value_every: int = 1
    """Tokens between such places, with the value of the last one in between; above 1 only where
    the credit is the whole return less V: psi `gae` with lam 1, or baseline `value`."""

    def __post_init__(self) -> None:
        """Check every range."""
        if self.critic not in CRITICS:
            raise unknown("critic", self.critic, CRITICS)
        for name in ("critic_lr", "critic_max_grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be above 0 and finite, got {getattr(self, name)!r}")
        epochs = 1 if self.critic_epochs is None else self.critic_epochs
        for name, value, least in (
            ("critic_epochs", epochs, 1),
            ("critic_warmup_steps", self.critic_warmup_steps, 0),
            ("value_rollouts", self.value_rollouts, 1),
            ("value_every", self.value_every, 1),
        ):
            if value < least:
                raise UsageError(f"{name} must be at least {least}, got {value!r}")
