"""Rows of files, lists and the Hugging Face Hub as tasks.

A reader yields `(where, row)` one row at a time, `where` being what an error names (`file:line`).
Nothing is skipped silently: a line that is no JSON object, a row without a needed column and a
repeated id are errors. pyarrow and datasets are imported only by the readers that need them.
"""

import gzip
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..verifiers import Task, TaskError, UsageError
from ..verifiers.errors import unknown
from .templates import Template

Row = Mapping[str, Any]
Rows = Iterator[tuple[str, Row]]

PROMPT_COLUMNS = ("prompt", "question", "problem", "messages")
"""Where the prompt is looked for, in this order, unless a column is named."""
TRUTH_COLUMNS = ("truth", "answer", "ground_truth", "target")
"""Where the truth is looked for, in this order, unless a column is named."""
COLUMNS: Mapping[str, None] = dict.fromkeys(("prompt", "truth", "solution", "prompt_template"))
"""The options of `RowReader`: the names of columns, none of them given."""
MAX_ROWS = 1_000_000
"""Rows that are held in memory at most; an endless generator ends here with an error."""


def read_rows(path: str | Path) -> Rows:
    """Read the rows of a file.

    Args:
        path: `.jsonl`, `.jsonl.gz` (one object a line), `.json` (an array of objects) or
            `.parquet`.

    Yields:
        Where a row stands, and the row; in the file's order.

    Raises:
        UsageError: There is no such file, or its kind is unknown.
        TaskError: A row cannot be read; names the file, the line and why.
    """
    if not isinstance(path, str | Path):
        raise UsageError(f"path must be a text or a Path, got {path!r:.100}")
    file = Path(path)
    kind = "".join(file.suffixes[-2:]) if file.suffix == ".gz" else file.suffix
    readers = {
        ".jsonl": _jsonl, ".jsonl.gz": _jsonl, ".json": _json, ".parquet": _parquet
    }  # fmt: skip
    if kind not in readers:
        raise UsageError(f"{file}: a file of tasks ends in {', '.join(readers)}; got '{kind}'")
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise UsageError(f"{file} {what}; give the path of a file of tasks (now in {Path.cwd()})")
    return readers[kind](file)


def _jsonl(file: Path) -> Rows:
    """Read line by line; bytes, so that a line with broken UTF-8 is named too."""
    open_it: Callable[..., Any] = gzip.open if file.suffix == ".gz" else open
    with cast(BinaryIO, open_it(file, "rb")) as lines:
        for number, raw in enumerate(lines, 1):
            where = f"{file}, line {number}"
            line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if line.strip():
                yield where, _object(_loads(line, where), where)


def _json(file: Path) -> Rows:
    data = _loads(file.read_bytes().removeprefix(b"\xef\xbb\xbf"), str(file))
    if not isinstance(data, list):
        raise TaskError(
            f"{file}: a .json file of tasks holds an array of objects, got {type(data).__name__}; "
            "for one object a line name it .jsonl"
        )
    for number, item in enumerate(data):
        where = f"{file}, item {number}"
        yield where, _object(item, where)


def _parquet(file: Path) -> Rows:
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise UsageError(f"{file}: Parquet needs pyarrow; pip install 'rlvr[data]'") from error
    number = 0
    try:
        with ParquetFile(file) as table:
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    yield f"{file}, row {number}", row
                    number += 1
    except ArrowInvalid as error:
        raise TaskError(f"{file} is not readable as Parquet after row {number}: {error}") from error


def _loads(data: bytes, where: str) -> Any:
    """Read JSON, strictly: no NaN, no infinities."""
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if b"\n" in data.strip() else ""
        raise TaskError(
            f"{where}: not JSON: {error.msg} ({place or f'column {error.colno}'}); "
            f"the line begins {data[:60].decode('utf-8', 'replace')!r}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{where}: not JSON: {error}") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def _object(item: Any, where: str) -> Row:
    if not isinstance(item, Mapping):
        raise TaskError(
            f"{where}: a row is an object with columns, got {type(item).__name__}: {item!r:.60}"
        )
    return item


def read_hub(dataset: str, config: str | None = None, split: str = "train") -> Rows:
    """Read the rows of a data set of the Hugging Face Hub, or of a local folder in its layout.

    Args:
        dataset: `"openai/gsm8k"`.
        config: Which of its configurations; none if it has one.
        split: Which of its splits.

    Raises:
        UsageError: `datasets` is not installed, or the data set, configuration or split cannot be
            had.
    """
    try:
        import datasets
    except ImportError as error:
        raise UsageError(
            f"data set '{dataset}': the Hub needs the library datasets; pip install 'rlvr[data]'"
        ) from error
    try:
        data = datasets.load_dataset(dataset, config, split=split)
    except Exception as error:
        raise UsageError(
            f"data set '{dataset}' (config {config}, split '{split}') could not be loaded: "
            f"{type(error).__name__}: {error}; check the names and the connection, or give a local "
            "file with path=…"
        ) from error
    for number, row in enumerate(data):
        yield f"{dataset}, {split} row {number}", cast(Row, row)


