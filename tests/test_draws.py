"""Drawing tokens: the generator, the inversion, the truncations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.agents import Sampling
from rlvr.agents.draws import Warp, draw, log_probabilities, uniforms
from rlvr.verifiers import UsageError

CPU = torch.device("cpu")


def _warp(rows: int = 1, **settings: float) -> Warp:
    return Warp.of([Sampling(**settings)] * rows, CPU)  # pyright: ignore


def _uniform(count: int, seed: int = 3) -> torch.Tensor:
    seeds = np.full(count, seed, np.uint64)
    return torch.from_numpy(uniforms(seeds, np.arange(count, dtype=np.uint64)))


def test_uniforms_are_those_of_splitmix64() -> None:
    # SplitMix64 seeded with mix(0) = 0: its first outputs are published as
    # e220a8397b1dcdaf, 6e789e6aa1b965f4, 06c45d188009454f; u = (output >> 11) / 2^53.
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    zero = np.zeros(3, np.uint64)
    # mix(0) = 0, so the stream of seed 0 starts at state 0.
    assert uniforms(zero, np.arange(3, dtype=np.uint64)).tolist() == [
        (value >> 11) * 2.0**-53 for value in published
    ]


def test_uniforms_are_uniform_and_uncorrelated() -> None:
    seeds = np.repeat(np.arange(200, dtype=np.uint64), 500)
    table = uniforms(seeds, np.tile(np.arange(500, dtype=np.uint64), 200)).reshape(200, 500)
    counts = np.histogram(table, bins=50, range=(0, 1))[0]
    expected = table.size / 50
    # chi-square with 49 degrees of freedom: its 0.9999 quantile is 94.
    assert ((counts - expected) ** 2 / expected).sum() < 94
    for other in (table[:, 1:] * table[:, :-1], table[1:] * table[:-1]):
        # mean of a product of independent uniforms is 1/4, standard deviation √(7/144)/√n.
        assert abs(other.mean() - 0.25) < 5 * np.sqrt(7 / 144 / other.size)


def test_draws_follow_the_distribution() -> None:
    p = torch.tensor([0.5, 0.2, 0.2, 0.1])
    count = 20_000
    tokens, logprobs, _, _ = draw(p.log().expand(count, 4), _warp(count), _uniform(count))
    shares = torch.bincount(tokens, minlength=4) / count
    # five standard errors of a share: 5·√(0.25/20000) = 0.0177
    assert (shares - p).abs().max() < 0.0177
    assert torch.allclose(logprobs, p.log()[tokens], atol=1e-6)


def test_a_token_without_probability_is_never_drawn() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]]).expand(4, 5)
    ends = torch.tensor([0.0, 0.5, 0.999999999, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits, _warp(4), ends)[0].tolist() == [1, 3, 3, 3]


def test_temperature_divides_the_logits() -> None:
    # logits (0, 2) at T = 2: p = 1/(1 + e), e/(1 + e)
    found = log_probabilities(torch.tensor([[0.0, 2.0]]), _warp(temperature=2.0))
    assert found.exp()[0].tolist() == pytest.approx([1 / (1 + np.e), np.e / (1 + np.e)])


def test_temperature_zero_takes_the_most_likely_token_with_probability_one() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    token, logprob, _, _ = draw(logits, _warp(temperature=0.0), _uniform(1))
    assert (token.item(), logprob.item()) == (1, 0.0)


@pytest.mark.parametrize(
    ("setting", "kept"),
    [
        ({"top_k": 2}, [0, 1]),
        ({"top_k": 1}, [0]),
        # p = .4, .3, .2, .1: the first two sum to .7 ≥ .6; the first alone to .4 < .6
        ({"top_p": 0.6}, [0, 1]),
        ({"top_p": 0.75}, [0, 1, 2]),
        # at least half of .4: .3 and .2 stay
        ({"min_p": 0.49}, [0, 1, 2]),
        ({"min_p": 0.6}, [0, 1]),
        # top-k leaves .4, .3, renormalised .571, .429; top-p .5 is then met by the first
        ({"top_k": 2, "top_p": 0.5}, [0]),
        ({"top_p": 1.0, "top_k": 0, "min_p": 0.0}, [0, 1, 2, 3]),
    ],
)
def test_truncation_keeps_the_right_tokens_and_renormalises(
    setting: dict[str, float], kept: list[int]
) -> None:
    p = torch.tensor([0.4, 0.3, 0.2, 0.1])
    found = log_probabilities(p.log()[None], _warp(**setting))[0].exp()
    expected = torch.zeros(4)
    expected[kept] = p[kept] / p[kept].sum()
    assert torch.allclose(found, expected, atol=1e-6)


@given(
    seed=st.integers(0, 2**32),
    top_k=st.integers(0, 9),
    top_p=st.floats(0.05, 1.0),
    min_p=st.floats(0.0, 0.9),
    temperature=st.floats(0.1, 3.0),
)
@settings(max_examples=60)
def test_every_setting_gives_a_distribution_that_holds_the_most_likely_token(
    seed: int, top_k: int, top_p: float, min_p: float, temperature: float
) -> None:
    logits = torch.randn(3, 8, generator=torch.Generator().manual_seed(seed))
    warp = _warp(3, top_k=top_k, top_p=top_p, min_p=min_p, temperature=temperature)
    p = log_probabilities(logits, warp).exp()
    assert torch.allclose(p.sum(-1), torch.ones(3), atol=1e-5)
    assert (p.gather(1, logits.argmax(-1, keepdim=True)) > 0).all()


def test_rows_of_one_batch_may_have_different_settings() -> None:
    warp = Warp.of([Sampling(temperature=0.0), Sampling(top_k=1), Sampling()], CPU)
    logits = torch.tensor([[0.0, 1.0, 0.5]]).expand(3, 3)
    p = log_probabilities(logits, warp).exp()
    assert p[:2].tolist() == [[0, 1, 0], [0, 1, 0]]
    assert torch.allclose(p[2], torch.softmax(logits[2], -1))


def test_a_draw_on_a_boundary_is_a_near_tie() -> None:
    logits = torch.zeros(3, 2)
    uniform = torch.tensor([0.5, 0.25, 0.5 - 1e-9], dtype=torch.float64)
    assert draw(logits, _warp(3), uniform)[2].tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_k", -1),
        ("min_p", 1.0),
        ("stop", "text"),
        ("stop", ("",)),
        ("seed", -1),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"{field} must be .*, got"):
        Sampling(**{field: value})  # pyright: ignore
