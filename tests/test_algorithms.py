"""The table of algorithms: lookup, refusals, and the card that `rlvr explain` prints."""

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from rlvr.rl_core.algorithms import COLUMNS, TABLE, algorithm, describe, explain
from rlvr.rl_core.choices import OPTIONS, READ_WITH
from rlvr.verifiers.errors import UsageError


def test_the_table_holds_every_promised_algorithm_under_its_own_name() -> None:
    assert set(TABLE) == {
        "vpg",
        "vpg-rtg",
        "reinforce",
        "reinforce-ema",
        "rloo",
        "grpo",
        "dr-grpo",
    }
    assert all(row.name == name for name, row in TABLE.items())


@pytest.mark.parametrize("name", TABLE)
def test_every_row_says_where_it_comes_from(name: str) -> None:
    row = TABLE[name]
    assert row.title
    assert row.defaults_from
    assert "arXiv" in row.paper or "1992" in row.paper


@pytest.mark.parametrize("name", TABLE)
def test_every_row_survives_being_rebuilt_from_its_own_columns(name: str) -> None:
    row = TABLE[name]
    assert algorithm(name) == row
    assert algorithm(name, **{column: getattr(row, column) for column in COLUMNS}) == row


def test_options_and_readers_name_columns_that_exist() -> None:
    assert set(OPTIONS) <= set(COLUMNS)
    assert set(READ_WITH) <= set(COLUMNS)
    for column, choices in READ_WITH.values():
        assert set(choices) <= set(OPTIONS[column])


def test_a_row_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TABLE["grpo"].beta = 1.0  # pyright: ignore


def test_what_the_trainer_reads_follows_from_the_row() -> None:
    assert [n for n, row in TABLE.items() if row.needs_group] == ["rloo", "grpo", "dr-grpo"]
    assert [n for n, row in TABLE.items() if row.needs_reference] == ["rloo", "grpo"]
    assert [n for n, row in TABLE.items() if row.needs_old] == ["rloo", "grpo", "dr-grpo"]


def test_beta_zero_needs_no_reference_and_any_other_beta_does() -> None:
    assert not algorithm("grpo", beta=0).needs_reference
    assert not algorithm("rloo", beta=0.0).needs_reference
    assert algorithm("vpg", kl="reward", beta=1e-9).needs_reference


def test_a_ratio_in_the_kl_term_needs_the_old_policy() -> None:
    row = algorithm("vpg", kl="loss", kl_estimator="rho_k3", beta=0.1)
    assert row.needs_old
    assert not dataclasses.replace(row, beta=0.0).needs_old


