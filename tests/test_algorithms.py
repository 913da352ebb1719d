"""The table of algorithms: lookup, refusals, and the card that `rlvr explain` prints."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from rlvr.rl_core.algorithms import (
    COLUMNS,
    PRESETS,
    TABLE,
    algorithm,
    describe,
    explain,
    is_read,
)
from rlvr.rl_core.choices import Algorithm
from rlvr.rl_core.cli import main
from rlvr.rl_core.explain_command import page
from rlvr.rl_core.options import COUNTS, OFF, OPTIONS, PAIR_COLUMNS, RANGES, READ_WITH
from rlvr.verifiers.errors import UsageError


def test_the_table_holds_every_promised_algorithm_under_its_own_name() -> None:
    assert set(TABLE) == {
        *("vpg", "vpg-rtg", "vpg-baseline", "vpg-q", "vpg-advantage", "vpg-td"),
        *("reinforce", "reinforce-ema", "remax", "opo", "rloo"),
        *("grpo", "grpo-process", "dr-grpo", "dapo", "reinforce++", "reinforce++-baseline"),
        *("lite-ppo", "maxrl", "gdpo", "gigpo"),
        *("gspo", "gspo-token", "cispo", "gmpo", "sapo", "dppo"),
        *("ppo", "trpo", "raft", "raft++", "dpo", "ipo"),
        *PRESETS,
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
    for table in (READ_WITH, RANGES, COUNTS, OFF, PAIR_COLUMNS):
        assert set(table) <= set(COLUMNS)
    for column, choices in READ_WITH.values():
        assert set(choices) <= set(OPTIONS[column])


def test_a_row_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TABLE["grpo"].beta = 1.0  # pyright: ignore


def having(need: str) -> set[str]:
    """Name the rows with a property, presets aside."""
    return {name for name, row in TABLE.items() if getattr(row, need) and name not in PRESETS}


def test_what_the_trainer_reads_follows_from_the_row() -> None:
    assert having("needs_values") == {
        *("vpg-baseline", "vpg-q", "vpg-advantage", "vpg-td", "ppo", "trpo")
    }
    assert having("needs_reference") == {
        *("rloo", "grpo", "grpo-process", "reinforce++", "reinforce++-baseline", "ppo"),
        *("dpo", "ipo"),
    }
    assert having("needs_greedy") == {"remax"}
    assert having("needs_rollout") == {"dppo"}
    assert having("needs_spans") == {"grpo-process", "gigpo"}
    assert having("needs_anchors") == {"gigpo"}
    assert having("needs_truncated") == {"dapo"}
    assert having("resamples") == {"dapo"}
    assert having("on_pairs") == {"dpo", "ipo"}
    assert having("per_completion") == {"rloo", "gspo", "gmpo"}
    textbook = {name for name in TABLE if name.startswith(("vpg", "reinforce"))}
    without_ratio = textbook - {"reinforce++", "reinforce++-baseline"}
    own = set(TABLE) - set(PRESETS)
    assert having("needs_old") == own - without_ratio - {"remax", "opo", "raft", "dpo", "ipo"}
    alone = without_ratio | {"remax", "reinforce++", "ppo", "trpo", "raft", "raft++"}
    assert having("needs_group") == own - alone
    assert {name: row.updates for name, row in TABLE.items() if row.updates > 1} == {
        "dapo": 16,
        "gspo": 4,
        "gspo-token": 4,
    }
    assert [name for name, row in TABLE.items() if row.epochs > 1] == ["ppo"]
    assert [name for name, row in TABLE.items() if row.optimizer == "natural"] == ["trpo"]


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
        ("gropo", {}, ["no algorithm 'gropo'", "did you mean 'grpo'"]),
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
        ("reinforce", {"scale": "group_std"}, "within a group,", "baseline='group_mean'"),
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
        ("dpo", {"clip_high": 0.28}, "would change nothing", "loss='policy'"),
        ("cispo", {"cap_high": 0.2}, "caps the weight itself", "for example 5"),
        ("cispo", {"cap_low": 1.5}, "every on-policy token", "cap_low in [0, 1]"),
        ("gspo", {"aggregate": "token"}, "one term per completion", "aggregate='seq'"),
        ("gspo-token", {"aggregate": "token"}, "by their length", "aggregate='seq_token'"),
        ("gmpo", {"aggregate": "seq_token"}, "one term per completion", "aggregate='seq'"),
        ("gmpo", {"ratio": "seq_geo"}, "each token's own ratio", "ratio='token'"),
        ("gspo", {"mismatch": "tis_token"}, "weighs single tokens", "mismatch='tis_seq'"),
        ("gspo", {"entropy_quantile": 0.8}, "drops single tokens", "ratio='token'"),
        ("gspo", {"entropy_bonus": 0.1}, "pays single tokens", "entropy_bonus=0"),
        ("gspo", {"scale": "whiten"}, "weighs completions by their length", "'batch_std'"),
        ("dppo", {"mismatch": "tis_token"}, "would be 1 everywhere", "anchor='old'"),
        (
            "grpo",
            {"mismatch": "icepop", "mismatch_low": 3.0},
            "nothing would be trained on",
            "mismatch_low below 1",
        ),
        ("grpo", {"dual_clip": 1.1}, "cuts inside the clip range", "for example 3"),
        ("trpo", {"trust": "clip"}, "would bound it once more", "trust='ratio'"),
        ("nemo-grpo", {"group_size": 2}, "which has none", "group_size=3"),
        ("nemo-grpo", {"baseline": "group_mean"}, "does not; set baseline='loo'", "group_std"),
        ("maxrl", {"baseline": "batch_mean"}, "within a group", "baseline='group_mean'"),
        ("raft", {"reward": "best", "group_size": 1}, "with its siblings", "group_size=2"),
        ("raft", {"overlong_buffer": 9}, "selects completions", "overlong='filter'"),
        ("grpo-process", {"psi": "total"}, "before they are summed", "psi='rtg'"),
        ("grpo-process", {"baseline": "group_mean"}, "does not centre", "baseline='step_mean'"),
        ("ppo", {"baseline": "value"}, "contains the baseline", "psi='q' or 'rtg'"),
        ("vpg-baseline", {"psi": "total"}, "knows the tokens before it", "psi='rtg'"),
        ("gigpo", {"reward": "terminal"}, "what each was paid", "reward='process'"),
        ("gigpo", {"scale": "batch_std"}, "by its own group", "scale='group_std'"),
        ("gigpo", {"baseline": "batch_mean"}, "has no such form", "baseline='group_mean'"),
        ("dppo", {"kl_estimator": "full"}, "of sampled tokens alone", "kl_to='reference'"),
        ("rloo", {"kl_to": "rollout"}, "nothing but rounding", "kl='loss'"),
        ("vpg", {"value_clip": 0.2}, "bounds a critic", "psi='gae'"),
        ("dpo", {"beta": 0}, "is constant", "for example 0.1"),
        ("dpo", {"kl": "loss", "kl_estimator": "k2"}, "by itself", "kl='none'"),
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
    read = {column for column in COLUMNS if is_read(row, column)}
    assert printed <= read
    default = Algorithm.__dataclass_fields__
    usual = {column for column in read if getattr(row, column) == default[column].default}
    assert read - printed <= usual
    assert row.formula in explain(name)
    assert "(changed)" not in explain(name)


def test_the_card_marks_what_was_changed() -> None:
    lines = describe(algorithm("grpo", beta=0.1)).splitlines()
    assert [line for line in lines if "(changed)" in line] == ["  beta          0.1  (changed)"]


def test_comparing_two_algorithms_prints_only_what_differs() -> None:
    text = explain("grpo", "dr-grpo")
    columns = [line for line in text.splitlines()[6:] if not line.startswith(" ")]
    assert columns == ["scale", "std_eps", "kl", "kl_estimator", "beta", "aggregate"]
    assert "psi" not in text


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("cispo", "sg(clip(ρ_i,t, 0, 5)) A_i,t l_i,t"),
        ("gspo", "(1/B) Σ_i min(ρ_i A_i, clip(ρ_i, 0.9997, 1.0004) A_i)"),
        ("gmpo", "A_i exp((1/L_i) Σ_t s min(s log ρ_i,t, s clip(log ρ_i,t, ±0.4)))"),
        ("verl-grpo", "max(min("),
        ("trl-grpo", "Σ_t w_i min("),
        ("dppo", "1[|π−μ| ≤ 0.2 where A pushes] ρ_i,t A_i,t − 0.002 k_i,t"),
        ("dpo", "(1−ε) log σ(h) + ε log σ(−h)"),
    ],
)
def test_the_formula_names_what_is_special_about_a_row(name: str, part: str) -> None:
    assert part in TABLE[name].formula


def test_comparing_two_algorithms_names_their_sources() -> None:
    text = explain("opo", "remax")
    assert "source: Hao et al., 2025, arXiv 2505.23585" in text
    assert "source: Li et al., 2023, arXiv 2310.10505" in text


def test_the_page_of_all_algorithms_is_up_to_date() -> None:
    path = Path(__file__).parent.parent / "docs" / "algorithms.md"
    assert path.read_text(encoding="utf-8") == page(), (
        "run: rlvr explain --page > docs/algorithms.md"
    )


def test_every_link_of_the_page_leads_to_a_heading() -> None:
    text = page()
    headings = [line[4:] for line in text.splitlines() if line.startswith("### ")]
    assert headings == list(TABLE)
    taken: list[str] = []
    for heading in headings:
        bare = heading.replace("+", "")
        taken.append(f"{bare}-1" if bare in taken else bare)
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) == set(taken)


def test_the_command_explains_one_two_or_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "rloo"]) == 0
    assert capsys.readouterr().out == explain("rloo") + "\n"
    assert main(["explain", "rloo", "trl-rloo"]) == 0
    assert capsys.readouterr().out == explain("rloo", "trl-rloo") + "\n"
    assert main(["explain", "--page"]) == 0
    assert capsys.readouterr().out == page()
    assert main(["explain"]) == 2
    assert "explain needs a NAME" in capsys.readouterr().err
    assert main(["list", "algorithms"]) == 0
    assert "open-instruct-grpo" in capsys.readouterr().out


def test_an_unknown_name_cannot_be_explained() -> None:
    with pytest.raises(UsageError, match="did you mean 'rloo'"):
        explain("grpo", "rlo")
