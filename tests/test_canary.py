"""The canary, on engines that are copies of the learner's model with something wrong with them."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from rlvr.agents.canary import Canary
from rlvr.rl_core.algorithms import algorithm
from rlvr.rl_core.config import OptimizerConfig
from rlvr.rl_core.learner import Learner
from rlvr.verifiers import TrainingStopped


class Twin:
    """Weights of its own, that are asked as an engine's are."""

    def __init__(self, model: Any, drift: float = 0.0) -> None:
        self.model, self.drift = copy.deepcopy(model), drift

    def _logprobs(self, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
        with torch.inference_mode():
            return self.model(torch.tensor(sequences)).logits.double().log_softmax(-1)

    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        tokens = torch.tensor(sequences)[:, 1:, None]
        found = self._logprobs(sequences)[:, :-1].gather(2, tokens)[:, :, 0]
        return (found + self.drift).tolist()

    def resume(
        self, prompts: Sequence[Sequence[int]], count: int
    ) -> list[tuple[list[int], list[float]]]:
        rows, values = [list(prompt) for prompt in prompts], [[] for _ in prompts]
        for _ in range(count):
            best = self._logprobs(rows)[:, -1].max(-1)
            for row, value, token, logprob in zip(
                rows, values, best.indices.tolist(), best.values.tolist(), strict=True
            ):
                row.append(token)
                value.append(logprob)
        return [(row[-count:], value) for row, value in zip(rows, values, strict=True)]


class Several:
    """An engine of several copies."""

    version = 0

    def __init__(self, **parts: Twin) -> None:
        self.parts = parts

    def copies(self) -> dict[str, Twin]:
        return self.parts


def _move(model: Any, size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(size * torch.randn(weight.shape, generator=generator))


def _canary(tiny: tuple[Any, Any]) -> tuple[Any, Canary]:
    model = copy.deepcopy(tiny[0])
    return model, Canary(model, context=256, vocabulary=model.config.vocab_size)


def test_every_copy_is_compared_with_the_learner_and_the_furthest_is_told(
    tiny: tuple[Any, Any],
) -> None:
    model, canary = _canary(tiny)
    engine: Any = Several(near=Twin(model), far=Twin(model, drift=5e-5))
    found = canary.check(engine, 0)
    assert found.where == "far"
    assert found.gap == pytest.approx(5e-5, rel=0.1)
    engine.parts["far"].drift = 0.5
    with pytest.raises(TrainingStopped, match=r"far and the learner differ by 0\.5 nats"):
        canary.check(engine, 0)


def test_a_gap_names_a_head_that_was_not_sent_and_one_of_another_size(
    tiny: tuple[Any, Any],
) -> None:
    model, canary = _canary(tiny)
    engine: Any = Several(one=Twin(model, drift=-0.01))
    size = model.config.vocab_size
    with pytest.raises(
        TrainingStopped, match=rf"tied to the embeddings .* another number of tokens .*{size}"
    ):
        canary.check(engine, 0)


@pytest.mark.parametrize("size", [1e-2, 1e-4])
def test_the_copy_that_an_update_did_not_reach_is_named(tiny: tuple[Any, Any], size: float) -> None:
    model, canary = _canary(tiny)
    reached, stale = Twin(model), Twin(model)
    engine: Any = Several(reached=reached, stale=stale)
    canary.check(engine, 0)
    _move(model, size)
    reached.model.load_state_dict(model.state_dict())
    with pytest.raises(TrainingStopped, match="0% arrived there: stale has not the new weights"):
        canary.check(engine, 0)


def test_a_sync_that_was_left_out_is_caught_by_its_number(tiny: tuple[Any, Any]) -> None:
    model, canary = _canary(tiny)
    engine: Any = Several(one=Twin(model))
    with pytest.raises(TrainingStopped, match=r"of update 0, .* of update 1: a sync was left out"):
        canary.check(engine, 1)


def test_mean_and_tail_of_the_mismatch_on_rollouts_are_in_the_metrics(
    tiny: tuple[Any, Any], sample: Callable[..., list[Any]]
) -> None:
    episodes = sample(groups=4, size=4)
    tokens = sum(episode.length for episode in episodes)
    assert 100 > tokens > 40  # so that the greatest of the gaps is its 99th percentile, too
    for number, episode in enumerate(episodes):
        episode.reward = 1.0 + number  # each row has a gradient, and so a pass of the learner
    episodes[3].logprobs[-1] -= 2.0
    learner = Learner(
        copy.deepcopy(tiny[0]),
        algorithm("vpg"),
        OptimizerConfig(lr=1e-3),
        vocabulary=len(tiny[1]),
        temperature=1.0,
        max_tokens=8,
    )
    found = learner.update(episodes, 0)
    assert found["mismatch"] == pytest.approx(2.0 / tokens, rel=1e-3)
    assert found["mismatch_max"] == pytest.approx(2.0, rel=1e-4)
    assert found["mismatch_p99"] == pytest.approx(2.0, rel=1e-4)
