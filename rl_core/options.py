"""What may be chosen at each stage of the loss, with the formula of every choice.

`OPTIONS` is what is allowed and what `explain` prints; `READ_WITH` says which column is read only
under some choice of another one; `RANGES` bounds the numbers. Plain data: no torch.
"""

import math

OPTIONS: dict[str, dict[str, str]] = {
    "loss": {
        "policy": "one term per token or completion, as the stages below say",
        "dpo": "−log σ(h), h = β[(l_w − l_w^ref) − (l_l − l_l^ref)], sums over tokens",
        "ipo": "(h/β − 1/(2β))², h/β with means over tokens",
    },
    "reward": {
        "terminal": "r_t = R at the last token",
        "process": "r_t = R_j at the last token of each judged span",
        "parts": "R = Σ_k w_k (R_k − mean_g R_k) / (std_g R_k + ε) at the last token",
        "best": "R = 1[R is the greatest of its group]",
        "positive": "R = 1[R > τ]",
    },
    "booking": {
        "end": "at the last token of the span",
        "spread": "R_j/n_j at each of the span's n_j tokens",
    },
    "psi": {
        "total": "Ψ_t = R = Σ_k r_k",
        "rtg": "Ψ_t = Σ_{k≥t} γ^{n(k)−n(t)} r_k",
        "q": "Ψ_t = r_t + γ V_{t'}",
        "td": "Ψ_t = r_t + γ V_{t'} − V_t",
        "gae": "Ψ_t = Σ_{k≥t} (γλ)^{n(k)−n(t)} (r_k + γ V_{k'} − V_k)",
        "nstep": "Ψ_t = Σ_{j<n} γ^j r_{t+j} + γ^n V_{t+n}",
        "segment": "A_t = A(R) + w A(R_j + γ R_{j+1} + …), the turn j among turns at one state",
    },
    "baseline": {
        "none": "b = 0",
        "const": "b = a constant",
        "batch_mean": "b = mean of R over the batch",
        "ema": "b = moving average of earlier batches' mean R",
        "loo": "b_i = mean of R over the other members of the group",
        "group_mean": "b_i = mean of R over the group",
        "length_weighted": "b_i = Σ_g L R / Σ_g L over the group",
        "greedy": "b_i = R of the greedy completion of the prompt",
        "value": "b_t = V(s_t)",
        "step_mean": "b = mean of the span rewards of the group, before they are summed",
    },
    "scale": {
        "none": "A = Ψ − b",
        "group_std": "A = (Ψ − b) / (std of R in the group + ε)",
        "loo_std": "A_i = (Ψ − b) / (std of R over the other members of the group + ε)",
        "batch_std": "A = (Ψ − b) / (std of R in the batch + ε)",
        "group_mean": "A = (Ψ − b) / (mean of R in the group)",
        "whiten": "A = (Ψ − b − mean) / (std + ε), over the trained tokens of the batch",
        "step_std": "span rewards / (their std in the group + ε), before they are summed",
    },
    "overlong": {
        "train": "truncated completions are trained on",
        "filter": "truncated completions leave the loss, not the baseline",
    },
    "zero_groups": {
        "keep": "completions without an advantage stay in the denominators",
        "filter": "groups in which every advantage is 0 leave the loss",
        "resample": "such groups are sampled anew (dynamic sampling); what is left leaves the loss",
    },
    "ratio": {
        "none": "no ratio (as if sampled from the current policy)",
        "token": "ρ_t = exp(l_t − l^old_t)",
        "seq_geo": "ρ = exp((1/L) Σ_t (l_t − l^old_t)), one for the completion",
        "seq_geo_token": "ρ_t = sg(exp((1/L) Σ_k (l_k − l^old_k))) exp(l_t − sg l_t)",
        "seq_prod": "ρ = exp(Σ_t (l_t − l^old_t)), one for the completion",
    },
    "anchor": {
        "old": "l^old: the policy at the start of the update, by the learner",
        "rollout": "l^old: as the sampler returned it",
        "proximal": "l^old: a third policy that the learner keeps",
    },
    "trust": {
        "logp": "φ = A l",
        "ratio": "φ = ρ A",
        "clip": "φ = min(ρ A, clip(ρ, 1−low, 1+high) A)",
        "sg_clip": "φ = sg(clip(ρ, a, b)) A l",
        "geo_clip": "φ = A exp((1/L) Σ_t s min(s x_t, s clip(x_t, −e, e))), s = sign A, x = log ρ",
        "gate": "φ = (4/τ) σ(τ(ρ−1)) A, τ by the sign of A",
        "tv_mask": "φ = ρ A, 0 where |π − μ| > d the way A pushes",
    },
    "mismatch": {
        "none": "w = 1",
        "tis_token": "w_t = min(ω_t, C), ω = exp(l^old − l^rollout)",
        "tis_seq": "w = min(Π_t ω_t, C)",
        "icepop": "w_t = ω_t 1[a ≤ ω_t ≤ C]",
        "icepop_seq": "w = Π_t ω_t 1[a ≤ Π_t ω_t ≤ C]",
        "mask_prod": "w = 1[a ≤ Π_t ω_t ≤ C]",
        "mask_geo": "w = 1[a ≤ (Π_t ω_t)^(1/L) ≤ C]",
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
        "st_k2": "k = k3 in value, k2 in gradient",
        "full": "k = Σ_v π(v) (log π(v) − log π^ref(v)), over the vocabulary",
    },
    "kl_to": {
        "reference": "l^ref: the frozen reference model",
        "rollout": "l^ref: the policy that sampled",
    },
    "kl_aggregate": {
        "same": "as the surrogate",
        "token": "(1/N) Σ_i Σ_t, N trained tokens of the step",
        "seq_token": "(1/B) Σ_i (1/L_i) Σ_t, L_i trained tokens of the completion",
    },
    "aggregate": {
        "token": "(1/N) Σ_i Σ_t, N trained tokens of the step",
        "seq_token": "(1/B) Σ_i (1/L_i) Σ_t, L_i trained tokens of the completion",
        "seq_sum": "(1/B) Σ_i Σ_t, B scored completions",
        "const": "(1/(B·C)) Σ_i Σ_t, C the greatest completion length",
        "prompt": "(1/P) Σ_p (1/N_p) Σ_i∈p Σ_t, N_p trained tokens of the prompt's completions",
        "seq": "(1/B) Σ_i, one term per completion",
    },
    "optimizer": {
        "adam": "AdamW on the gradient",
        "natural": "x = F⁻¹g by conjugate gradient, step √(2δ / xᵀFx) x, back-tracking to KL ≤ δ",
    },
}
"""Each stage's choices and the formula of each."""

