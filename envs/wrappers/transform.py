"""What every transform shares: it can be branched, and gymnasium can make it again from a spec."""

import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import gymnasium
from gymnasium.utils import RecordConstructorArgs

from ...verifiers import UsageError

Obs = TypeVar("Obs")
Act = TypeVar("Act")

TextEnv = gymnasium.Env[str, str]


@dataclass(frozen=True)
class Branch:
    """Where a wrapped environment's episode stands: the environment's own snapshot and ours."""

    inner: Any
    """What the environment below returned."""
    kind: str
    """Class of the wrapper."""
    kept: dict[str, Any]
    """What the wrapper itself has to know again."""

    def close(self) -> None:
        """Release what the environment's snapshot holds."""
        close = getattr(self.inner, "close", None)
        if close is not None:
            close()


class Transform(gymnasium.Wrapper[Obs, Act, str, str], RecordConstructorArgs, Generic[Obs, Act]):
    """A wrapper of a text environment, single- or multi-turn.

    What it remembers of an episode stands in the attributes named by `_KEPT`: `snapshot` copies
    them beside the environment's own snapshot, `restore` puts them back. The constructor's
    arguments are recorded, so that `gymnasium.make(env.spec)` makes the wrapped environment again.
    """

    _KEPT: ClassVar[tuple[str, ...]] = ()

    def __init__(self, env: TextEnv, **settings: Any) -> None:
        """Wrap an environment.

        Args:
            env: The environment, wrapped or not.
            settings: The constructor's other arguments, for the spec.
        """
        RecordConstructorArgs.__init__(self, _disable_deepcopy=True, **settings)
        gymnasium.Wrapper.__init__(self, env)

    def snapshot(self) -> Branch:
        """Return where the episode stands, so that it can be gone on from, as often as wanted.

        Raises:
            UsageError: The environment below has no snapshots, or no episode is running.
        """
        inner = self._below("snapshot")()
        kept = {name: copy.deepcopy(getattr(self, name)) for name in self._KEPT}
        return Branch(inner, type(self).__name__, kept)

    def restore(self, snapshot: Branch) -> tuple[Any, dict[str, Any]]:
        """Go on from a snapshot of this environment; it stays usable.

        Returns:
            The newest observation and the info of `reset`, with the chat so far.

        Raises:
            UsageError: It is no snapshot of an environment wrapped in the same way.
        """
        if not isinstance(snapshot, Branch) or snapshot.kind != type(self).__name__:
            raise UsageError(
                f"restore takes what snapshot() of this {type(self).__name__} returned, "
                f"got {snapshot!r:.100}"
            )
        observation, info = self._below("restore")(snapshot.inner)
        for name, value in snapshot.kept.items():
            setattr(self, name, copy.deepcopy(value))
        return self._restored(observation, info)

    def _restored(self, observation: str, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return what `restore` returns, given what the environment below did."""
        return observation, info

    def _abandon(self) -> None:
        """Have the environment below release an episode that ends here, not there."""
        if self.env.has_wrapper_attr("abandon"):
            self.env.get_wrapper_attr("abandon")()

    def _below(self, name: str) -> Any:
        try:
            return self.env.get_wrapper_attr(name)
        except AttributeError:
            raise UsageError(
                f"{self.env} has no {name}(), so this episode cannot be branched; give the "
                "environment snapshot() and restore(snapshot)"
            ) from None


def finite(name: str, value: Any, expected: str, low: float, high: float) -> float:
    """Return a number of a range, as a float.

    Raises:
        UsageError: It is no number, or outside of `[low, high]`.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high or abs(value) == float("inf"):
        raise UsageError(f"{name} must be {expected}, got {value!r:.100}")
    return float(value)
