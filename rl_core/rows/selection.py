"""Learning from chosen completions alone: the right ones, or the better of two."""

from ..choices import Algorithm

_RAFT = "Dong et al., 2023, arXiv 2304.06767"
_MINIMALIST = "Xiong et al., 2025, arXiv 2504.11343"

ROWS = (
    Algorithm(
        name="raft",
        title="RAFT: imitate the right completions",
        paper=f"{_RAFT}; {_MINIMALIST}",
        defaults_from="arXiv 2504.11343 (all right ones; reward='best' for the best of each "
        "group, as in arXiv 2304.06767); G 4",
        reward="positive",
        aggregate="token",
        group_size=4,
    ),
    Algorithm(
        name="raft++",
        title="RAFT++: imitate the right completions, with a ratio and a clip",
        paper=_MINIMALIST,
        defaults_from="the paper; clip 0.2, G 4",
        reward="positive",
        ratio="token",
        trust="clip",
        aggregate="token",
        group_size=4,
    ),
    Algorithm(
        name="dpo",
        title="Direct preference optimisation, on a best and a worst completion of each group",
        paper="Rafailov et al., 2023, arXiv 2305.18290",
        defaults_from="beta 0.1 as TRL ships it; G 4",
        loss="dpo",
        beta=0.1,
        group_size=4,
    ),
    Algorithm(
        name="ipo",
        title="Identity preference optimisation: DPO with a margin of fixed size",
        paper="Azar et al., 2023, arXiv 2310.12036",
        defaults_from="beta 0.1 and means over tokens as TRL ships it; G 4",
        loss="ipo",
        beta=0.1,
        group_size=4,
    ),
)
