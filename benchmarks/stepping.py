"""What a `step` of a text environment costs, against GEM's and SkyRL-gym's.

The environments do nothing but ask a scorer, so that what is measured is the framework: checks of
the call, the verdict, the chat, the info. Three scorers, the same function everywhere: `same` (one
comparison: nothing but overhead), `gsm8k` (find the number behind `####` in a worked solution) and
`math` (our verifier, about as long as any that reads mathematics takes at least).
`solo` is one environment after another as its class makes it, `made` what the framework's own
`make` returns, `vector` 256 at once by the framework's own vector environment, per environment.
Episodes end with their one step; `reset` is outside of the clock.

GEM and SkyRL-gym are needed by this benchmark alone; whichever is missing is left out.

    python benchmarks/stepping.py
"""

import argparse
import gc
import logging
import re
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium

from rlvr import envs, verifiers
from rlvr.verifiers import Task, verifier

COUNT = 256
SOLUTION = "He has 3 bags of 12 apples each, so that is 3*12=<<3*12=36>>36 apples in all.\n" * 4
BOXED = SOLUTION + r"The answer is \boxed{\frac{72}{2}}."
COMPLETIONS = {"same": "36", "gsm8k": SOLUTION + "#### 36", "math": BOXED}

Way = tuple[Callable[[], Any], Callable[[], Any]]
"""What to do before a round, and the round of 256 steps that is timed."""


def same(completion: str, truth: Any) -> float:
    """Return whether the completion is the truth."""
    return float(completion == truth)


def gsm8k(completion: str, truth: Any) -> float:
    """Return whether the number behind `####` is the truth."""
    found = re.search(r"#### (-?[0-9.,]+)", completion)
    return float(found is not None and found.group(1).replace(",", "") == truth)


_MATH: Any = verifiers.make("math")


def mathematics(completion: str, truth: Any) -> float:
    """Return the reward of our verifier."""
    return _MATH(completion, truth).reward


SCORERS: dict[str, Callable[[str, Any], float]] = {
    "same": same,
    "gsm8k": gsm8k,
    "math": mathematics,
}


def each(made: Sequence[Any], begin: Callable[[Any], Any], text: str) -> Way:
    """Step environments one after the other."""

    def start() -> None:
        for env in made:
            begin(env)

    def steps() -> None:
        for env in made:
            env.step(text)

    return start, steps


def ours(scorer: str, text: str) -> dict[str, Way]:
    """Return our ways to step."""
    tasks = [Task(id=f"t{i}", prompt="How many apples?", truth="36") for i in range(COUNT)]
    judge, name = verifier(SCORERS[scorer]), f"bench/{scorer}-v0"
    envs.register(name, tasks=tasks, verifier=judge, replace=True)

    def begin(env: Any) -> None:
        env.reset(seed=0, options={"index": 0})

    single = [envs.PromptEnv(tasks, judge) for _ in range(COUNT)]
    made = [gymnasium.make(name) for _ in range(COUNT)]
    vector = envs.make_vec(name, num_envs=COUNT)
    texts, options = [text] * COUNT, {"index": [0] * COUNT}
    return {
        "solo": each(single, begin, text),
        "made": each(made, begin, text),
        "vector": (lambda: vector.reset(seed=0, options=options), lambda: vector.step(texts)),
    }


def gems(scorer: str, text: str) -> dict[str, Way]:
    """Return GEM's ways to step; its vector environment resets within the step, always."""
    import gem

    logging.getLogger().setLevel(logging.WARNING)
    score = SCORERS[scorer]

    class Asking(gem.Env):
        def __init__(self, **options: Any) -> None:
            super().__init__()

        def reset(self, seed: int | None = None) -> tuple[str, dict[str, Any]]:
            self.truth = "36"
            return "How many apples?", {}

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            reward = score(action, self.truth)
            return "", reward, True, True, {"correct": reward == 1}

    gem.register(f"bench:{scorer}", Asking)
    single = [Asking() for _ in range(COUNT)]
    made = [gem.make(f"bench:{scorer}") for _ in range(COUNT)]
    vector = gem.make_vec([f"bench:{scorer}"] * COUNT)
    texts = [text] * COUNT

    def begin(env: Any) -> None:
        env.reset()

    return {
        "solo": each(single, begin, text),
        "made": each(made, begin, text),
        "vector": (vector.reset, lambda: vector.step(texts)),
    }


def skyrls(scorer: str, text: str) -> dict[str, Way]:
    """Return SkyRL-gym's ways to step; it has no vector environment."""
    import skyrl_gym
    from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput

    score = SCORERS[scorer]

    class Asking(BaseTextEnv):
        def __init__(self, env_config: Any = None, extras: Any = None) -> None:
            super().__init__()
            self.truth = (extras or {}).get("truth", "36")

        def step(self, action: str) -> BaseTextEnvStepOutput:
            reward = score(action, self.truth)
            return BaseTextEnvStepOutput(observations=[], reward=reward, done=True, metadata={})

    skyrl_gym.register(id=f"bench-{scorer}", entry_point=Asking)
    single = [Asking() for _ in range(COUNT)]
    made = [skyrl_gym.make(f"bench-{scorer}") for _ in range(COUNT)]
    prompt = [{"role": "user", "content": "How many apples?"}]

    def begin(env: Any) -> None:
        env.init(prompt)

    return {"solo": each(single, begin, text), "made": each(made, begin, text)}


def collected(scorer: str) -> dict[tuple[str, str], Way]:
    """Return every system's ways."""
    text, found = COMPLETIONS[scorer], {}
    for name, build in (("ours", ours), ("gem", gems), ("skyrl", skyrls)):
        try:
            ways = build(scorer, text)
        except ImportError as error:
            print(f"{name} left out: {error}")
            continue
        found |= {(name, kind): way for kind, way in ways.items()}
    return found


def measured(ways: dict[tuple[str, str], Way], rounds: int) -> dict[tuple[str, str], list[float]]:
    """Take turns, so that whatever slows the machine down slows all ways down alike.

    Returns:
        Microseconds per step, one per round.
    """
    taken: dict[tuple[str, str], list[float]] = {key: [] for key in ways}
    gc.freeze()
    for number in range(rounds + 3):
        gc.collect()
        for key, (start, steps) in ways.items():
            start()
            gc.disable()  # as timeit does: how much a collection costs depends on the whole heap
            began = time.perf_counter()
            steps()
            seconds = time.perf_counter() - began
            gc.enable()
            if number >= 3:
                taken[key].append(seconds / COUNT * 1e6)
    return taken


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table per scorer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--scorers", nargs="+", choices=sorted(SCORERS), default=list(SCORERS))
    given = parser.parse_args(arguments)
    for scorer in given.scorers:
        score, text = SCORERS[scorer], COMPLETIONS[scorer]
        began = time.perf_counter()
        for _ in range(5_000):
            score(text, "36")
        alone = (time.perf_counter() - began) / 5_000 * 1e6
        print(f"\n{scorer}: the scorer alone takes {alone:.2f} µs")
        taken = measured(collected(scorer), given.rounds)
        for (name, kind), times in taken.items():
            least, middle = min(times), statistics.median(times)
            print(f"  {name:6} {kind:7} {middle:7.2f} µs a step (least {least:.2f})")
        for kind in ("solo", "made"):
            for peer in ("gem", "skyrl"):
                if (peer, kind) in taken:
                    ratio = min(taken["ours", kind]) / min(taken[peer, kind])
                    print(f"  {kind}: ours/{peer} {ratio:.2f}")


if __name__ == "__main__":
    main()
