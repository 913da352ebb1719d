"""The exact tokens of a conversation, as policies and rollouts use them.

The formatting itself stands with the environments, whose per-token view needs it, too.
"""

from ..envs.conversation import (
    PLAIN_TEMPLATE,
    THOUGHTS,
    ChatFormat,
    Messages,
    end_ids,
    new_messages,
)
from ..envs.template_check import TemplateReport, check_once, check_template

__all__ = [
    "PLAIN_TEMPLATE",
    "THOUGHTS",
    "ChatFormat",
    "Messages",
    "TemplateReport",
    "check_once",
    "check_template",
    "end_ids",
    "new_messages",
]
