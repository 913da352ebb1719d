"""An engine over gVisor (`runsc`), where it is installed: a kernel of its own for every run.

What a program finds of the machine's is this engine's `folders`; the machine's kernel sees only
what gVisor's asks of it.
"""

import json
import os
import tempfile
from typing import Any

from .commands import GIVEN, START, CommandEngine, asked, find_tool, laid_out, watch
from .connection import Job
from .outcome import Limits, Outcome, SandboxError
from .survey import Row, Survey

ROWS = (
    Row("kernel", True, "a kernel of its own, in user space"),
    Row("root", True, "/usr and what it needs, read-only; an empty /tmp"),
    Row("pid", True, "process ids of its own; the whole tree ends with the run"),
    Row("socket", True, "no network"),
    Row("memory", True, "limited memory of each process"),
    Row("disk", True, "a private folder of limited size"),
    Row("user", True, "an ordinary user without capabilities"),
    Row("output", True, "output is cut off at its limit, and the run ended"),
    Row("inodes", False, "the number of files is not limited"),
    Row("library", False, "packages installed under /usr can be read"),
)
FAILED = 128
"""Exit status of runsc's own failures, which it also writes to its log."""


class GVisor(CommandEngine):
    """Runs `command` with the program as a file.

    Args:
        command: Words; `{program}` becomes the program's path inside.
        name: The program's file name.
        folders: Shown read-only, `/bin` and its like as the machine has them.
        size: Runs at a time; the number of cores if not given.

    Raises:
        SandboxError: `runsc` is not installed or does not work here.

    Example:
        `GVisor().run("print(6 * 7)").text`
    """

    kind = "gvisor"
    survey = Survey("none", ROWS, why_not="gvisor")

    def __init__(
        self,
        command: tuple[str, ...] = ("python3", "-I", "-S", "{program}"),
        *,
        name: str = "program.py",
        folders: tuple[str, ...] = ("/usr", "/etc/alternatives"),
        size: int | None = None,
    ) -> None:
        """Look for the tool and try it."""
        super().__init__(size)
        self.tool = find_tool("runsc", "gVisor (https://gvisor.dev/docs/user_guide/install)")
        self.command = command
        self.name = name
        self.folders = folders
        outcome = self._start(Job(program="", limits=Limits(wall=60.0)), ["true"])
        if outcome.exit != 0:
            raise SandboxError(f"runsc does not work here: {outcome.reason} {outcome.errors}")

    def _run(self, job: Job) -> Outcome:
        inner = [word.replace("{program}", f"/tmp/{self.name}") for word in self.command]
        return self._start(job, [*inner, *job.options.argv])

    def _start(self, job: Job, words: list[str]) -> Outcome:
        name = f"rlvr-{os.urandom(8).hex()}"
        with (
            laid_out(job, self.name) as given,
            tempfile.TemporaryDirectory(prefix="rlvr-sandbox-") as place,
        ):
            os.chmod(place, 0o755)
            root = f"{place}/root"
            links = lay_root(root)
            with open(f"{place}/config.json", "w") as file:
                json.dump(bundle(words, root, given, [*self.folders, *links], job.limits), file)
            log = f"{place}/log"
            tool = runsc_words(self.tool, f"{place}/state", log)
            try:
                ending = watch([*tool, "run", f"--bundle={place}", name], job)
                failed = ending.code == FAILED and os.path.exists(log) and os.path.getsize(log) > 0
                if failed:
                    with open(log, errors="replace") as file:
                        return ending.failure(file.read(4096), self.kind)
            finally:
                asked([*tool, "delete", "--force", name])
        return ending.outcome(job.limits, self.kind)


def runsc_words(tool: str, state: str, log: str) -> list[str]:
    """The words that come before runsc's own command.

    Args:
        tool: The path of runsc.
        state: A folder for what it notes of its containers.
        log: A file for its errors.
    """
    words = [tool, f"--root={state}", f"--log={log}", "--network=none", "--ignore-cgroups"]
    return words if os.geteuid() == 0 else [*words, "--rootless"]


def lay_root(root: str) -> list[str]:
    """Make the root's folder, links at its top as the machine has them; returns other folders."""
    os.mkdir(root, 0o755)
    folders = []
    for path in ("/bin", "/lib", "/lib64", "/sbin"):
        if os.path.islink(path):
            os.symlink(os.readlink(path), root + path)
        elif os.path.isdir(path):
            folders.append(path)
    return folders


def bundle(
    words: list[str], root: str, given: str, folders: list[str], limits: Limits
) -> dict[str, Any]:
    """The description of one container, in the form of the Open Container Initiative.

    Args:
        words: The command.
        root: The folder that is its root.
        given: Holds the program and its files.
        folders: Shown read-only where they are.
        limits: What it may use.
    """
    seconds, size = int(limits.cpu) + 1, max(limits.output + 1, limits.disk)
    caps = {
        "RLIMIT_AS": limits.memory,
        "RLIMIT_CPU": seconds,
        "RLIMIT_FSIZE": size,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_NPROC": limits.threads,
        "RLIMIT_CORE": 0,
    }
    binds = [(given, GIVEN), *((path, path) for path in folders if os.path.exists(path))]
    tmpfs = ["nosuid", "nodev", "mode=1777", f"size={limits.disk}"]
    return {
        "ociVersion": "1.0.0",
        "process": {
            "terminal": False,
            "user": {"uid": 61357, "gid": 61357},
            "args": ["/bin/sh", "-c", START, "sh", *words],
            "env": ["PATH=/usr/bin:/bin", "HOME=/tmp", "LANG=C.UTF-8"],
            "cwd": "/tmp",
            "capabilities": {},
            "rlimits": [{"type": k, "soft": v, "hard": v} for k, v in caps.items()],
            "noNewPrivileges": True,
        },
        "root": {"path": root, "readonly": True},
        "hostname": "run",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": tmpfs},
            *(
                {"destination": to, "type": "bind", "source": path, "options": ["ro", "rbind"]}
                for path, to in binds
            ),
        ],
        "linux": {"namespaces": [{"type": t} for t in ("pid", "network", "ipc", "uts", "mount")]},
    }
