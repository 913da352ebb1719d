"""What honest programs can do, what a run reports, and what is refused."""

from collections.abc import Iterator

import pytest

from rlvr.verifiers import UsageError
from rlvr.verifiers.sandbox import Ended, Job, Limits, Options, Pool, SandboxError, run
from rlvr.verifiers.sandbox.process import Tier

HONEST = {
    "threads": (
        "import threading\nr = []\nts = [threading.Thread(target=r.append, args=(i,)) "
        "for i in range(40)]\n[t.start() for t in ts]; [t.join() for t in ts]\nprint(sum(r))",
        "780",  # 0 + 1 + ... + 39 = 39 * 40 / 2
    ),
    "a pool of threads": (
        "from concurrent.futures import ThreadPoolExecutor as E\nprint(sum(E(16).map(abs, "
        "range(100))))",
        "4950",  # 99 * 100 / 2
    ),
    "asyncio": (
        "import asyncio\nasync def f():\n  await asyncio.sleep(.01)\n  return 5\n"
        "async def m(): return await asyncio.gather(f(), f(), asyncio.to_thread(sum, [1, 2]))\n"
        "print(asyncio.run(m()))",
        "[5, 5, 3]",
    ),
    "deep recursion": (
        "import sys\nsys.setrecursionlimit(200000)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)"
        "\nprint(f(50000))",
        "50000",
    ),
    "temporary files": (
        "import tempfile, os\nwith tempfile.TemporaryFile() as f: f.write(b'x' * 100000)\n"
        "with tempfile.TemporaryDirectory() as d: open(d + '/x', 'w').write('1')\n"
        "print(os.listdir('.'))",
        "[]",
    ),
    "200 MB": ("x = bytearray(200 << 20); print(len(x))", str(200 << 20)),
    "half a megabyte of output": ("print('x' * 480000)", "x" * 480000),
    "the library": (
        "import json, sqlite3, decimal, datetime, random, hashlib, csv, subprocess, zlib, ssl, "
        "unittest, dataclasses, ctypes, multiprocessing, uuid, http.client\n"
        "c = sqlite3.connect('a.db'); c.execute('create table t(a)'); c.commit()\n"
        "print(hashlib.sha256(b'').hexdigest()[:8])",
        "e3b0c442",
    ),
    "copies with attributes": (
        "import shutil, os\nos.mkdir('a'); open('a/b', 'w').write('x')\nshutil.copytree('a', 'c')\n"
        "print(open('c/b').read())",
        "x",
    ),
    "pickles of its own classes": (
        "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))).__name__)",
        "A",
    ),
    "letters of all kinds": ("print('h\u00e9\u4e2d\U0001f600')", "h\u00e9\u4e2d\U0001f600"),
    "a handler of an alarm": (
        "import signal, time\nsignal.signal(signal.SIGALRM, lambda *_: print('rang'))\n"
        "signal.alarm(1)\ntime.sleep(1.2)",
        "rang",
    ),
    "leaving by exit": ("print('done')\nexit()\nprint('not reached')", "done"),
    "leaving by quit": ("print('done'); quit(0)", "done"),
    "recursion to the usual limit": (
        "def f(n): return 0 if n == 0 else 1 + f(n - 1)\nprint(f(990))",
        "990",
    ),
    "a hundred threads at once": (
        "import threading\nall_here = threading.Barrier(101)\n"
        "ts = [threading.Thread(target=all_here.wait) for _ in range(100)]\n"
        "[t.start() for t in ts]; all_here.wait(); [t.join() for t in ts]\nprint('met')",
        "met",
    ),
    "time zones and the locale": (
        "import locale\nfrom datetime import datetime\nfrom zoneinfo import ZoneInfo\n"
        "locale.setlocale(locale.LC_ALL, '')\n"
        "print(datetime(2024, 7, 1, 12, tzinfo=ZoneInfo('Europe/Paris')).isoformat())",
        "2024-07-01T12:00:00+02:00",
    ),
    "a file of its own on the output": ("out = open(1, 'w')\nout.write('kept\\n')", "kept"),
    "objects that say goodbye": (
        "class A:\n  def __del__(self): print('bye')\na = A()",
        "bye",
    ),
    "modes and times": (
        "import os, shutil\nopen('a', 'w').close(); os.chmod('a', 0o600); os.utime('a', (5, 5))\n"
        "shutil.copy2('a', 'b'); print(sorted(os.listdir()))",
        "['a', 'b']",
    ),
    "work at exit": ("import atexit; atexit.register(print, 'bye')", "bye"),
}


