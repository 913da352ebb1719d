"""`rlvr verify FILE`: the completions of a file judged, counted, and held against their labels.

Rows and verdicts stream: what is held does not grow with the file.
"""

import json
import math
import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ..envs.sources import TRUTH_COLUMNS, read_rows
from ..verifiers import Status, TaskError, UsageError, Verdict, explain, make, verify_each
from .progress import print_table, shorten
from .sources import option_value

if TYPE_CHECKING:
    from .commands import VerifyCommand

COMPLETION_COLUMNS = ("completion", "response", "output", "generation")
"""Where the completion is looked for, in this order, unless a column is named."""
MAX_WHYS = 30
"""Lines of the table of reasons."""
MAX_LABEL = 1e9
"""Greatest absolute reward that is taken for a label."""
WORDS = {
    **dict.fromkeys(("true", "yes", "right", "correct", "1"), 1.0),
    **dict.fromkeys(("false", "no", "wrong", "incorrect", "0"), 0.0),
}
"""Labels that are words."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the file."""

    row: str
    """Where it stands: `line 12`."""
    completion: str
    truth: Any
    label: float | None
    """What the label column says: 1 right, 0 wrong, or a reward; `None` for an unlabelled row."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A row whose verdict is not what its label says."""

    case: Case
    verdict: Verdict


@dataclass
class Tally:
    """What the verdicts add up to."""

    show: int
    """Disagreements that are kept."""
    statuses: Counter[str] = field(default_factory=Counter)
    whys: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Verdicts per status, tier and class of reason."""
    labels: Counter[tuple[float, str]] = field(default_factory=Counter)
    """Labelled rows per label and outcome: `agrees`, `differs`, `unscored`."""
    differing: list[Disagreement] = field(default_factory=list)
    rewards: float = 0.0
    scored: int = 0
    slowest: tuple[float, str] = (0.0, "")
    """Seconds of the slowest check, and its row."""

    @property
    def rows(self) -> int:
        """Rows judged."""
        return self.statuses.total()

    @property
    def agrees(self) -> bool:
        """Whether every labelled row is scored as its label says."""
        return all(outcome == "agrees" for _, outcome in self.labels)

    def add(self, case: Case, verdict: Verdict) -> None:
        """Count one verdict."""
        self.statuses[verdict.status] += 1
        self.whys[(verdict.status, *explain(verdict.to_json()))] += 1
        if verdict.reward is not None:
            self.rewards += verdict.reward
            self.scored += 1
        self.slowest = max(self.slowest, (verdict.cost.get("seconds", 0.0), case.row))
        if case.label is None:
            return
        outcome = _outcome(verdict, case.label)
        self.labels[(case.label, outcome)] += 1
        if outcome == "differs" and len(self.differing) < self.show:
            self.differing.append(Disagreement(case, verdict))


def _outcome(verdict: Verdict, label: float) -> str:
    if verdict.reward is None:
        return "unscored"
    if label in (0.0, 1.0):
        same = (verdict.status is Status.CORRECT) == bool(label)
    else:
        same = math.isclose(verdict.reward, label, abs_tol=1e-6)
    return "agrees" if same else "differs"


def run_verify(given: "VerifyCommand") -> Tally:
    """Judge a file, print what was found, and write the verdicts if asked.

    Raises:
        UsageError: A file, the verifier or an option is not usable.
        TaskError: A row cannot be read; names it.
    """
    verifier = make(given.verifier, **_options(given.option))
    if given.show < 0:
        raise UsageError(f"--show is a number of rows from 0 up, got {given.show}")
    tally = Tally(given.show)
    pending: deque[Case] = deque()
    cases = _cases(given, pending)
    start = time.monotonic()
    verdicts = verify_each(verifier, cases, workers=given.workers, timeout=given.timeout)
    with _output(given) as write, _counter() as count:
        for verdict in verdicts:
            case = pending.popleft()
            tally.add(case, verdict)
            write(case, verdict)
            count(tally.rows)
    if not tally.rows:
        raise TaskError(f"{given.file} has no rows; expected at least one")
    _print(given, tally, time.monotonic() - start)
    return tally


def _options(words: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--option is name=value, such as percent=either; got '{word}'")
        if name in options:
            raise UsageError(f"--option {name} is given twice: {options[name]!r} and '{value}'")
        options[name] = option_value(value)
    return options


def _cases(given: "VerifyCommand", pending: deque[Case]) -> Iterator[tuple[str, Any]]:
    """Read the rows as the verifier takes them, and remember each until its verdict comes."""
    for where, row in read_rows(given.file):
        completion = _value(row, where, "completion", given.completion, COMPLETION_COLUMNS)
        if not isinstance(completion, str):
            raise TaskError(f"{where}: the completion is a text, got {completion!r:.100}")
        truth = _value(row, where, "truth", given.truth, TRUTH_COLUMNS)
        label = _label(row, where, given.label) if given.label else None
        pending.append(Case(where.removeprefix(f"{given.file}, "), completion, truth, label))
        yield completion, truth


def _value(row: Mapping[str, Any], where: str, what: str, named: str, usual: Sequence[str]) -> Any:
    for name in (named,) if named else usual:
        if name in row:
            return row[name]
    expected = " or ".join(f"'{name}'" for name in ((named,) if named else usual))
    raise TaskError(
        f"{where}: no column {expected} for the {what}; the row has: "
        f"{', '.join(map(str, row)) or 'none'}; name the right one with --{what}"
    )


def _label(row: Mapping[str, Any], where: str, column: str) -> float | None:
    value = _value(row, where, "label", column, ())
    if value is None:
        return None
    if isinstance(value, bool | int | float) and abs(value) <= MAX_LABEL:
        return float(value)
    known = WORDS.get(str(value).strip().casefold())
    if known is None:
        raise TaskError(
            f"{where}: a label is true or false, a reward, or one of {', '.join(WORDS)}; the "
            f"column '{column}' holds {value!r:.100}"
        )
    return known


@contextmanager
def _output(given: "VerifyCommand") -> Iterator[Any]:
    """Yield what writes a verdict; the file appears when it is whole."""
    if not given.out:
        yield lambda case, verdict: None
        return
    place = Path(given.out)
    part = place.with_name(f".{place.name}.part")
    if place.exists() and place.samefile(given.file):
        raise UsageError(f"--out '{place}' is the file that is read; choose another")
    with _writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        file = open(part, "w", encoding="utf-8", errors="surrogatepass")  # noqa: SIM115

    def write(case: Case, verdict: Verdict) -> None:
        row = {"row": case.row, **verdict.to_json()}
        with _writing(place):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    try:
        yield write
        with _writing(place):
            file.close()
            os.replace(part, place)
    finally:
        with suppress(OSError):
            file.close()
        part.unlink(missing_ok=True)


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot write '{place}': {error.strerror or error}; choose another --out"
        ) from error


@contextmanager
def _counter() -> Iterator[Any]:
    """Yield what shows the rows done so far, where there is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda rows: None
        return
    with console.status("starting workers") as status:
        yield lambda rows: rows % 100 or status.update(f"{rows:,} rows judged")


