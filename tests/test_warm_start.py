"""Demonstrations, and the embedded default that is built from them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rlvr.agents.embedded import EmbeddedConfig, build
from rlvr.envs import load_tasks
from rlvr.rl_core import warm_start
from rlvr.rl_core.warm_start import WarmStart, demonstrations, embedded_default, near_miss
from rlvr.verifiers import Task, TaskError, UsageError

SMALL = EmbeddedConfig(width=32, layers=1, heads=2, context=128)
SHORT = WarmStart(steps=30, batch=16)


def test_a_near_miss_has_the_form_of_the_answer_and_another_number() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        text = near_miss("so it is 3. #### 12", "", rng)
        assert text.startswith("so it is 3. #### ")
        value = int(text.removeprefix("so it is 3. #### "))
        assert value != 12
        assert abs(value - 12) <= warm_start.NEAR
        assert int(near_miss("0", "", rng)) > 0


def test_an_answer_without_a_number_is_replaced_by_another_task_s() -> None:
    assert near_miss("ant, bee", "cow, dog", np.random.default_rng(0)) == "cow, dog"


def test_the_share_of_right_demonstrations_is_as_set() -> None:
    tasks = [Task(id=str(i), prompt="p", truth=i, solution=str(100 + i)) for i in range(50)]
    shown = demonstrations(tasks, 4000, 0.3, np.random.default_rng(0))
    right = sum(text == task.solution for task, text in shown) / 4000
    # five standard errors: 5·√(0.21/4000) = 0.036
    assert abs(right - 0.3) < 0.036


def test_a_task_without_a_solution_cannot_be_demonstrated() -> None:
    with pytest.raises(TaskError, match=r"task 'x' has no solution"):
        demonstrations([Task(id="x", prompt="p", truth=1)], 1, 1.0, np.random.default_rng(0))


@pytest.mark.parametrize("setting", [{"steps": 0}, {"lr": 0.0}, {"right": 1.5}])
def test_settings_out_of_range_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        WarmStart(**setting)  # type: ignore


def test_the_embedded_default_is_cached_and_built_the_same_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = load_tasks("rlvr/Arithmetic-v0", size=50)
    monkeypatch.setenv("RLVR_CACHE", str(tmp_path / "one"))
    built: list[int] = []
    first = embedded_default(tasks, SMALL, SHORT, lambda done, steps, loss: built.append(done))
    again = embedded_default(tasks, SMALL, SHORT, lambda done, steps, loss: built.append(done))
    assert built == list(range(1, 31))
    monkeypatch.setenv("RLVR_CACHE", str(tmp_path / "two"))
    fresh = embedded_default(tasks, SMALL, SHORT)
    for name, value in first[0].state_dict().items():
        assert torch.equal(value, again[0].state_dict()[name])
        assert torch.equal(value, fresh[0].state_dict()[name])
    other = embedded_default(tasks[:40], SMALL, SHORT)  # other tasks, another model
    assert len(list((tmp_path / "two").iterdir())) == 2
    assert not torch.equal(other[0].lm_head.weight, first[0].lm_head.weight)


def test_the_same_size_and_seed_build_the_same_model() -> None:
    state = torch.random.get_rng_state()
    one, two = build(SMALL)[0], build(SMALL)[0]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_default_model_is_small() -> None:
    assert sum(p.numel() for p in build(EmbeddedConfig())[0].parameters()) < 1_000_000


@pytest.mark.parametrize("size", [{"width": 30}, {"layers": 0}, {"heads": -1}])
def test_a_size_that_cannot_be_is_refused(size: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        EmbeddedConfig(**size)
