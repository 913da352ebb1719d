"""What every engine offers, whatever stands behind it."""

from typing import Protocol, runtime_checkable

from .outcome import Limits, Options, Outcome
from .survey import Survey


@runtime_checkable
class Engine(Protocol):
    """Runs programs: `Pool`, `Bubblewrap`, `Remote`, or one of your own."""

    def run(
        self,
        program: str | bytes,
        *,
        stdin: bytes = b"",
        files: dict[str, bytes] | None = None,
        limits: Limits | None = None,
        options: Options | None = None,
        share: str = "",
    ) -> Outcome:
        """Run a program to its end."""
        ...

    async def arun(
        self,
        program: str | bytes,
        *,
        stdin: bytes = b"",
        files: dict[str, bytes] | None = None,
        limits: Limits | None = None,
        options: Options | None = None,
        share: str = "",
    ) -> Outcome:
        """Run a program without blocking the event loop."""
        ...

    def describe(self) -> Survey:
        """Say what walls stand."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...
