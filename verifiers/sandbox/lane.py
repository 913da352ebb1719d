"""A core's servers, and a turn on them."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .channel import Channel
from .connection import Connection, Job, ServerGone
from .outcome import SandboxError
from .process import Profile, ServerProcess

if TYPE_CHECKING:
    from .pool import Pool

ATTEMPTS = 3
"""Times that a run is started before a failure of the sandbox stands."""
MOST_SERVERS = 4
"""Servers that a core keeps; the one not used for longest makes way for a new kind."""


class Lane:
    """One core's servers: one for each kind of program, started when the first of it comes."""

    def __init__(self) -> None:
        """Start with none."""
        self.servers: dict[Profile, ServerProcess] = {}
        self.connections: dict[Profile, Connection] = {}
        self.closed = False

    def connection(self, profile: Profile, busy: Collection[Profile] = ()) -> Connection:
        """Return the connection to the server of a profile, starting what is not there.

        `busy` servers have runs that are kept open, and do not make way.
        """
        if self.closed:
            raise UsageError("the pool is closed; make a new one")
        found = self.connections.get(profile)
        if found is None:
            server = self.servers.get(profile)
            if server is None or not server.is_alive():
                self._make_way(profile, busy)
                server = self.servers[profile] = ServerProcess(profile)
            found = self.connections[profile] = Connection(server.connect(), profile.tier)
        server = self.servers.pop(profile, None)
        if server is not None:  # the last one used goes last
            self.servers[profile] = server
        return found

    def _make_way(self, profile: Profile, busy: Collection[Profile]) -> None:
        """End what stands in the place of a new server."""
        self.drop(profile, server=True)
        idle = [other for other in self.servers if other not in busy]
        for other in idle[: max(0, len(self.servers) + 1 - MOST_SERVERS)]:
            self.drop(other, server=True)

    def drop(self, profile: Profile, *, server: bool) -> None:
        """Close a connection, whose runs end with it, and the server too if it is at fault."""
        connection = self.connections.pop(profile, None)
        if connection is not None:
            connection.close()
        found = self.servers.pop(profile, None) if server else None
        if found is not None:
            found.close(seconds=0.2)

    def close(self) -> None:
        """End everything, for good."""
        self.closed = True
        # a caller's thread may drop its own at the same time
        for connection in list(self.connections.values()):
            connection.close()
        for server in list(self.servers.values()):
            server.close()
        self.connections.clear()
        self.servers.clear()


class Slot:
    """A turn on one core, in which runs may be kept open side by side. Made by `Pool.slot`.

    Do not wait for another turn of the same pool inside one: all cores may be waiting so.
    """

    def __init__(self, pool: "Pool", share: str) -> None:
        """Remember whose turn it will be."""
        self.pool = pool
        self.share = share
        self.lane: Lane | None = None
        self.channels: list[tuple[Profile, Channel]] = []

    def open(self, program: str | bytes, **given: Any) -> Channel:
        """Start a program and keep a channel to it; takes what `Job` takes."""
        if self.lane is None:
            raise UsageError("the slot is not entered; use 'with pool.slot() as slot:'")
        job = Job(program=program, **given)
        self.pool.check(job)
        profile = self.pool.profile(job)
        for attempt in range(ATTEMPTS):
            try:
                busy = [other for other, held in self.channels if held.outcome is None]
                channel = Channel(self.lane.connection(profile, busy), job)
            except (ServerGone, SandboxError):
                if attempt + 1 == ATTEMPTS:
                    raise
                self.lane.drop(profile, server=True)
                continue
            self.channels.append((profile, channel))
            return channel
        raise AssertionError("unreachable")

    def __enter__(self) -> "Slot":
        """Wait for the turn."""
        self.lane = self.pool.take(self.share)
        return self

    def __exit__(self, *details: object) -> None:
        """End the runs that are still open, and the turn."""
        self._leave()

    async def __aenter__(self) -> "Slot":
        """Wait for the turn."""
        self.lane = await self.pool.atake(self.share)
        return self

    async def __aexit__(self, *details: object) -> None:
        """End the runs that are still open, and the turn."""
        self._leave()

    def _leave(self) -> None:
        lane, self.lane = self.lane, None
        if lane is None:
            return
        for profile, channel in self.channels:
            channel.abandon()
            if channel.outcome is None:
                lane.drop(profile, server=False)
        self.channels.clear()
        self.pool.gate.leave(lane)
