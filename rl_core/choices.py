"""The choices of which an algorithm is made: one per stage, and which of them go together.

A combination that cannot work, or that is known to do something else than it says, is refused with
the reason and the way out. The formulas in `OPTIONS` are what `explain` prints; the functions that
compute them are in `functional/`, one file a stage.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..verifiers.errors import UsageError, unknown

OPTIONS: dict[str, dict[str, str]] = {
    "psi": {
        "total": "Ψ_t = R = Σ_k r_k",
        "rtg": "Ψ_t = Σ_{k≥t} γ^{n(k)−n(t)} r_k",
    },
    "baseline": {
        "none": "b = 0",
        "batch_mean": "b = mean of R over the batch",
        "ema": "b = moving average of earlier batches' mean R",
        "loo": "b_i = mean of R over the other members of the group",
        "group_mean": "b_i = mean of R over the group",
    },
    "scale": {
        "none": "A = Ψ − b",
        "group_std": "A = (Ψ − b) / (std of R in the group + ε)",
    },
    "ratio": {
        "none": "no ratio (as if sampled from the current policy)",
        "token": "ρ_t = exp(l_t − l^old_t)",
        "seq_prod": "ρ = exp(Σ_t (l_t − l^old_t)), one for the completion",
    },
    "trust": {
        "logp": "φ = A l",
        "ratio": "φ = ρ A",
        "clip": "φ = min(ρ A, clip(ρ, 1−low, 1+high) A)",
    },
    "kl": {
        "none": "no reference",
        "reward": "r_t ← r_t − β k_t",
        "loss": "loss ← loss + β k_t",
    },
    "kl_estimator": {
        "k1": "k = x = l − l^ref",
        "k2": "k = x²/2",
        "k3": "k = e^(−x) − 1 + x",
        "rho_k3": "k = ρ (e^(−x) − 1 + x)",
    },
    "aggregate": {
        "token": "(1/N) Σ_i Σ_t, N trained tokens of the step",
        "seq_token": "(1/B) Σ_i (1/L_i) Σ_t, L_i trained tokens of the completion",
        "seq_sum": "(1/B) Σ_i Σ_t, B scored completions",
        "const": "(1/(B·C)) Σ_i Σ_t, C the greatest completion length",
        "seq": "(1/B) Σ_i, one term per completion",
    },
}
"""Each stage's choices and the formula of each: what is allowed, and what `describe` prints."""

GROUP_BASELINES = ("loo", "group_mean")
"""Baselines that compare a completion with its siblings."""

READ_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    "gamma": ("psi", ("rtg",)),
    "ema_decay": ("baseline", ("ema",)),
    "std_eps": ("scale", ("group_std",)),
    "clip_low": ("trust", ("clip",)),
    "clip_high": ("trust", ("clip",)),
    "kl_estimator": ("kl", ("reward", "loss")),
    "beta": ("kl", ("reward", "loss")),
}
"""Options that only some choice of another stage reads."""

