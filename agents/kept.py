"""Which tokens could be drawn at each position: what top-p, top-k and min-p have left.

A policy that samples from a truncated distribution records log-probabilities that are renormalised
over the tokens left. A learner that normalises over the whole vocabulary is off by their mass at
every token; one that knows the same tokens is not. There may be hundreds a position, so that they
are stored as numbers of four bytes in one array, with the place where each position's end.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload


class Kept(Sequence[Sequence[int]]):
    """Per position, the ids that could be drawn there; none where nothing was cut off.

    Example:
        >>> kept = Kept([[5, 9], [], [7]])
        >>> list(kept[0]), len(kept), list(kept[1:].ids)
        ([5, 9], 3, [7])
    """

    __slots__ = ("ends", "ids")

    def __init__(self, each: Iterable[Sequence[int]] = ()) -> None:
        """Begin with some positions."""
        self.ids = array("i")
        """All positions' ids, one after the other."""
        self.ends = array("q")
        """Where in `ids` each position's end."""
        self.extend(each)

    def append(self, ids: Iterable[int]) -> None:
        """Add a position."""
        self.ids.extend(ids)
        self.ends.append(len(self.ids))

    def extend(self, each: Iterable[Sequence[int]]) -> None:
        """Add positions."""
        if not isinstance(each, Kept):
            for ids in each:
                self.append(ids)
            return
        base = len(self.ids)
        self.ends.extend([base + end for end in each.ends])
        self.ids.extend(each.ids)

    def skip(self, count: int) -> None:
        """Add positions where nothing was cut off, or nothing was drawn."""
        self.ends.extend([len(self.ids)] * count)

    def __len__(self) -> int:
        """Return the number of positions."""
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> Sequence[int]: ...
    @overload
    def __getitem__(self, index: slice) -> "Kept": ...
    def __getitem__(self, index: int | slice) -> "Sequence[int] | Kept":
        """Return one position's ids, or some positions that follow one another."""
        if isinstance(index, int):
            at = range(len(self))[index]
            return self.ids[self._begin(at) : self.ends[at]]
        start, stop, step = index.indices(len(self))
        if step != 1:
            return Kept(self[at] for at in range(start, stop, step))
        out, base = Kept(), self._begin(start)
        out.ends = array("q", [end - base for end in self.ends[start:stop]])
        out.ids = self.ids[base : base + (out.ends[-1] if out.ends else 0)]
        return out

    def _begin(self, at: int) -> int:
        return self.ends[at - 1] if at else 0

    def __eq__(self, other: object) -> bool:
        """Compare positions."""
        return isinstance(other, Kept) and (self.ids, self.ends) == (other.ids, other.ends)

    __hash__ = None  # pyright: ignore

    def __repr__(self) -> str:
        """Show how much it holds."""
        return f"Kept({len(self.ids)} ids at {len(self)} positions)"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"ids": self.ids.tolist(), "ends": self.ends.tolist()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Kept":
        """Read what `to_json` wrote."""
        out = cls()
        out.ids, out.ends = array("i", data["ids"]), array("q", data["ends"])
        return out