class RowReader:
    """Turns rows into tasks, by the names of their columns."""

    def __init__(
        self,
        *,
        prompt: str | None = None,
        truth: str | None = None,
        solution: str | None = None,
        prompt_template: str | None = None,
    ) -> None:
        """Name the columns.

        Args:
            prompt: Column of the prompt (a text or chat messages); by default the first of
                `PROMPT_COLUMNS` that the row has.
            truth: Column of the truth; by default the first of `TRUTH_COLUMNS`.
            solution: Column of a completion known to be right; `"solution"` if the row has it.
            prompt_template: The prompt from several columns, instead of `prompt`:
                `"{context}\\n{question}"`.

        Raises:
            UsageError: `prompt` and `prompt_template` are both given.
        """
        if prompt is not None and prompt_template is not None:
            raise UsageError(
                f"give prompt={prompt!r} or prompt_template={prompt_template!r}, not both"
            )
        self._prompt = (prompt,) if prompt else PROMPT_COLUMNS
        self._truth = (truth,) if truth else TRUTH_COLUMNS
        self._solution = solution
        self._text = prompt_template
        self._template: Template | None = None

    def task(self, row: Row, where: str, name: str) -> Task:
        """Return the task of one row.

        Args:
            row: The row.
            where: What errors name.
            name: The task's id, unless the row has an `id`.

        Raises:
            TaskError: A needed column is missing or empty.
        """
        truth = _column(row, self._truth, "truth", where)
        used = {truth, "id", "solution"}
        if self._text is not None:
            prompt = self._fill(row, truth, where)
        else:
            column = _column(row, self._prompt, "prompt", where)
            used.add(column)
            prompt = row[column]
        if not isinstance(prompt, str | list | tuple):
            raise TaskError(f"{where}: the prompt is a text or chat messages, got {prompt!r:.100}")
        given = row.get("id")
        try:
            return Task(
                id=name if given is None else str(given),
                prompt=tuple(prompt) if isinstance(prompt, list) else prompt,
                truth=row[truth],
                metadata={key: value for key, value in row.items() if key not in used},
                solution=self._known_solution(row, where),
            )
        except TaskError as error:
            raise TaskError(f"{where}: {error}") from error

    def _known_solution(self, row: Row, where: str) -> str | None:
        if self._solution is None:
            known = row.get("solution")
            return known if isinstance(known, str) else None
        return str(row[_column(row, (self._solution,), "solution", where)])

    def _fill(self, row: Row, truth: str, where: str) -> str:
        """Fill the prompt's template, checked against the first row's columns."""
        assert self._text is not None
        if self._template is None:
            self._template = Template(self._text, list(row), "prompt_template")
            if truth in self._template.fields:
                raise UsageError(f"prompt_template shows the truth: it has the hole {{{truth}}}")
        for name in self._template.fields:
            _column(row, (name,), "prompt_template", where)
        return self._template.fill(row)


def _column(row: Row, names: Sequence[str], what: str, where: str) -> str:
    """Return the first of `names` that the row has with a value."""
    for name in names:
        if row.get(name) is not None:
            return name
    expected = " or ".join(f"'{name}'" for name in names)
    empty = [name for name in names if name in row]
    state = f"column '{empty[0]}' is empty" if empty else f"no column {expected} for the {what}"
    hint = "" if what == "prompt_template" else f"; name the right one with {what}=…"
    raise TaskError(f"{where}: {state}; the row has: {', '.join(map(str, row)) or 'none'}{hint}")


def collect(
    rows: Iterable[tuple[str, Row | Task]], reader: RowReader, source: str, limit: int | None = None
) -> tuple[Task, ...]:
    """Turn rows into tasks and check that their ids differ.

    Args:
        rows: Where each stands, and the row or a finished task.
        reader: Reads the rows.
        source: What ids begin with where rows have none, and what errors name.
        limit: Read so many rows at most.

    Raises:
        TaskError: A row cannot be read, an id repeats, or there is no row.
        UsageError: There are more than `MAX_ROWS`.
    """
    tasks: list[Task] = []
    places: dict[str, str] = {}
    for number, (where, row) in enumerate(itertools.islice(rows, limit)):
        if number >= MAX_ROWS:
            raise UsageError(f"{source} has more than {MAX_ROWS} rows; pass size=… for the first")
        task = row if isinstance(row, Task) else reader.task(row, where, f"{source}-{number}")
        if task.id in places:
            raise TaskError(
                f"{where}: id '{task.id}' was used at {places[task.id]}; ids must differ"
            )
        places[task.id] = where
        tasks.append(task)
    if not tasks:
        raise TaskError(f"{source} has no rows; expected at least one task")
    return tuple(tasks)


def numbered(items: Iterable[Any], source: str) -> Iterator[tuple[str, Row | Task]]:
    """Name the place of every item of a list or iterator of tasks and rows.

    Raises:
        TaskError: An item is neither a `Task` nor a mapping.
    """
    for number, item in enumerate(items):
        where = f"{source}, item {number}"
        yield where, item if isinstance(item, Task) else _object(item, where)


def file_tasks(path: str | Path, **columns: str | None) -> tuple[Task, ...]:
    """Load the tasks of a file, in its order; `columns` as in `RowReader`."""
    return collect(read_rows(path), RowReader(**columns), Path(path).name.split(".")[0])


def hub_tasks(
    dataset: str, config: str | None = None, split: str = "train", **columns: str | None
) -> tuple[Task, ...]:
    """Load one split of a data set of the Hub; `columns` as in `RowReader`."""
    if not isinstance(split, str) or not split:
        raise unknown("split", repr(split), ["train", "test"])
    name = f"{dataset.rpartition('/')[2]}-{split}"
    return collect(read_hub(dataset, config, split), RowReader(**columns), name)


def list_tasks(items: Iterable[Any], source: str, **columns: str | None) -> tuple[Task, ...]:
    """Take the tasks of a list of `Task` and rows; `columns` as in `RowReader`."""
    return collect(numbered(items, source), RowReader(**columns), source)
