"""What tests of environments share: two verifiers, and an environment of three turns."""

from typing import Any

import gymnasium

from rlvr.envs import AnyText
from rlvr.verifiers import verifier


@verifier
def same(completion: str, truth: Any) -> bool:
    """Whether the completion is the truth."""
    return completion == truth


@verifier
def broken(completion: str, truth: Any) -> bool:
    """Fail."""
    raise RuntimeError("no disk")


class Asking(gymnasium.Env[str, str]):
    """Asks twice more, with texts of different lengths, and pays 1 for a short last answer."""

    def __init__(self) -> None:
        self.observation_space = self.action_space = AnyText()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.turn = 0
        return "go", {"task_id": "a"}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.turn += 1
        over = self.turn == 3
        paid = 0.25 if not over else float(len(action) < 4)
        return "more" * self.turn, paid, over, False, {}
