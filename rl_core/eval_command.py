"""`rlvr eval`: a model measured on environments, as tables and files."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..agents.loading import resolve_device
from ..agents.policies import open_policy
from ..agents.types import Sampling
from ..verifiers import Status, UsageError
from .evaluation import Evaluation, evaluate
from .opening import limit_verifiers
from .progress import print_table
from .sources import EnvChoice, Source, open_sources, takes_split
from .warm_start import embedded_for, load_chosen

if TYPE_CHECKING:
    from .commands import EvalCommand


def run_eval(given: "EvalCommand") -> Evaluation:
    """Evaluate and print; returns the figures."""
    if not given.env:
        raise UsageError('rlvr eval needs an environment, such as "rlvr/GCD-v0 split=test"')
    sampling = Sampling(
        max_tokens=given.max_tokens,
        temperature=given.temperature,
        top_p=given.top_p,
        top_k=given.top_k,
        min_p=given.min_p,
        stop=given.stop,
    )
    if given.out:
        _check_writable(Path(given.out))
    with _opened(given.env) as sources:
        limit_verifiers(sources, given.verifier_timeout, print)
        policy = _policy(given)
        try:
            found = evaluate(
                policy,
                sources,
                tasks=given.tasks,
                samples=given.samples,
                sampling=sampling,
                seed=given.seed,
                batch=given.max_rows,
            )
            used = getattr(policy, "figures", dict)()
        finally:
            getattr(policy, "close", lambda: None)()
    _print(found, ", ".join(given.env), given.model.model, used)
    if given.out:
        _write(found, Path(given.out), used)
    return found


@contextmanager
def _opened(env: Sequence[str], split: str | None = None) -> Iterator[list[Source]]:
    sources = open_sources(env, split=split)
    try:
        yield sources
    finally:
        for source in sources:
            source.close()


def _training_side(env: str) -> str:
    """Return an environment as training takes it: no model is warmed up on what it is asked."""
    choice = EnvChoice.parse(env)
    return f"{env} split=train" if "split" in choice.options and takes_split(choice.id) else env


def _policy(given: "EvalCommand") -> Any:
    if given.model.policy == "openai":
        return _endpoint(given)
    if given.model.model == "embedded":
        with _opened([_training_side(one) for one in given.env], split="train") as sources:
            model, tokenizer = embedded_for(sources)
        model = model.to(resolve_device(given.model.device))
    else:
        model, tokenizer = load_chosen(given.model)
    return open_policy(
        given.model.policy,
        model,
        tokenizer,
        max_rows=given.max_rows,
        server_url=given.model.server_url,
        server_folder=given.model.server_folder,
        server_transport=given.model.server_transport,
        engine=given.model.engine,
        say=print,
    )


def _endpoint(given: "EvalCommand") -> Any:
    from ..agents.endpoints import Patience
    from ..agents.openai_policy import OpenAIPolicy

    if given.model.model == "embedded":
        raise UsageError(
            "--policy openai needs the model's name at its endpoint; give --model NAME"
        )
    asked = given.endpoint
    patience = Patience(
        timeout=asked.request_timeout,
        attempts=asked.attempts,
        concurrency=asked.concurrency,
        per_minute=asked.requests_per_minute,
    )
    prices = (asked.price_in, asked.price_out)
    policy = OpenAIPolicy(given.model.model, asked.base_url, patience, prices=prices)
    print(f"policy openai: {given.model.model} at {policy.endpoint.url}")
    return policy


def _print(found: Evaluation, env: str, model: str, used: Mapping[str, float]) -> None:
    low, high = found.interval
    rows = [("pass@1", f"{found.solved:.4f}  [{low:.4f}, {high:.4f}] 95 %")]
    rows += [(f"pass@{k}", f"{value:.4f}") for k, value in found.pass_at.items() if k > 1]
    if len(found.pass_at) > 1:
        rows.append(("majority", f"{found.majority:.4f}"))
    rows.append(("mean reward", f"{found.reward:.4f}"))
    if not found.samples:
        rows = [(name, "no sample is scored") for name, _ in rows]
    rows += [
        ("tasks / scored samples", f"{found.tasks} / {found.samples}"),
        ("unscored samples", str(found.unscored)),
        *_failures(found),
        ("tokens per sample", f"{found.length:.1f}"),
        ("ran out of tokens", f"{found.truncated:.1%}"),
    ]
    rows += [(f"status {s}", str(found.statuses.get(s, 0))) for s in Status if s in found.statuses]
    rows += [(n, f"{s:.4f} of {c}") for n, (s, c) in found.environments.items()]
    rows += [(f"difficulty {n}", f"{s:.4f} of {c}") for n, (s, c) in found.groups.items()]
    rows += [(name.replace("_", " "), f"{value:g}") for name, value in used.items()]
    print_table(f"{model} on {env}", ["figure", "value"], rows)


def _failures(found: Evaluation) -> list[tuple[str, str]]:
    """Return the most frequent reasons why samples have no score."""
    reasons = Counter(str(row["reason"]) for row in found.rows if row["reward"] is None)
    return [("unscored because", f"{why} ({count}×)") for why, count in reasons.most_common(3)]


def _write(found: Evaluation, path: Path, used: Mapping[str, float]) -> None:
    figures = {**asdict(found), **({"usage": used} if used else {})}
    rows = figures.pop("rows")
    with _writing(path):
        with open(path, "w", encoding="utf-8", errors="surrogatepass") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.with_suffix(".json").write_text(json.dumps(figures, indent=2) + "\n")


def _check_writable(path: Path) -> None:
    """Find out before the evaluation, not after it, that its samples cannot be kept."""
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        open(path, "ab").close()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot write '{path}': {error.strerror}; choose another --out"
        ) from error