@pytest.fixture(scope="module", params=["ns", "flat"])
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    with Pool(size=1, tier=request.param) as made:
        yield made


@pytest.fixture(scope="module")
def ns() -> Iterator[Pool]:
    with Pool(size=1, require="ns") as made:
        yield made


@pytest.mark.parametrize("name", HONEST)
def test_honest_programs_run(pool: Pool, name: str) -> None:
    program, expected = HONEST[name]
    outcome = pool.run(program)
    assert (outcome.ended, outcome.text, outcome.errors) == ("ok", expected + "\n", "")
    assert outcome.tier == pool.tier


@pytest.mark.parametrize(
    "reader",
    [
        "import sys; sys.stdout.write(sys.stdin.read())",
        "while True:\n  try: print(input())\n  except EOFError: break",
        "print(open(0).read(), end='')",
        "import sys\nfor line in sys.stdin: print(line, end='')",
        "print(open('/dev/stdin').read(), end='')",
        "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())",
    ],
)
def test_input_is_read_in_every_usual_way(pool: Pool, reader: str) -> None:
    assert pool.run(reader, stdin=b"a b\nc\n").stdout == b"a b\nc\n"


def test_a_program_finds_its_files_and_arguments(pool: Pool) -> None:
    outcome = pool.run(
        "import sys; print(open('d/e.txt').read(), sys.argv)",
        files={"d/e.txt": b"hey"},
        options=Options(argv=("x",), name="main.py"),
    )
    assert outcome.text == "hey ['main.py', 'x']\n"


def test_bytes_that_are_not_text_go_through(pool: Pool) -> None:
    every = bytes(range(256))
    copy = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"
    assert pool.run(copy, stdin=every).stdout == every


@pytest.mark.parametrize(
    ("program", "ended", "exit_status"),
    [
        ("", Ended.OK, 0),
        ("import sys; sys.exit(0)", Ended.OK, 0),
        ("import sys; sys.exit(3)", Ended.ERROR, 3),
        ("raise SystemExit('no')", Ended.ERROR, 1),
        ("1 / 0", Ended.ERROR, 1),
        ("x = (", Ended.ERROR, 1),
        ("'\udcff'", Ended.ERROR, 1),
        ("x = bytearray(1 << 50)", Ended.MEMORY, 247),
        ("import ctypes; ctypes.string_at(0)", Ended.CRASH, None),
        ("while True: pass", Ended.TIMEOUT, None),
        ("import time; time.sleep(99)", Ended.TIMEOUT, None),
        ("print('x' * 3_000_000)", Ended.OUTPUT, 0),
    ],
)
def test_the_ways_to_end_stay_apart(
    pool: Pool, program: str, ended: Ended, exit_status: int | None
) -> None:
    outcome = pool.run(program, limits=Limits(cpu=0.3, wall=0.5, output=1 << 20))
    assert (outcome.ended, outcome.exit) == (ended, exit_status)
    assert bool(outcome.reason) == (ended is not Ended.OK)


def test_a_traceback_names_the_program_alone(pool: Pool) -> None:
    errors = pool.run("def f(): 1 / 0\nf()").errors
    assert 'File "program.py", line 1, in f' in errors
    assert errors.count("File ") == 2  # the module's line and the function's


def test_output_before_the_time_is_over_is_kept(pool: Pool) -> None:
    program = "print('early', flush=True)\nwhile True: pass"
    assert pool.run(program, limits=Limits(cpu=0.2)).text == "early\n"


