"""`rlvr/Files-v0`: put a folder in order; what counts is what then stands there.

**Prompt** the files and the rule; the template's holes are `{paths}` and `{rule}`. **Truth** the
files before and after, path → text. **Judge** compares the final files with the truth: every path
and every character; empty folders do not count, and neither do the policy's words, except that it
has to end the episode. **Difficulty** how many files there are.

**Tools** `list_files()`, `read(path)`, `write(path, text)`, `move(source, target)`, `delete(path)`
on a folder of the episode's own, which is removed with it. A path is names of plain ASCII letters,
digits and `. _ -`, joined by `/`: no other path reaches the file system, so that none leaves the
folder. Nothing makes links.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...verifiers import Task, UsageError, Verdict, WorkerError
from ..procedural import Problem, Procedural, Settings, check_range
from ..tools.shipped import ShippedToolEnv

MAX_DEPTH = 4
"""Names in a path."""
MAX_FILES = 200
"""Files in a folder."""
MAX_BYTES = 10_000
"""Bytes of a file."""
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,59}")

Tree = dict[str, str]
"""Text by path."""


@dataclass(frozen=True, kw_only=True)
class FilesSettings(Settings):
    """Difficulty.

    Example:
        `FilesSettings(files=10)`
    """

    files: int = 6
    """How many files there are, from 4 to 30."""
    prompt: str = "A folder holds the files {paths}. {rule} Leave everything else as it is."
    """The prompt's template."""

    def __post_init__(self) -> None:
        """Check every range."""
        super().__post_init__()
        check_range("files", self.files, 4, 30)


_TOPICS = ("garden", "music", "travel", "kitchen", "money", "health", "letters", "maps")
_STATES = ("draft", "final", "obsolete", "open")
_MODES = ("test", "live", "trial", "backup")
_WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "iris", "jade",
          "kite", "lark", "maple", "north", "onyx", "pearl", "quartz", "raven", "slate", "thorn",
          "umbra", "vale", "willow", "xenon", "yarrow", "zephyr", "anchor", "beacon", "copper",
          "dune", "echo", "flint")  # fmt: skip


def _names(rng: np.random.Generator, count: int) -> list[str]:
    chosen = rng.permutation(len(_WORDS))[:count].tolist()
    return [f"{_WORDS[i]}{int(rng.integers(10, 100))}" for i in chosen]


def _pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]


def _sorted(rng: np.random.Generator, count: int) -> tuple[str, Tree, Tree]:
    """Sort files into folders by what stands in them."""
    chosen = rng.permutation(len(_TOPICS))[:4].tolist()
    moved = [_TOPICS[i] for i in sorted(chosen[:2])]
    start, end = {}, {}
    for name in _names(rng, count):
        topic = _TOPICS[chosen[int(rng.integers(4))]]
        text = f"topic: {topic}\nnote {int(rng.integers(1000))} on {_pick(rng, _WORDS)}\n"
        start[f"{name}.txt"] = text
        end[f"{topic}/{name}.txt" if topic in moved else f"{name}.txt"] = text
    rule = (
        f"Move each file whose topic is {moved[0]} into the folder {moved[0]}, and each whose "
        f"topic is {moved[1]} into the folder {moved[1]}."
    )
    return rule, start, end


def _renamed(rng: np.random.Generator, count: int) -> tuple[str, Tree, Tree]:
    """Rename files by the date that stands in them."""
    after = int(rng.integers(2000, 2020))
    start, end = {}, {}
    for name in _names(rng, count):
        year, month = int(rng.integers(1995, 2025)), int(rng.integers(1, 13))
        text = f"title: {_pick(rng, _WORDS)}\ndate: {year}-{month:02}\n"
        start[f"inbox/{name}.md"] = text
        new = f"inbox/{year}-{month:02}-{name}.md" if year >= after else f"inbox/{name}.md"
        end[new] = text
    rule = (
        f"Rename each file in inbox whose date is in {after} or later: put the date and a hyphen "
        "before its name, as in inbox/2031-07-name.md."
    )
    return rule, start, end


