"""Transforms of prompts, rewards and lengths: what they change, and what they leave alone."""

import math
from typing import Any

import pytest
from envs_harness import broken

from rlvr.envs import DialogueEnv, PromptEnv, Reply, make
from rlvr.envs.wrappers import (
    FewShot,
    FormatReward,
    Noise,
    ScaleReward,
    SystemPrompt,
    TimeLimit,
    TurnLimit,
)
from rlvr.verifiers import Task, UsageError, verifier

TASKS = [
    Task(id=f"t{i}", prompt=f"Digit {i}?", truth=str(i), solution=f"<a>{i}</a>") for i in range(6)
]
GOOD = "<think>x</think><answer>2</answer>"


@verifier
def same(completion: str, truth: Any) -> bool:
    """Whether the truth is in the completion."""
    return truth in completion


class Game(DialogueEnv[None]):
    """Pays a quarter a turn; "end" ends it and is followed by the last digit."""

    def answer(self, action: str, state: None) -> Reply:
        """Answer."""
        return Reply("go on", reward=0.25, done="end" in action)


def prompt_env(judge: Any = same, **options: Any) -> PromptEnv:
    return PromptEnv(TASKS, judge, **options)


def game(judge: Any = same, turns: int = 4) -> Game:
    return Game(TASKS, judge, turns=turns)


def played(env: Any, *actions: str, index: int = 2) -> list[Any]:
    env.reset(seed=0, options={"index": index})
    return [env.step(action) for action in actions]


# prompts


def test_a_system_prompt_stands_first_in_every_chat_that_is_shown() -> None:
    env = SystemPrompt(game(), "Be brief.")
    first = {"role": "system", "content": "Be brief."}
    _, info = env.reset(options={"index": 2})
    assert [m["role"] for m in info["messages"]] == ["system", "user"]
    assert info["messages"][0] == first
    *_, info = env.step("a")
    assert info["messages"] == [{"role": "user", "content": "go on"}]
    *_, info = env.step("end 2")
    roles = ["system", "user", "assistant", "user", "assistant", "user"]
    assert [m["role"] for m in info["messages"]] == roles
    assert info["messages"][0] == first


def test_a_new_message_that_repeats_the_prompt_is_not_taken_for_the_chat() -> None:
    class Echo(DialogueEnv[None]):
        """Asks the same again."""

        def answer(self, action: str, state: None) -> Reply:
            """Answer."""
            return Reply(self.task.prompt if self.task else "", done=False)  # pyright: ignore

    env = SystemPrompt(Echo(TASKS, same), "Be brief.")
    assert played(env, "a")[0][4]["messages"] == [{"role": "user", "content": "Digit 2?"}]


def test_a_second_system_message_is_refused_unless_it_replaces_the_first() -> None:
    inner = prompt_env(system="Be long.")
    with pytest.raises(UsageError, match=r"'t2' has a system message already: 'Be long.'"):
        SystemPrompt(inner, "Be brief.").reset(options={"index": 2})
    env = SystemPrompt(inner, "Be brief.", replace=True)
    info = env.reset(options={"index": 2})[1]
    assert [m["content"] for m in info["messages"]] == ["Be brief.", "Digit 2?"]
    assert [m["content"] for m in env.step("2")[4]["messages"]] == ["Be brief.", "Digit 2?", "2"]


def test_examples_are_the_same_for_the_same_task_and_never_its_own() -> None:
    one, other = FewShot(prompt_env(), 3), FewShot(prompt_env(), 3)
    seen = set()
    for index in range(len(TASKS)):
        messages = one.reset(options={"index": index})[1]["messages"]
        assert messages == other.reset(seed=9, options={"index": index})[1]["messages"]
        contents = [message["content"] for message in messages]
        assert contents.count(f"Digit {index}?") == 1
        assert contents[-1] == f"Digit {index}?"
        assert f"<a>{index}</a>" not in contents
        assert len(set(contents)) == len(contents) == 7
        seen.add(tuple(contents[:-1]))
    assert len(seen) > 1
    again = FewShot(prompt_env(), 3, seed=1)
    chats = [again.reset(options={"index": i})[1]["messages"] for i in range(len(TASKS))]
    assert {tuple(m["content"] for m in chat[:-1]) for chat in chats} != seen


def test_an_example_that_is_the_question_itself_is_left_out() -> None:
    env = FewShot(prompt_env(), [("Digit 2?", "two"), TASKS[3]])
    contents = [m["content"] for m in env.reset(options={"index": 2})[1]["messages"]]
    assert contents == ["Digit 3?", "<a>3</a>", "Digit 2?"]


def test_examples_stand_behind_the_system_message_and_use_the_prompts_template() -> None:
    env = FewShot(prompt_env(system="S", template="Q: {prompt}"), 1)
    messages = env.reset(options={"index": 2})[1]["messages"]
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user"]
    assert messages[1]["content"].startswith("Q: Digit ")