GROUP_BASELINES = ("loo", "group_mean", "length_weighted", "step_mean")
"""Baselines that compare a completion with its siblings."""

GROUP_SCALES = ("group_std", "loo_std", "group_mean", "step_std")
"""Divisors taken from a completion's siblings."""

CRITIC_PSI = ("q", "td", "gae", "nstep")
"""Credits that read a value function."""

PAIR_LOSSES = ("dpo", "ipo")
"""Losses over preference pairs, which read none of the stages."""

_WEIGHTS = ("tis_token", "tis_seq", "icepop", "icepop_seq", "mask_prod", "mask_geo")
_ON = ("reward", "loss")

READ_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    "label_smoothing": ("loss", ("dpo",)),
    "booking": ("reward", ("process",)),
    "reward_threshold": ("reward", ("positive",)),
    "gamma": ("psi", ("rtg", "q", "td", "gae", "nstep", "segment")),
    "lam": ("psi", ("gae",)),
    "n_steps": ("psi", ("nstep",)),
    "level_weight": ("psi", ("segment",)),
    "ema_decay": ("baseline", ("ema",)),
    "baseline_value": ("baseline", ("const",)),
    "anchor": ("ratio", ("token", "seq_geo", "seq_geo_token", "seq_prod")),
    "clip_low": ("trust", ("clip",)),
    "clip_high": ("trust", ("clip",)),
    "dual_clip": ("trust", ("clip",)),
    "cap_low": ("trust", ("sg_clip",)),
    "cap_high": ("trust", ("sg_clip",)),
    "log_clip": ("trust", ("geo_clip",)),
    "gate_positive": ("trust", ("gate",)),
    "gate_negative": ("trust", ("gate",)),
    "tv_limit": ("trust", ("tv_mask",)),
    "mismatch_low": ("mismatch", ("icepop", "icepop_seq", "mask_prod", "mask_geo")),
    "mismatch_high": ("mismatch", _WEIGHTS),
    "kl_estimator": ("kl", _ON),
    "kl_to": ("kl", _ON),
    "beta": ("kl", _ON),
    "kl_aggregate": ("kl", ("loss",)),
    "std_eps": ("scale", ("group_std", "loo_std", "batch_std", "whiten", "step_std")),
    "std_ddof": ("scale", ("group_std", "loo_std", "batch_std", "whiten", "step_std")),
    "value_clip": ("psi", CRITIC_PSI),
    "value_coef": ("psi", CRITIC_PSI),
    "kl_limit": ("optimizer", ("natural",)),
    "cg_steps": ("optimizer", ("natural",)),
    "cg_damping": ("optimizer", ("natural",)),
    "search_shrink": ("optimizer", ("natural",)),
    "search_steps": ("optimizer", ("natural",)),
}
"""Columns that are read only under some choice of another column."""

