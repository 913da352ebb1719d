"""Which tasks a step poses."""

import pytest

from rlvr.envs import PromptEnv
from rlvr.rl_core.sources import EnvChoice, Schedule, Source, episodes_of, open_sources
from rlvr.verifiers import Task, UsageError, verifier

never = verifier(lambda completion, truth: False)


def _source(count: int, weight: float = 1.0) -> Source:
    tasks = [Task(id=str(i), prompt=f"p{i}", truth="") for i in range(count)]
    return Source("env", lambda: PromptEnv(tasks, never), weight)


def test_an_environment_is_read_with_its_options() -> None:
    choice = EnvChoice.parse("my.tasks:me/Task-v0 path='a b.jsonl' n=3 flag=true f=0.5 weight=2")
    assert choice.id == "my.tasks:me/Task-v0"
    assert choice.options == {"path": "a b.jsonl", "n": 3, "flag": True, "f": 0.5}
    assert choice.weight == 2.0


@pytest.mark.parametrize("text", ["", "   ", "id 'open", "id x", "id =3", "id weight=-1"])
def test_what_is_no_environment_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        EnvChoice.parse(text)


def test_an_epoch_poses_every_task_once_and_the_next_one_in_another_order() -> None:
    schedule = Schedule([_source(12)], seed=3)
    posed = [p.index for step in range(6) for p in schedule.step(step, 4)]
    assert sorted(posed[:12]) == sorted(posed[12:]) == list(range(12))  # type: ignore
    assert posed[:12] != posed[12:] != list(range(12))


def test_the_order_follows_from_seed_and_step() -> None:
    def walk(seed: int) -> list[object]:
        schedule = Schedule([_source(12), _source(5, 2.0)], seed)
        return [schedule.step(step, 4) for step in range(8)]

    assert walk(1) == walk(1)
    assert walk(1) != walk(2)


def test_a_walk_goes_on_from_its_cursors() -> None:
    sources = [_source(12), _source(5, 2.0)]
    whole, second = Schedule(sources, 1), Schedule(sources, 1)
    for step in range(4):
        whole.step(step, 4)
    second.cursors = list(whole.cursors)
    assert [whole.step(s, 4) for s in range(4, 9)] == [second.step(s, 4) for s in range(4, 9)]


def test_weights_decide_the_shares() -> None:
    schedule = Schedule([_source(10, 3.0), _source(10, 1.0)], 0)
    picks = [p.source for step in range(100) for p in schedule.step(step, 10)]
    # five standard errors of a share of 1/4 over 1,000 draws: 0.068
    assert abs(picks.count(1) / 1000 - 0.25) < 0.068


def test_a_group_shares_its_task_and_differs_in_its_seeds() -> None:
    sources = [_source(12)]
    prompts = Schedule(sources, 0).step(0, 3)
    episodes = episodes_of(sources, prompts, 4, [0, 5, 0])
    assert [e.group for e in episodes] == [0] * 4 + [1] * 4 + [2] * 4
    assert len({(e.group, e.index, e.env_seed) for e in episodes}) == 3
    assert len({e.seed for e in episodes}) == 12
    assert len({id(e.env) for e in episodes}) == 12
    others = episodes_of(sources, prompts, 4, [0, 5, 1])
    assert not {e.seed for e in episodes} & {e.seed for e in others}


def test_environments_are_opened_from_ids_objects_and_functions() -> None:
    tasks = [Task(id="a", prompt="p", truth="")]
    env = PromptEnv(tasks, never)
    for given in ("rlvr/GCD-v0 size=10", env, lambda: PromptEnv(tasks, never)):
        (source,) = open_sources([given])
        assert source.tasks
        assert len({id(e) for e in source.instances(3)}) == 3


def test_one_environment_that_cannot_be_copied_is_refused() -> None:
    import gymnasium

    env = gymnasium.make("rlvr.envs:rlvr/GCD-v0")
    with pytest.raises(UsageError, match="pass a function that makes it"):
        open_sources([env])


def test_the_split_is_asked_of_environments_that_have_one() -> None:
    (train,) = open_sources(["rlvr/GCD-v0 size=20"], split="train")
    (test,) = open_sources(["rlvr/GCD-v0 size=20"], split="test")
    assert train.tasks
    assert test.tasks
    assert not {t.prompt for t in train.tasks} & {t.prompt for t in test.tasks}
