"""What the rollout benchmark draws: three kinds of batch, as environments and as tokens by hand.

Lengths are the model's own (`workloads.writer`): after a question it writes 4 letters or more and
then ends with probability 1/11 after each, and one answer in 25 has no end. No system is told them.
Tool episodes are `rlvr/Calculator-v0` played from its solution: whatever the policy writes, the
environment is handed the right call, so that every system meets the same conversations of five
turns, and what differs between systems is how they are drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from workloads import RAGGED

from rlvr import envs
from rlvr.agents import Episode
from rlvr.envs import PromptEnv

GROUP = 8
"""Episodes of a prompt."""
TASKS = 256
"""Different prompts; batches walk through them, so that no prefix cache knows them from before."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One kind of batch."""

    name: str
    episodes: int
    max_tokens: int
    """Tokens of one turn at most."""
    tools: bool = False
    """Whether episodes have turns."""

    def picks(self, number: int) -> list[tuple[int, int]]:
        """Return task and seed of each episode of a batch."""
        groups = self.episodes // GROUP
        seeds = np.random.SeedSequence([number, self.episodes]).generate_state(
            self.episodes, np.uint64
        )
        return [
            ((number * groups + at // GROUP) % TASKS, int(seed)) for at, seed in enumerate(seeds)
        ]

    def environments(self) -> list["gymnasium.Env[str, str]"]:
        """Return an environment for each episode, as a trainer keeps them."""
        if self.tools:
            made = [
                envs.make("rlvr/Calculator-v0", size=TASKS, disable_env_checker=True)
                for _ in range(self.episodes)
            ]
            return [Solved(env) for env in made]
        tasks = RAGGED.tasks(TASKS)
        return [PromptEnv(tasks, "exact", check=False) for _ in range(self.episodes)]

    def posed(self, made: Sequence["gymnasium.Env[str, str]"], number: int) -> list[Episode]:
        """Return the episodes of a batch."""
        return [
            Episode(env=env, seed=seed, env_seed=index, index=index, group=at // GROUP)
            for at, (env, (index, seed)) in enumerate(zip(made, self.picks(number), strict=True))
        ]


WORKS = (
    Work(name="64 single-turn", episodes=64, max_tokens=192),
    Work(name="256 single-turn", episodes=256, max_tokens=192),
    Work(name="64 tool episodes", episodes=64, max_tokens=48, tools=True),
)
"""The three batches, in the order in which each system draws them."""


class Solved(gymnasium.Wrapper[str, str, str, str]):
    """Hands its environment the solution's next action in place of the policy's."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Pose the task, and begin its solution."""
        found = self.env.reset(seed=seed, options=options)
        inner: Any = self.env.unwrapped
        self.solution = inner.solve(inner.task)
        self.action = next(self.solution)
        return found

    def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        """Take the solution's next action."""
        found = self.env.step(self.action)
        if not (found[2] or found[3]):
            self.action = self.solution.send(found[0])
        return found


@dataclass
class Talk:
    """A conversation as those who drive an engine by hand keep it."""

    ids: list[int]
    """All tokens so far."""
    seed: int
    replies: list[list[int]]
    """What is still put behind the model's turns, from the end token's successor on."""
    eos: int
    drawn: int = field(default=0)
    """Tokens that the model drew."""

    def take(self, tokens: Sequence[int]) -> bool:
        """Append a turn, and the answer to it; returns whether the model is to go on."""
        self.drawn += len(tokens)
        self.ids += tokens
        if not self.replies:
            return False
        self.ids += [*([] if tokens[-1] == self.eos else [self.eos]), *self.replies.pop(0)]
        return True


class Script:
    """The batches by hand: rendered once, before any clock runs."""

    def __init__(self, format: Any, eos: int) -> None:
        """Play every task once through the chat format."""
        self.eos = eos
        self.known = {
            work.tools: [self._play(format, env, index) for index in range(TASKS)]
            for work in WORKS
            for env in work.environments()[:1]
        }

    def talks(self, work: Work, number: int) -> list[Talk]:
        """Return the conversations of a batch, at their beginning."""
        known = self.known[work.tools]
        return [
            Talk(ids=[*known[index][0]], seed=seed, replies=[*known[index][1]], eos=self.eos)
            for index, seed in work.picks(number)
        ]

    def _play(
        self, format: Any, env: "gymnasium.Env[str, str]", index: int
    ) -> tuple[list[int], list[list[int]]]:
        _, info = env.reset(seed=index, options={"index": index})
        history, tools = info["messages"], info.get("tools") or ()
        prompt, replies = format.prompt(history, tools), []
        while True:
            _, _, terminated, truncated, info = env.step("x")
            if terminated or truncated:
                return [*prompt], replies
            said = info["messages"]
            replies.append(format.delta(said, [self.eos], history=history, tools=tools))
            history = [*history, {"role": "assistant", "content": "x"}, *said]