def test_sets_are_printed_in_the_same_order_each_time(pool: Pool) -> None:
    program = "print({str(i) for i in range(20)}, hash('a'))"
    assert len({pool.run(program).text for _ in range(5)}) == 1


def test_cost_is_what_was_used(pool: Pool) -> None:
    cost = pool.run("import time\nx = bytearray(50 << 20)\ntime.sleep(0.2)").cost
    assert cost.wall >= 0.2
    assert 0 < cost.cpu < 0.2
    assert 50 << 20 < cost.memory < 150 << 20


def test_memory_and_descriptors_are_limited(pool: Pool) -> None:
    small = Limits(memory=100 << 20, open_files=20)
    assert pool.run("x = bytearray(200 << 20)", limits=small).ended is Ended.MEMORY
    held = "import os\nn = 0\ntry:\n  while True: os.dup(0); n += 1\nexcept OSError: print(n)"
    assert int(pool.run(held, limits=small).text) <= 20


def test_processes_work_where_asked_for_and_end_with_the_run(ns: Pool) -> None:
    allow = Options(processes=True)
    call = "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'print(5)'], "
    assert ns.run(call + "capture_output=True).stdout)", options=allow).text == "b'5\\n'\n"
    bomb = "import os, time\ntry:\n  while True:\n    if os.fork() == 0: time.sleep(99)\n"
    bomb += "except OSError: print('full')"
    assert ns.run(bomb, options=allow).text == "full\n"
    assert ns.run("print(1)").text == "1\n"


def test_multiprocessing_works_where_processes_are_allowed(ns: Pool) -> None:
    program = "import multiprocessing as m\nm.set_start_method('fork')\nwith m.Pool(2) as p: "
    program += "print(p.map(abs, [1, -2]))"
    assert ns.run(program, options=Options(processes=True)).text == "[1, 2]\n"


def test_sockets_reach_no_further_than_the_run(ns: Pool) -> None:
    program = (
        "import socket, threading\ns = socket.create_server(('127.0.0.1', 0))\n"
        "threading.Thread(target=lambda: s.accept()[0].sendall(b'hi')).start()\n"
        "print(socket.create_connection(s.getsockname()).recv(9))\n"
        "try: socket.create_connection(('192.0.2.1', 80), timeout=5)\n"
        "except OSError as error: print(error.errno)"
    )
    outcome = ns.run(program, options=Options(sockets=True))
    assert outcome.text == "b'hi'\n101\n"  # 101: network is unreachable


def test_packages_are_there_by_name_alone() -> None:
    with Pool(size=1, packages=("numpy",)) as pool:
        assert pool.run("import numpy; print(numpy.arange(4).sum())").text == "6\n"
        assert pool.run("import sympy").ended is Ended.ERROR
        assert pool.run("import numpy; open(numpy.__file__, 'a')").ended is Ended.ERROR


def test_modules_can_be_asked_for_beforehand() -> None:
    program = "import sys; print('numpy' in sys.modules, '_json' in sys.modules)"
    with Pool(size=1, packages=("numpy",)) as pool:
        assert pool.run(program).text == "False True\n"
        ready = Options(preload=("numpy",))
        assert pool.run(program, options=ready).text == "True True\n"
        assert pool.run("x = 1\nimport numpy, sys; print(len(numpy.arange(3)))").text == "3\n"
        with pytest.raises(UsageError, match="cannot be preloaded: sympy: ModuleNotFound"):
            pool.run("", options=Options(preload=("sympy",)))


@pytest.mark.parametrize("names", [("a b",), ("",), ("os;x",), (1,)])
def test_what_is_no_name_of_a_module_is_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="expected the name of a module"):
        Options(preload=names)


def test_packages_are_there_in_the_flat_tier_too() -> None:
    with Pool(size=1, tier="flat", packages=("numpy",)) as pool:
        assert pool.run("import numpy.fft; print(numpy.arange(4).sum())").text == "6\n"
        assert pool.run("import sympy").ended is Ended.ERROR


