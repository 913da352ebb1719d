"""`rlvr/HumanEval-v0`: complete a Python function (Chen et al., 2021, arXiv:2107.03374).

**Prompt** the beginning of the function, with `instruct` after a sentence that asks for the whole.
**Truth** the row's `prompt`, `test` and `entry_point`. **Solution** the canonical one. **Verifier**
`program`: `check(candidate)` runs in a sandbox of its own, the answer in another. A completion may
be the whole function or, as from a base model, its body.

**Options** `path`: a local `HumanEval.jsonl` or `.jsonl.gz`, used whole and in its order unless
`split` is given (then a hash split, 80/20). Without a path, the data set `openai/openai_humaneval`
of the Hub, which has the split `"test"` alone. `scaled`: measure the canonical solution first and
stretch the time limit for slow ones.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...verifiers import Task
from ..programs import ANSWER_FORM, fenced, load_rows, text_of
from ..sources import Row

HUB = ("openai/openai_humaneval", None, "test")


def humaneval(
    *,
    path: str | Path | None = None,
    split: str | None = None,
    instruct: bool = True,
    scaled: bool = False,
) -> Sequence[Task]:
    """Load the tasks.

    Args:
        path: A local file; none for the Hub.
        split: `"train"` or `"test"`.
        instruct: Whether the prompt asks for the whole function, or just begins it.
        scaled: Whether the truth holds the canonical solution.

    Raises:
        UsageError: The file or the data set cannot be had.
        TaskError: A row lacks a column.
    """

    def read(row: Row, where: str) -> Mapping[str, Any]:
        prompt, test, name, body = (
            text_of(row, key, where, "HumanEval")
            for key in ("prompt", "test", "entry_point", "canonical_solution")
        )
        truth = {"prompt": prompt, "test": test, "entry_point": name}
        if scaled:
            truth["solution"] = prompt + body
        asked = f"Complete this Python function.\n\n```python\n{prompt.strip()}\n```\n{ANSWER_FORM}"
        return {
            "id": text_of(row, "task_id", where, "HumanEval"),
            "prompt": asked if instruct else prompt,
            "truth": truth,
            "solution": fenced(prompt + body),
        }

    return load_rows(read, "humaneval", path=path, split=split, hub=HUB)