def _configured(rng: np.random.Generator, count: int) -> tuple[str, Tree, Tree]:
    """Change one line of some configuration files."""
    mode, port = _pick(rng, _MODES), int(rng.integers(2000, 9000))
    start, end = {}, {}
    for name in _names(rng, count):
        mine, old = _pick(rng, _MODES), int(rng.integers(9000, 9999))
        lines = "[service]\nmode = {mode}\nport = {port}\nowner = {owner}\n"
        holes = {"mode": mine, "owner": _pick(rng, _WORDS)}
        start[f"services/{name}.ini"] = lines.format(port=old, **holes)
        new = port if mine == mode else old
        end[f"services/{name}.ini"] = lines.format(port=new, **holes)
    rule = f"In each file of services whose mode is {mode}, set the port to {port}."
    return rule, start, end


def _deleted(rng: np.random.Generator, count: int) -> tuple[str, Tree, Tree]:
    """Delete files by what stands in them."""
    state, least = _pick(rng, _STATES), int(rng.integers(2, 8))
    start, end = {}, {}
    for name in _names(rng, count):
        mine, pages = _pick(rng, _STATES), int(rng.integers(1, 10))
        path = f"{_pick(rng, _TOPICS[:3])}/{name}.txt"
        start[path] = f"pages: {pages}\nstate: {mine}\n"
        if mine != state or pages < least:
            end[path] = start[path]
    rule = f"Delete each file whose state is {state} and that has {least} pages or more."
    return rule, start, end


GOALS: tuple[Callable[[np.random.Generator, int], tuple[str, Tree, Tree]], ...] = (
    _sorted, _renamed, _configured, _deleted,
)  # fmt: skip
"""Each draws a rule, the files before, and the files after."""


class Files(Procedural[FilesSettings]):
    """Folders, and rules that change some of their files."""

    name = "files"
    Config = FilesSettings
    fields = ("paths", "rule")

    def draw(self, rng: np.random.Generator) -> Problem | None:
        """Draw a folder in which the rule changes something, and not everything."""
        goal = GOALS[int(rng.integers(len(GOALS)))]
        rule, start, end = goal(rng, self.config.files)
        same = sum(start[path] == end.get(path) for path in start)
        if not 0 < same < len(start) - 1:
            return None
        return Problem(
            fields={"rule": rule, "paths": ", ".join(sorted(start))},
            canonical=f"{rule} {sorted(start.items())}",
            truth={"start": start, "end": end},
            metadata={"goal": goal.__name__.strip("_")},
        )


class Folder:
    """A folder of an episode's own; every path is checked before it is used."""

    def __init__(self, files: Tree) -> None:
        """Make the folder; nothing is left of it if that fails."""
        self.root = Path(tempfile.mkdtemp(prefix="rlvr-files-"))
        try:
            for path, text in files.items():
                self.write(path, text)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.root)

    def tree(self) -> Tree:
        """Return every file with its text."""
        return {path: self.root.joinpath(path).read_text("ascii") for path in self.paths()}

    def paths(self) -> list[str]:
        """Return the path of every file, sorted."""
        return sorted(
            Path(place, name).relative_to(self.root).as_posix()
            for place, _, names in os.walk(self.root)
            for name in names
        )

    def read(self, path: str) -> str:
        """Return a file's text."""
        return self._file(path).read_text("ascii")

    def write(self, path: str, text: str) -> None:
        """Write a file, with its folders."""
        if not text.isascii():
            raise UsageError("a file's text is plain ASCII")
        if "\r" in text or "\0" in text:
            raise UsageError("a line ends with a line feed alone, and no text holds a null")
        if len(text) > MAX_BYTES:
            raise UsageError(f"the text has {len(text)} characters; a file has at most {MAX_BYTES}")
        place = self._new(path)
        if not place.exists() and len(self.paths()) >= MAX_FILES:
            raise UsageError(f"the folder has {MAX_FILES} files already, and may have no more")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, "ascii", newline="")

    def move(self, source: str, target: str) -> None:
        """Move a file to where none is."""
        start, end = self._file(source), self._new(target)
        if end.exists():
            raise UsageError(f"there is a file '{target}' already; delete it first")
        end.parent.mkdir(parents=True, exist_ok=True)
        start.rename(end)
        self._tidy(start.parent)

    def delete(self, path: str) -> None:
        """Delete a file."""
        place = self._file(path)
        place.unlink()
        self._tidy(place.parent)

    def _tidy(self, place: Path) -> None:
        """Remove folders that have become empty."""
        while place != self.root and not any(place.iterdir()):
            place.rmdir()
            place = place.parent

    def _file(self, path: str) -> Path:
        """Return the place of a file that is there."""
        place = self._place(path)
        if not place.is_file():
            raise UsageError(f"there is no file '{path}'; list_files shows those that there are")
        return place

    def _new(self, path: str) -> Path:
        """Return the place of a file that may be written."""
        place = self._place(path)
        above = place
        while (above := above.parent) != self.root:
            if above.is_file():
                name = above.relative_to(self.root).as_posix()
                raise UsageError(f"'{name}' is a file, so that nothing can stand in it")
        if place.is_dir():
            raise UsageError(f"'{path}' is a folder")
        return place

    def _place(self, path: str) -> Path:
        """Return where a path leads, which is inside the folder."""
        names = path.split("/")[: MAX_DEPTH + 1]
        if len(names) > MAX_DEPTH or not all(_NAME.fullmatch(name) for name in names):
            raise UsageError(
                f"no path {path!r:.60}; a path is up to {MAX_DEPTH} names of ASCII letters, "
                "digits, '.', '_' and '-', joined by '/', and stays in the folder"
            )
        return self.root.joinpath(*names)


