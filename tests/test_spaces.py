"""The space of texts: membership, samples, and the batches that gymnasium makes of it."""

import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Tuple
from gymnasium.vector.utils import (
    batch_differing_spaces,
    batch_space,
    concatenate,
    create_empty_array,
    create_shared_memory,
    iterate,
)
from hypothesis import given
from hypothesis import strategies as st

from rlvr.envs import AnyText
from rlvr.verifiers import UsageError


@given(st.text())
def test_every_unicode_text_is_inside(text: str) -> None:
    assert text in AnyText()


@pytest.mark.parametrize(
    "outside", [None, 7, b"bytes", ["a"], "\ud800", "ok \udfff", np.array("a")]
)
def test_what_is_no_text_is_outside(outside: object) -> None:
    assert outside not in AnyText()


def test_length_counts_characters_up_to_the_limit() -> None:
    space = AnyText(max_length=2)
    assert "" in space
    assert "½½" in space
    assert "abc" not in space


def test_samples_are_inside_and_follow_the_seed() -> None:
    first, second = AnyText(seed=3), AnyText(seed=3)
    samples = [first.sample() for _ in range(300)]
    assert all(sample in first for sample in samples)
    assert samples == [second.sample() for _ in range(300)]
    assert samples != [AnyText(seed=4).sample() for _ in range(300)]
    assert "" in samples
    assert any(ord(character) > 0xFFFF for sample in samples for character in sample)


def test_samples_keep_the_limit() -> None:
    space = AnyText(max_length=1, seed=0)
    assert {len(space.sample()) for _ in range(50)} == {0, 1}


def test_equality_is_the_limits_and_survives_pickling() -> None:
    assert AnyText() == AnyText()
    assert AnyText(3) != AnyText()
    assert AnyText() != gymnasium.spaces.Text(3)
    assert pickle.loads(pickle.dumps(AnyText(3))) == AnyText(3)
    assert {AnyText(3), AnyText(3)} == {AnyText(3)}


def test_repr_is_short() -> None:
    assert repr(AnyText()) == "AnyText()"
    assert repr(AnyText(5)) == "AnyText(max_length=5)"


def test_json_round_trip_returns_the_same_texts() -> None:
    space = AnyText()
    texts = ["", "½", "a\nb"]
    assert space.from_jsonable(space.to_jsonable(texts)) == texts
    with pytest.raises(UsageError, match="expected texts"):
        space.from_jsonable(["a", 1])


@pytest.mark.parametrize("limit", [-1, 2.5, "3"])
def test_a_limit_that_is_no_length_is_refused(limit: object) -> None:
    with pytest.raises(UsageError, match="max_length must be None or an integer from 0 up"):
        AnyText(limit)  # pyright: ignore


def test_masks_are_refused() -> None:
    with pytest.raises(UsageError, match="neither mask nor probability"):
        AnyText().sample(mask="a")


def test_batches_are_tuples_of_texts() -> None:
    space = AnyText()
    batch = batch_space(space, 2)
    assert isinstance(batch, Tuple)
    assert ("a", "½") in batch
    assert list(iterate(batch, ("a", "bcd"))) == ["a", "bcd"]
    empty = create_empty_array(space, 2, fn=np.zeros)
    assert concatenate(space, ("a", "a longer one"), empty) == ("a", "a longer one")


def test_texts_of_different_limits_batch_too() -> None:
    batch = batch_differing_spaces([AnyText(1), AnyText(5)])
    assert ("a", "abcde") in batch
    assert ("ab", "abcde") not in batch


def test_shared_memory_is_refused_with_the_way_out() -> None:
    with pytest.raises(gymnasium.error.CustomSpaceError, match="shared_memory=False"):
        create_shared_memory(AnyText(), 2)
