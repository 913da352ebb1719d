"""The rows of the table of algorithms, one file a family.

Only the files here say what an algorithm *is*; everything else reads it off the row.
"""

from ..choices import Algorithm
from . import critics, groups, presets, selection, surrogates, textbook

ROWS: tuple[Algorithm, ...] = (
    *textbook.ROWS,
    *groups.ROWS,
    *surrogates.ROWS,
    *critics.ROWS,
    *selection.ROWS,
    *presets.ROWS,
)
"""Every row, in the order in which they are listed."""

PRESETS = tuple(row.name for row in presets.ROWS)
"""Names of the rows that reproduce another system's variant."""

__all__ = ["PRESETS", "ROWS"]
