"""An engine for other languages: any command under bubblewrap (`bwrap`), where it is installed.

There is no filter of system calls and no quota on files; see `describe`.
"""

import os

from .commands import CommandEngine, asked, find_tool, watch
from .connection import Job, memory_file
from .outcome import Limits, Outcome, SandboxError
from .survey import Row, Survey

ROWS = (
    Row("root", True, "only /usr and what it needs, read-only; an empty /tmp"),
    Row("pid", True, "process ids of its own; the whole tree ends with the run"),
    Row("socket", True, "a network of its own without a way out"),
    Row("memory", True, "limited memory of each process"),
    Row("output", True, "output is cut off at its limit, and the run ended"),
    Row("disk", True, "each file is limited"),
    Row("inodes", False, "a program can fill memory with files in its /tmp"),
    Row("seccomp", False, "all system calls are open that an ordinary user has"),
    Row("library", False, "packages installed under /usr can be read"),
)


class Bubblewrap(CommandEngine):
    """Runs `command` with the program as a file.

    Args:
        command: Words; `{program}` becomes the program's path inside.
        name: The program's file name.
        binds: Further folders to show read-only, such as a compiler's.
        size: Runs at a time; the number of cores if not given.

    Raises:
        SandboxError: `bwrap` is not installed or does not work here.

    Example:
        `Bubblewrap(("sh", "{program}"), name="program.sh").run("echo $((6 * 7))").text`
    """

    kind = "bubblewrap"
    survey = Survey("none", ROWS, why_not="bubblewrap")

    def __init__(
        self,
        command: tuple[str, ...] = ("python3", "-I", "-S", "{program}"),
        *,
        name: str = "program.py",
        binds: tuple[str, ...] = (),
        size: int | None = None,
    ) -> None:
        """Look for the tool and try it."""
        super().__init__(size)
        self.tool = find_tool("bwrap", "bubblewrap (apt install bubblewrap)")
        self.command = command
        self.name = name
        self.binds = binds
        done = asked([*walls(self.tool, binds), *_limited(Limits()), "true"])
        if done.returncode:
            raise SandboxError(f"bwrap does not work here: {done.stderr.strip()}")

    def _run(self, job: Job) -> Outcome:
        laid_out = {**job.files, self.name: job.source()}
        words, held = walls(self.tool, self.binds), [memory_file("status")]
        words += ["--json-status-fd", str(held[0])]
        try:
            for name, content in laid_out.items():
                held.append(memory_file("file", content))
                words += ["--file", str(held[-1]), f"/tmp/{name}"]
            inner = [word.replace("{program}", f"/tmp/{self.name}") for word in self.command]
            words += [*_limited(job.limits), *inner, *job.options.argv]
            ending = watch(words, job, held)
            # written by bwrap itself, and only if it got as far as the program
            begun = b"exit-code" in os.pread(held[0], 1 << 12, 0)
        finally:
            for fd in held:
                os.close(fd)
        if ending.code == 1 and not begun:
            return ending.failure(ending.stderr.decode("utf-8", "replace"), self.kind)
        return ending.outcome(job.limits, self.kind)


def walls(tool: str, binds: tuple[str, ...] = ()) -> list[str]:
    """The words that come before the command.

    Args:
        tool: The path of bwrap.
        binds: Further folders to show.
    """
    words = [tool, "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
    for path in ("/bin", "/lib", "/lib64", "/sbin"):
        if os.path.islink(path):
            words += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            words += ["--ro-bind", path, path]
    for path in ("/usr", "/etc/alternatives", *binds):
        if os.path.exists(path):
            words += ["--ro-bind", path, path]
    words += ["--dev", "/dev", "--tmpfs", "/tmp", "--chdir", "/tmp", "--cap-drop", "ALL"]
    for name, value in (("PATH", "/usr/bin:/bin"), ("HOME", "/tmp"), ("LANG", "C.UTF-8")):
        words += ["--setenv", name, value]
    if os.geteuid() == 0:
        words += ["--uid", "61357", "--gid", "61357"]
    return words


def _limited(limits: Limits) -> list[str]:
    """Put the limits of memory and time on the program alone, not on bwrap."""
    return [
        "prlimit",
        f"--as={limits.memory}",
        f"--cpu={int(limits.cpu) + 1}",
        f"--fsize={max(limits.output + 1, limits.disk)}",
        f"--nofile={limits.open_files}",
        "--core=0",
        "--",
    ]
