"""The space of texts: every Unicode string, without an alphabet.

`gymnasium.spaces.Text` lists its alphabet character by character (62 alphanumerics by default; all
of Unicode takes seconds and 193 MB), and `AsyncVectorEnv` with shared memory returns its first
observation for ever. `AnyText` has no alphabet; batched, it is a `Tuple` of texts, and shared
memory is refused instead of freezing.

It cannot be flattened to a `Box`: text becomes numbers only through a tokenizer.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import numpy as np
from gymnasium import Space
from gymnasium.error import CustomSpaceError
from gymnasium.spaces import Tuple
from gymnasium.vector.utils import (
    batch_differing_spaces,
    create_shared_memory,
    read_from_shared_memory,
    write_to_shared_memory,
)

from ..verifiers import UsageError

SAMPLE_LENGTH = 32
"""Characters of a sample at most: enough to be arbitrary, short enough to print."""
_SURROGATES = range(0xD800, 0xE000)
_SCALARS = 0x110000 - len(_SURROGATES)


class AnyText(Space[str]):
    """Every string of Unicode characters, the empty one included.

    Lone surrogates are outside: they are no characters and cannot be written as UTF-8.

    Example:
        >>> space = AnyText()
        >>> "" in space, "½ + ½ = ?" in space, "\\ud800" in space, b"bytes" in space
        (True, True, False, False)
        >>> "four" in AnyText(max_length=3)
        False
    """

    def __init__(
        self, max_length: int | None = None, *, seed: int | np.random.Generator | None = None
    ) -> None:
        """Make the space.

        Args:
            max_length: Characters (code points) at most; `None` for any number.
            seed: For `sample`.

        Raises:
            UsageError: `max_length` is negative or no integer.
        """
        if max_length is not None and (not isinstance(max_length, int) or max_length < 0):
            raise UsageError(f"max_length must be None or an integer from 0 up, got {max_length!r}")
        self.max_length = max_length
        super().__init__(dtype=None, seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        """Text has no flat numeric form."""
        return False

    def contains(self, x: Any) -> bool:
        """Whether `x` is a text of this space; one pass at most, in C."""
        if not isinstance(x, str) or (self.max_length is not None and len(x) > self.max_length):
            return False
        if x.isascii():
            return True
        try:
            x.encode()
        except UnicodeEncodeError:
            return False
        return True

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> str:
        """Draw a text of up to 32 characters, about half of them printable ASCII.

        Raises:
            UsageError: A mask or probabilities are given; texts have none.
        """
        if mask is not None or probability is not None:
            raise UsageError("AnyText.sample takes neither mask nor probability; leave them out")
        longest = SAMPLE_LENGTH if self.max_length is None else min(SAMPLE_LENGTH, self.max_length)
        length = int(self.np_random.integers(longest + 1))
        anything = self.np_random.integers(_SCALARS, size=length)
        anything += np.where(anything >= _SURROGATES.start, len(_SURROGATES), 0)
        ascii_codes = self.np_random.integers(0x20, 0x7F, size=length)
        codes = np.where(self.np_random.random(length) < 0.5, ascii_codes, anything)
        return "".join(map(chr, codes))

    def to_jsonable(self, sample_n: Iterable[str]) -> list[str]:
        """Return the texts as a list."""
        return list(sample_n)

    def from_jsonable(self, sample_n: list[Any]) -> list[str]:
        """Read what `to_jsonable` returned.

        Raises:
            UsageError: An item is not a text of this space.
        """
        for item in sample_n:
            if item not in self:
                raise UsageError(f"expected texts of {self!r}, got {item!r:.100}")
        return list(sample_n)

    def __eq__(self, other: object) -> bool:
        """Spaces with the same limit are equal."""
        return isinstance(other, AnyText) and self.max_length == other.max_length

    def __hash__(self) -> int:
        """Agree with equality."""
        return hash((AnyText, self.max_length))

    def __repr__(self) -> str:
        """Show the limit, if there is one."""
        return "AnyText()" if self.max_length is None else f"AnyText(max_length={self.max_length})"


@batch_differing_spaces.register(AnyText)
def _batch_differing(spaces: Sequence[AnyText]) -> Tuple:
    """Texts of different limits batch like texts of the same."""
    return Tuple(tuple(spaces))


def _refuse_shared_memory(space: AnyText, *args: Any, **kwargs: Any) -> NoReturn:
    raise CustomSpaceError(
        f"{space!r} has no fixed size and cannot lie in shared memory; "
        "pass AsyncVectorEnv(..., shared_memory=False) or use gymnasium.make_vec(id, num_envs=n)"
    )


create_shared_memory.register(AnyText, _refuse_shared_memory)
read_from_shared_memory.register(AnyText, _refuse_shared_memory)
write_to_shared_memory.register(AnyText, _refuse_shared_memory)
