"""What a policy is told about its tools where the chat template does not say it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

_HOW = {
    "tags": (
        "To call one, write a JSON object with its name and arguments between tags:\n"
        '<tool_call>{"name": "…", "arguments": {…}}</tool_call>\n'
        "Several calls may stand in one turn; the results come with the next message."
    ),
    "openai": (
        "To call some, answer with an assistant message as JSON whose tool_calls name them; the "
        "results come with the next messages."
    ),
    "code": (
        "To call one, write its input in a fence with its name behind the backticks; the result "
        "comes with the next message."
    ),
}
_FINAL = {
    "turn": "A turn without a call is your final answer.",
    "tag": "Give your final answer as <answer>…</answer>, in a turn without calls.",
}


def description(
    schemas: Sequence[Mapping[str, Any]], form: str, final: str, bodies: Mapping[str, str]
) -> str:
    """Return a system message about tools.

    Args:
        schemas: Of the tools.
        form: How calls are written.
        final: What ends the episode.
        bodies: In the form `code`, the argument that a fence holds, by tool.
    """
    lines = ["You may call these tools:"]
    for schema in schemas:
        function = schema["function"]
        if bodies:
            lines.append(
                f"{function['name']}({bodies[function['name']]}): {function['description']}"
            )
        else:
            lines.append(json.dumps(function, ensure_ascii=False))
    return "\n".join([*lines, _HOW[form], _FINAL[final]])
