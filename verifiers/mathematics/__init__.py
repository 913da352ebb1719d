"""Mathematical answers: reader → tree → tiers of comparison."""

from ..numerals import TooLarge, Unreadable
from .answer import MathAnswer, compile_truth, read_answer
from .compare import Reading

__all__ = ["MathAnswer", "Reading", "TooLarge", "Unreadable", "compile_truth", "read_answer"]
