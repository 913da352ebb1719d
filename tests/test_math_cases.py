"""The case table of the `math` verifier: every row gets the verdict it names.

`cases/math.jsonl` holds one case a line: `truth`, `completion` and whether they are `equal`; `kind`
"answer" stands in a box, "response" is a whole completion; `options` of the verifier where they are
not the defaults; `hack` names what an attack tries; `why` and `provenance` speak for themselves.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from rlvr.verifiers import Verdict
from rlvr.verifiers.mathematics import MathAnswer

PATH = Path(__file__).parent / "cases" / "math.jsonl"
ROWS: list[dict[str, Any]] = [
    {"line": number, **json.loads(line)}
    for number, line in enumerate(PATH.read_text(encoding="utf-8").splitlines(), start=1)
]
REQUIRED = {"truth", "completion", "kind", "equal", "why", "provenance"}
OPTIONAL = {"options", "hack"}


def by_provenance() -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in ROWS:
        groups[row["provenance"].removeprefix("written for rlvr: ")].append(row)
    return groups


def completion_of(row: dict[str, Any]) -> str:
    text = row["completion"]
    return f"\\boxed{{{text}}}" if row["kind"] == "answer" else text


def judge(row: dict[str, Any]) -> Verdict:
    return MathAnswer(**row.get("options", {}))(completion_of(row), row["truth"])


def complaint(row: dict[str, Any], verdict: Verdict) -> str:
    expected = "equal" if row["equal"] else "different"
    return (
        f"line {row['line']}: truth {row['truth']!r}, completion {row['completion'][:120]!r} "
        f"{row.get('options', '')}: {verdict.status}, expected {expected} ({row['why']}); "
        f"{dict(verdict.evidence)!r:.200}"
    )


@pytest.mark.parametrize("group", sorted(by_provenance()))
def test_every_row_gets_the_verdict_it_names(group: str) -> None:
    failures = []
    for row in by_provenance()[group]:
        verdict = judge(row)
        if verdict.reward != float(row["equal"]):
            failures.append(complaint(row, verdict))
    assert not failures, "\n" + "\n".join(failures)


def test_every_row_says_why_and_where_it_comes_from() -> None:
    for row in ROWS:
        fields = row.keys() - {"line"}
        assert fields >= REQUIRED, row
        assert fields <= REQUIRED | OPTIONAL, row
        assert row["why"], row
        assert row["provenance"], row
        assert row["kind"] in ("answer", "response"), row


def test_no_case_stands_twice() -> None:
    keys = [json.dumps([row["truth"], completion_of(row), row.get("options")]) for row in ROWS]
    assert len(keys) == len(set(keys))


def test_hacks_are_many_distinct_and_never_equal() -> None:
    hacks = [row for row in ROWS if "hack" in row]
    assert len({row["hack"] for row in hacks}) == len(hacks) >= 90
    assert not any(row["equal"] for row in hacks)


def test_both_verdicts_are_well_represented() -> None:
    equal = sum(row["equal"] for row in ROWS)
    assert equal >= 200
    assert len(ROWS) - equal >= 200
