"""`rlvr/LiveCodeBench-v0`: contest problems with dates (Jain et al., 2024, arXiv:2403.07974).

**Prompt** the problem, with the starter code where there is one. **Truth** the row's public and
private tests; private ones may be packed, and are unpacked without unpickling. **Solution** none.
**Verifier** `program`. `metadata["date"]` is the contest's, for splits by time.

**Options** `path`: a local `.jsonl`, used whole and in its order unless `split` is given (then
a hash split, 80/20). Without a path, the data set `livecodebench/code_generation` of the Hub, split
`"test"`. `since`, `until`: contest dates to keep, such as `"2024-09-01"`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...verifiers import Task, TaskError
from ..programs import load_rows, text_of
from ..selection import filter_tasks
from ..sources import Row
from .apps import asked

HUB = ("livecodebench/code_generation", None, "test")


def livecodebench(
    *,
    path: str | Path | None = None,
    split: str | None = None,
    since: str = "",
    until: str = "9999",
) -> Sequence[Task]:
    """Load the tasks.

    Args:
        path: A local file; none for the Hub.
        split: `"train"` or `"test"`.
        since: First date of a contest, as year-month-day.
        until: Date before which contests are kept.

    Raises:
        UsageError: The file or the data set cannot be had, or no contest is of that time.
        TaskError: A row lacks a column.
    """
    tasks = load_rows(_read, "livecodebench", path=path, split=split, hub=HUB)
    if not since and until == "9999":
        return tasks
    return filter_tasks(tasks, lambda task: since <= str(task.metadata["date"]) < until)


def _read(row: Row, where: str) -> Mapping[str, Any]:
    question = text_of(row, "question_content", where, "LiveCodeBench")
    metadata = row.get("metadata") or {}
    try:
        metadata = json.loads(metadata) if isinstance(metadata, str) else dict(metadata)
    except ValueError as error:
        raise TaskError(f"{where}: 'metadata' is no JSON: {error}") from error
    truth = {"metadata": metadata}
    for key in ("public_test_cases", "private_test_cases"):
        if row.get(key):
            truth[key] = row[key]
    if len(truth) == 1:
        raise TaskError(f"{where}: LiveCodeBench needs 'public_test_cases' or 'private_test_cases'")
    return {
        "id": str(row["question_id"]) if row.get("question_id") is not None else None,
        "prompt": asked(question, row.get("starter_code"), metadata.get("func_name")),
        "truth": truth,
        "date": str(row.get("contest_date", ""))[:10],
        "difficulty": row.get("difficulty"),
        "platform": row.get("platform"),
    }