def test_too_few_solutions_are_named() -> None:
    tasks = [Task(id="a", prompt="a", truth="a"), Task(id="b", prompt="b", truth="b", solution="b")]
    env = FewShot(PromptEnv(tasks, same), 1)
    assert env.reset(options={"index": 0})[1]["messages"][0]["content"] == "b"
    with pytest.raises(UsageError, match="0 different ones with a solution among them, 1 wanted"):
        env.reset(options={"index": 1})


@pytest.mark.parametrize("examples", [0, True, [], [("a", "")], [("a",)], ["ab"], [TASKS[0], 3]])
def test_examples_that_are_none_are_refused(examples: Any) -> None:
    with pytest.raises(UsageError, match="example"):
        FewShot(prompt_env(), examples)


# rewards


def test_the_form_adds_its_weight_to_the_reward_and_a_part_to_the_verdict() -> None:
    env = FormatReward(prompt_env(), weight=0.5)
    _, reward, _, _, info = played(env, GOOD)[0]
    assert (reward, info["format"]) == (1.5, 1.0)
    assert info["verdict"]["parts"] == {"format": 1.0}
    assert (info["verdict"]["reward"], info["verdict"]["status"]) == (1.5, "correct")
    _, reward, _, _, info = played(env, "2")[0]
    assert (reward, info["format"], info["verdict"]["reward"]) == (1.0, 0.0, 1.0)
    _, reward, _, _, info = played(env, GOOD, index=3)[0]
    assert (reward, info["verdict"]["status"]) == (0.5, "wrong")


def test_more_turns_do_not_earn_more_form() -> None:
    env = FormatReward(game(), weight=0.5, turns="all")
    steps = played(env, GOOD, "a", GOOD, "end 2")
    # 0.25 a turn; 2 of 4 completions have the form: 0.5·2/4 = 0.25; the verdict's 1
    assert [step[1] for step in steps] == [0.25, 0.25, 0.25, 0.25 + 0.25 + 1.0]
    assert steps[-1][4]["format"] == 0.5
    steps = played(FormatReward(game(), weight=0.5), GOOD, "a", GOOD, "end 2")
    assert steps[-1][1] == 0.25 + 0.0 + 1.0


def test_a_truncated_episode_is_paid_for_its_form() -> None:
    env = FormatReward(game(turns=2), weight=0.5)
    _, reward, terminated, truncated, info = played(env, "a", GOOD)[-1]
    assert (reward, terminated, truncated) == (0.25 + 0.5, False, True)
    assert info["verdict"]["status"] == "unparsed"


def test_an_unscored_reward_or_form_leaves_the_episode_unscored() -> None:
    _, reward, _, _, info = played(FormatReward(prompt_env(broken)), GOOD)[0]
    assert math.isnan(reward)
    assert (info["unscored"], info["verdict"]["status"]) == (True, "error")
    assert info["verdict"]["parts"] == {"format": 1.0}
    _, reward, _, _, info = played(FormatReward(prompt_env(), broken), "2")[0]
    assert math.isnan(reward)
    assert (info["unscored"], info["format"], info["verdict"]["reward"]) == (True, None, None)
    _, reward, _, _, info = played(FormatReward(prompt_env(), broken, weight=0), "2")[0]
    assert (reward, info["verdict"]["status"], info["format"]) == (1.0, "correct", None)


def test_a_scale_and_a_shift_act_on_the_return_however_many_turns_it_took() -> None:
    for actions in (["end 2"], ["a", "end 2"], ["a", "a", "end 2"]):
        plain = sum(step[1] for step in played(game(), *actions))
        steps = played(ScaleReward(game(), 3.0, shift=-0.5), *actions)
        assert sum(step[1] for step in steps) == pytest.approx(3 * plain - 0.5)
    assert math.isnan(played(ScaleReward(prompt_env(broken), 2.0), "2")[0][1])


def test_noise_turns_verdicts_around_at_its_rates() -> None:
    env = Noise(prompt_env(), false_positive=0.25, false_negative=0.5, seed=3)
    wrong = [played(env, f"x{i}".replace("2", "two"))[0] for i in range(400)]
    right = [played(env, f"2 {i}")[0] for i in range(400)]
    # 4 standard deviations: 4·√(p(1−p)/400) is 0.087 at a quarter and 0.1 at a half
    assert abs(sum(step[1] for step in wrong) / 400 - 0.25) < 0.09
    assert abs(sum(step[1] for step in right) / 400 - 0.5) < 0.1
    for _, reward, _, _, info in wrong + right:
        assert info["verdict"]["reward"] == reward
        assert info["verdict"]["status"] == ("correct" if reward else "wrong")
        turned = info["noise"] != ""
        assert ("true_reward" in info["verdict"]["evidence"]) == turned


