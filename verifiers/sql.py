"""SQL as the answer: run on generated databases, and judged by what it returns.

The answer's query and the truth's run on the same databases, two or more of one schema, so that a
query which spells out the result of one of them earns nothing. Databases are built in memory from
the truth; what the answer may do with them is a short list (`locked`): read tables, and call
functions whose result depends on nothing but their arguments. Work is counted in SQLite's own
steps, so that a verdict does not depend on the machine's load; a worker process that can be killed
stands behind that, for single steps that take long and for memory.

Not covered: two queries that differ only on data that no database of the truth has.
"""

import contextlib
import functools
import re
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import TaskError, UsageError
from .extract import MAX_TEXT_CHARS, after_think, before_stop
from .verdict import Verdict
from .workers import WorkerPool

MAX_SQL_CHARS = 4000
"""Characters of a query."""
STEPS = 1_000_000
"""Steps of SQLite's machine per query: some hundredths of a second."""
EVERY = 1000
"""Steps between two looks at the count."""
MAX_VALUE = 2000
"""Bytes of a text, or of a row on its way through a sort: with `STEPS` this bounds the memory."""
MAX_ROWS = 2000
"""Rows of a truth's result."""
MEMORY = 1 << 30
"""Bytes of address space of a worker."""
SHOWN = 200
"""Characters of a query kept as evidence."""

FUNCTIONS = frozenset((
    "abs", "avg", "cast", "ceil", "ceiling", "char", "coalesce", "concat", "count", "cume_dist",
    "dense_rank", "first_value", "floor", "glob", "group_concat", "ifnull", "iif", "instr", "lag",
    "last_value", "lead", "length", "like", "lower", "ltrim", "max", "min", "mod", "nth_value",
    "ntile", "nullif", "percent_rank", "rank", "replace", "round", "row_number", "rtrim", "sign",
    "substr", "substring", "sum", "total", "trim", "typeof", "unicode", "upper",
))  # fmt: skip
"""Functions that a query may call: none that depends on clocks, chance or files, or makes much of
little."""
_ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ)
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: MAX_VALUE,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 4 * MAX_SQL_CHARS,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 50,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 20,
    sqlite3.SQLITE_LIMIT_COLUMN: 100,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 0,
}
_FENCE = re.compile(r"^[ \t]*`{3,}[ \t]*(\w*)[ \t]*$", re.MULTILINE)
_LABELS = ("", "sql", "sqlite")
_BEGINS = re.compile(r"\s*(?:SELECT|WITH|VALUES)\b", re.IGNORECASE)

Rows = Mapping[str, Sequence[Sequence[Any]]]
"""The rows of each table."""


class Refused(Exception):
    """A query that cannot be run; the text is for its author."""


class TooMuch(Refused):
    """A query over a cap."""


class TooSlow(TooMuch):
    """A query that was stopped."""


def database(schema: str, rows: Rows) -> sqlite3.Connection:
    """Build a database in memory from a truth's data, and lock it.

    Args:
        schema: `CREATE TABLE` statements.
        rows: The rows of each table.

    Raises:
        TaskError: They do not fit together.
    """
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        connection.executescript(schema)
        connection.execute("BEGIN")
        for table, given in rows.items():
            if given:
                holes = ", ".join("?" * len(given[0]))
                name = table.replace('"', '""')
                connection.executemany(f'INSERT INTO "{name}" VALUES ({holes})', given)
        connection.execute("COMMIT")
        return _locked(connection)
    except (sqlite3.Error, sqlite3.Warning, ValueError, TypeError, AttributeError) as error:
        connection.close()
        raise TaskError(f"the truth's schema and rows make no database: {error}") from error


