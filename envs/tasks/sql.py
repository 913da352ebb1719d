"""`rlvr/SQL-v0`: a question about a database; the answer is a query.

**Prompt** the tables and the question; the template's holes are `{schema}` and `{question}`.
**Truth** the schema, two databases of it, a query, and whether the order of its rows counts.
**Verifier** `sql`: the answer's rows against the query's, on both databases. The policy can look at
the first alone, so that spelling out what it saw there earns nothing. **Difficulty** the forms of
questions (`level`) and the size of the tables (`rows`).

**Tool** `query(sql)`: runs on the first database, reading only, under the caps of the verifier, in
a process that is killed when it takes too long. The final answer is a query in `<answer>…</answer>`
or in a fence; the last turn counts, whatever was queried before.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...verifiers import Task, TaskError, UsageError
from ...verifiers.sql import Refused, database, results_of, select
from ..procedural import Problem, Procedural, Settings, check_range
from ..selection import side
from ..tools import tool
from ..tools.shipped import ShippedToolEnv

SHOWN_ROWS = 50
"""Rows of a result that the policy sees."""
SECONDS = 2.0
"""Seconds of work per call."""
DAYS = 60
"""Days that are recorded."""


@dataclass(frozen=True)
class Theme:
    """What the tables are about: who makes things, and what happens to the things.

    Example:
        `Theme("author", "book", "loan", "title", "genre", "pages", "weeks", ("novel", "poetry"))`
    """

    maker: str
    thing: str
    event: str
    label: str
    kind: str
    number: str
    amount: str
    kinds: tuple[str, ...]

    @property
    def schema(self) -> str:
        """The tables."""
        maker, thing, event = self.maker, self.thing, self.event
        return (
            f"CREATE TABLE {maker}s (id INTEGER PRIMARY KEY, name TEXT NOT NULL, "
            "city TEXT NOT NULL);\n"
            f"CREATE TABLE {thing}s (id INTEGER PRIMARY KEY, {maker}_id INTEGER NOT NULL "
            f"REFERENCES {maker}s(id), {self.label} TEXT NOT NULL, {self.kind} TEXT NOT NULL, "
            f"{self.number} INTEGER NOT NULL);\n"
            f"CREATE TABLE {event}s (id INTEGER PRIMARY KEY, {thing}_id INTEGER NOT NULL "
            f"REFERENCES {thing}s(id), day INTEGER NOT NULL, {self.amount} INTEGER NOT NULL);"
        )


THEMES = (
    Theme("author", "book", "loan", "title", "genre", "pages", "weeks",
          ("novel", "poetry", "history", "travel", "drama")),
    Theme("farm", "product", "sale", "label", "sort", "cents", "units",
          ("cheese", "honey", "apples", "bread", "juice")),
    Theme("studio", "game", "session", "title", "style", "megabytes", "minutes",
          ("chess", "racing", "cards", "puzzle", "golf")),
)  # fmt: skip
CITIES = ("Arden", "Brook", "Calder", "Dunmore", "Elm", "Farrow")
FIRST = (
    "Red",
    "Old",
    "Quiet",
    "Iron",
    "Blue",
    "Lost",
    "Green",
    "Long",
    "Wild",
    "Small",
    "Bright",
    "Cold",
)
SECOND = ("River", "Oak", "Stone", "Harbour", "Meadow", "Tower", "Lantern", "Bridge", "Fox")


@dataclass(frozen=True)
class Form:
    """One form of question.

    Example:
        `FORMS[0].level` is 1.
    """

    level: int
    """Difficulty, 1 to 3."""
    ordered: bool
    """Whether the order of rows is asked for."""
    question: str
    """In words."""
    sql: str
    """The query."""


JOINED = "{e} JOIN {t} ON {t}.id = {e}.{thing}_id JOIN {m} ON {m}.id = {t}.{maker}_id"
FORMS = (
    Form(1, False,
         "What is the sum of {amount} over all {e} from day {day} on of {t} whose {kind} is "
         "'{value}' and whose {maker} is in {city}?",
         f"SELECT SUM({{e}}.{{amount}}) FROM {JOINED} WHERE {{t}}.{{kind}} = '{{value}}' "
         "AND {m}.city = '{city}' AND {e}.day >= {day}"),
    Form(1, False,
         "Which {m} in {city} have at least one of the {t} with more than {x} {number}? "
         "Columns: the {maker}'s name, the number of such {t}.",
         "SELECT {m}.name, COUNT(*) FROM {m} JOIN {t} ON {t}.{maker}_id = {m}.id "
         "WHERE {m}.city = '{city}' AND {t}.{number} > {x} GROUP BY {m}.id, {m}.name"),
    Form(2, False,
         "For each city with at least one of the {e} from day {day} on of more than {y} {amount} "
         "(the city of the {maker}): the city and the number of such {e}. Columns: city, number.",
         f"SELECT {{m}}.city, COUNT(*) FROM {JOINED} WHERE {{e}}.day >= {{day}} "
         "AND {e}.{amount} > {y} GROUP BY {m}.city"),
    Form(2, True,
         "Which {top} {t} have the largest sum of {amount} over their {e} from day {day} on? "
         "Columns: {label}, sum; largest sum first, equal sums by {label}.",
         "SELECT {t}.{label}, SUM({e}.{amount}) AS total FROM {t} JOIN {e} ON "
         "{e}.{thing}_id = {t}.id WHERE {e}.day >= {day} GROUP BY {t}.id, {t}.{label} "
         "ORDER BY total DESC, {t}.{label} LIMIT {top}"),
    Form(3, True,
         "Which {t} have more {number} than the average of all {t} of the same {kind}, and more "
         "than {x}? Column: {label}, in alphabetical order.",
         "SELECT a.{label} FROM {t} AS a WHERE a.{number} > {x} AND a.{number} > (SELECT "
         "AVG(b.{number}) FROM {t} AS b WHERE b.{kind} = a.{kind}) ORDER BY a.{label}"),
    Form(3, False,
         "Which {m} have no {thing} with any {event} from day {day} on of more than {y} {amount}? "
         "Columns: name, city.",
         "SELECT name, city FROM {m} WHERE id NOT IN (SELECT {t}.{maker}_id FROM {t} JOIN {e} "
         "ON {e}.{thing}_id = {t}.id WHERE {e}.day >= {day} AND {e}.{amount} > {y})"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SQLSettings(Settings):
    """Difficulty.

    Example:
        `SQLSettings(level=1, rows=12)`
    """

    level: int = 3
    """Forms of questions: 1 joins and sums, 2 groups and orders, 3 queries inside queries."""
    rows: int = 24
    """Rows of the middle table, from 12 to 80; the last has three times as many."""
    prompt: str = (
        "An SQLite database has these tables:\n{schema}\n\n{question}\n\nAnswer with one SQL query "
        "that returns exactly these columns and rows; it is run on another database with the same "
        "tables too."
    )
    """The prompt's template."""

    def __post_init__(self) -> None:
        """Check every range."""
        super().__post_init__()
        check_range("level", self.level, 1, 3)
        check_range("rows", self.rows, 12, 80)


