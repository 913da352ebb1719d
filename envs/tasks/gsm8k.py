"""`rlvr/GSM8K-v0`: grade-school word problems (Cobbe et al., 2021, arXiv:2110.14168).

**Prompt** the question. **Truth** the number after `####` in the gold answer, as text without
thousands separators (`"70000"`). **Solution** the gold answer itself. **Verifier** `final_number`:
the completion's number must equal the truth exactly; it stands after the last `####`, else in
`\\boxed{}`, after "the answer is", or is the whole completion.

**Options** `path`: a local `.jsonl` with the columns `question` and `answer`, used whole and in its
order unless `split` is given (then a hash split, 80/20). Without a path, the data set
`openai/gsm8k` of the Hub, whose own `split` it is (`"train"` by default).
"""

import re
from collections.abc import Sequence
from pathlib import Path

from ... import verifiers
from ...verifiers import Task, TaskError
from ..selection import split_tasks
from ..sources import RowReader, Rows, collect, read_hub, read_rows

HUB = ("openai/gsm8k", "main")
_GOLD = re.compile(r"####\s*(-?[0-9][0-9,]*(?:\.[0-9]+)?)\s*\Z")

final_number = verifiers.make("number", extract=("hash", "boxed", "answer_is", "whole"))


def gsm8k(*, path: str | Path | None = None, split: str | None = None) -> Sequence[Task]:
    """Load the tasks.

    Args:
        path: A local file; none for the Hub.
        split: `"train"` or `"test"`.

    Raises:
        UsageError: The file or the data set cannot be had.
        TaskError: A row has no question, or its answer does not end in `#### number`.
    """
    if path is not None:
        tasks = collect(_read(read_rows(path)), RowReader(), "gsm8k")
        return tasks if split is None else split_tasks(tasks, split)
    rows = read_hub(*HUB, split=split or "train")
    return collect(_read(rows), RowReader(), f"gsm8k-{split or 'train'}")


def _read(rows: Rows) -> Rows:
    """Put the number in the place of the truth and the gold answer in that of the solution."""
    for where, row in rows:
        gold = row.get("answer")
        if not isinstance(gold, str) or row.get("question") is None:
            raise TaskError(
                f"{where}: GSM8K needs the columns 'question' and 'answer' (a text); "
                f"the row has: {', '.join(map(str, row))}"
            )
        number = _GOLD.search(gold)
        if number is None:
            raise TaskError(
                f"{where}: the answer must end in '#### number', it ends {gold[-40:]!r}"
            )
        truth = number[1].replace(",", "")
        yield where, {"prompt": row["question"], "truth": truth, "solution": gold}
