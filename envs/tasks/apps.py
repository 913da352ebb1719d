"""`rlvr/APPS-v0`: problems of programming contests (Hendrycks et al., 2021, arXiv:2105.09938).

**Prompt** the problem, with the starter code where there is one. **Truth** the row's
`input_output`: inputs and outputs of a program that reads and prints, or arguments and results of
the function `fn_name` (also as a method of `Solution`). **Solution** the first of the row's.
**Verifier** `program`, which compares results as JSON does and printed lines without the white
space at their ends. Many problems of this set accept several answers and say so in words alone;
filter by running `solutions` if that matters.

**Options** `path`: a local `.jsonl`, used whole and in its order unless `split` is given (then
a hash split, 80/20); rows without tests are errors. Without a path, the data set `codeparrot/apps`
of the Hub, whose own `split` it is. `scaled`: measure the first solution and stretch the time
limit.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...verifiers import Task, TaskError
from ..programs import ANSWER_FORM, fenced, first_solution, load_rows, text_of
from ..sources import Row

HUB = ("codeparrot/apps", "all", "train")


def apps(
    *, path: str | Path | None = None, split: str | None = None, scaled: bool = False
) -> Sequence[Task]:
    """Load the tasks.

    Args:
        path: A local file; none for the Hub.
        split: `"train"` or `"test"`.
        scaled: Whether the truth holds the first solution.

    Raises:
        UsageError: The file or the data set cannot be had.
        TaskError: A row lacks a column or has no tests.
    """

    def read(row: Row, where: str) -> Mapping[str, Any]:
        question = text_of(row, "question", where, "APPS")
        tests = row.get("input_output")
        try:
            data = json.loads(tests) if isinstance(tests, str) else tests
        except ValueError as error:
            raise TaskError(f"{where}: 'input_output' is no JSON: {error}") from error
        if not isinstance(data, Mapping) or not data.get("inputs"):
            raise TaskError(f"{where}: the row has no tests in 'input_output'")
        truth: dict[str, Any] = {"input_output": dict(data)}
        solution = first_solution(row.get("solutions"))
        if scaled and solution:
            truth["solution"] = solution
        return {
            "id": f"apps-{row['problem_id']}" if "problem_id" in row else None,
            "prompt": asked(question, row.get("starter_code"), data.get("fn_name")),
            "truth": truth,
            "solution": fenced(solution) if solution else None,
            "difficulty": row.get("difficulty"),
        }

    return load_rows(read, "apps", path=path, split=split, hub=HUB)


def asked(question: str, starter: Any, function: Any) -> str:
    """Join a problem, what the program must begin with, and how to answer.

    Example:
        >>> print(asked("Add.", "", None))
        Add.
        <BLANKLINE>
        Read from standard input and print to standard output.
        Answer with one ```python block that holds the whole program.
    """
    parts = [question.strip()]
    if starter:
        parts.append(f"Begin with:\n```python\n{str(starter).strip()}\n```")
    elif function:
        parts.append(f"Write the function `{function}`.")
    how = "" if function or starter else "Read from standard input and print to standard output.\n"
    return "\n\n".join([*parts, how + ANSWER_FORM])