class SQL(Procedural[SQLSettings]):
    """Questions about generated databases."""

    name = "sql"
    Config = SQLSettings
    fields = ("schema", "question")

    def draw(self, rng: np.random.Generator) -> Problem | None:
        """Draw a question and two databases on which its answer differs."""
        theme = THEMES[int(rng.integers(len(THEMES)))]
        forms = [form for form in FORMS if form.level <= self.config.level]
        form = forms[int(rng.integers(len(forms)))]
        holes = _holes(theme, rng)
        query = form.sql.format(**holes)
        if side(query) != self.config.split:
            return None  # known before the databases are built, which takes a while
        truth = {
            "schema": theme.schema,
            "databases": [_rows(theme, self.config.rows, rng) for _ in range(2)],
            "query": query,
            "ordered": form.ordered,
        }
        try:
            first, second = (results_of(truth, rows) for rows in truth["databases"])
        except TaskError:
            return None
        if not first or first[0][0] is None or first == second:
            return None
        question = form.question.format(**holes)
        return Problem(
            fields={"schema": theme.schema, "question": question},
            canonical=query,
            truth=truth,
            solution=f"<answer>{query}</answer>",
            metadata={"level": form.level, "theme": theme.maker},
        )


def _holes(theme: Theme, rng: np.random.Generator) -> dict[str, Any]:
    """Return what fills a form: the theme's names, and values that are drawn."""
    names = {key: getattr(theme, key) for key in ("maker", "thing", "event", "label", "kind")}
    tables = {"m": f"{theme.maker}s", "t": f"{theme.thing}s", "e": f"{theme.event}s"}
    return {
        **names,
        **tables,
        "number": theme.number,
        "amount": theme.amount,
        "value": theme.kinds[int(rng.integers(len(theme.kinds)))],
        "city": CITIES[int(rng.integers(len(CITIES)))],
        "day": int(rng.integers(1, DAYS // 2)),
        "top": int(rng.integers(2, 6)),
        "x": int(rng.integers(100, 700)),
        "y": int(rng.integers(5, 40)),
    }


def _rows(theme: Theme, count: int, rng: np.random.Generator) -> dict[str, list[list[Any]]]:
    """Draw the rows of one database."""
    makers = max(6, count // 3)
    names = [f"{a} {b}" for a in FIRST for b in SECOND]
    labels = [names[i] for i in rng.permutation(len(names))[: count + makers].tolist()]
    cities = rng.integers(len(CITIES), size=makers).tolist()
    owners = rng.integers(1, makers, size=count, endpoint=True).tolist()
    kinds = rng.integers(len(theme.kinds), size=count).tolist()
    numbers = rng.integers(50, 1000, size=count).tolist()
    things = rng.integers(1, count, size=3 * count, endpoint=True).tolist()
    days = rng.integers(1, DAYS, size=3 * count, endpoint=True).tolist()
    amounts = rng.integers(1, 60, size=3 * count).tolist()
    return {
        f"{theme.maker}s": [
            [i + 1, f"{labels[count + i]} {theme.maker.title()}", CITIES[city]]
            for i, city in enumerate(cities)
        ],
        f"{theme.thing}s": [
            [i + 1, owners[i], labels[i], theme.kinds[kinds[i]], numbers[i]] for i in range(count)
        ],
        f"{theme.event}s": [
            [i + 1, things[i], days[i], amounts[i]] for i in range(3 * count)
        ],
    }  # fmt: skip


def query(state: dict[str, Any], sql: str) -> str:
    """Run one SQL query on the database; reading only.

    Args:
        sql: One SELECT statement of SQLite.
    """
    try:
        with contextlib.closing(database(state["schema"], state["rows"])) as connection:
            names, rows = select(connection, sql, rows=SHOWN_ROWS + 1)
    except Refused as error:
        raise UsageError(str(error)) from None
    lines = [json.dumps(names, ensure_ascii=False)]
    lines += [json.dumps(row, ensure_ascii=False, default=repr) for row in rows[:SHOWN_ROWS]]
    lines.append(f"more than {SHOWN_ROWS} rows" if len(rows) > SHOWN_ROWS else f"{len(rows)} rows")
    return "\n".join(lines)


class SQLEnv(ShippedToolEnv[dict[str, Any]]):
    """A chat with a database."""

    TOOLS = (tool(query, seconds=SECONDS),)
    TURNS = 8
    EXAMPLE = ("query", {"sql": "SELECT name FROM sqlite_schema"})
    END = "End with your query as <answer>SELECT …</answer>, in a turn without calls."

    def open(self, task: Task, rng: np.random.Generator) -> dict[str, Any]:
        """Return the data that the policy may look at; every call builds its own database."""
        return {"schema": task.truth["schema"], "rows": task.truth["databases"][0]}

    def copy_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the data itself: nothing changes it."""
        return state

    def solve(self, task: Task) -> Iterator[str]:
        """Try the query, then answer with it."""
        yield self.call("query", sql=task.truth["query"])
        yield f"<answer>{task.truth['query']}</answer>"
