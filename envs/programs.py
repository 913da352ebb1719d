"""What the environments of programming problems share: rows of files and of the Hub, and fences."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..verifiers import Task, TaskError
from .selection import split_tasks
from .sources import Row, RowReader, Rows, collect, read_hub, read_rows

ANSWER_FORM = "Answer with one ```python block that holds the whole program."
"""The sentence that ends prompts."""


def fenced(program: str) -> str:
    """Return a program as a completion.

    Example:
        >>> fenced("x = 1")
        '```python\\nx = 1\\n```'
    """
    return f"```python\n{program.rstrip()}\n```"


def load_rows(
    read: Callable[[Row, str], Mapping[str, Any]],
    name: str,
    *,
    path: str | Path | None,
    split: str | None,
    hub: tuple[str, str | None, str],
) -> Sequence[Task]:
    """Load tasks from a local file, or from the Hub.

    Args:
        read: Makes prompt, truth and solution of a row; is told where the row stands.
        name: What ids begin with where rows have none.
        path: A local file, used whole and in its order unless `split` is given.
        split: `"train"` or `"test"` of a local file (by a hash); of the Hub, its own split.
        hub: Data set, configuration, and the split that is taken if none is named.

    Raises:
        UsageError: The file or the data set cannot be had.
        TaskError: A row cannot be read.
    """
    if path is not None:
        tasks = collect(_made(read_rows(path), read), RowReader(), name)
        return tasks if split is None else split_tasks(tasks, split)
    chosen = split or hub[2]
    rows = read_hub(hub[0], hub[1], split=chosen)
    return collect(_made(rows, read), RowReader(), f"{name}-{chosen}")


def _made(rows: Rows, read: Callable[[Row, str], Mapping[str, Any]]) -> Rows:
    for where, row in rows:
        yield where, read(row, where)


def text_of(row: Row, key: str, where: str, benchmark: str) -> str:
    """Return a text of a row.

    Raises:
        TaskError: The row has none under that name.
    """
    value = row.get(key)
    if not isinstance(value, str):
        raise TaskError(
            f"{where}: {benchmark} needs the column '{key}' (a text); the row has: "
            f"{', '.join(map(str, row)) or 'none'}"
        )
    return value


def first_solution(given: Any) -> str | None:
    """Return the first of several solutions, a list or its JSON text, if there is one.

    Example:
        >>> first_solution('["print(1)", "print(2)"]')
        'print(1)'
    """
    import json

    if isinstance(given, str) and given.strip():
        try:
            given = json.loads(given)
        except ValueError:
            return None
    return given[0] if isinstance(given, list) and given and isinstance(given[0], str) else None
