"""The other engines behind the same interface, and the command that prints the table."""

import asyncio
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from rlvr.rl_core.cli import main
from rlvr.verifiers import UsageError
from rlvr.verifiers.sandbox import (
    Bubblewrap,
    Container,
    Ended,
    Engine,
    GVisor,
    Limits,
    Options,
    Outcome,
    Pool,
    Remote,
    Row,
    SandboxError,
    Survey,
    serve,
)
from rlvr.verifiers.sandbox.containers import container_words
from rlvr.verifiers.sandbox.gvisor import bundle, runsc_words
from rlvr.verifiers.sandbox.remote import Service


class EchoEngine:
    """An engine that runs nothing: its outcome tells what it was asked."""

    def run(self, program: str | bytes, **given: Any) -> Outcome:
        if program == b"fail":
            raise SandboxError("out of servers")
        return Outcome(Ended.OK, stdout=repr((program, given)).encode(), tier="echo")

    async def arun(self, program: str | bytes, **given: Any) -> Outcome:
        return self.run(program, **given)

    def describe(self) -> Survey:
        return Survey("ns", (Row("echo", True, "nothing is run"),))

    def close(self) -> None:
        return


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    made = serve(EchoEngine(), token="open sesame")
    made.start()
    yield made
    made.stop()


def test_every_engine_has_the_same_interface() -> None:
    assert issubclass(Pool, Engine)
    assert issubclass(Bubblewrap, Engine)
    assert issubclass(Remote, Engine)
    assert issubclass(Container, Engine)
    assert issubclass(GVisor, Engine)


def test_a_remote_sandbox_runs_what_a_pool_runs() -> None:
    with Pool(size=1) as pool:
        made = serve(pool)
        made.start()
        remote = Remote(made.url)
        assert remote.describe().tier == pool.tier
        program = "print(input(), open('f').read())"
        outcome = remote.run(program, stdin=b"in", files={"f": b"file"}, limits=Limits(cpu=1))
        assert outcome == pool.run(program, stdin=b"in", files={"f": b"file"})
        assert outcome.text == "in file\n"
        assert (
            asyncio.run(remote.arun("while True: pass", limits=Limits(cpu=0.1))).ended == "timeout"
        )
        made.stop()


def test_everything_arrives_at_the_other_end(service: Service) -> None:
    remote = Remote(service.url, token="open sesame")
    outcome = remote.run(
        b"\xff",
        stdin=b"\0",
        files={"a": b"\1"},
        limits=Limits(cpu=7, wall=9.0),
        options=Options(argv=("x",), sockets=True, preload=("csv",)),
        share="me",
    )
    given = {
        "stdin": b"\0",
        "files": {"a": b"\1"},
        "limits": Limits(cpu=7, wall=9.0),
        "options": Options(argv=("x",), sockets=True, preload=("csv",)),
        "share": "me",
    }
    assert outcome.stdout == repr((b"\xff", given)).encode()


def test_a_failure_over_there_is_the_sandboxs(service: Service) -> None:
    outcome = Remote(service.url, token="open sesame").run("fail")
    assert outcome.ended is Ended.INFRA
    assert "status 503" in outcome.reason
    assert "out of servers" in outcome.reason