PAIR_COLUMNS = ("loss", "label_smoothing", "beta", "group_size", "epochs", "updates")
"""What a loss over preference pairs reads."""

OFF: dict[str, float] = {
    "overlong_buffer": 0,
    "centred_clip": 0,
    "dual_clip": 0,
    "max_staleness": -1,
    "opsm_delta": 0,
    "entropy_quantile": 0,
    "entropy_bonus": 0,
    "value_clip": 0,
}
"""Columns that a number switches off, and that number."""

_BELOW_ONE = math.nextafter(1.0, 0.0)

RANGES: dict[str, tuple[float, float, str]] = {
    "label_smoothing": (0.0, 0.5, "in [0, 0.5]"),
    "reward_threshold": (-math.inf, math.inf, "that is finite"),
    "gamma": (0.0, 1.0, "in [0, 1]"),
    "lam": (0.0, 1.0, "in [0, 1]"),
    "level_weight": (0.0, math.inf, "0 or more"),
    "ema_decay": (0.0, _BELOW_ONE, "in [0, 1)"),
    "baseline_value": (-math.inf, math.inf, "that is finite"),
    "centred_clip": (0.0, math.inf, "0 (off) or more"),
    "std_eps": (0.0, math.inf, "0 or more"),
    "clip_low": (0.0, 1.0, "in [0, 1]"),
    "clip_high": (0.0, math.inf, "0 or more"),
    "dual_clip": (0.0, math.inf, "0 (off) or more"),
    "cap_low": (0.0, math.inf, "0 or more"),
    "cap_high": (0.0, math.inf, "0 or more"),
    "log_clip": (0.0, math.inf, "0 or more"),
    "gate_positive": (1e-6, math.inf, "above 0"),
    "gate_negative": (1e-6, math.inf, "above 0"),
    "tv_limit": (0.0, 1.0, "in [0, 1]"),
    "mismatch_low": (0.0, math.inf, "0 or more"),
    "mismatch_high": (0.0, math.inf, "0 or more"),
    "beta": (0.0, math.inf, "0 or more"),
    "opsm_delta": (0.0, math.inf, "0 (off) or more"),
    "entropy_quantile": (0.0, _BELOW_ONE, "in [0, 1), 0 is off"),
    "entropy_bonus": (0.0, math.inf, "0 (off) or more"),
    "value_clip": (0.0, math.inf, "0 (off) or more"),
    "value_coef": (0.0, math.inf, "0 or more"),
    "kl_limit": (1e-12, math.inf, "above 0"),
    "cg_damping": (0.0, math.inf, "0 or more"),
    "search_shrink": (1e-6, _BELOW_ONE, "in (0, 1)"),
}
"""Legal ranges of the numbers; both ends included, infinity never."""

COUNTS: dict[str, int] = {
    "overlong_buffer": 0,
    "n_steps": 1,
    "std_ddof": 0,
    "max_staleness": -1,
    "group_size": 1,
    "epochs": 1,
    "updates": 1,
    "cg_steps": 1,
    "search_steps": 1,
}
"""Whole numbers and the least that each may be."""
