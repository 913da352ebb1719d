"""Namespaces are kept for the next run only where a run left them as they were."""

from collections.abc import Iterator

import pytest

from rlvr.verifiers.sandbox import Ended, Limits, Options, Pool

ROOM = "import os; about = os.stat('/tmp'); print(about.st_ctime_ns, about.st_dev)"
LOOK = "import os; print(os.listdir('/tmp'), oct(os.stat('/tmp').st_mode & 0o7777))"


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(size=1, require="ns") as made:
        yield made


def test_a_room_that_was_left_alone_is_used_again(pool: Pool) -> None:
    assert len({pool.run(ROOM).text for _ in range(5)}) == 1


@pytest.mark.parametrize(
    "touch",
    [
        "open('f', 'w').close(); os.unlink('f')",
        "open('f', 'w').write('left')",
        "os.mkdir('d'); os.rmdir('d')",
        "os.symlink('/', 'l'); os.unlink('l')",
        "os.chmod('/tmp', 0o777); os.chmod('/tmp', 0o700)",
        "before = os.stat('/tmp'); open('f', 'w').close(); os.unlink('f')\n"
        "os.utime('/tmp', ns=(before.st_atime_ns, before.st_mtime_ns))",
        "os.mkfifo('p'); os.unlink('p')",
    ],
)
def test_a_room_where_anything_was_done_is_given_up(pool: Pool, touch: str) -> None:
    before = pool.run(ROOM).text
    outcome = pool.run(f"import os, time\ntime.sleep(0.02)\n{touch}")  # past the tick of the mount
    assert outcome.ended is Ended.OK, outcome.errors
    assert pool.run(LOOK).text == "[] 0o700\n"
    assert pool.run(ROOM).text != before


def test_a_file_without_a_name_leaves_nothing(pool: Pool) -> None:
    program = (
        "import os\nfd = os.open('/tmp', os.O_TMPFILE | os.O_RDWR)\nos.write(fd, b'x' * 70000)"
    )
    assert pool.run(program).ended is Ended.OK
    free = "import os; about = os.statvfs('/tmp'); print(about.f_bfree == about.f_blocks)"
    assert pool.run(free).text == "True\n"
    assert pool.run(LOOK).text == "[] 0o700\n"


def test_files_that_the_caller_lays_out_are_gone_afterwards(pool: Pool) -> None:
    assert pool.run("import os; print(os.listdir())", files={"f": b""}).text == "['f']\n"
    assert pool.run("import os; print(os.listdir())").text == "[]\n"


def test_rooms_of_other_sizes_are_other_rooms(pool: Pool) -> None:
    size = "import os; about = os.statvfs('.'); print(about.f_blocks * about.f_frsize >> 20)"
    for disk in (64, 16, 64, 32, 16):
        assert pool.run(size, limits=Limits(disk=disk << 20)).text == f"{disk}\n"


def test_runs_at_the_same_time_are_in_rooms_of_their_own(pool: Pool) -> None:
    program = f"import os\nos.write(3, b'r'); os.read(3, 1)\n{ROOM}"
    for _ in range(2):
        with pool.slot() as slot:
            channels = [slot.open(program) for _ in range(6)]
            assert [channel.receive(1, 20) for channel in channels] == [b"r"] * 6
            for channel in channels:
                channel.send(b"x", 5)
            outcomes = [channel.join(20) for channel in channels]
        assert len({outcome.text for outcome in outcomes if outcome is not None}) == 6


def test_the_number_of_threads_is_counted_anew_in_a_room(pool: Pool) -> None:
    program = (
        "import threading, time\nstarted = 0\ntry:\n  while True:\n"
        "    threading.Thread(target=time.sleep, args=(9,), daemon=True).start(); started += 1\n"
        "except RuntimeError: print(started, flush=True)"
    )
    for _ in range(3):
        # with the main thread, 12
        assert pool.run(program, limits=Limits(threads=12)).text == "11\n"


def test_a_network_is_never_that_of_an_earlier_run(pool: Pool) -> None:
    listen = "import socket\ns = socket.create_server(('127.0.0.1', 7777))\nprint('listening')"
    for _ in range(2):
        assert pool.run(listen, options=Options(sockets=True)).text == "listening\n"
    assert pool.run("import socket; socket.socket()").ended is Ended.ERROR


def test_a_folder_of_the_lower_tiers_is_used_again_only_if_it_was_left_alone() -> None:
    where = "import os; print(os.path.basename(os.getcwd()), os.listdir())"
    with Pool(size=1, tier="flat") as flat:
        first = flat.run(where).text
        assert flat.run(where).text == first
        for touch in ("open('f', 'w').close()", "os.mkdir('d'); os.rmdir('d')"):
            assert flat.run(f"import os, time; time.sleep(0.02); {touch}").ended is Ended.OK
            now = flat.run(where).text
            assert now != first
            assert now.endswith(" []\n")
            first = now
