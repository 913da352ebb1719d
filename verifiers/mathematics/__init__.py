"""Mathematical answers: reader → tree → tiers of comparison."""

from ..numerals import TooLarge, Unreadable
from .answer import MathAnswer
from .readings import Reading, compile_truth, read_answer

__all__ = ["MathAnswer", "Reading", "TooLarge", "Unreadable", "compile_truth", "read_answer"]
