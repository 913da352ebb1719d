"""Demonstrations, and the embedded default that is built from them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rlvr.agents.embedded import EmbeddedConfig, build
from rlvr.envs import load_tasks
from rlvr.rl_core.warm_start import WarmStart, demonstrations, embedded_default, wrong_answer
from rlvr.verifiers import Task, TaskError, UsageError

SMALL = EmbeddedConfig(width=32, layers=1, heads=2, context=128)
SHORT = WarmStart(steps=30, batch=16)


def _task(prompt: str, solution: str) -> Task:
    return Task(id="t", prompt=prompt, truth=0, solution=solution)


def test_a_wrong_answer_has_the_form_of_the_right_one_and_a_number_of_the_question() -> None:
    rng, task = np.random.default_rng(0), _task("12 pears and 30?", "so it is 3. #### 42")
    seen = {wrong_answer(task, task, rng) for _ in range(100)}
    assert seen == {"so it is 3. #### 12", "so it is 3. #### 30"}


def test_a_wrong_answer_never_repeats_the_right_number() -> None:
    task = _task("0 + 7 = ?", "7")
    assert {wrong_answer(task, task, np.random.default_rng(i)) for i in range(20)} == {"0"}


def test_without_a_number_to_take_another_task_s_solution_is_shown() -> None:
    task, other = _task("ant, bee", "ant, bee"), _task("cow", "cow, dog")
    assert wrong_answer(task, other, np.random.default_rng(0)) == "cow, dog"


def test_the_share_of_right_demonstrations_is_as_set() -> None:
    tasks = [Task(id=str(i), prompt="p 7", truth=i, solution=str(100 + i)) for i in range(50)]
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