def test_the_table_names_every_wall(ns: Pool) -> None:
    found = ns.describe()
    assert found.tier == "ns"
    missing = {row.name for row in found.rows if not row.active}
    assert missing - {"cgroup"} == {"landlock"}  # not every machine lets us make control groups
    assert "no /proc" in str(found)


def test_no_isolation_is_had_by_its_own_name_alone() -> None:
    with pytest.raises(UsageError, match="unsafe_no_isolation=True alone"):
        Pool(tier="none")
    with pytest.raises(UsageError, match="contradicts"):
        Pool(unsafe_no_isolation=True, require="ns")
    with Pool(size=1, unsafe_no_isolation=True) as pool:
        assert pool.run("print(1)").tier == "none"


def test_a_weaker_tier_than_required_is_refused() -> None:
    with pytest.raises(UsageError, match="tier='flat' is weaker than require='ns'"):
        Pool(tier="flat", require="ns")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"cpu": 0}, "limit cpu=0; expected a number of at least 0.001"),
        ({"cpu": float("nan")}, "limit cpu=nan"),
        ({"memory": 1}, "limit memory=1"),
        ({"memory": True}, "limit memory=True"),
        ({"disk": 1.5e9}, "limit disk=1500000000.0; expected a whole number"),
        ({"wall": -1.0}, "limit wall=-1.0"),
        ({"threads": 1 << 62}, "expected a whole number"),
    ],
)
def test_limits_that_make_no_sense_are_refused(given: dict[str, float], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Limits(**given)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../b", "", "a//b", "a\0b"])
def test_file_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="expected a relative path"):
        Job(program="", files={name: b""})


def test_text_for_bytes_is_refused() -> None:
    with pytest.raises(UsageError, match="stdin is str; expected bytes"):
        run("", stdin="text")
    with pytest.raises(UsageError, match="program is NoneType"):
        run(None)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("tier", ["flat"])
def test_processes_are_refused_where_they_cannot_be_held(tier: Tier) -> None:
    with Pool(size=1, tier=tier) as pool, pytest.raises(UsageError, match="need the tier 'ns'"):
        pool.run("", options=Options(processes=True))


def test_an_interpreter_that_is_none_is_named() -> None:
    with pytest.raises(SandboxError, match="/bin/nothing"):
        Pool(python="/bin/nothing")


def test_an_unknown_tier_is_named() -> None:
    with pytest.raises(UsageError, match="no tier 'nss'; did you mean 'ns'"):
        Pool(tier="nss")  # pyright: ignore[reportArgumentType]


def test_a_pool_of_threads_of_multiprocessing_works_in_namespaces(ns: Pool) -> None:
    for how in (
        "multiprocessing.pool import ThreadPool as P",
        "multiprocessing.dummy import Pool as P",
    ):
        assert ns.run(f"from {how}\nwith P(4) as p: print(p.map(abs, [-1, 2]))").text == "[1, 2]\n"


@pytest.mark.parametrize(
    "program",
    [
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))",
        "import ctypes, struct\nlimit = struct.pack('QQ', 1, 1)\n"
        "if ctypes.CDLL(None).prlimit(0, 0, limit, None): raise OSError",
        "import ctypes\nevent = (ctypes.c_long * 8)(0, 9)\ntimer = ctypes.c_void_p()\n"
        "if ctypes.CDLL(None).timer_create(1, event, ctypes.byref(timer)): raise OSError",
    ],
)
def test_no_program_can_have_the_kernel_kill_it_as_if_from_outside(
    pool: Pool, program: str
) -> None:
    """What is killed from outside is the sandbox's failure, which costs a program nothing."""
    outcome = pool.run(program)
    assert (outcome.ended, outcome.exit) == (Ended.ERROR, 1), outcome.errors
    looked = pool.run("import resource; print(len(resource.getrlimit(resource.RLIMIT_CPU)))")
    assert looked.text == "2\n"
