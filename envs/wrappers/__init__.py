"""Transforms: gymnasium wrappers of text environments, single- and multi-turn.

They nest in any order, and the order says what is meant: a wrapper sees what those inside it made
of the environment. From the inside out, the usual one is

    limits (`TurnLimit`, `TimeLimit`), `Record` of what the environment says,
    `Curriculum`: measures the task's own verdict,
    `FormatReward`, `Noise`, `ScaleReward`: what is trained on,
    `SystemPrompt` over `FewShot`: what the policy is shown,
    `TokenMDP`, outermost, because its actions are tokens.

`Record` outside of all records what the policy saw and was paid. `env.unwrapped` is the
environment itself, with `tasks` and `verifier`; gymnasium's own wrappers may stand between.
"""

from .curriculum import Curriculum
from .limits import TimeLimit, TurnLimit
from .pass_rates import PassRates
from .prompts import FewShot, SystemPrompt
from .rewards import FormatReward, Noise, ScaleReward
from .transcripts import Record, Replay, read_transcripts
from .transform import Branch, Transform

__all__ = [
    "Branch",
    "Curriculum",
    "FewShot",
    "FormatReward",
    "Noise",
    "PassRates",
    "Record",
    "Replay",
    "ScaleReward",
    "SystemPrompt",
    "TimeLimit",
    "Transform",
    "TurnLimit",
    "read_transcripts",
]