def _locked(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Allow nothing but bounded reading from here on."""
    connection.execute("PRAGMA temp_store = MEMORY")  # sorts leave no files, the worker's cap holds
    connection.execute("PRAGMA query_only = ON")
    for limit, most in _LIMITS.items():
        connection.setlimit(limit, most)
    connection.set_authorizer(_authorize)
    return connection


def _authorize(
    action: int, first: str | None, second: str | None, place: str | None, source: str | None
) -> int:
    if action == sqlite3.SQLITE_FUNCTION:
        return sqlite3.SQLITE_OK if (second or "").lower() in FUNCTIONS else sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


def select(
    connection: sqlite3.Connection, sql: str, *, rows: int, steps: int = STEPS
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run a query on a database that `database` built.

    Args:
        connection: The database.
        sql: One statement.
        rows: Rows that are fetched at most.
        steps: Steps of SQLite's machine at most.

    Returns:
        The names of the columns, and the rows.

    Raises:
        Refused: It is no query, is not allowed, or fails; in words for its author.
        TooMuch: It holds longer texts than allowed.
        TooSlow: It takes more steps.
    """
    if len(sql) > MAX_SQL_CHARS:
        raise TooMuch(f"the query has {len(sql)} characters; at most {MAX_SQL_CHARS} are read")
    left = steps // EVERY

    def tick() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    connection.set_progress_handler(tick, EVERY)
    try:
        with contextlib.closing(connection.execute(sql)) as cursor:
            if cursor.description is None:
                raise Refused("that is no query; write one SELECT")
            return [column[0] for column in cursor.description], cursor.fetchmany(rows)
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError) as error:
        raise _explained(error, steps, left < 0) from error
    finally:
        connection.set_progress_handler(None, 0)


def _explained(error: BaseException, steps: int, stopped: bool) -> Refused:
    if stopped:
        return TooSlow(f"the query took more than {steps} steps and was stopped")
    if isinstance(error, MemoryError):
        return TooMuch("the query needs too much memory")
    text = str(error)[:300]
    if "not authorized" in text or "prohibited" in text or "authorization denied" in text:
        return Refused(f"{text}: only reading is allowed, without recursion, with usual functions")
    if "too big" in text:
        return TooMuch(f"{text}: a value or row has at most {MAX_VALUE} bytes")
    return Refused(text)


def find_sql(completion: str) -> str | None:
    """Return the query that a completion answers with.

    The last `<answer>…</answer>`, else the last fence, else the whole text if it begins as a query.
    A tag or fence that is broken holds none.

    Example:
        >>> find_sql("So: <answer>SELECT 1;</answer>")
        'SELECT 1'
    """
    text = before_stop(after_think(completion))[-MAX_TEXT_CHARS:]
    if "<answer>" in text:
        before, closed, _ = text.rpartition("</answer>")
        _, opened, inner = before.rpartition("<answer>")
        if not closed or not opened:
            return None
        return _bare(_fenced(inner) if "```" in inner else inner)
    if "```" in text:
        return _bare(_fenced(text))
    return _bare(text) if _BEGINS.match(text) else None


def _bare(text: str | None) -> str | None:
    return (text or "").strip().rstrip(";").rstrip() or None


def _fenced(text: str) -> str | None:
    """Return what the last fence holds, if it is one of SQL."""
    marks = list(_FENCE.finditer(text))
    if len(marks) < 2 or len(marks) % 2 or marks[-2][1].lower() not in _LABELS:
        return None
    return text[marks[-2].end() : marks[-1].start()]