@pytest.mark.parametrize(
    ("name", "overrides", "parts"),
    [
        ("gpro", {}, ["no algorithm 'gpro'", "did you mean 'grpo'"]),
        ("grpo", {"betta": 1}, ["no option of algorithm 'grpo' 'betta'", "'beta'"]),
        ("grpo", {"name": "x"}, ["no option of algorithm 'grpo' 'name'"]),
        ("grpo", {"baseline": "group_man"}, ["baseline", "'group_man'", "'group_mean'"]),
        ("grpo", {"baseline": None}, ["no baseline", "'None'"]),
        ("grpo", {"baseline": ["loo"]}, ["no baseline"]),
        ("grpo", {"beta": -0.1}, ["beta is a number 0 or more, got -0.1"]),
        ("grpo", {"beta": float("nan")}, ["beta", "got nan"]),
        ("grpo", {"beta": float("inf")}, ["beta", "got inf"]),
        ("grpo", {"beta": "0.1"}, ["beta", "got '0.1'"]),
        ("grpo", {"beta": True}, ["beta", "got True"]),
        ("grpo", {"clip_low": 1.5}, ["clip_low is a number in [0, 1], got 1.5"]),
        ("vpg-rtg", {"gamma": 1.01}, ["gamma is a number in [0, 1], got 1.01"]),
        ("reinforce-ema", {"ema_decay": 1.0}, ["ema_decay is a number in [0, 1), got 1.0"]),
        ("grpo", {"group_size": 0}, ["group_size is a whole number from 1, got 0"]),
        ("grpo", {"group_size": 2.0}, ["group_size is a whole number from 1, got 2.0"]),
    ],
)
def test_an_unknown_name_or_value_is_refused_with_what_was_expected(
    name: str, overrides: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        algorithm(name, **overrides)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "overrides", "reason", "way_out"),
    [
        ("grpo", {"group_size": 1}, "group_size is 1", "group_size=2"),
        ("rloo", {"group_size": 1}, "group_size is 1", "baseline='batch_mean'"),
        ("reinforce", {"scale": "group_std"}, "within a group", "baseline='group_mean'"),
        ("vpg", {"gamma": 0.9}, "gamma=0.9 discounts", "psi='rtg'"),
        ("vpg", {"trust": "clip"}, "needs a ratio", "ratio='token'"),
        ("dr-grpo", {"trust": "logp"}, "never reads ratio 'token'", "ratio='none'"),
        ("rloo", {"aggregate": "token"}, "one term per completion", "aggregate='seq'"),
        ("rloo", {"aggregate": "seq_token"}, "one term per completion", "ratio='token'"),
        ("grpo", {"aggregate": "seq"}, "one per token", "aggregate='seq_sum'"),
        ("vpg", {"aggregate": "seq"}, "one per token", "ratio='seq_prod'"),
        ("rloo", {"psi": "rtg"}, "one advantage per completion", "psi='total'"),
        ("dr-grpo", {"beta": 0.1}, "beta=0.1 has no place", "kl='reward'"),
        ("grpo", {"kl_estimator": "k1"}, "expected gradient 0", "kl_estimator='k2'"),
        ("dr-grpo", {"kl": "loss", "beta": 0.1}, "expected gradient 0", "kl='reward'"),
        ("rloo", {"kl_estimator": "k3"}, "loses its own expected gradient", "kl_estimator='k1'"),
        ("grpo", {"kl": "reward"}, "k3 in the reward", "kl='loss'"),
        ("vpg", {"clip_high": 0.28}, "would change nothing", "trust='clip'"),
        ("vpg", {"ema_decay": 0.9}, "would change nothing", "baseline='ema'"),
        ("rloo", {"std_eps": 0.1}, "would change nothing", "scale='group_std'"),
        ("vpg", {"kl_estimator": "k2"}, "would change nothing", "kl='reward' or kl='loss'"),
    ],
)
def test_a_broken_combination_is_refused_with_the_reason_and_the_way_out(
    name: str, overrides: dict[str, Any], reason: str, way_out: str
) -> None:
    with pytest.raises(UsageError) as caught:
        algorithm(name, **overrides)
    assert str(caught.value).startswith(f"{name}: ")
    assert reason in str(caught.value)
    assert way_out in str(caught.value)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("rloo", {"ratio": "none", "trust": "logp", "aggregate": "seq_sum"}),
        ("rloo", {"kl": "loss", "kl_estimator": "k2"}),
        ("dr-grpo", {"kl": "reward", "beta": 0.1}),
        ("grpo", {"kl": "none", "beta": 0}),
        ("grpo", {"trust": "ratio", "aggregate": "token"}),
        ("vpg-rtg", {"gamma": 0, "baseline": "ema"}),
        ("vpg", {"group_size": 8}),
    ],
)
def test_a_sound_combination_is_accepted(name: str, overrides: dict[str, Any]) -> None:
    row = algorithm(name, **overrides)
    assert {column: getattr(row, column) for column in overrides} == overrides


def test_whole_numbers_become_floats() -> None:
    beta = algorithm("grpo", beta=1).beta
    assert (beta, type(beta)) == (1.0, float)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("vpg", "L = −(1/B) Σ_i Σ_t A_i,t l_i,t"),
        ("rloo", "L = −(1/B) Σ_i min(ρ_i A_i, clip(ρ_i, 0.8, 1.2) A_i)"),
        (
            "grpo",
            "L = −(1/B) Σ_i (1/L_i) Σ_t "
            "[ min(ρ_i,t A_i,t, clip(ρ_i,t, 0.8, 1.2) A_i,t) − 0.04 k_i,t ]",
        ),
    ],
)
def test_the_formula_is_that_of_the_row(name: str, formula: str) -> None:
    assert TABLE[name].formula == formula


def test_the_formula_of_a_changed_row_changes_with_it() -> None:
    changed = algorithm("rloo", kl="loss", kl_estimator="k2", clip_high=0.28)
    assert "1.28" in changed.formula
    assert "− 0.05 Σ_t k_i,t" in changed.formula
    assert "k" not in algorithm("grpo", beta=0).formula.split("=")[1]


@pytest.mark.parametrize("name", TABLE)
def test_the_card_prints_every_column_that_is_read_and_no_other(name: str) -> None:
    row = TABLE[name]
    printed = {line.split()[0] for line in describe(row).splitlines()[4:]}
    unread = {c for c, (other, by) in READ_WITH.items() if getattr(row, other) not in by}
    assert printed == set(COLUMNS) - unread
    assert row.formula in explain(name)
    assert "(changed)" not in explain(name)


def test_the_card_marks_what_was_changed() -> None:
    lines = describe(algorithm("grpo", beta=0.1)).splitlines()
    assert [line for line in lines if "(changed)" in line] == ["  beta          0.1  (changed)"]


def test_comparing_two_algorithms_prints_only_what_differs() -> None:
    text = explain("grpo", "dr-grpo")
    columns = [line for line in text.splitlines()[4:] if not line.startswith(" ")]
    assert columns == ["scale", "std_eps", "kl", "kl_estimator", "beta", "aggregate"]
    assert "psi" not in text


def test_an_unknown_name_cannot_be_explained() -> None:
    with pytest.raises(UsageError, match="did you mean 'rloo'"):
        explain("grpo", "rlo")


def test_the_table_loads_without_torch() -> None:
    code = "import sys, rlvr.rl_core.algorithms; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0
