"""An algorithm as a record: one choice for every stage of the loss.

A combination that cannot work, or that is known to do something else than it says, is refused with
the reason and the way out (`refusals`). What may be chosen stands in `options`; the functions that
compute the choices are in `functional/`, one file a stage.
"""

import math
from dataclasses import dataclass
from typing import Literal

from ..verifiers.errors import UsageError, unknown
from .options import (
    COUNTS,
    CRITIC_PSI,
    GROUP_BASELINES,
    GROUP_SCALES,
    OPTIONS,
    PAIR_LOSSES,
    RANGES,
    READ_WITH,
)
from .refusals import RULES

__all__ = ["GROUP_BASELINES", "OPTIONS", "READ_WITH", "Algorithm"]

Aggregate = Literal["token", "seq_token", "seq_sum", "const", "prompt", "seq"]


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """One algorithm: a choice for every stage, in the order in which they are computed.

    Example:
        `Algorithm(name="mine", title="Mine", paper="none", defaults_from="none", baseline="loo")`
    """

    name: str
    """What it is called on the command line."""
    title: str
    """What it is called in prose."""
    paper: str
    """Authors, year, arXiv id."""
    defaults_from: str
    """Where the numbers come from."""
    loss: Literal["policy", "dpo", "ipo"] = "policy"
    """Whether completions are weighted by advantages, or pairs of them compared."""
    label_smoothing: float = 0.0
    """Share of the pairs taken to be labelled the wrong way round; read by loss `dpo`."""
    reward: Literal["terminal", "process", "parts", "best", "positive"] = "terminal"
    """Which rewards are booked, and where."""
    booking: Literal["end", "spread"] = "end"
    """Where in its span a process reward is booked; read by reward `process`."""
    reward_threshold: float = 0.5
    """τ above which a completion is positive; read by reward `positive`."""
    overlong_buffer: int = 0
    """Tokens before the limit over which the soft length penalty grows to −1; 0 is off."""
    psi: Literal["total", "rtg", "q", "td", "gae", "nstep", "segment"] = "total"
    """What a token is credited with."""
    gamma: float = 1.0
    """Discount per trained token, with psi `segment` per turn."""
    lam: float = 1.0
    """λ of GAE; read by psi `gae`."""
    n_steps: int = 1
    """Rewards that are summed before the value; read by psi `nstep`."""
    level_weight: float = 1.0
    """w of the turn's advantage; read by psi `segment`."""
    baseline: Literal[
        "none",
        "const",
        "batch_mean",
        "ema",
        "loo",
        "group_mean",
        "length_weighted",
        "greedy",
        "value",
        "step_mean",
    ] = "none"
    """What the return is compared with; all but `value` and `step_mean` are made of totals R."""
    ema_decay: float = 0.95
    """Share of the old average that is kept at each step; read by baseline `ema`."""
    baseline_value: float = 0.0
    """The constant; read by baseline `const`."""
    centred_clip: float = 0.0
    """Bound on the size of the centred return, before the scale; 0 is off."""
    scale: Literal[
        "none", "group_std", "loo_std", "batch_std", "group_mean", "whiten", "step_std"
    ] = "none"
    """What the centred return is divided by."""
    std_eps: float = 1e-4
    """ε added to a standard deviation."""
    std_ddof: int = 1
    """1 for the unbiased standard deviation, 0 for that of the population."""
    overlong: Literal["train", "filter"] = "train"
    """What happens to completions that ran out of length."""
    zero_groups: Literal["keep", "filter", "resample"] = "keep"
    """What happens to groups in which every advantage is 0."""
    max_staleness: int = -1
    """Weight updates since the sampling above which a completion leaves the loss; −1 is off."""
    entropy_quantile: float = 0.0
    """Share of the tokens, those of least entropy, that get no advantage; 0 is off."""
    ratio: Literal["none", "token", "seq_geo", "seq_geo_token", "seq_prod"] = "none"
    """Which importance ratio corrects for the policy having moved since it sampled."""
    anchor: Literal["old", "rollout", "proximal"] = "old"
    """What the ratio compares the policy with."""
    trust: Literal["logp", "ratio", "clip", "sg_clip", "geo_clip", "gate", "tv_mask"] = "logp"
    """The surrogate, and whether it is bounded."""
    clip_low: float = 0.2
    """How far below 1 a ratio may fall; read by trust `clip`."""
    clip_high: float = 0.2
    """How far above 1 a ratio may rise; read by trust `clip`."""
    dual_clip: float = 0.0
    """Ratio above which a negative advantage no longer pushes; 0 is off; read by trust `clip`."""
    cap_low: float = 0.0
    """Least weight; read by trust `sg_clip`."""
    cap_high: float = 5.0
    """Greatest weight; read by trust `sg_clip`."""
    log_clip: float = 0.4
    """Bound on a token's log-ratio; read by trust `geo_clip`."""
    gate_positive: float = 1.0
    """Temperature τ for positive advantages; read by trust `gate`."""
    gate_negative: float = 1.05
    """Temperature τ for the others; read by trust `gate`."""
    tv_limit: float = 0.2
    """How far a token's probability may move; read by trust `tv_mask`."""
    opsm_delta: float = 0.0
    """Mean log-ratio in nats above which a completion with A < 0 is masked; 0 is off."""
    mismatch: Literal[
        "none", "tis_token", "tis_seq", "icepop", "icepop_seq", "mask_prod", "mask_geo"
    ] = "none"
    """How the difference between sampler and learner is weighed."""
    mismatch_low: float = 0.0
    """a, the least ω that is let through; read by the masks."""
    mismatch_high: float = 2.0
    """C, the greatest ω; read by every mismatch weight."""
    kl: Literal["none", "reward", "loss"] = "none"
    """Where the divergence is paid for."""
    kl_estimator: Literal["k1", "k2", "k3", "rho_k3", "st_k2", "full"] = "k1"
    """How it is estimated from the sampled tokens; read where kl is on."""
    kl_to: Literal["reference", "rollout"] = "reference"
    """What the policy is kept near; read where kl is on."""
    beta: float = 0.0
    """Its price per nat; 0 switches it off, and no reference model is loaded."""
    kl_aggregate: Literal["same", "token", "seq_token"] = "same"
    """How its estimates become one number; read by kl `loss`."""
    entropy_bonus: float = 0.0
    """What a nat of entropy is paid in the loss; 0 is off."""
    aggregate: Aggregate = "seq_sum"
    """How terms become one number."""
    group_size: int = 1
    """Completions per prompt, G."""
    epochs: int = 1
    """Passes over the episodes of a step, unless the run says otherwise."""
    updates: int = 1
    """Optimiser steps per pass, unless the run says otherwise."""
    value_clip: float = 0.0
    """How far a value may move from what it was; 0 is off; read with a critic."""
    value_coef: float = 1.0
    """Weight of the critic's loss where it shares the policy's weights; read with a critic."""
    optimizer: Literal["adam", "natural"] = "adam"
    """How a gradient becomes a step."""
    kl_limit: float = 0.01
    """δ in nats of the trust region; read by optimizer `natural`."""
    cg_steps: int = 15
    """Iterations of conjugate gradient; read by optimizer `natural`."""
    cg_damping: float = 0.1
    """Multiple of the identity added to the Fisher matrix; read by optimizer `natural`."""
    search_shrink: float = 0.8
    """Factor of each back-tracking; read by optimizer `natural`."""
    search_steps: int = 10
    """Back-trackings at most; read by optimizer `natural`."""

    def __post_init__(self) -> None:
        """Refuse what cannot work, with the reason and the way out."""
        for column, options in OPTIONS.items():
            choice = getattr(self, column)
            if not isinstance(choice, str) or choice not in options:
                raise unknown(f"{column} of algorithm '{self.name}'", str(choice), options)
        for field, (low, high, words) in RANGES.items():
            object.__setattr__(self, field, self._number(field, low, high, words))
        for field, least in COUNTS.items():
            count = getattr(self, field)
            if isinstance(count, bool) or not isinstance(count, int) or count < least:
                raise UsageError(
                    f"{self.name}: {field} is a whole number from {least}, got {count!r}"
                )
        for broken, reason in RULES:
            if broken(self):
                raise UsageError(f"{self.name}: {reason.format(row=self)}")

    def _number(self, field: str, low: float, high: float, words: str) -> float:
        value = getattr(self, field)
        real = isinstance(value, int | float) and not isinstance(value, bool)
        if not real or not math.isfinite(value) or not low <= value <= high:
            raise UsageError(f"{self.name}: {field} is a number {words}, got {value!r}")
        return float(value)

    @property
    def on_pairs(self) -> bool:
        """Whether it is trained on preference pairs, by `preference_loss`."""
        return self.loss in PAIR_LOSSES

    @property
    def needs_group(self) -> bool:
        """Whether a completion is compared with its siblings."""
        in_reward = self.reward in ("parts", "best")
        in_scale = self.scale in GROUP_SCALES
        return self.baseline in GROUP_BASELINES or in_reward or in_scale or self.on_pairs

    @property
    def needs_reference(self) -> bool:
        """Whether log-probabilities of a reference model are needed."""
        in_kl = self.kl != "none" and self.beta > 0 and self.kl_to == "reference"
        return in_kl or self.on_pairs

    @property
    def needs_old(self) -> bool:
        """Whether the policy's log-probabilities at the start of an update are read.

        Where they are not, every update after the first on the same episodes is biased.
        """
        in_kl = self.kl == "loss" and self.beta > 0 and self.kl_estimator == "rho_k3"
        return self.ratio != "none" or in_kl or self.mismatch != "none"

    @property
    def needs_rollout(self) -> bool:
        """Whether the loss reads the log-probabilities that the sampler returned."""
        anchored = self.ratio != "none" and self.anchor == "rollout"
        in_kl = self.kl == "loss" and self.beta > 0 and self.kl_to == "rollout"
        return anchored or in_kl or self.mismatch != "none" or self.opsm_delta > 0

    @property
    def needs_proximal(self) -> bool:
        """Whether the loss reads the log-probabilities of a third policy."""
        return self.ratio != "none" and self.anchor == "proximal"

    @property
    def needs_values(self) -> bool:
        """Whether a critic, or another estimate of V(s_t), is needed."""
        return self.psi in CRITIC_PSI or self.baseline == "value"

    @property
    def needs_greedy(self) -> bool:
        """Whether the reward of a greedy completion of each prompt is needed."""
        return self.baseline == "greedy"

    @property
    def needs_spans(self) -> bool:
        """Whether rewards per turn or reasoning step are needed."""
        return self.reward == "process"

    @property
    def needs_anchors(self) -> bool:
        """Whether turns are compared with turns at the same state."""
        return self.psi == "segment"

    @property
    def needs_truncated(self) -> bool:
        """Whether it is read which completions ran out of length."""
        return self.overlong == "filter"

    @property
    def needs_lag(self) -> bool:
        """Whether it is read how many updates ago a completion was sampled."""
        return self.max_staleness >= 0

    @property
    def needs_entropy(self) -> bool:
        """Whether the entropy of the policy that sampled is read at each token."""
        return self.entropy_quantile > 0

    @property
    def needs_full_kl(self) -> bool:
        """Whether the loss needs KL(π‖ref) over the whole vocabulary."""
        return self.kl == "loss" and self.beta > 0 and self.kl_estimator == "full"

    @property
    def resamples(self) -> bool:
        """Whether groups without an advantage are sampled anew (dynamic sampling)."""
        return self.zero_groups == "resample"

    @property
    def per_completion(self) -> bool:
        """Whether the loss has one term per completion rather than one per token."""
        return self.ratio in ("seq_geo", "seq_prod") or self.trust == "geo_clip"

    @property
    def aggregate_of_kl(self) -> Aggregate:
        """How a KL term in the loss becomes one number."""
        return self.aggregate if self.kl_aggregate == "same" else self.kl_aggregate

    @property
    def formula(self) -> str:
        """The loss as one line, made of the row's choices, so that a changed row prints its own."""
        if self.on_pairs:
            return {
                "dpo": "L = −(1/P) Σ [ (1−ε) log σ(h) + ε log σ(−h) ], "
                f"β = {self.beta:g}, ε = {self.label_smoothing:g}",
                "ipo": f"L = (1/P) Σ (h/β − 1/(2β))², β = {self.beta:g}",
            }[self.loss]
        sums = OPTIONS["aggregate"][self.aggregate].split(",")[0]
        at = "i" if self.per_completion else "i,t"
        surrogate = self._surrogate(f"ρ_{at}", f"A_{at}", f"l_{at}")
        if self.mismatch != "none":
            surrogate = f"w_i,t {surrogate}" if _each_token(self.mismatch) else f"w_i {surrogate}"
        inside, outside = self.kl == "loss" and self.beta > 0, ""
        if inside and self.kl_aggregate != "same":
            inside = False
            over = OPTIONS["kl_aggregate"][self.kl_aggregate].split(",")[0]
            outside = f" + {self.beta:g} {over} k_i,t"
        if inside:
            k = "Σ_t k_i,t" if self.aggregate == "seq" else "k_i,t"
            surrogate += f" − {self.beta:g} {k}"
        if self.entropy_bonus:
            surrogate += f" + {self.entropy_bonus:g} H_i,t"
        if inside or self.entropy_bonus:
            surrogate = f"[ {surrogate} ]"
        return f"L = −{sums} {surrogate}{outside}"

    def _surrogate(self, rho: str, weight: str, logp: str) -> str:
        clip = f"clip({rho}, {1 - self.clip_low:g}, {1 + self.clip_high:g})"
        clipped = f"min({rho} {weight}, {clip} {weight})"
        if self.dual_clip:
            clipped = f"max({clipped}, {self.dual_clip:g} {weight} if {weight} < 0)"
        x = "log ρ_i,t"
        return {
            "logp": f"{weight} {logp}",
            "ratio": f"{rho} {weight}",
            "clip": clipped,
            "sg_clip": f"sg(clip({rho}, {self.cap_low:g}, {self.cap_high:g})) {weight} {logp}",
            "geo_clip": f"{weight} exp((1/L_i) Σ_t s min(s {x}, s clip({x}, ±{self.log_clip:g})))",
            "gate": f"(4/τ) σ(τ({rho}−1)) {weight}",
            "tv_mask": f"1[|π−μ| ≤ {self.tv_limit:g} where A pushes] {rho} {weight}",
        }[self.trust]


def _each_token(mismatch: str) -> bool:
    return mismatch in ("tis_token", "icepop")
