"""Transforms that write episodes down and play them back.

A transcript is one line of JSON: how the episode was begun, and every action with its answer. A
line is appended in one piece, under a lock, when its episode ends; a crash therefore loses the
episode under way and nothing else, and several processes may write to one file.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from ...verifiers import TaskError, UsageError
from .transform import TextEnv, Transform

FORMAT = "rlvr-transcript-1"
"""First field of every line; another version gets another name."""

Step = tuple[str, float, bool, bool, dict[str, Any]]


class Record(Transform[str, str]):
    """Appends a transcript of every episode to a JSONL file.

    Written are seed and options of `reset`, observations, infos, actions and rewards (`null` where
    unscored), as JSON; what JSON does not know is written as its `repr`. An episode that was left
    before its end is written at the next `reset` or at `close`, with `"ended": false`. Of an
    episode gone on from a snapshot, the steps before it are written, too.

    Example:
        `{"format": "rlvr-transcript-1", "env": "rlvr/GCD-v0", "seed": 7, "options": null,
        "observation": "…", "info": {…}, "steps": [{"action": "6", "reward": 1.0, …}],
        "ended": true}`
    """

    _KEPT: ClassVar[tuple[str, ...]] = ("_start", "_steps", "_ended")

    def __init__(self, env: TextEnv, path: str | os.PathLike[str], *, sync: bool = False) -> None:
        """Wrap an environment.

        Args:
            env: The environment.
            path: The file; it grows. Its folder must exist.
            sync: Whether every line is on the disk before `step` returns: outlives a power cut,
                and costs milliseconds.

        Raises:
            UsageError: The file cannot be written.
        """
        super().__init__(env, path=os.fspath(path), sync=sync)
        self.path = Path(path)
        self.sync = sync
        self._start: dict[str, Any] | None = None
        self._steps: list[dict[str, Any]] = []
        self._ended = False
        try:
            _append(self.path, "", sync=False)
        except OSError as error:
            raise UsageError(f"cannot write transcripts to '{path}': {error}") from error

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin an episode; one that was left is written first."""
        self._write(ended=False)
        observation, info = self.env.reset(seed=seed, options=options)
        begun = {"seed": seed, "options": options, "observation": observation, "info": info}
        self._start, self._steps, self._ended = plain(begun), [], False
        return observation, info

    def step(self, action: str) -> Step:
        """Pass the action on, note the answer, and write the transcript at the end."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        taken = {"action": action, "observation": observation, "reward": float(reward)}
        taken |= {"terminated": bool(terminated), "truncated": bool(truncated), "info": info}
        self._steps.append(plain(taken))
        if terminated or truncated:
            self._write(ended=True)
        return observation, float(reward), terminated, truncated, info

    def close(self) -> None:
        """Write an episode that was left, and close the environment."""
        self._write(ended=False)
        self.env.close()

    def _write(self, *, ended: bool) -> None:
        if self._start is None or self._ended or not (self._steps or ended):
            return
        self._ended = True
        spec = self.env.spec
        name = spec.id if spec is not None else type(self.env.unwrapped).__name__
        transcript = {"format": FORMAT, "env": name, **self._start}
        transcript |= {"steps": self._steps, "ended": ended}
        _append(self.path, json.dumps(transcript, allow_nan=False) + "\n", sync=self.sync)


class Replay(Transform[str, str]):
    """Plays recorded transcripts back: the same observations, rewards and infos.

    `reset` without arguments plays the next transcript, `options={"transcript": i}` the i-th; a
    seed or other options play the next one that was recorded with the same. An action that differs
    from the recorded one is refused. With `live` the environment itself is run, too, and must
    answer as recorded: a test that a task still poses and judges what it did.

    Transcripts hold what the environment below the `Record` said; put `Replay` in its place.
    """

    _KEPT: ClassVar[tuple[str, ...]] = ("_playing", "_at")

    def __init__(self, env: TextEnv, path: str | os.PathLike[str], *, live: bool = False) -> None:
        """Wrap an environment.

        Args:
            env: The environment that was recorded, or one with the same spaces.
            path: The file of `Record`.
            live: Whether the environment is run and compared.

        Raises:
            UsageError: There is no transcript in the file.
            TaskError: A line is no transcript.
        """
        super().__init__(env, path=os.fspath(path), live=live)
        self.live = live
        self.transcripts = read_transcripts(path)
        if not self.transcripts:
            raise UsageError(f"'{path}' holds no transcripts")
        self._next = 0
        self._playing = 0
        self._at: int | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin to play a transcript.

        Raises:
            UsageError: There is none for these arguments, or the environment begins otherwise.
        """
        self._playing = self._chosen(seed, options)
        self._next, self._at = self._playing + 1, 0
        transcript = self.transcripts[self._playing]
        recorded = transcript["observation"], _copied(transcript["info"])
        if self.live:
            begun = transcript["options"]
            if begun is None and transcript["seed"] is None and "index" in transcript["info"]:
                begun = {"index": transcript["info"]["index"]}
            live = self.env.reset(seed=transcript["seed"], options=begun)
            self._compare("reset", plain(list(live)), plain(list(recorded)))
        return recorded

    def step(self, action: str) -> Step:
        """Answer as recorded.

        Raises:
            UsageError: The action is another one, the transcript is over, or the environment
                answers otherwise.
        """
        steps = self.transcripts[self._playing]["steps"]
        if self._at is None or self._at >= len(steps):
            raise UsageError(
                f"transcript {self._playing} has no further step after {len(steps)}; call reset()"
            )
        taken = steps[self._at]
        if action != taken["action"]:
            raise UsageError(
                f"step {self._at} of transcript {self._playing} was recorded with the action "
                f"{_shown(taken['action'])}, got {_shown(action)}; a replay takes the same actions"
            )
        answer = _answer(taken)
        if self.live:
            self._compare(
                f"step {self._at}", plain(list(self.env.step(action))), plain(list(answer))
            )
        self._at += 1
        return answer

    def snapshot(self) -> Any:
        """Return where the replay stands; with `live`, the environment as well."""
        return super().snapshot() if self.live else (self._playing, self._at)

    def restore(self, snapshot: Any) -> tuple[str, dict[str, Any]]:
        """Go on from a snapshot; the info is that of the transcript's beginning."""
        if self.live:
            return super().restore(snapshot)
        self._playing, self._at = snapshot
        transcript = self.transcripts[self._playing]
        said = transcript["observation"]
        if self._at:
            said = transcript["steps"][self._at - 1]["observation"]
        return said, _copied(transcript["info"])

    def _chosen(self, seed: int | None, options: Mapping[str, Any] | None) -> int:
        """Return which transcript to play."""
        count = len(self.transcripts)
        if options and "transcript" in options:
            at = options["transcript"]
            if not isinstance(at, int) or not 0 <= at < count:
                raise UsageError(
                    f"options['transcript'] must be an integer from 0 to {count - 1}, got {at!r}"
                )
            return at
        order = [*range(self._next, count), *range(min(self._next, count))]
        if seed is None and not options:
            if self._next >= count:
                raise UsageError(
                    f"all {count} transcripts have been played; "
                    "reset(options={'transcript': 0}) begins again"
                )
            return self._next
        wanted = plain({"seed": seed, "options": options or None})
        for at in order:
            begun = self.transcripts[at]
            if {"seed": begun["seed"], "options": begun["options"] or None} == wanted:
                return at
        raise UsageError(f"no transcript was begun with {wanted!r:.200}; there are {count}")

    def _compare(self, what: str, found: Any, recorded: Any) -> None:
        """Refuse an environment that answers otherwise than it did."""
        if found == recorded:
            return
        raise UsageError(
            f"{what} of transcript {self._playing}: the environment answers "
            f"{_difference(found, recorded)}; it has changed since the recording"
        )