def _print(given: "VerifyCommand", tally: Tally, seconds: float) -> None:
    total = tally.rows
    rows = [
        ("rows", f"{total:,} in {seconds:.1f} s"),
        ("mean reward", f"{tally.rewards / tally.scored:.4f}" if tally.scored else "none scored"),
    ]
    rows += [
        (f"status {status}", f"{tally.statuses[status]:,}  ({tally.statuses[status] / total:.1%})")
        for status in Status
        if tally.statuses[status]
    ]
    if tally.slowest[1]:
        rows.append(("slowest check", f"{tally.slowest[0] * 1e3:.1f} ms, {tally.slowest[1]}"))
    print_table(f"{given.verifier} on {given.file}", ["figure", "value"], rows)
    order = {status: place for place, status in enumerate(Status)}
    whys = sorted(tally.whys.items(), key=lambda item: (order[Status(item[0][0])], -item[1]))
    more = [("…", "", f"{len(whys) - MAX_WHYS} more kinds", "")] if len(whys) > MAX_WHYS else []
    print_table(
        "why",
        ["status", "tier", "reason", "rows"],
        [(*why, f"{count:,}") for why, count in whys[:MAX_WHYS]] + more,
    )
    if given.label:
        _print_labels(given.label, tally)


def _print_labels(column: str, tally: Tally) -> None:
    unlabelled = tally.rows - tally.labels.total()
    rows = [(f"{label:g}", outcome, n) for (label, outcome), n in sorted(tally.labels.items())]
    rows += [("none", "not compared", unlabelled)] if unlabelled else []
    print_table(f"against '{column}'", ["label", "verdict", "rows"], rows)
    count = sum(n for (_, outcome), n in tally.labels.items() if outcome == "differs")
    if not tally.differing:
        return
    shown = "" if count == len(tally.differing) else f" (the first {len(tally.differing)})"
    print_table(
        f"{count:,} disagreements{shown}",
        ["row", "label", "reward", "status", "answer", "truth", "reason"],
        [_described(found.case, found.verdict) for found in tally.differing],
    )


def _described(case: Case, verdict: Verdict) -> tuple[str, ...]:
    evidence = verdict.evidence
    # without an answer, the end of the completion shows why none was found
    answer = str(evidence.get("answer") or "…" + case.completion.strip()[-40:])
    why = str(evidence.get("reason") or evidence.get("tier") or "")
    label, reward = f"{case.label:g}", f"{verdict.reward:g}"
    shorts = (shorten(text, 40) for text in (answer, str(case.truth), why))
    return case.row, label, reward, str(verdict.status), *shorts
