"""The files of a run: JSON lines that survive a crash, and checkpoints that appear whole or not.

A line is written at once and ends with a line break; on resume, what stands after the checkpoint's
step (or was cut off in the middle of a line) is removed, so that no step is there twice. A
checkpoint is written beside its place and renamed into it.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..agents.loading import quiet_transformers
from ..verifiers import TrainingStopped, UsageError
from .config import TrainConfig

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""How the system says that there is no room left."""


class Run:
    """The folder of a run."""

    def __init__(self, folder: str | Path) -> None:
        """Name the folder; nothing is created."""
        self.folder = Path(folder)

    def check_free(self, *, overwrite: bool = False) -> None:
        """Check that a new run may be written here; nothing is changed.

        Raises:
            UsageError: The folder exists and is not empty, and is not to be replaced.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"the run folder '{self.folder}' is a file; choose another --out")
        if not self.folder.is_dir() or not any(self.folder.iterdir()):
            return
        if not overwrite:
            raise UsageError(
                f"the run folder '{self.folder}' exists already; continue it with --resume, "
                "replace it with --overwrite, or choose another --out"
            )
        if not (self.folder / "config.toml").is_file():
            raise UsageError(
                f"'{self.folder}' is no run folder (it has no config.toml), so --overwrite "
                "will not delete it; choose another --out"
            )

    def create(self, config: TrainConfig, *, overwrite: bool = False) -> None:
        """Make a new run's folder, with its configuration, in place of an earlier run.

        Raises:
            UsageError: It exists and is not empty, and is not to be replaced.
        """
        self.check_free(overwrite=overwrite)
        with self.guard("create the run folder"):
            if self.folder.is_dir() and any(self.folder.iterdir()):
                shutil.rmtree(self.folder)
            (self.folder / "checkpoints").mkdir(parents=True)
            (self.folder / "config.toml").write_text(config.to_toml(), encoding="utf-8")

    def guard(self, doing: str, part: Path | None = None) -> "_Guard":
        """Turn a failure to write into an error that says what is safe and how to go on.

        Args:
            doing: What is being done, for the message.
            part: What is removed if it fails.
        """
        return _Guard(self, doing, part)

    def append(self, name: str, lines: Iterable[Mapping[str, Any]]) -> None:
        """Append JSON lines to `name`.

        Raises:
            TrainingStopped: The disk is full or the file cannot be written.
        """
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        path = self.folder / name
        with self.guard(f"write {name}"), open(path, "ab", buffering=0) as file:
            data = text.encode("utf-8", "surrogatepass")
            while data:  # an unbuffered write may take a part
                data = data[file.write(data) :]

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of a file; none if it does not exist."""
        path = self.folder / name
        if not path.exists():
            return []
        text = path.read_bytes().decode("utf-8", "surrogatepass")
        return [json.loads(line) for line in text.split("\n") if line]

    def cut(self, name: str, step: int) -> None:
        """Remove the lines of later steps, and a last line that was cut off."""
        path = self.folder / name
        if not path.exists():
            return
        kept = []
        for line in path.read_bytes().split(b"\n")[:-1]:
            try:
                if json.loads(line.decode("utf-8", "surrogatepass"))["step"] <= step:
                    kept.append(line + b"\n")
            except (ValueError, KeyError):
                continue
        part = path.with_suffix(".part")
        with self.guard(f"write {name}"):
            part.write_bytes(b"".join(kept))
            os.replace(part, path)

    def checkpoints(self) -> list[tuple[int, Path]]:
        """Return the whole checkpoints with their steps, oldest first."""
        found = [
            (int(path.name.removeprefix("step-")), path)
            for path in (self.folder / "checkpoints").glob("step-*")
            if path.name.removeprefix("step-").isdigit()
        ]
        return sorted(found)

    def save_checkpoint(
        self,
        step: int,
        save: Callable[[Path], None],
        state: Mapping[str, Any],
        keep: int,
        learner: Mapping[str, Any],
    ) -> Path:
        """Write a checkpoint after `step` steps, and drop the oldest beyond `keep`.

        Args:
            step: Steps done.
            save: Writes weights and tokenizer into a folder.
            state: What else a run needs, as JSON.
            keep: Checkpoints kept.
            learner: What else the learner needs: optimiser, critic, the adapted beta.

        Raises:
            TrainingStopped: It could not be written; earlier ones are untouched.
        """

        def write(folder: Path) -> None:
            save(folder)
            torch.save(dict(learner), folder / "learner.pt")
            (folder / "state.json").write_text(json.dumps({"step": step, **state}), "utf-8")

        name = f"checkpoints/step-{step:06d}"
        place = self._write_whole(name, write, f"write the checkpoint of step {step}")
        for _, old in self.checkpoints()[:-keep]:
            shutil.rmtree(old)
        return place

    def save_folder(self, name: str, save: Callable[[Path], None]) -> Path:
        """Write a folder that is there whole or not, in place of an earlier one.

        Args:
            name: The folder's name in the run.
            save: Writes into a folder.

        Raises:
            TrainingStopped: It could not be written.
        """
        return self._write_whole(name, save, f"write the trained {name}")

    def _write_whole(self, name: str, save: Callable[[Path], None], doing: str) -> Path:
        """Write a folder beside its place, have it on the disk, and rename it into it."""
        place = self.folder / name
        part = place.with_name(f".{place.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        with self.guard(doing, part):
            save(part)
            _sync(part)
            shutil.rmtree(place, ignore_errors=True)
            os.replace(part, place)
        return place


class _Guard:
    """See `Run.guard`."""

    def __init__(self, run: Run, doing: str, part: Path | None) -> None:
        self.run, self.doing, self.part = run, doing, part

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or not _is_write_failure(error):
            return
        if self.part is not None:
            shutil.rmtree(self.part, ignore_errors=True)
        saved = self.run.checkpoints() if self.run.folder.is_dir() else []
        full = not isinstance(error, OSError) or error.errno in _FULL
        cure = "free space" if full else "mend that"
        again = " with --overwrite" if (self.run.folder / "config.toml").is_file() else ""
        rest = (
            f"the checkpoint of step {saved[-1][0]} is whole; {cure} and continue with "
            f"`rlvr train --resume --out {self.run.folder}`"
            if saved
            else f"no checkpoint has been written yet; {cure} and start again{again}"
        )
        why = error if isinstance(error, OSError) else f"it took not all of the data ({error})"
        raise TrainingStopped(
            f"could not {self.doing} in '{self.run.folder}': {why}; {rest}"
        ) from error


def _is_write_failure(error: BaseException) -> bool:
    """Whether an exception means that a disk did not take data; safetensors and torch have own."""
    if isinstance(error, OSError):
        return True
    words = str(error).lower()
    known = type(error).__name__ == "SafetensorError" or isinstance(error, RuntimeError)
    signs = ("os error", "i/o error", "ioerror", "no space", "file write", "unexpected pos")
    return known and any(sign in words for sign in signs)


def save_model(folder: Path, model: Any, tokenizer: Any) -> None:
    """Write a model and its tokenizer as a `from_pretrained` folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _sync(folder: Path) -> None:
    """Have the files on the disk before the rename that makes them count."""
    for path in folder.iterdir():
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
