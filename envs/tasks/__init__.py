"""The environments that come with the package: one file each, one line each in `TABLE`."""

TABLE: dict[str, tuple[str, str, str]] = {
    "rlvr/APPS-v0": (
        "rlvr.envs.tasks.apps:apps",
        "program",
        "contest problems, from the Hub or a local file",
    ),
    "rlvr/Arithmetic-v0": (
        "rlvr.envs.tasks.arithmetic:Arithmetic",
        "math",
        "sums, differences and products of whole numbers",
    ),
    "rlvr/Countdown-v0": (
        "rlvr.envs.tasks.countdown:Countdown",
        "rlvr.envs.tasks.countdown:reaches_target",
        "reach a target from given numbers with + - * /",
    ),
    "rlvr/GCD-v0": (
        "rlvr.envs.tasks.gcd:GCD",
        "math",
        "greatest common divisor of two or more numbers",
    ),
    "rlvr/GSM8K-v0": (
        "rlvr.envs.tasks.gsm8k:gsm8k",
        "rlvr.envs.tasks.gsm8k:final_number",
        "grade-school word problems, from the Hub or a local file",
    ),
    "rlvr/HumanEval-v0": (
        "rlvr.envs.tasks.humaneval:humaneval",
        "program",
        "complete a Python function, from the Hub or a local file",
    ),
    "rlvr/LinearEquation-v0": (
        "rlvr.envs.tasks.linear_equation:LinearEquation",
        "math",
        "solve a x + b = c",
    ),
    "rlvr/ListProgram-v0": (
        "rlvr.envs.tasks.list_program:ListProgram",
        "program",
        "write a function that works on a list step by step",
    ),
    "rlvr/LiveCodeBench-v0": (
        "rlvr.envs.tasks.livecodebench:livecodebench",
        "program",
        "dated contest problems, from the Hub or a local file",
    ),
    "rlvr/MBPP-v0": (
        "rlvr.envs.tasks.mbpp:mbpp",
        "program",
        "write a Python function, from the Hub or a local file",
    ),
    "rlvr/RecordProgram-v0": (
        "rlvr.envs.tasks.record_program:RecordProgram",
        "program",
        "write a program that reads records and prints a report",
    ),
    "rlvr/SortWords-v0": (
        "rlvr.envs.tasks.sort_words:SortWords",
        "rlvr.envs.tasks.sort_words:sorted_list",
        "put words in alphabetical order",
    ),
    "rlvr/TextProgram-v0": (
        "rlvr.envs.tasks.text_program:TextProgram",
        "program",
        "write a function that rewrites a text by rules",
    ),
}
"""Id → (place of the tasks, verifier's name or place, one-line description)."""

DIALOGUES: dict[str, tuple[str, str | None, str, str]] = {
    "rlvr/Calculator-v0": (
        "rlvr.envs.tasks.calculator:Calculator",
        "number",
        "rlvr.envs.tasks.calculator:CalculatorEnv",
        "a chain of formulas with large numbers, and a calculator",
    ),
    "rlvr/Files-v0": (
        "rlvr.envs.tasks.files:Files",
        None,
        "rlvr.envs.tasks.files:FilesEnv",
        "put a folder in order; its final files are judged",
    ),
    "rlvr/GridPuzzle-v0": (
        "rlvr.envs.tasks.grid_puzzle:GridPuzzle",
        None,
        "rlvr.envs.tasks.grid_puzzle:GridPuzzleEnv",
        "walk to the goal over a small grid with a key and a door",
    ),
    "rlvr/GuessNumber-v0": (
        "rlvr.envs.tasks.guess_number:GuessNumber",
        None,
        "rlvr.envs.tasks.guess_number:GuessNumberEnv",
        "find a hidden number by guesses answered higher or lower",
    ),
    "rlvr/PythonTool-v0": (
        "rlvr.envs.tasks.python_tool:PythonTool",
        "number",
        "rlvr.envs.tasks.python_tool:PythonToolEnv",
        "questions about ranges of numbers, and a Python interpreter",
    ),
    "rlvr/SQL-v0": (
        "rlvr.envs.tasks.sql:SQL",
        "sql",
        "rlvr.envs.tasks.sql:SQLEnv",
        "questions about a generated database, answered by a query",
    ),
    "rlvr/Search-v0": (
        "rlvr.envs.tasks.search:Search",
        "rlvr.envs.tasks.search:named",
        "rlvr.envs.tasks.search:SearchEnv",
        "questions over several pages of a small corpus, and a search engine",
    ),
}
"""Of several turns: id → (place of the tasks, verifier's name or place or `None` for a class that
judges itself, place of the class, one-line description)."""
