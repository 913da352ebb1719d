"""An engine over a container tool that is installed: docker, or podman, which takes the same words.

With `runtime="runsc"` docker runs the container on gVisor's kernel instead of the machine's.
"""

import os
from collections.abc import Sequence

from .commands import (
    GIVEN,
    START,
    CommandEngine,
    asked,
    find_tool,
    laid_out,
    watch,
)
from .connection import Job
from .outcome import Ended, Limits, Outcome, SandboxError
from .survey import Row, Survey

HOW = {
    "docker": "Docker (https://docs.docker.com/engine/install)",
    "podman": "Podman (apt install podman)",
}
PROCESSES = 32768
"""Of all containers of podman together."""
STATE = "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}"
ROWS = (
    Row("root", True, "the image alone, read-only; an empty /tmp"),
    Row("pid", True, "process ids of its own; the whole tree ends with the run"),
    Row("socket", True, "no network"),
    Row("memory", True, "limited memory of all processes together, by a control group"),
    Row("disk", True, "a private folder of limited size and number of files"),
    Row("threads", True, "limited number of processes and threads"),
    Row("user", True, "an ordinary user without capabilities"),
    Row("output", True, "output is cut off at its limit, and the run ended"),
    Row("seccomp", True, "the engine's own list of system calls, wider than that of `ns`"),
    Row("cost", False, "CPU time of a run is not known: `Outcome.cost` has the tool's own"),
)


class Container(CommandEngine):
    """Runs `command` in a container of its own, with the program as a file.

    Args:
        image: An image that is there already, with a shell; nothing is fetched.
        command: Words; `{program}` becomes the program's path inside.
        name: The program's file name.
        tool: `docker` or `podman`.
        runtime: A runtime that the tool knows, such as `runsc`.
        size: Runs at a time; the number of cores if not given.

    Raises:
        SandboxError: The tool is not installed, does not work here, or lacks the image.

    Example:
        `Container("python:3.12-slim").run("print(6 * 7)").text`
    """

    def __init__(
        self,
        image: str,
        command: tuple[str, ...] = ("python3", "-I", "{program}"),
        *,
        name: str = "program.py",
        tool: str = "docker",
        runtime: str = "",
        size: int | None = None,
    ) -> None:
        """Look for the tool and the image."""
        super().__init__(size)
        self.tool = find_tool(tool, HOW.get(tool, tool))
        self.kind = f"{tool}/{runtime}" if runtime else tool
        self.image = image
        self.command = command
        self.name = name
        self.runtime = runtime
        self.survey = Survey("none", _rows(self.tool), why_not=self.kind)
        done = asked([self.tool, "image", "inspect", "--format", "{{.Id}}", image])
        if done.returncode:
            raise SandboxError(
                f"{tool} cannot be used with the image {image!r}: {done.stderr.strip()}; start its "
                f"service, or fetch the image by '{tool} pull {image}'"
            )

    def _run(self, job: Job) -> Outcome:
        name = f"rlvr-{os.urandom(8).hex()}"
        inner = [word.replace("{program}", f"/tmp/{self.name}") for word in self.command]
        try:
            with laid_out(job, self.name) as folder:
                words = container_words(
                    self.tool, self.image, name, folder, job.limits, self.runtime
                )
                ending = watch([*words, *inner, *job.options.argv], job)
                state = asked([self.tool, "inspect", "--format", STATE, name]).stdout.split()
        finally:
            asked([self.tool, "rm", "--force", "--volumes", name])
        by_us = ending.cause or ending.flood
        # the tool's own word: a program can leave with any status
        if not by_us and (len(state) != 3 or state[0] != "exited"):
            return ending.failure(ending.stderr.decode("utf-8", "replace"), self.kind)
        outcome = ending.outcome(job.limits, self.kind)
        if not by_us and state[2] == "true":
            reason = f"it needed more than {job.limits.memory} bytes of memory"
            return Outcome(
                Ended.MEMORY, outcome.stdout, outcome.stderr, None, reason, self.kind, outcome.cost
            )
        return outcome


def _is_podman(tool: str) -> bool:
    return os.path.basename(tool) == "podman"


def _rows(tool: str) -> tuple[Row, ...]:
    if not _is_podman(tool):
        return ROWS
    disk = Row("disk", True, "a private folder of limited size; its files are not counted")
    return tuple(disk if row.name == "disk" else row for row in ROWS)


def container_words(
    tool: str, image: str, name: str, folder: str, limits: Limits, runtime: str = ""
) -> Sequence[str]:
    """The words that come before the command.

    Args:
        tool: The path of docker or podman.
        image: What the container is made from.
        name: By which it can be ended.
        folder: Holds the program and its files.
        limits: What it may use.
        runtime: A runtime that the tool knows, or its usual one.
    """
    seconds = int(limits.cpu) + 1
    size = max(limits.output + 1, limits.disk)
    files, more = f"nr_inodes={limits.inodes}", []
    if _is_podman(tool):
        # it copies what the image has there unless told not to, and cannot count the files; of
        # processes it asks for more than it may have itself: what a run may have is --pids-limit
        files = "notmpcopyup"
        more = [f"--ulimit=nproc={PROCESSES}:{PROCESSES}", "--stop-timeout=0"]
    return [
        tool,
        "run",
        "--interactive",
        "--pull=never",
        f"--name={name}",
        *([f"--runtime={runtime}"] if runtime else []),
        "--network=none",
        "--ipc=none",
        "--read-only",
        f"--tmpfs=/tmp:rw,exec,nosuid,nodev,mode=1777,size={limits.disk},{files}",
        f"--volume={folder}:{GIVEN}:ro",
        "--workdir=/tmp",
        "--env=HOME=/tmp",
        "--user=61357:61357",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        f"--memory={limits.memory}",
        f"--memory-swap={limits.memory}",
        f"--pids-limit={limits.threads}",
        f"--ulimit=cpu={seconds}:{seconds + 1}",
        f"--ulimit=fsize={size}:{size}",
        f"--ulimit=nofile={limits.open_files}:{limits.open_files}",
        "--ulimit=core=0:0",
        *more,
        "--log-driver=none",
        "--entrypoint=/bin/sh",
        image,
        "-c",
        START,
        "sh",
    ]