def test_a_wrong_token_is_refused(service: Service) -> None:
    with pytest.raises(UsageError, match="wrong token"):
        Remote(service.url, token="guess")


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[1]", b"nonsense", b'{"program": 1}', b"[" * 100000]
)
def test_a_request_that_is_none_is_refused(service: Service, body: bytes) -> None:
    head = {"Authorization": "Bearer open sesame"}
    request = urllib.request.Request(service.url + "/run", body, head, method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    with caught.value as answer:
        assert answer.code == 400
        assert isinstance(json.loads(answer.read()), str)


def test_a_machine_that_does_not_answer_is_named() -> None:
    with pytest.raises(SandboxError, match=r"127\.0\.0\.1:1 cannot be asked"):
        Remote("http://127.0.0.1:1")
    with pytest.raises(UsageError, match="expected http://"):
        Remote("file:///etc/passwd")


def test_a_service_without_a_token_stays_at_home() -> None:
    with pytest.raises(UsageError, match="give a token"):
        serve(EchoEngine(), "0.0.0.0")


def _bubblewrap(*command: str, name: str = "program.py") -> Bubblewrap | None:
    """The engine, or `None` where the tool is missing, which is then what the error must say."""
    if shutil.which("bwrap"):
        return Bubblewrap(command, name=name) if command else Bubblewrap()
    with pytest.raises(SandboxError, match="bwrap is not installed; install bubblewrap"):
        Bubblewrap()
    return None


def test_another_language_runs_under_bubblewrap() -> None:
    engine = _bubblewrap("sh", "{program}", name="program.sh")
    if engine is not None:
        outcome = engine.run(
            "read x; echo $((6 * x)); cat f; exit 3", stdin=b"7\n", files={"f": b"f"}
        )
        assert (outcome.text, outcome.exit, outcome.ended) == ("42\nf", 3, Ended.ERROR)
        assert engine.run("ls /home /etc/passwd /root").text == ""
        assert asyncio.run(engine.arun("echo hi")).text == "hi\n"


@pytest.mark.parametrize(
    ("program", "ended"),
    [
        ("while True: pass", Ended.TIMEOUT),
        ("import time; time.sleep(99)", Ended.TIMEOUT),
        ("print('x' * 3_000_000)", Ended.OUTPUT),
        ("1 / 0", Ended.ERROR),
        ("print(1)", Ended.OK),
        ("import os; os.kill(os.getpid(), 11)", Ended.CRASH),
    ],
)
def test_bubblewrap_names_the_ways_to_end(program: str, ended: Ended) -> None:
    engine = _bubblewrap()
    if engine is not None:
        limits = Limits(cpu=1, wall=1.0, output=1 << 20)
        assert engine.run(program, limits=limits).ended is ended


def test_a_program_cannot_pass_its_failure_off_as_bubblewraps() -> None:
    engine = _bubblewrap()
    if engine is not None:
        outcome = engine.run("import sys; sys.stderr.write('bwrap: no'); sys.exit(1)")
        assert (outcome.ended, outcome.exit) == (Ended.ERROR, 1)


@pytest.mark.parametrize("leave", ["os._exit(137)", "os.kill(os.getpid(), 9)"])
def test_a_program_that_kills_itself_has_failed(leave: str) -> None:
    engine = _bubblewrap()
    if engine is not None:
        outcome = engine.run(f"import os; {leave}")
        # the memory of a tool is at least its caller's, from which it was started
        assert outcome.ended in (Ended.CRASH, Ended.MEMORY)


@pytest.mark.parametrize("tool", ["docker", "podman"])
def test_what_is_missing_for_a_container_is_named(tool: str) -> None:
    wanted = "image 'rlvr-no/such-image'" if shutil.which(tool) else "is not installed; install"
    with pytest.raises(SandboxError, match=f"{tool} .*{wanted}"):
        Container("rlvr-no/such-image", tool=tool)


def test_a_container_is_shut_in() -> None:
    limits = Limits(cpu=2, memory=256 << 20, disk=1 << 20, inodes=10, output=4096, threads=8)
    words = container_words("docker", "python:3.12", "run-1", "/tmp/given", limits, "runsc")
    assert " ".join(words) == (
        "docker run --interactive --pull=never --name=run-1 --runtime=runsc --network=none "
        "--ipc=none --read-only "
        "--tmpfs=/tmp:rw,exec,nosuid,nodev,mode=1777,size=1048576,nr_inodes=10 "
        "--volume=/tmp/given:/given:ro --workdir=/tmp --env=HOME=/tmp --user=61357:61357 "
        "--cap-drop=ALL --security-opt=no-new-privileges --memory=268435456 "
        "--memory-swap=268435456 --pids-limit=8 --ulimit=cpu=3:4 "
        "--ulimit=fsize=1048576:1048576 --ulimit=nofile=256:256 --ulimit=core=0:0 "
        "--log-driver=none --entrypoint=/bin/sh python:3.12 -c "
        'cp -R /given/. /tmp/ && exec "$@" sh'
    )


def test_podman_is_asked_for_what_it_takes() -> None:
    docker = container_words("docker", "python:3.12", "run-1", "/tmp/given", Limits())
    podman = container_words("/usr/bin/podman", "python:3.12", "run-1", "/tmp/given", Limits())
    assert sorted(set(podman) - set(docker)) == [
        "--stop-timeout=0",
        "--tmpfs=/tmp:rw,exec,nosuid,nodev,mode=1777,size=67108864,notmpcopyup",
        "--ulimit=nproc=32768:32768",
        "/usr/bin/podman",
    ]


def test_a_container_of_gvisor_is_shut_in() -> None:
    made = bundle(["python3", "/tmp/p.py"], "/b/root", "/b/given", ["/usr"], Limits(memory=1 << 28))
    assert made["process"]["args"][-2:] == ["python3", "/tmp/p.py"]
    assert made["process"]["capabilities"] == {}
    assert made["process"]["noNewPrivileges"]
    assert made["root"] == {"path": "/b/root", "readonly": True}
    binds = [mount for mount in made["mounts"] if mount["type"] == "bind"]
    assert [mount["destination"] for mount in binds] == ["/given", "/usr"]
    assert all("ro" in mount["options"] for mount in binds)
    memory = {"type": "RLIMIT_AS", "soft": 1 << 28, "hard": 1 << 28}
    assert memory in made["process"]["rlimits"]
    assert {"type": "network"} in made["linux"]["namespaces"]
    words = runsc_words("runsc", "/state", "/log")
    assert words[:5] == [
        "runsc",
        "--root=/state",
        "--log=/log",
        "--network=none",
        "--ignore-cgroups",
    ]


def test_a_program_runs_on_gvisors_kernel() -> None:
    if not shutil.which("runsc"):
        with pytest.raises(SandboxError, match="runsc is not installed; install gVisor"):
            GVisor()
        return
    engine = GVisor()
    outcome = engine.run("print(input(), open('f').read())", stdin=b"in", files={"f": b"file"})
    assert (outcome.text, outcome.tier) == ("in file\n", "gvisor")
    assert engine.run("import sys; sys.exit(128)").ended is Ended.ERROR


def test_what_an_engine_does_not_offer_is_refused() -> None:
    engine = _bubblewrap()
    if engine is not None:
        with pytest.raises(UsageError, match="leave sockets and preload out"):
            engine.run("", options=Options(preload=("math",)))


def test_the_command_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sandbox", "--require", "ns"]) == 0
    text = capsys.readouterr().out
    assert "no /proc" in text
    assert "allow-list" in text


def test_the_command_names_an_interpreter_that_is_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["sandbox", "--python", "/bin/nothing"]) == 2
    assert "/bin/nothing" in capsys.readouterr().err