_RANGES: dict[str, tuple[float, float, str]] = {
    "gamma": (0.0, 1.0, "in [0, 1]"),
    "ema_decay": (0.0, math.nextafter(1.0, 0.0), "in [0, 1)"),
    "std_eps": (0.0, math.inf, "0 or more"),
    "clip_low": (0.0, 1.0, "in [0, 1]"),
    "clip_high": (0.0, math.inf, "0 or more"),
    "beta": (0.0, math.inf, "0 or more"),
}
"""Legal ranges of the numbers; both ends included, infinity never."""


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """One algorithm: a choice for every stage.

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
    psi: Literal["total", "rtg"] = "total"
    """What a token is credited with: the whole reward, or the reward from it on."""
    gamma: float = 1.0
    """Discount per trained token; read by psi `rtg`."""
    baseline: Literal["none", "batch_mean", "ema", "loo", "group_mean"] = "none"
    """What the return is compared with; always made of the totals R."""
    ema_decay: float = 0.95
    """Share of the old average that is kept at each step; read by baseline `ema`."""
    scale: Literal["none", "group_std"] = "none"
    """What the centred return is divided by."""
    std_eps: float = 1e-4
    """ε added to the standard deviation; read by scale `group_std`."""
    ratio: Literal["none", "token", "seq_prod"] = "none"
    """Which importance ratio corrects for the policy having moved since it sampled."""
    trust: Literal["logp", "ratio", "clip"] = "logp"
    """The surrogate, and whether it is bounded."""
    clip_low: float = 0.2
    """How far below 1 a ratio may fall; read by trust `clip`."""
    clip_high: float = 0.2
    """How far above 1 a ratio may rise; read by trust `clip`."""
    kl: Literal["none", "reward", "loss"] = "none"
    """Where the divergence from the reference is paid for."""
    kl_estimator: Literal["k1", "k2", "k3", "rho_k3"] = "k1"
    """How it is estimated from the sampled tokens; read where kl is on."""
    beta: float = 0.0
    """Its price per nat; 0 switches it off, and no reference model is loaded."""
    aggregate: Literal["token", "seq_token", "seq_sum", "const", "seq"] = "seq_sum"
    """How terms become one number."""
    group_size: int = 1
    """Completions per prompt, G."""

    def __post_init__(self) -> None:
        """Refuse what cannot work, with the reason and the way out."""
        for column, options in OPTIONS.items():
            choice = getattr(self, column)
            if not isinstance(choice, str) or choice not in options:
                raise unknown(f"{column} of algorithm '{self.name}'", str(choice), options)
        for field, (low, high, words) in _RANGES.items():
            object.__setattr__(self, field, self._number(field, low, high, words))
        size = self.group_size
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise UsageError(f"{self.name}: group_size is a whole number from 1, got {size!r}")
        for broken, reason in _RULES:
            if broken(self):
                raise UsageError(f"{self.name}: {reason.format(row=self)}")

    def _number(self, field: str, low: float, high: float, words: str) -> float:
        value = getattr(self, field)
        real = isinstance(value, int | float) and not isinstance(value, bool)
        if not real or not math.isfinite(value) or not low <= value <= high:
            raise UsageError(f"{self.name}: {field} is a number {words}, got {value!r}")
        return float(value)

    @property
    def needs_group(self) -> bool:
        """Whether a completion is compared with its siblings."""
        return self.baseline in GROUP_BASELINES

    @property
    def needs_reference(self) -> bool:
        """Whether log-probabilities of a reference model are needed."""
        return self.kl != "none" and self.beta > 0

    @property
    def needs_old(self) -> bool:
        """Whether the policy's log-probabilities at the start of an update are read.

        Where they are not, every update after the first on the same episodes is biased.
        """
        in_kl = self.kl == "loss" and self.beta > 0 and self.kl_estimator == "rho_k3"
        return self.ratio != "none" or in_kl

    @property
    def formula(self) -> str:
        """The loss as one line, made of the row's choices, so that a changed row prints its own."""
        sums = OPTIONS["aggregate"][self.aggregate].split(",")[0]
        at = "i" if self.aggregate == "seq" else "i,t"
        bounds = f"{1 - self.clip_low:g}, {1 + self.clip_high:g}"
        surrogate = {
            "logp": f"A_{at} l_{at}",
            "ratio": f"ρ_{at} A_{at}",
            "clip": f"min(ρ_{at} A_{at}, clip(ρ_{at}, {bounds}) A_{at})",
        }[self.trust]
        if self.needs_reference and self.kl == "loss":
            k = "Σ_t k_i,t" if self.aggregate == "seq" else "k_i,t"
            surrogate = f"[ {surrogate} − {self.beta:g} {k} ]"
        return f"L = −{sums} {surrogate}"


_RULES: tuple[tuple[Callable[[Algorithm], bool], str], ...] = (
    (
        lambda row: row.needs_group and row.group_size == 1,
        "baseline '{row.baseline}' compares a completion with its siblings, but group_size is 1; "
        "set group_size=2 or more, or baseline='batch_mean' or 'ema'",
    ),
    (
        lambda row: row.scale == "group_std" and not row.needs_group,
        "scale 'group_std' divides by the spread within a group, but baseline '{row.baseline}' "
        "does not centre on the group; set baseline='group_mean', or scale='none'",
    ),
    (
        lambda row: row.psi == "total" and row.gamma != 1,
        "gamma={row.gamma} discounts a reward-to-go, but psi is 'total'; set psi='rtg', or gamma=1",
    ),
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
        lambda row: row.ratio == "seq_prod" and row.aggregate != "seq",
        "ratio 'seq_prod' makes one term per completion, aggregate '{row.aggregate}' sums over "
        "tokens; set aggregate='seq', or ratio='token'",
    ),
    (
        lambda row: row.aggregate == "seq" and row.ratio != "seq_prod",
        "aggregate 'seq' takes one term per completion, ratio '{row.ratio}' makes one per token; "
        "set ratio='seq_prod' with trust='clip', or aggregate='seq_sum'",
    ),
    (
        lambda row: row.ratio == "seq_prod" and row.psi != "total",
        "ratio 'seq_prod' multiplies one advantage per completion, psi 'rtg' makes one per token; "
        "set psi='total', or ratio='token' with aggregate='seq_sum'",
    ),
    (
        lambda row: row.kl == "none" and row.beta > 0,
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
)
"""Combinations that are refused: the test, the reason and the way out."""
