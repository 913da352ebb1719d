"""The stages of a policy-gradient loss, as pure functions over `[B, T]` tensors and a mask.

One file a stage; torch only, no configuration objects. What is chosen where stands in
`rl_core.algorithms`, how the choices are put together in `rl_core.objective`.
"""

from .aggregation import constant_length_mean, sequence_sum, sequence_token_mean, token_mean
from .baselines import batch_mean, group_mean, leave_one_out, moving_average
from .groups import group_min, group_sizes, group_sum
from .kl import k1, k2, k3, ratio_k3
from .masks import (
    check_rows,
    check_tokens,
    keep_scored,
    lengths,
    row_values,
    select,
    select_difference,
)
from .ratios import MAX_LOG_RATIO, ratio, sequence_log_ratio, token_log_ratio
from .returns import reward_to_go, total_reward
from .rewards import at_last_token, kl_penalty
from .scales import group_std
from .trust import clipped_ratio, importance_ratio, is_clipped, log_probability

__all__ = [
    "MAX_LOG_RATIO",
    "at_last_token",
    "batch_mean",
    "check_rows",
    "check_tokens",
    "clipped_ratio",
    "constant_length_mean",
    "group_mean",
    "group_min",
    "group_sizes",
    "group_std",
    "group_sum",
    "importance_ratio",
    "is_clipped",
    "k1",
    "k2",
    "k3",
    "keep_scored",
    "kl_penalty",
    "leave_one_out",
    "lengths",
    "log_probability",
    "moving_average",
    "ratio",
    "ratio_k3",
    "reward_to_go",
    "row_values",
    "select",
    "select_difference",
    "sequence_log_ratio",
    "sequence_sum",
    "sequence_token_mean",
    "token_log_ratio",
    "token_mean",
    "total_reward",
]
