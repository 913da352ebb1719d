"""Rewards within episodes: turns, and spans of characters mapped to tokens."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlvr.agents import Trajectory, Turn
from rlvr.agents.embedded import byte_tokenizer
from rlvr.agents.spans import Span, spans_of, token_spans, token_starts
from rlvr.agents.types import StopReason
from rlvr.rl_core.algorithms import algorithm
from rlvr.rl_core.batch import parts_of
from rlvr.rl_core.config import OptimizerConfig
from rlvr.rl_core.learner import Learner
from rlvr.rl_core.process import process_rewards
from rlvr.verifiers import TaskError

TOKENIZER = byte_tokenizer()


def _decode(ids: Any) -> str:
    return str(TOKENIZER.decode(ids, skip_special_tokens=False))


@given(text=st.text(alphabet="ab é€😀\n", max_size=12))
def test_every_character_begins_at_the_token_that_says_so(text: str) -> None:
    ids = TOKENIZER(text)["input_ids"]
    starts = token_starts(_decode, ids)
    assert starts == sorted(starts)
    place = 0
    for at, char in enumerate(text):  # a character is as many tokens as it has bytes
        assert starts[place] == at
        place += len(char.encode())
    assert place == len(ids)


def test_a_last_character_that_was_cut_off_stands_where_it_would() -> None:
    ids = TOKENIZER("a😀")["input_ids"][:3]
    assert token_starts(_decode, ids) == [0, 1, 1]


def test_the_tokens_of_a_span_are_those_that_begin_in_it() -> None:
    spans = [Span(start=0, end=3, reward=1.0), Span(start=4, end=6, reward=2.0)]
    assert token_spans([0, 1, 3, 4, 6], spans) == ([0, 0, -1, 1, 1], [1.0, 2.0])


def test_a_span_inside_one_token_is_paid_all_the_same() -> None:
    spans = [Span(start=i, end=i + 1, reward=float(i + 1)) for i in range(3)]
    assert token_spans([0, 2], spans) == ([0, 1], [3.0, 3.0])
    assert token_spans([0], spans) == ([0], [6.0])
    late = [Span(start=1, end=2, reward=1.0), Span(start=2, end=3, reward=2.0)]
    assert token_spans([0], late) == ([0], [3.0])
    assert token_spans([0, 2], late) == ([-1, 0], [3.0])


@pytest.mark.parametrize(
    "spans",
    [
        [[0, 2]],
        [["a", 2, 1]],
        [[2, 2, 1.0]],
        [[0, 9, 1.0]],
        [[-1, 2, 1.0]],
        [[0, 3, 1.0], [2, 4, 1.0]],
        [[2, 3, 1.0], [0, 1, 1.0]],
        [[0, 2, math.nan]],
        [[0, 2, math.inf]],
        [None],
        "ab",
    ],
)
def test_spans_that_do_not_fit_the_completion_are_refused(spans: Any) -> None:
    with pytest.raises(TaskError, match="span"):
        spans_of({"spans": spans}, 5)


def test_a_verdict_without_spans_has_none() -> None:
    assert spans_of({"evidence": {}}, 5) == []
    assert spans_of({}, 5) == []


def _two_turns(group: int, rewards: tuple[float, float], middle: int = 50) -> Trajectory:
    """Prompt 2, turn of 2, environment 1 token, turn of 3."""
    return Trajectory(
        env="e", task_id="t", group=group, seed=0,
        tokens=[9, 10, 20, 21, middle, 30, 31, 32],
        trained=[False] * 2 + [True] * 2 + [False] + [True] * 3,
        logprobs=[0.0] * 2 + [-1.0] * 2 + [0.0] + [-1.0] * 3,
        turns=[
            Turn(start=2, end=4, reward=rewards[0], stop_reason=StopReason.EOS),
            Turn(start=5, end=8, reward=rewards[1], stop_reason=StopReason.EOS),
        ],
        messages=[{"role": "assistant", "content": "abc"}],
        reward=sum(rewards),
    )  # fmt: skip


def test_each_turn_is_paid_at_its_last_token() -> None:
    found = process_rewards([_two_turns(0, (0.5, 1.0))], [2], 7, None)
    assert found.token_rewards.tolist() == [[0, 0.5, 0, 0, 0, 1.0, 0]]
    assert found.spans.tolist() == [[0, 0, -1, 1, 1, 1, -1]]


def test_turns_at_the_same_state_of_a_group_share_their_anchor() -> None:
    episodes = [_two_turns(0, (0, 1)), _two_turns(0, (0, 0)), _two_turns(0, (0, 0), 51)]
    episodes.append(_two_turns(1, (0, 1)))
    anchors = process_rewards(episodes, [2] * 4, 6, None).anchors
    assert (anchors[:3, 0] == anchors[0, 0]).all()
    assert anchors[0, 3] == anchors[1, 3] != anchors[2, 3]
    assert anchors[3, 0] != anchors[0, 0]  # another prompt, another state
    assert anchors[3, 3] != anchors[0, 3]
    assert anchors[0].tolist() == [anchors[0, 0]] * 2 + [-1] + [anchors[0, 3]] * 3


def test_spans_of_a_verdict_take_the_last_turns_place() -> None:
    episode = _two_turns(0, (0.5, 1.0))
    letters = TOKENIZER("abc")["input_ids"]
    episode.tokens[5:] = letters
    episode.verdict = {"evidence": {"spans": [[0, 1, 0.25], [1, 3, -1.0]]}}
    found = process_rewards([episode], [2], 6, _decode)
    assert found.spans.tolist() == [[0, 0, -1, 1, 2, 2]]
    assert found.token_rewards.tolist() == [[0, 0.5, 0, 0.25, 0, -1.0]]
    with pytest.raises(TaskError, match="tokenizer"):
        process_rewards([episode], [2], 6, None)


def test_an_unscored_episode_is_paid_nothing() -> None:
    episode = _two_turns(0, (0.5, 1.0))
    episode.scored, episode.verdict = False, {"spans": [[0, 99, 1.0]]}
    assert not process_rewards([episode], [2], 6, None).token_rewards.any()


def test_a_part_that_a_verdict_lacks_added_nothing() -> None:
    verdicts: list[dict[str, Any]] = [
        {"parts": {"b": 0.5, "a": 1.0}}, {"parts": {"a": None}}, {}]  # fmt: skip
    episodes = []
    for verdict in verdicts:
        episodes.append(_two_turns(0, (0.0, 0.0)))
        episodes[-1].verdict = verdict
    parts = parts_of(episodes)
    assert parts is not None
    assert parts.tolist() == [[1.0, 0.5], [0.0, 0.0], [0.0, 0.0]]
    assert parts_of(episodes[2:]) is None


@pytest.mark.parametrize("name", ["grpo-process", "gigpo", "vpg-rtg", "rloo", "ppo"])
def test_bandit_and_token_rows_train_on_turns_and_never_on_observations(
    tiny: tuple[Any, Any], name: str, sample: Callable[..., list[Trajectory]]
) -> None:
    paid = [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1.0, 1.0)]
    episodes = [_two_turns(0, p) for p in paid]
    gradients = []
    for observation in (0, 1):
        learner = Learner(
            copy.deepcopy(tiny[0]).double(),
            algorithm(name, **({"beta": 0} if name in ("grpo-process", "rloo", "ppo") else {})),
            OptimizerConfig(lr=1e-3, max_grad_norm=1e9),
            vocabulary=len(tiny[1]),
            temperature=1.0,
            max_tokens=8,
            decode=_decode,
        )
        for t in episodes:  # what the sampler is said to have thought of an observation
            t.logprobs[4] = float(observation)
        learner.update(episodes, 9)
        work = learner.last
        assert work is not None
        assert not work.found.values[:, 2].any()
        assert work.found.values[:, 3:6].any()
        gradients.append([p.grad for p in learner.parameters if p.grad is not None])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_steps_are_credited_with_what_ends_after_them(tiny: tuple[Any, Any]) -> None:
    # Steps of the group: 1, 0 | 0, 1; mean ½, unbiased std √(1/3) = 0.57735; ±½/0.57735 = ±0.86603
    # (ε = 1e-4: 0.86588). Credit of turn 1 is the sum of both, of turn 2 its own.
    learner = Learner(
        copy.deepcopy(tiny[0]),
        algorithm("grpo-process", beta=0),
        OptimizerConfig(),
        vocabulary=len(tiny[1]),
        temperature=1.0,
        max_tokens=8,
    )
    learner.update([_two_turns(0, (1.0, 0.0)), _two_turns(0, (0.0, 1.0))], 0)
    assert learner.last is not None
    values = learner.last.found.values
    assert values[0].tolist() == pytest.approx([0, 0, 0, *[-0.86588] * 3], abs=1e-4)
    assert values[1].tolist() == pytest.approx([0, 0, 0, *[0.86588] * 3], abs=1e-4)
