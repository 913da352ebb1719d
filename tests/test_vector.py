"""Text environments side by side: pace, order, errors, resets, and gymnasium's own conventions."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from rlvr.envs import AnyText, PromptEnv, TextVectorEnv, vector
from rlvr.envs.batching import batch_infos
from rlvr.verifiers import Task, UsageError, WorkerError, verifier

TASKS = [Task(id=f"t{i}", prompt=f"{i}?", truth=str(i)) for i in range(20)]
GATE = threading.Event()


@verifier
def same(completion: str, truth: Any) -> bool:
    """Whether the completion is the truth; waits for the gate if told to."""
    if completion == "wait":
        GATE.wait(10)
    return completion == truth


class Chat(gymnasium.Env[str, str]):
    """Says `"1"`, `"2"`, … and ends when it is told `"end"`; fails when told `"fail"`."""

    def __init__(self) -> None:
        """Set the spaces."""
        self.observation_space = AnyText()
        self.action_space = AnyText()
        self.turn = 0
        self.busy = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin."""
        super().reset(seed=seed)
        self.turn = 0
        return "begin", {"options": options}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Count a turn."""
        assert not self.busy
        self.busy = True
        if action == "wait":
            GATE.wait(10)
        self.busy = False
        if action == "fail":
            raise RuntimeError("told to")
        if action == "exit":
            raise SystemExit(1)
        self.turn += 1
        end = action == "end"
        return str(self.turn), float(end), end, False, {"turn": self.turn}


def chats(count: int, **options: Any) -> TextVectorEnv:
    return TextVectorEnv([Chat] * count, **options)


def prompts(count: int, **options: Any) -> TextVectorEnv:
    return TextVectorEnv([lambda: PromptEnv(TASKS, same)] * count, **options)


@pytest.fixture(autouse=True)
def gate() -> None:
    GATE.clear()


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_step_answers_in_the_order_of_the_environments(threads: int) -> None:
    envs = prompts(4, threads=threads)
    texts, infos = envs.reset(options={"index": [3, 1, 4, 1]})
    assert texts == ("3?", "1?", "4?", "1?")
    assert infos["task_id"].tolist() == ["t3", "t1", "t4", "t1"]
    texts, rewards, terminated, truncated, infos = envs.step(["3", "no", "4", "1"])
    assert texts == ("", "", "", "")
    assert rewards.tolist() == [1.0, 0.0, 1.0, 1.0]
    assert terminated.tolist() == [True] * 4
    assert truncated.tolist() == [False] * 4
    assert [verdict["status"] for verdict in infos["verdict"]] == [
        "correct", "wrong", "correct", "correct"
    ]  # fmt: skip
    envs.close()


def test_a_fast_environment_does_not_wait_for_a_slow_one() -> None:
    envs = chats(3)
    envs.reset()
    envs.send([0, 1, 2], ["wait", "go", "go"])
    quick = envs.recv(2)
    assert [one.id for one in quick] == [1, 2]
    envs.send([2], ["end"])
    assert [(one.id, one.terminated, one.reward) for one in envs.recv(1)] == [(2, True, 1.0)]
    GATE.set()
    assert [(one.id, one.observation) for one in envs.recv(1)] == [(0, "1")]
    envs.close()


def test_recv_returns_what_is_there_after_its_timeout() -> None:
    envs = chats(2)
    envs.reset()
    envs.send([0, 1], ["wait", "go"])
    assert [one.id for one in envs.recv(2, timeout=0.3)] == [1]
    GATE.set()
    assert [one.id for one in envs.recv(1)] == [0]
    assert envs.recv(0) == []
    envs.close()


def test_an_environment_takes_one_action_at_a_time() -> None:
    envs = chats(2, threads=4)
    envs.reset()
    envs.send([0], ["wait"])
    with pytest.raises(UsageError, match=r"cannot send to the environments \[0\]: recv"):
        envs.send([0], ["go"])
    with pytest.raises(UsageError, match=r"cannot reset the environments \[0\]"):
        envs.reset()
    envs.reset(options={"reset_mask": np.array([False, True])})
    GATE.set()
    envs.recv(1)
    envs.close()


def test_waiting_for_more_than_can_come_is_refused_instead_of_hanging() -> None:
    envs = chats(2)
    envs.reset()
    with pytest.raises(UsageError, match=r"recv\(1\) would wait for ever: 0 environments"):
        envs.recv()
    envs.send([1], ["go"])
    with pytest.raises(UsageError, match=r"recv\(2\) would wait for ever"):
        envs.recv(2)
    assert len(envs.recv(1)) == 1
    envs.close()


@pytest.mark.parametrize(
    ("ids", "actions", "message"),
    [
        ([0, 0], ["a", "b"], "must be different numbers from 0 to 1"),
        ([2], ["a"], "must be different numbers from 0 to 1"),
        ([-1], ["a"], "must be different numbers"),
        ([0], ["a", "b"], "got 2 actions for 1"),
        ([0, 1], "ab", "got one text for 2"),
    ],
)
def test_send_refuses_what_does_not_fit(
    ids: list[int], actions: Sequence[str], message: str
) -> None:
    envs = chats(2)
    envs.reset()
    with pytest.raises(UsageError, match=message):
        envs.send(ids, actions)
    assert envs.step(["a", "b"])[0] == ("1", "1")
    envs.close()


def test_a_finished_episode_must_be_reset_and_can_be_alone() -> None:
    envs = chats(3)
    envs.reset()
    envs.step(["go", "end", "go"])
    with pytest.raises(UsageError, match=r"no episode is running in the environments \[1\]"):
        envs.step(["go", "go", "go"])
    texts, infos = envs.reset(options={"reset_mask": np.array([False, True, False])})
    assert texts == ("1", "begin", "1")
    assert infos["_options"].tolist() == [False, True, False]
    assert envs.step(["go", "go", "go"])[0] == ("2", "1", "2")
    envs.close()


def test_same_step_begins_the_next_episode_and_keeps_the_last_words() -> None:
    envs = chats(2, autoreset_mode="SameStep")
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    envs.reset()
    texts, rewards, terminated, _, infos = envs.step(["go", "end"])
    assert texts == ("1", "begin")
    assert rewards.tolist() == [0.0, 1.0]
    assert terminated.tolist() == [False, True]
    assert infos["final_obs"].tolist() == [None, "1"]
    assert infos["_final_obs"].tolist() == [False, True]
    assert infos["final_info"]["turn"].tolist() == [0, 1]
    assert envs.step(["go", "go"])[0] == ("2", "1")
    envs.close()


def test_an_exception_names_its_environment_and_harms_no_other() -> None:
    envs = chats(3)
    envs.reset()
    with pytest.raises(RuntimeError, match="told to") as error:
        envs.step(["go", "fail", "go"])
    assert "environment 1 of" in error.value.__notes__[0]
    envs.reset(options={"reset_mask": np.array([False, True, False])})
    assert envs.step(["go", "go", "go"])[0] == ("2", "1", "2")
    envs.close()


def test_an_exception_in_recv_keeps_the_other_answers() -> None:
    envs = chats(3, threads=1)
    envs.reset()
    envs.send([0, 1, 2], ["go", "fail", "go"])
    with pytest.raises(RuntimeError):
        envs.recv(3)
    assert [one.id for one in envs.recv(2)] == [0, 2]
    envs.close()


def test_an_environment_that_exits_ends_neither_thread_nor_process() -> None:
    envs = chats(1)
    envs.reset()
    with pytest.raises(WorkerError, match="ended its thread"):
        envs.step(["exit"])
    envs.reset()
    assert envs.step(["go"])[0] == ("1",)
    envs.close()


def test_one_seed_gives_every_environment_its_own_and_neighbours_share_none() -> None:
    def drawn(seed: Any) -> list[Any]:
        envs = prompts(8)
        envs.reset(seed=seed)
        seeds = list(envs.get_attr("np_random_seed"))
        envs.close()
        return seeds

    assert drawn(42) == drawn(42)
    assert len(set(drawn(42))) == 8
    assert not set(drawn(42)) & set(drawn(43))
    assert drawn([7] * 8) == [7] * 8


def test_a_seed_list_gives_what_gymnasiums_own_vector_gives() -> None:
    seeds: list[int | None] = [5, 6, 5, 9]
    ours = prompts(4)
    theirs = SyncVectorEnv([lambda: PromptEnv(TASKS, same)] * 4, autoreset_mode="Disabled")
    (texts, infos), (their_texts, their_infos) = (e.reset(seed=seeds) for e in (ours, theirs))
    assert texts == their_texts
    for key, values in infos.items():
        assert type(values) is type(their_infos[key])
        assert values.tolist() == their_infos[key].tolist()
    ours.close()
    theirs.close()


def test_one_index_is_everyones_and_a_group_has_one_prompt() -> None:
    envs = prompts(3)
    assert envs.reset(options={"index": 5})[0] == ("5?",) * 3
    envs.close()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"options": {"index": [1, 2]}}, r"needs one value per environment \(3\), got 2"),
        ({"options": {"index": [0, 1, 99]}}, "must be an integer from 0 to 19"),
        ({"options": {"indx": [0]}}, "did you mean 'index'"),
        ({"seed": [1]}, "seed needs one value per environment"),
        ({"seed": -1}, "seed must be an integer from 0 up"),
        ({"options": {"reset_mask": np.zeros(3, dtype=bool)}}, "at least one True"),
        ({"options": {"reset_mask": np.ones(2, dtype=bool)}}, "length 3"),
        ({"options": {"reset_mask": np.ones(3)}}, "boolean array"),
    ],
)
def test_resets_refuse_what_does_not_fit(given: dict[str, Any], message: str) -> None:
    envs = prompts(3)
    envs.reset()
    with pytest.raises(UsageError, match=message):
        envs.reset(**given)
    envs.close()


def test_options_are_the_callers_and_stay_as_they_are() -> None:
    envs = prompts(2)
    options = {"index": [1, 2], "reset_mask": np.array([True, True])}
    envs.reset(options=options)
    assert list(options) == ["index", "reset_mask"]
    envs.close()


def test_close_ends_the_threads_and_can_be_repeated() -> None:
    envs = prompts(4, threads=3)
    envs.reset()
    threads = list(envs._pool.threads)
    assert 1 <= len(threads) <= 3
    envs.close()
    envs.close()
    assert not any(thread.is_alive() for thread in threads)
    with pytest.raises(UsageError, match="closed; make a new one"):
        envs.step(["a"] * 4)


def test_close_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector, "CLOSE_SECONDS", 0.2)
    envs = chats(2)
    envs.reset()
    envs.send([0, 1], ["wait", "go"])
    envs.recv(1)
    start = time.perf_counter()
    with pytest.raises(WorkerError, match=r"environments \[0\] did not answer"):
        envs.close()
    assert time.perf_counter() - start < 5
    GATE.set()


def test_threads_of_a_forgotten_environment_end() -> None:
    envs = chats(2)
    envs.reset()
    threads = list(envs._pool.threads)
    del envs
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TextVectorEnv([]), "num_envs of at least 1"),
        (lambda: chats(1, threads=-1), "threads must be"),
        (lambda: chats(1, autoreset_mode="NextStep"), "no autoreset mode 'NextStep'"),
    ],
)
def test_what_cannot_run_is_refused(make: Callable[[], TextVectorEnv], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_gymnasiums_vector_statistics_wrap_ours() -> None:
    envs = RecordEpisodeStatistics(prompts(2))
    envs.reset(options={"index": [1, 2]})
    infos = envs.step(["1", "no"])[4]
    assert infos["episode"]["r"].tolist() == [1.0, 0.0]
    assert infos["episode"]["l"].tolist() == [1, 1]
    envs.close()


def test_make_vec_makes_ours_with_its_options() -> None:
    envs = gymnasium.make_vec("rlvr/SortWords-v0", num_envs=3, count=3, threads=2)
    assert isinstance(envs, TextVectorEnv)
    assert envs.spec is not None
    assert envs.spec.id == "rlvr/SortWords-v0"
    assert envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    assert len({id(tasks) for tasks in envs.get_attr("tasks")}) == 1
    texts, infos = envs.reset(seed=1)
    assert texts in envs.observation_space
    answers = [envs.get_attr("tasks")[0][i].solution for i in infos["index"]]
    assert envs.step(answers)[1].tolist() == [1.0, 1.0, 1.0]
    envs.close()


def test_infos_of_different_kinds_batch_as_objects() -> None:
    batched = batch_infos({0: {"a": 1, "b": 10**30}, 1: {"a": "x", "b": 1}, 2: {"a": None}}, 4)
    assert batched["a"].tolist() == [1, "x", None, None]
    assert batched["b"].tolist() == [10**30, 1, None, None]
    assert batched["_a"].tolist() == [True, True, True, False]


def test_ctrl_c_in_the_callers_thread_is_not_swallowed() -> None:
    class Interrupted(Chat):
        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            if action == "stop":
                raise KeyboardInterrupt
            return super().step(action)

    envs = TextVectorEnv([Interrupted], threads=0)
    envs.reset()
    with pytest.raises(KeyboardInterrupt):
        envs.step(["stop"])
    assert envs.reset()[0] == ("begin",)
    envs.close()


def test_a_forked_copy_starts_threads_of_its_own() -> None:
    envs = chats(2)
    envs.reset()
    envs._pool.process = -1  # what a child process sees: another process's number
    envs._pool.threads.clear()
    assert envs.step(["go", "go"])[0] == ("1", "1")
    envs.close()
