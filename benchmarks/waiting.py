"""Tool episodes with a real policy: batches that wait for all, or take what is ready.

    python benchmarks/waiting.py [--episodes 256] [--turns 3] [--tokens 24] [--scale 1.0]

Episodes of several tool calls with latency uniform on 0-1 s, rolled out by the embedded model
(untrained, 32 tokens a turn at most). With `wait="all"` a batch starts when every live episode
waits, which repeats to the bit; with `wait="some"` what is ready joins the running batch. The table
also says how much of the decoding was prefill, most of which a cache kept over turns would save:
what is left of it once each turn's new tokens are taken out.
"""

import argparse
import time
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch

from rlvr.agents import Episode, Sampling, TransformersPolicy, rollout
from rlvr.agents.decoding import Decoding
from rlvr.agents.embedded import EmbeddedConfig, build
from rlvr.envs import AnyText


class Calling(gymnasium.Env[str, str]):
    """Every turn calls a tool that takes its time and answers in a few words."""

    def __init__(self, number: int, turns: int, scale: float) -> None:
        """Draw latencies from a generator of the environment's own number."""
        self.observation_space = self.action_space = AnyText()
        self.number, self.turns, self.scale = number, turns, scale

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Pose a task."""
        super().reset(seed=seed)
        self.rng, self.turn = np.random.default_rng([7, self.number]), 0
        return "Use the tool as often as you need, then say what you found. " * 2, {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Wait as long as the tool takes."""
        time.sleep(self.rng.random() * self.scale)
        self.turn += 1
        return "The tool found nothing of the kind.", 0.0, self.turn == self.turns, False, {}


class Timed(Decoding[Any]):
    """Notes what prefilling takes, and how much of it is of tokens seen in an earlier turn."""

    seconds = 0.0
    tokens = 0

    def _prefill(self, prompts: Sequence[Sequence[int]], first: bool) -> None:
        began = time.perf_counter()
        super()._prefill(prompts, first)
        Timed.seconds += time.perf_counter() - began
        Timed.tokens += sum(len(prompt) for prompt in {tuple(prompt) for prompt in prompts})


def measure(wait: str, given: argparse.Namespace) -> list[str]:
    """Roll out once; returns a row of the table."""
    torch.manual_seed(0)
    policy = TransformersPolicy(*build(EmbeddedConfig(width=128)), wait=wait)
    envs = [Calling(i, given.turns, given.scale) for i in range(given.episodes)]
    episodes = [Episode(env=env, seed=i) for i, env in enumerate(envs)]
    Timed.seconds, Timed.tokens, policy.seconds = 0.0, 0, 0.0
    began = time.perf_counter()
    found = rollout(episodes, policy, Sampling(max_tokens=given.tokens))
    seconds = time.perf_counter() - began
    drawn = sum(one.length for one in found)
    again = sum(turn.start for one in found for turn in one.turns[:-1])
    figures = [f"{seconds:.2f}", f"{given.episodes / seconds:.1f}", f"{drawn / seconds:.0f}"]
    figures += [f"{policy.seconds:.2f}", f"{Timed.seconds:.2f}"]
    return [wait, *figures, f"{again / max(1, Timed.tokens):.2f}"]


def main() -> None:
    """Measure both ways of waiting and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--turns", type=int, default=3, help="tool calls per episode")
    parser.add_argument("--tokens", type=int, default=24, help="tokens per turn at most")
    parser.add_argument("--scale", type=float, default=1.0, help="latencies are times this")
    parser.add_argument("--repeats", type=int, default=2, help="turns of both ways")
    given = parser.parse_args()
    from rlvr.agents import transformers_policy

    transformers_policy.Decoding = Timed  # pyright: ignore
    from rlvr.agents import stream

    stream.Decoding = Timed  # pyright: ignore
    heads = ["wait", "seconds", "episodes/s", "tokens/s", "decoding s", "prefill s", "seen before"]
    print("\n".join(f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads))))
    for _ in range(given.repeats):
        for wait in ("all", "some"):
            print(f"| {' | '.join(measure(wait, given))} |", flush=True)


if __name__ == "__main__":
    main()
