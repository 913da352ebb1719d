"""Tools for a policy: plain typed Python functions, called in the text of a turn."""

from .calls import FORMS, Call, Turn, read_turn
from .env import ToolEnv
from .functions import Refused, Tool, tool

__all__ = ["FORMS", "Call", "Refused", "Tool", "ToolEnv", "Turn", "read_turn", "tool"]
