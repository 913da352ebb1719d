"""`rlvr/MBPP-v0`: write a Python function for a sentence (Austin et al., 2021, arXiv:2108.07732).

**Prompt** the sentence and the first `shown` of its tests, which name the function. **Truth** the
row's tests with what they need. **Solution** the reference. **Verifier** `program`: the tests run
in a sandbox of their own, the answer in another.

A test that is shown can be answered without solving anything (`if x == 3: return 9`), so one is
shown and the others stay hidden; `shown=3` is the usual form of the benchmark.

**Options** `path`: a local `mbpp.jsonl` or `sanitized-mbpp.json`, used whole and in its order
unless `split` is given (then a hash split, 80/20). Without a path, the data set
`google-research-datasets/mbpp` of the Hub, configuration `config`, whose own `split` it is.
`scaled`: measure the reference first and stretch the time limit for slow ones.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...verifiers import Task, TaskError
from ..procedural import check_range
from ..programs import ANSWER_FORM, fenced, load_rows, text_of
from ..sources import Row

HUB = "google-research-datasets/mbpp"
TESTS = ("test_list", "test_setup_code", "test_imports", "challenge_test_list")


def mbpp(
    *,
    path: str | Path | None = None,
    split: str | None = None,
    config: str = "full",
    shown: int = 1,
    scaled: bool = False,
) -> Sequence[Task]:
    """Load the tasks.

    Args:
        path: A local file; none for the Hub.
        split: `"train"` or `"test"`; of the Hub also `"validation"` and `"prompt"`.
        config: `"full"` or `"sanitized"`, of the Hub.
        shown: Tests in the prompt, from 0 up.
        scaled: Whether the truth holds the reference.

    Raises:
        UsageError: The file or the data set cannot be had, or `shown` is below 0.
        TaskError: A row lacks a column.
    """
    check_range("shown", shown, 0)

    def read(row: Row, where: str) -> Mapping[str, Any]:
        text = text_of(row, "text" if "text" in row else "prompt", where, "MBPP")
        code = text_of(row, "code", where, "MBPP").replace("\r\n", "\n")
        truth = {key: row[key] for key in TESTS if row.get(key)}
        tests = truth.get("test_list")
        if not isinstance(tests, list) or not all(isinstance(test, str) for test in tests):
            raise TaskError(
                f"{where}: MBPP needs the column 'test_list' (texts), got {tests!r:.60}"
            )
        if scaled:
            truth["solution"] = code
        lines = [text.strip(), "It must pass:\n" + "\n".join(tests[:shown]), ANSWER_FORM]
        return {
            "id": f"mbpp-{row['task_id']}" if "task_id" in row else None,
            "prompt": "\n\n".join(lines if shown else [lines[0], lines[2]]),
            "truth": truth,
            "solution": fenced(code),
        }

    return load_rows(read, "mbpp", path=path, split=split, hub=(HUB, config, "train"))