def _done(act: Callable[..., Any], *given: str) -> Any:
    """Use the folder; what the disk refuses is the machine's fault."""
    try:
        return act(*given)
    except OSError as error:
        raise WorkerError(f"the episode's folder cannot be used: {error}") from error


def list_files(state: Folder) -> str:
    """List the path of every file."""
    return "\n".join(_done(state.paths)) or "there are no files"


def read(state: Folder, path: str) -> str:
    """Read a file.

    Args:
        path: As `list_files` shows it.
    """
    return _done(state.read, path)


def write(state: Folder, path: str, text: str) -> str:
    """Write a file, a new one or over an old one.

    Args:
        path: Its path; folders are made as needed.
        text: All of its text.
    """
    _done(state.write, path, text)
    return f"wrote {path}"


def move(state: Folder, source: str, target: str) -> str:
    """Move or rename a file.

    Args:
        source: Its path.
        target: Its new path; folders are made as needed.
    """
    _done(state.move, source, target)
    return f"moved {source} to {target}"


def delete(state: Folder, path: str) -> str:
    """Delete a file.

    Args:
        path: Its path.
    """
    _done(state.delete, path)
    return f"deleted {path}"


class FilesEnv(ShippedToolEnv[Folder]):
    """A chat with a folder."""

    TOOLS = (list_files, read, write, move, delete)
    TURNS = 20
    EXAMPLE = ("read", {"path": "some/file.txt"})
    END = "When all is done, end with <answer>done</answer>, in a turn without calls."

    def open(self, task: Task, rng: np.random.Generator) -> Folder:
        """Make the folder."""
        return Folder(task.truth["start"])

    def copy_state(self, state: Folder) -> Folder:
        """Copy the folder."""
        return Folder(state.tree())

    def judge(self, task: Task, state: Folder, answer: str | None) -> Verdict:
        """Compare the files with those of the truth."""
        if answer is None:
            return Verdict.unparsed(f"not ended within {self.turns} turns")
        found, wanted = state.tree(), task.truth["end"]
        if found == wanted:
            return Verdict.correct()
        differ = sorted(
            path for path in found.keys() | wanted.keys() if found.get(path) != wanted.get(path)
        )
        return Verdict.wrong(reason=f"{len(differ)} paths differ", paths=differ[:10])

    def solve(self, task: Task) -> Iterator[str]:
        """Read every file, then move, write and delete what the rule says."""
        start, end = task.truth["start"], task.truth["end"]
        listed = yield self.call("list_files")
        plan: list[tuple[str, dict[str, Any]]] = [
            ("read", {"path": path}) for path in listed.splitlines()
        ]
        gone = [path for path in start if path not in end]
        for path, text in end.items():
            old = [one for one in gone if start[one] == text and path.endswith(Path(one).name)]
            if path not in start and old:
                gone.remove(old[0])
                plan.append(("move", {"source": old[0], "target": path}))
            elif start.get(path) != text:
                plan.append(("write", {"path": path, "text": text}))
        plan += [("delete", {"path": path}) for path in gone]
        for at in range(0, len(plan), self.calls_per_turn):
            yield self.calls(plan[at : at + self.calls_per_turn])
        yield "<answer>done</answer>"
