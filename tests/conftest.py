"""Fixtures: a tiny model and tokenizer, made once."""

import functools
import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

sys.path.append(str(Path(__file__).parent))  # for the harness files
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tensors are tiny, and CI has other work
# Hundreds of processes are started here, each of which would compile the package for itself.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
settings.register_profile("rlvr", deadline=None)  # the machine may be busy
settings.load_profile("rlvr")
gc.set_threshold(700, 10, 1000)  # a full round walks through all libraries, for 0.1 s


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
    objects of all libraries, which are therefore left frozen between the runs of a test, too.
    """
    from matplotlib.figure import Figure

    gc.freeze()
    monkeypatch.setattr(gc, "unfreeze", lambda: None)
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
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A saved untrained model, small enough that a step takes milliseconds."""
    from rlvr.agents.embedded import EmbeddedConfig, build

    place = tmp_path_factory.mktemp("model")
    for part in build(EmbeddedConfig(width=32, layers=1, heads=2, context=512)):
        part.save_pretrained(place)
    return str(place)


@pytest.fixture(scope="session")
def sample(tiny: tuple[Any, Any]) -> Callable[..., list[Any]]:
    """Make ragged episodes without an environment, in groups, with true log-probabilities."""
    import copy
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

    @functools.cache
    def made(groups: int, size: int, longest: int, seed: int) -> list[Trajectory]:
        rng = random.Random(seed)
        return [episode(rng, g, m, longest) for g in range(groups) for m in range(size)]

    def make(groups: int, size: int, longest: int = 8, seed: int = 0) -> list[Trajectory]:
        return copy.deepcopy(made(groups, size, longest, seed))

    return make
