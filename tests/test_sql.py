"""The verifier of SQL: rows on every database decide, and a query can do nothing but read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlvr.envs import load_tasks
from rlvr.envs.tasks.sql import THEMES
from rlvr.verifiers import Status, TaskError, check_verifier, make
from rlvr.verifiers.sql import Refused, TooMuch, database, find_sql, same, select

LOANS = {
    "schema": "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, n INTEGER)",
    "databases": [
        {"t": [[1, "x", 5], [2, "y", 3], [3, "x", 4]]},
        {"t": [[1, "x", 1], [2, "z", 8]]},
    ],
    "query": "SELECT a, SUM(n) FROM t GROUP BY a ORDER BY a",
    "ordered": False,
}


@pytest.fixture(scope="module")
def judge() -> Iterator[Any]:
    """Make the verifier once: its workers are kept."""
    made: Any = make("sql")
    yield made
    made.pool.close()


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("<answer>SELECT a, SUM(n) FROM t GROUP BY a</answer>", 1.0),
        ("<answer>select a, total(n) as s from t group by 1 order by 2;</answer>", 1.0),
        ("So:\n```sql\nWITH c AS (SELECT * FROM t)\nSELECT a, SUM(n) FROM c GROUP BY a\n```", 1.0),
        ("SELECT a, SUM(n) FROM t GROUP BY a", 1.0),
        ("<answer>VALUES ('x', 9), ('y', 3)</answer>", 0.0),
        ("<answer>SELECT SUM(n), a FROM t GROUP BY a</answer>", 0.0),
        ("<answer>SELECT a, n FROM t</answer>", 0.0),
        ("<answer>SELECT a, SUM(n) FROM t GROUP BY a LIMIT 1</answer>", 0.0),
        ("<answer>SELECT a, SUM(n) FROM t GROUP BY a UNION ALL SELECT 'q', 1</answer>", 0.0),
        ("<answer>SELECT a, SUM(n) FROM t GROUP BY a", 0.0),
        ("```sql\nSELECT a, SUM(n) FROM t GROUP BY a", 0.0),
        ("I would sum n by a.", 0.0),
        ("<answer></answer>", 0.0),
    ],
)
def test_a_query_is_judged_by_its_rows(judge: Any, completion: str, reward: float) -> None:
    assert judge(completion, LOANS).reward == reward


def test_order_counts_only_where_it_is_asked_for(judge: Any) -> None:
    backwards = "<answer>SELECT a, SUM(n) FROM t GROUP BY a ORDER BY a DESC</answer>"
    assert judge(backwards, LOANS).reward == 1.0
    assert judge(backwards, {**LOANS, "ordered": True}).reward == 0.0


ATTACKS = [
    "INSERT INTO t VALUES (9, 'q', 1)",
    "DELETE FROM t",
    "DROP TABLE t",
    "CREATE TABLE u (a)",
    "CREATE TEMP TABLE u (a)",
    "WITH c AS (SELECT 1) INSERT INTO t SELECT 9, 'q', 1 FROM c",
    "ATTACH DATABASE '/tmp/rlvr-attack.db' AS u",
    "VACUUM INTO '/tmp/rlvr-attack.db'",
    "PRAGMA query_only = OFF",
    "SELECT * FROM pragma_database_list",
    "SELECT * FROM pragma_table_info('t')",
    "SELECT load_extension('/tmp/x.so')",
    "SELECT readfile('/etc/passwd')",
    "SELECT writefile('/tmp/rlvr-attack.db', 'x')",
    "SELECT random()",
    "SELECT hex(randomblob(1000000000))",
    "SELECT printf('%.*c', 100000000, 'x')",
    "SELECT fts3_tokenizer('x')",
    "SELECT 1; DELETE FROM t",
    "BEGIN",
    "EXPLAIN DELETE FROM t",
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT COUNT(*) FROM c",
    "SELECT COUNT(*) FROM t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t",
    "WITH " + ", ".join(
        [
            "c0 AS (SELECT 1 AS a FROM t)",
            *(f"c{i} AS (SELECT 1 AS a FROM c{i - 1} x, c{i - 1} y)" for i in range(1, 13)),
        ]
    ) + " SELECT COUNT(*) FROM c12",
    "SELECT " + " || ".join(["replace('" + "a" * 90 + "', 'a', '" + "b" * 90 + "')"] * 20),
    "SELECT " + "(" * 3000 + "1" + ")" * 3000,
    "SELECT \x00",
    "SELECT '\ud800'",
    "ＳＥＬＥＣＴ 1",
    "SELECT a FROM t -- " + "x" * 10_000,
]  # fmt: skip


@pytest.mark.parametrize("sql", ATTACKS, ids=lambda sql: sql[:24].encode("ascii", "replace"))
def test_a_hostile_query_is_scored_zero(judge: Any, sql: str) -> None:
    verdict = judge(f"<answer>{sql}</answer>", LOANS)
    assert verdict.reward == 0.0, verdict
    assert not Path("/tmp/rlvr-attack.db").exists()
    with pytest.raises(Refused):
        select(database(LOANS["schema"], LOANS["databases"][0]), sql, rows=10)


def test_an_endless_query_is_slow_by_count_and_not_by_the_clock(judge: Any) -> None:
    many = "SELECT COUNT(*) FROM " + ", ".join(f"t t{i}" for i in range(20))
    assert judge(f"<answer>{many}</answer>", LOANS).status is Status.TIMEOUT
    with pytest.raises(TooMuch, match="more than 1000000 steps"):
        select(database(LOANS["schema"], LOANS["databases"][0]), many, rows=10)


@pytest.mark.slow
def test_a_single_step_that_takes_long_ends_the_worker() -> None:
    made: Any = make("sql", timeout=0.5)
    text = "a" * 1900
    tables = ", ".join(f"t t{i}" for i in range(12))
    numbers = " || ".join(f"t{i}.n" for i in range(12))
    where = f"instr('{text}' || {numbers}, '{'a' * 900}b') > 0"
    verdict = made(f"<answer>SELECT COUNT(*) FROM {tables} WHERE {where}</answer>", LOANS)
    assert verdict.status is Status.TIMEOUT
    made.pool.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": "SELECT FROM t"}, "does not run: near"),
        ({"query": "SELECT 1"}, "the same result on every database"),
        ({"query": 5}, "'query' is missing or wrong"),
        ({"schema": "CREATE"}, "make no database"),
        ({"databases": [{"t": [[1]]}]}, "make no database"),
        ({"databases": []}, "at least one database"),
    ],
)
def test_a_truth_that_cannot_judge_is_refused(
    judge: Any, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        judge.check_truth({**LOANS, **change})


def test_the_sql_verifier_withstands_our_own_examination(judge: Any) -> None:
    report = check_verifier(judge, list(load_tasks("rlvr/SQL-v0")[:1]))
    assert report.ok, str(report)


def test_rows_are_compared_as_numbers_and_counted() -> None:
    assert same([(1,), (1,), (2,)], [(2.0,), (1,), (1,)], ordered=False)
    assert not same([(1,), (2,), (2,)], [(2,), (1,), (1,)], ordered=False)
    assert not same([("1",)], [(1,)], ordered=False)
    assert not same([(None,)], [(0,)], ordered=False)
    assert same([(0.1 + 0.2,)], [(0.3,)], ordered=True)
    assert find_sql("```python\n1\n```\n```sql\nSELECT 2\n```") == "SELECT 2"
    assert find_sql("```python\nSELECT 2\n```") is None
    assert len({theme.schema for theme in THEMES}) == 3
