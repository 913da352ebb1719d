"""Fixtures: a tiny model and tokenizer, made once."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tensors are tiny, and CI has other work


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep built models of the tests out of the user's cache."""
    before = os.environ.get("RLVR_CACHE")
    os.environ["RLVR_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["RLVR_CACHE"]
    else:
        os.environ["RLVR_CACHE"] = before


@pytest.fixture
def short_runs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare runs of a few steps what takes longer than they do.

    That is to draw the curve, unless the test is about it, and to look for garbage among all
    objects of all libraries.
    """
    import gc

    from matplotlib.figure import Figure

    gc.freeze()
    if "curve" not in request.node.name:
        monkeypatch.setattr(
            "rlvr.rl_core.report.draw_curve", lambda metrics, title="": Figure(figsize=(1, 1))
        )


@pytest.fixture(scope="session")
def tiny() -> tuple[Any, Any]:
    """An untrained Llama with the byte tokenizer."""
    from rlvr.agents.embedded import EmbeddedConfig, build

    return build(EmbeddedConfig(width=32, layers=2, heads=2, context=256))


@pytest.fixture(scope="session")
def sample(tiny: tuple[Any, Any]) -> Callable[..., list[Any]]:
    """Make ragged episodes without an environment, in groups, with true log-probabilities."""
    import random

    from rlvr.agents import Trajectory, TransformersPolicy, Turn
    from rlvr.agents.types import StopReason

    policy = TransformersPolicy(*tiny)

    def episode(rng: random.Random, group: int, member: int, longest: int) -> Trajectory:
        prompt = [3, *range(70 + group, 73 + 2 * group), 4]
        tokens = [rng.randrange(6, 200) for _ in range(rng.randint(1, longest))]
        (logprobs,) = policy.logprobs([prompt], [tokens])
        end, reward = len(prompt) + len(tokens), float(rng.random() < 0.4)
        return Trajectory(
            env="e",
            task_id=str(group),
            group=group,
            seed=member,
            tokens=[*prompt, *tokens],
            trained=[False] * len(prompt) + [True] * len(tokens),
            logprobs=[0.0] * len(prompt) + logprobs.tolist(),
            turns=[Turn(start=len(prompt), end=end, reward=reward, stop_reason=StopReason.EOS)],
            messages=[{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
            reward=reward,
        )

    def make(groups: int, size: int, longest: int = 8, seed: int = 0) -> list[Trajectory]:
        rng = random.Random(seed)
        return [episode(rng, g, m, longest) for g in range(groups) for m in range(size)]

    return make