def read_transcripts(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the transcripts of a file; a last line that a crash cut off is left out.

    Raises:
        UsageError: The file cannot be read.
        TaskError: A whole line is no transcript; names the line.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise UsageError(f"cannot read transcripts from '{path}': {error}") from error
    found = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            transcript = json.loads(line)
            steps = transcript["steps"] if transcript["format"] == FORMAT else None
            whole = isinstance(steps, list) and {"seed", "options", "observation", "info"} <= (
                transcript.keys()
            )
        except (ValueError, TypeError, KeyError):
            whole, transcript = False, {}
        if not whole:
            raise TaskError(f"{path}:{number} is no transcript of the format '{FORMAT}'")
        found.append(transcript)
    return found


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: no tuples, no arrays, `None` for a number that is none.

    Example:
        >>> plain({1: (float("nan"), 2.0)})
        {'1': [None, 2.0]}
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return repr(value)


def _answer(taken: Mapping[str, Any]) -> Step:
    """Return a recorded step as `step` returned it."""
    reward = math.nan if taken["reward"] is None else float(taken["reward"])
    info = _copied(taken["info"])
    return taken["observation"], reward, taken["terminated"], taken["truncated"], info


def _copied(info: Any) -> dict[str, Any]:
    return json.loads(json.dumps(info))


def _difference(found: Any, recorded: Any) -> str:
    """Say where two values part."""
    if isinstance(found, dict) and isinstance(recorded, dict):
        for key in [*recorded, *found]:
            if key not in found or key not in recorded or found[key] != recorded[key]:
                inner = _difference(found.get(key), recorded.get(key))
                return f"'{key}': {inner}"
    if isinstance(found, list) and isinstance(recorded, list) and len(found) == len(recorded):
        pairs = zip(found, recorded, strict=True)
        return next((_difference(a, b) for a, b in pairs if a != b), "the same")
    return f"{_shown(found)} where {_shown(recorded)} was recorded"


def _shown(value: Any) -> str:
    return f"{value!r:.200}"


def _append(path: Path, line: str, *, sync: bool) -> None:
    """Append a line in one piece; what a crash left of a line is cut off first."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        with _locked(handle):
            size = _whole_size(handle)
            os.ftruncate(handle, size)
            rest = memoryview(line.encode())
            os.lseek(handle, size, os.SEEK_SET)
            while rest:
                rest = rest[os.write(handle, rest) :]
            if sync:
                os.fsync(handle)
    finally:
        os.close(handle)


def _whole_size(handle: int) -> int:
    """Return the size of a file up to the end of its last whole line."""
    size = os.lseek(handle, 0, os.SEEK_END)
    while size:
        start = max(0, size - 65536)
        os.lseek(handle, start, os.SEEK_SET)
        found = os.read(handle, size - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        size = start
    return 0


@contextmanager
def _locked(handle: int) -> Iterator[None]:
    """Hold a file's lock, where the system has such locks."""
    with suppress(ImportError):
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX)  # released when the file is closed
    yield
