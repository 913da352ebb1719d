"""Runs kept open: bytes both ways, caps on what comes, bounds on waiting."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from rlvr.verifiers import UsageError
from rlvr.verifiers.sandbox import (
    ChannelClosed,
    ChannelError,
    ChannelFull,
    ChannelSlow,
    Ended,
    Limits,
    Options,
    Pool,
    ServerGone,
)
from rlvr.verifiers.sandbox.lane import MOST_SERVERS

ECHO = "import os\nwhile data := os.read(3, 65536): os.write(3, data.upper())"
SHORT = Limits(cpu=0.3)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(size=2) as made:
        yield made


def test_a_channel_carries_bytes_both_ways(pool: Pool) -> None:
    with pool.slot() as slot, slot.open(ECHO) as channel:
        channel.send(b"abc\ndef\n", 5)
        assert channel.receive_line(10, 5) == b"ABC"
        assert channel.receive(4, 5) == b"DEF\n"
        usage = channel.usage()
        assert usage is not None
        assert min(usage.cpu, usage.wall) > 0
        assert channel.finish().ended is Ended.OK


def test_a_channel_carries_much_both_ways(pool: Pool) -> None:
    big = b"x" * 3_000_000
    program = "import os\ngot = 0\nwhile got < 3_000_000: got += len(os.read(3, 1 << 20))\n"
    program += "data = b'y' * got\nwhile data: data = data[os.write(3, data):]"
    with pool.slot() as slot, slot.open(program) as channel:
        channel.send(big, 10)
        assert channel.receive(len(big), 10) == b"y" * len(big)


def test_two_runs_talk_through_their_caller_on_one_core() -> None:
    async def go(pool: Pool) -> list[bytes]:
        async with pool.slot() as slot:
            left, right = slot.open(ECHO), slot.open(ECHO.replace("upper", "swapcase"))
            found = []
            for _ in range(20):
                await left.asend(b"ab\n", 5)
                await right.asend(await left.areceive_line(9, 5) + b"\n", 5)
                found.append(await right.areceive_line(9, 5))
            await left.aclose()
            assert (await right.aclose()).ended is Ended.STOPPED
            return found

    with Pool(size=1) as pool:
        assert asyncio.run(go(pool)) == [b"ab"] * 20


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("import os, time; os.write(3, b'x' * 1000); time.sleep(99)", ChannelFull),
        ("import time; time.sleep(99)", ChannelSlow),
        ("while True: pass", ChannelSlow),
        ("import os; os.write(3, b'no newline')", ChannelClosed),
        ("import os, time; os.close(3); time.sleep(99)", ChannelClosed),
        ("1 / 0", ChannelClosed),
    ],
)
def test_a_channel_tells_its_faults_apart(
    pool: Pool, program: str, error: type[ChannelError]
) -> None:
    with pool.slot() as slot, slot.open(program) as channel, pytest.raises(error):
        channel.receive_line(100, 0.3)


def test_a_program_that_does_not_read_does_not_hold_up_its_caller(pool: Pool) -> None:
    with pool.slot() as slot, slot.open("import time; time.sleep(99)") as channel:
        start = time.monotonic()
        with pytest.raises(ChannelSlow):
            channel.send(b"x" * 10_000_000, 0.3)
        assert time.monotonic() - start < 5


def test_a_slot_that_was_not_entered_is_refused(pool: Pool) -> None:
    with pytest.raises(UsageError, match="not entered"):
        pool.slot().open("")


def test_the_end_of_a_run_can_be_waited_for(pool: Pool) -> None:
    program = "import os, sys\nos.read(3, 1)\nos.write(3, b'last')\nprint('out')\nsys.exit(3)"
    with pool.slot() as slot, slot.open(program) as channel:
        assert channel.join(0.05) is None
        channel.send(b"x", 5)
        outcome = channel.join(20)
        assert outcome is not None
        assert (outcome.ended, outcome.exit, outcome.text) == (Ended.ERROR, 3, "out\n")
        assert channel.receive(4, 5) == b"last"
        assert channel.join(0) == channel.close() == outcome


def test_the_end_of_a_run_can_be_waited_for_in_an_event_loop(pool: Pool) -> None:
    async def go() -> None:
        async with pool.slot() as slot, slot.open("while True: pass", limits=SHORT) as channel:
            assert await channel.ajoin(0.01) is None
            outcome = await channel.ajoin(20)
            assert outcome is not None
            assert outcome.ended is Ended.TIMEOUT

    asyncio.run(go())


def test_a_server_that_goes_says_so_to_who_waits(pool: Pool) -> None:
    with pool.slot() as slot:
        channel = slot.open("import time; time.sleep(99)")
        assert slot.lane is not None
        for server in slot.lane.servers.values():
            server.close()
        with pytest.raises(ServerGone):
            channel.join(20)


def test_servers_of_other_modules_make_way_but_not_those_in_use(pool: Pool) -> None:
    program = "import sys; print(set(sys.argv[1:]) <= set(sys.modules))"
    names = ["csv", "json", "textwrap", "fractions", "shlex", "calendar"]
    with pool.slot() as slot:
        held = slot.open(ECHO, options=Options(preload=("bisect",)))
        for name in names:
            options = Options(preload=(name,), argv=(name,))
            with slot.open(program, options=options) as channel:
                outcome = channel.join(20)
                assert outcome is not None
                assert outcome.text == "True\n", outcome
        held.send(b"still\n", 5)
        assert held.receive_line(9, 5) == b"STILL"
        assert slot.lane is not None
        assert len(slot.lane.servers) <= MOST_SERVERS