def test_noise_repeats_itself_for_the_same_answer_and_differs_between_seeds() -> None:
    answers = [f"x{i}" for i in range(60)]

    def noise(seed: int) -> list[float]:
        env = Noise(prompt_env(), false_positive=0.5, seed=seed)
        return [played(env, answer)[0][1] for answer in answers]

    assert noise(1) == noise(1)
    assert noise(1) != noise(2)


def test_noise_leaves_turn_rewards_and_unscored_episodes_alone() -> None:
    steps = played(Noise(game(), false_positive=1.0, false_negative=1.0), "a", "end 2")
    assert [step[1] for step in steps] == [0.25, 0.25 + 0.0]
    assert steps[-1][4]["noise"] == "false_negative"
    steps = played(Noise(game(turns=2), false_positive=1.0), "a", "a")
    assert [step[1] for step in steps] == [0.25, 0.25 + 1.0]
    step = played(Noise(prompt_env(broken), false_positive=1.0), "2")[0]
    assert math.isnan(step[1])
    assert step[4]["verdict"]["status"] == "error"


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda env: SystemPrompt(env, ""), "not empty"),
        (lambda env: FormatReward(env, weight=math.inf), "weight must be a number"),
        (lambda env: FormatReward(env, turns="some"), "no turns 'some'"),
        (lambda env: FormatReward(env, "formt"), "did you mean 'format'"),
        (lambda env: ScaleReward(env, math.nan), "scale must be a number"),
        (lambda env: ScaleReward(env, 1.0, shift="1"), "shift must be a number"),  # pyright: ignore
        (lambda env: Noise(env, false_positive=1.5), r"false_positive must be in \[0, 1\]"),
        (lambda env: Noise(env, false_negative=math.nan), r"false_negative must be in \[0, 1\]"),
        (lambda env: Noise(env, seed=0.5), "seed must be an integer"),  # pyright: ignore
        (lambda env: TurnLimit(env, 0), "turns must be an integer from 1 up"),
        (lambda env: TimeLimit(env), "needs episode= or step="),
        (lambda env: TimeLimit(env, episode=0), "episode must be a number of seconds above 0"),
        (lambda env: FewShot(env, 1, seed=-1), "seed must be an integer from 0 up"),
    ],
)
def test_settings_out_of_range_are_refused(build: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        build(prompt_env())


# limits


def test_a_turn_limit_truncates_and_releases_the_episode() -> None:
    inner = game(turns=9)
    steps = played(TurnLimit(inner, 2), "a", "a")
    assert [step[2:4] for step in steps] == [(False, False), (False, True)]
    assert not inner.running
    assert played(TurnLimit(game(), 2), "a", "end 2")[-1][2:4] == (True, False)


def test_a_time_limit_looks_at_the_clock_after_each_step() -> None:
    now = [0.0]
    env = TimeLimit(game(), episode=10.0, clock=lambda: now[0])
    env.reset(options={"index": 2})
    now[0] = 9.0
    assert env.step("a")[3] is False
    now[0] = 10.5
    _, reward, terminated, truncated, info = env.step("a")
    assert (reward, terminated, truncated, info["time_limit"]) == (0.25, False, True, "episode")
    env.reset(options={"index": 2})
    assert env.step("a")[3] is False


def test_a_slow_step_is_cut_by_its_own_limit() -> None:
    now = [0.0]

    class Slow(Game):
        """Takes two seconds a turn."""

        def answer(self, action: str, state: None) -> Reply:
            """Answer."""
            now[0] += 2.0
            return super().answer(action, state)

    env = TimeLimit(Slow(TASKS, same), step=1.5, clock=lambda: now[0])
    _, _, terminated, truncated, info = played(env, "a")[0]
    assert (terminated, truncated, info["time_limit"]) == (False, True, "step")
    assert played(TimeLimit(Slow(TASKS, same), step=2.5, clock=lambda: now[0]), "a")[0][3] is False


def test_the_policys_time_counts_for_the_episode_and_a_branch_does_not_pay_twice() -> None:
    now = [0.0]
    env = TimeLimit(game(), episode=10.0, clock=lambda: now[0])
    env.reset(options={"index": 2})
    now[0] = 4.0
    env.step("a")
    taken = env.snapshot()
    now[0] = 100.0
    env.restore(taken)
    now[0] = 105.0
    assert env.step("a")[3] is False
    now[0] = 107.0
    assert env.step("a")[3] is True


def test_transforms_go_over_what_make_returns() -> None:
    env = SystemPrompt(make("rlvr/Arithmetic-v0", digits=1), "Add.")
    messages = env.reset(options={"index": 0})[1]["messages"]
    assert [message["content"] for message in messages] == ["Add.", "5 + 2 = ?"]
    assert env.step("7")[1] == 1.0