class SqlResult:
    """Judge a query by its results on databases of the truth.

    Truth: `{"schema": "CREATE TABLE …", "databases": [{"table": [[…], …]}, …], "query": "SELECT …",
    "ordered": false}`. The rows must be the same on every database, in the same order if the truth
    is `ordered`; so must the order of the columns, their names need not. `2` equals `2.0`, and
    floats are compared to ten digits. A query that fails, or does anything but read, is wrong.

    Args:
        steps: Steps of SQLite's machine that a query may take.
        timeout: Seconds of work per verdict, after which its worker is killed.

    Example:
        >>> truth = {"schema": "CREATE TABLE t (a)", "databases": [{"t": [[1], [2]]}, {"t": [[5]]}],
        ...          "query": "SELECT sum(a) FROM t", "ordered": False}
        >>> judge = SqlResult()
        >>> judge("<answer>SELECT total(a) FROM t</answer>", truth).reward
        1.0
        >>> judge("<answer>SELECT 3</answer>", truth).reward
        0.0
    """

    name = "sql"

    def __init__(self, *, steps: int = STEPS, timeout: float = 3.0) -> None:
        """Check the options; no worker is started yet."""
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < EVERY:
            raise UsageError(f"steps= is a whole number from {EVERY} up, got {steps!r:.50}")
        self.steps = steps
        self.pool = WorkerPool(
            functools.partial(judge_query, steps=steps),
            timeout=timeout,
            memory=MEMORY,
            died=Verdict.limit,
            copies=True,
            name="sql",
        )

    def check_truth(self, truth: Any) -> None:
        """Refuse a truth whose query does not run, or cannot tell a constant from the query.

        Raises:
            TaskError: It is such a one.
        """
        results = [results_of(truth, rows, self.steps) for rows in read_truth(truth)[1]]
        if len(results) > 1 and all(result == results[0] for result in results):
            raise TaskError(
                "the truth's query has the same result on every database, so that a constant would "
                "be right; change a database"
            )

    def __call__(self, completion: str, truth: Any, **context: Any) -> Verdict:
        """Judge one completion."""
        try:
            read_truth(truth)
        except TaskError as error:
            return Verdict.bad_truth(str(error))
        sql = find_sql(completion)
        if sql is None:
            return Verdict.unparsed("no query was found")
        if len(sql) > MAX_SQL_CHARS:
            return Verdict.limit(f"a query of {len(sql)} characters; at most {MAX_SQL_CHARS}")
        if "\0" in sql or not _is_whole(sql):
            return Verdict.wrong(reason="the query holds characters that are no text")
        return self.pool.call(sql, truth)


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_truth(truth: Any) -> tuple[str, Sequence[Rows], str, bool]:
    """Return schema, databases, query, and whether the order counts.

    Raises:
        TaskError: One is missing or of another kind.
    """
    wanted = {"schema": str, "databases": list | tuple, "query": str, "ordered": bool}
    if not isinstance(truth, Mapping):
        raise TaskError(f"an SQL truth is an object with {', '.join(wanted)}, got {truth!r:.100}")
    for key, kind in wanted.items():
        if not isinstance(truth.get(key), kind):
            raise TaskError(f"an SQL truth's '{key}' is missing or wrong: {truth.get(key)!r:.100}")
    databases = truth["databases"]
    if not databases or not all(isinstance(rows, Mapping) for rows in databases):
        raise TaskError("an SQL truth has at least one database: an object of rows by table")
    return truth["schema"], databases, truth["query"], truth["ordered"]


def results_of(truth: Mapping[str, Any], rows: Rows, steps: int = STEPS) -> list[tuple[Any, ...]]:
    """Return the result of the truth's query on one database.

    Raises:
        TaskError: It does not run within the caps, or has no columns or too many rows.
    """
    schema, _, query, _ = read_truth(truth)
    with contextlib.closing(database(schema, rows)) as connection:
        try:
            _, found = select(connection, query, rows=MAX_ROWS + 1, steps=steps)
        except Refused as error:
            raise TaskError(f"the truth's query does not run: {error}") from error
    if len(found) > MAX_ROWS:
        raise TaskError(f"the truth's query has more than {MAX_ROWS} rows")
    return found


def judge_query(sql: str, truth: Mapping[str, Any], *, steps: int = STEPS) -> Verdict:
    """Compare a query's results with the truth's; runs in a worker."""
    schema, databases, _, ordered = read_truth(truth)
    shown = sql[:SHOWN]
    for number, rows in enumerate(databases):
        try:
            right = results_of(truth, rows, steps)
            with contextlib.closing(database(schema, rows)) as connection:
                _, found = select(connection, sql, rows=len(right) + 1, steps=steps)
        except TaskError as error:
            return Verdict.bad_truth(str(error))
        except TooSlow as error:
            return Verdict.timeout(str(error), answer=shown)
        except TooMuch as error:
            return Verdict.limit(str(error), answer=shown)
        except Refused as error:
            return Verdict.wrong(reason=str(error), answer=shown)
        if not same(found, right, ordered=ordered):
            return Verdict.wrong(reason=f"other rows on database {number}", answer=shown)
    return Verdict.correct(answer=shown)


def same(
    found: Sequence[tuple[Any, ...]], right: Sequence[tuple[Any, ...]], *, ordered: bool
) -> bool:
    """Whether two results have the same rows, in the same order if that counts.

    Example:
        >>> same([(1, "a"), (2, "b")], [(2.0, "b"), (1, "a")], ordered=False)
        True
    """
    mine = [tuple(map(_plain, row)) for row in found]
    yours = [tuple(map(_plain, row)) for row in right]
    return mine == yours if ordered else Counter(mine) == Counter(yours)


def _plain(value: Any) -> Any:
    """Return a number in the one form that equal ones share."""
    if not isinstance(value, float):
        return value
    return int(value) if value.is_integer() else float(f"{value:.10g}")
