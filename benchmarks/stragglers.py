"""Episodes a second when tools are slow and uneven: who waits for the slowest?

    python benchmarks/stragglers.py [--rounds 16] [--repeats 3] [--scale 1.0]

64 environments of one tool call each, refilled: where an episode ends the next begins at once. A
call takes as long as a sleep, drawn per environment from a generator of its own, so that every
system meets the same law. Systems take turns within one run:

  loop      one environment after the other
  async     gymnasium.vector.AsyncVectorEnv, a process each, SAME_STEP autoreset: a step waits for
            the slowest of the 64
  ours      gymnasium.make_vec's entry point with send and recv: whoever has answered goes on

With latency uniform on 0-1 s a lock step takes E[max of 64] = 64/65 s and the mean is 1/2 s, so no
system can be more than 1.97 times as fast as async; with 0.05 s in 90 % and 1 s in 10 % of the
calls, 0.999 s against 0.145 s: 6.9 times. The clock of ours starts after some calls of the slowest
kind and stops at `rounds` x 64 further episodes, all environments busy at both ends: a clock that
began with 64 fresh calls would count too many of the short ones.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from rlvr.envs import AnyText
from rlvr.envs.vector import TextVectorEnv

COUNT = 64
"""Environments side by side."""
BOUNDS = {"uniform": (64 / 65) / 0.5, "mixed": (1 - 0.95 * 0.9**COUNT) / 0.145}
"""Speed of an ideal system over a lock step: E[max of 64] / mean."""
WANTED = {"uniform": 1.8, "mixed": 4.0}
WARM_UP = 3.0
"""Seconds, scaled as the latencies, before the clock of ours starts."""
SHORT_LOOP = 24
"""Episodes of the loop, which is slow and has nothing to warm up."""


class Waiting(gymnasium.Env[str, str]):
    """An episode is one call of a tool that takes its time."""

    def __init__(self, law: str, number: int, scale: float) -> None:
        """Draw latencies by a law from a generator of the environment's own number."""
        self.observation_space = self.action_space = AnyText()
        self.law, self.scale = law, scale
        self.rng = np.random.default_rng([7, number])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Ask."""
        super().reset(seed=seed)
        return "call the tool", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Wait as long as the tool takes."""
        slow = self.rng.random()
        seconds = slow if self.law == "uniform" else (1.0 if slow < 0.1 else 0.05)
        time.sleep(seconds * self.scale)
        return "done", 1.0, True, False, {}


def makers(law: str, scale: float) -> list[Callable[[], gymnasium.Env[str, str]]]:
    """Return what makes each environment."""
    return [lambda i=i: Waiting(law, i, scale) for i in range(COUNT)]


def run_loop(law: str, scale: float, rounds: int) -> float:
    """Return episodes a second of a loop over the environments."""
    del rounds
    envs = [make() for make in makers(law, scale)][:SHORT_LOOP]
    began = time.perf_counter()
    for env in envs:
        env.reset()
        env.step("go")
    return len(envs) / (time.perf_counter() - began)


def run_async(law: str, scale: float, rounds: int) -> float:
    """Return episodes a second of the processes in lock step."""
    envs = AsyncVectorEnv(
        makers(law, scale), shared_memory=False, autoreset_mode=AutoresetMode.SAME_STEP
    )
    try:
        envs.reset(seed=0)
        actions = ["go"] * COUNT
        began = time.perf_counter()
        for _ in range(rounds):
            envs.step(actions)
        return rounds * COUNT / (time.perf_counter() - began)
    finally:
        envs.close()


def run_ours(law: str, scale: float, rounds: int) -> float:
    """Return episodes a second where each environment goes on by itself."""
    envs = TextVectorEnv(makers(law, scale), autoreset_mode="SameStep")
    try:
        envs.reset(seed=0)
        start = time.perf_counter() + WARM_UP * scale
        began, done = 0.0, 0
        envs.send(range(COUNT), ["go"] * COUNT)
        while done < rounds * COUNT:
            ready = [one.id for one in envs.recv()]
            envs.send(ready, ["go"] * len(ready))
            if began:
                done += len(ready)
            elif time.perf_counter() >= start:
                began = time.perf_counter()
        return done / (time.perf_counter() - began)
    finally:
        envs.close()


SYSTEMS = {"loop": run_loop, "async": run_async, "ours": run_ours}


def measure(law: str, scale: float, rounds: int, repeats: int) -> dict[str, list[float]]:
    """Let the systems take turns, forwards and backwards."""
    found: dict[str, list[float]] = {name: [] for name in SYSTEMS}
    for turn in range(repeats):
        for name in [*SYSTEMS][:: -1 if turn % 2 else 1]:
            found[name].append(SYSTEMS[name](law, scale, rounds))
    return found


def main() -> None:
    """Measure both laws and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=16, help="episodes per environment")
    parser.add_argument("--repeats", type=int, default=3, help="turns of every system")
    parser.add_argument("--scale", type=float, default=1.0, help="latencies are times this")
    parser.add_argument("--law", choices=BOUNDS, help="this one only")
    parser.add_argument("--out", type=Path, help="figures as JSON")
    given = parser.parse_args()
    rows, figures = [], {}
    for law in (given.law,) if given.law else BOUNDS:
        found = measure(law, given.scale, given.rounds, given.repeats)
        figures[law] = found
        ratios = [ours / theirs for ours, theirs in zip(found["ours"], found["async"], strict=True)]
        speeds = [f"{statistics.median(found[name]):.1f}" for name in SYSTEMS]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        rows.append([law, *speeds, spread, f"{WANTED[law]:.1f}", f"{BOUNDS[law]:.2f}"])
    heads = ["latency", *(f"{name}, episodes/s" for name in SYSTEMS)]
    heads += ["ours over async: median (range)", "wanted", "bound"]
    print("\n".join(f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *rows)))
    if given.out:
        given.out.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
