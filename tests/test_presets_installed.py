"""Presets against the systems they are named after, as pip installs them: `make test-peers`.

TRL 1.16.0, verl 0.9.1, OpenRLHF 0.11.2 and SkyRL 0.3.0 compute advantages, loss and gradient of one
ragged batch with their own functions and their own defaults; the preset must give the same. TRL's
trainers run as they are, on a tiny model; `presets_harness` runs the others' loss files.

The other systems are not to be had from PyPI (open-instruct and prime-rl have no package there,
nemo-rl is a placeholder, slime another project): `test_objective_presets` has their formulas worked
by hand.
"""

from itertools import combinations
from pathlib import Path
from typing import Any

import presets_harness as peers
import pytest
import torch
from torch import Tensor

from rlvr.rl_core.algorithms import PRESETS, algorithm
from rlvr.rl_core.objective import advantages, denominators, policy_loss

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

PROMPTS = ["a", "bc", "def"]
ROWS, WIDTH, GROUP = peers.ROWS, peers.WIDTH, peers.GROUP


def ours(batch: Any, name: str, **options: Any) -> Any:
    """Compute with a preset, its group size set to the batch's."""
    row = algorithm(name, group_size=GROUP, **options)
    found = advantages(
        row,
        rewards=batch.rewards,
        scored=torch.ones(ROWS, dtype=torch.bool),
        groups=batch.groups,
        mask=batch.mask,
        logprobs=batch.old,
        reference=batch.reference,
    )
    logprobs = batch.logprobs.clone().requires_grad_()
    loss, _ = policy_loss(
        row,
        logprobs=logprobs,
        old=batch.old,
        rollout=batch.rollout,
        reference=batch.reference,
        advantages=found.values,
        mask=found.mask,
        denominators=denominators(found.mask, found.rows, 2 * WIDTH),
    )
    return peers.Outcome(found.values, loss.item(), torch.autograd.grad(loss, logprobs)[0])


def check(batch: Any, mine: Any, theirs: Any, tolerance: float) -> None:
    """Compare all three at the trained tokens, and the gradient elsewhere, too, where it is 0."""
    far = {
        "advantages": ((mine.advantages - theirs.advantages) * batch.mask).abs().max().item(),
        "loss": abs(mine.loss - theirs.loss),
        "gradient": (mine.gradient - theirs.gradient).abs().max().item(),
    }
    print({name: f"{size:.1e}" for name, size in far.items()})
    assert max(far.values()) <= tolerance, far


class Scripted:
    """A trainer of TRL that is told what was sampled, and shows its log-probabilities."""

    script: tuple[Any, ...]
    seen: list[Tensor]

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        return self.script

    def _get_per_token_logps_and_entropies(self, *given: Any, **options: Any) -> Any:
        found = super()._get_per_token_logps_and_entropies(*given, **options)  # type: ignore[misc]
        if found[0].requires_grad:
            found[0].retain_grad()
            self.seen.append(found[0])
        return found


def trainer_of_trl(kind: str, tiny: tuple[Any, Any], home: Path, **settings: Any) -> Any:
    """Make the real one, in float64, its policy moved away from the reference."""
    import trl
    from datasets import Dataset

    model, tokenizer = tiny
    model.save_pretrained(home / "model")
    made = type("Trainer", (Scripted, getattr(trl, f"{kind}Trainer")), {"seen": []})
    trainer: Any = made(
        model=str(home / "model"),
        processing_class=tokenizer,
        reward_funcs=lambda completions, **_: peers.SCORES,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS]),
        args=getattr(trl, f"{kind}Config")(
            output_dir=str(home / "run"),
            use_cpu=True,
            bf16=False,
            report_to="none",
            num_generations=GROUP,
            per_device_train_batch_size=ROWS // 2,
            gradient_accumulation_steps=2,
            max_completion_length=WIDTH,
            **settings,
        ),
    )
    for one in filter(None, (trainer.model, trainer.ref_model)):
        one.double()
    trainer.current_gradient_accumulation_steps = 2
    shift(trainer.model, 1)
    return trainer


def shift(model: Any, seed: int) -> None:
    """Move every weight a little."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            weight += 0.01 * noise


def logprobs_of(model: Any, prompts: list[list[int]], tokens: list[list[int]]) -> Tensor:
    """Compute the log-probabilities `[B, T]` of completions, one by one."""
    rows = []
    for prompt, completion in zip(prompts, tokens, strict=True):
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        of_all = logits.log_softmax(dim=-1)
        of_row = of_all.gather(1, torch.tensor(completion)[:, None])[:, 0]
        rows.append(torch.nn.functional.pad(of_row, (0, WIDTH - len(completion))))
    return torch.stack(rows)


def trl(trainer: Any, tokenizer: Any, mask: Tensor, *, sampler: bool) -> tuple[Any, Any]:
    """Score a batch, move the policy, and compute the loss of both micro-batches.

    With `sampler` the trainer is told its log-probabilities, as if vLLM had sampled.
    """
    texts = [prompt for prompt in PROMPTS for _ in range(GROUP)]
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    generator = torch.Generator().manual_seed(2)
    tokens = [torch.randint(6, 200, (n,), generator=generator).tolist() for n in peers.LENGTHS]
    with torch.no_grad():
        old = logprobs_of(trainer.model, prompts, tokens)
        reference = logprobs_of(trainer.ref_model or trainer.model, prompts, tokens)
    noise = torch.randn(old.shape, generator=generator, dtype=torch.float64)
    rollout = (old - 0.4 * noise).float().double()  # TRL keeps them in float32
    trainer.script = (prompts, tokens, texts)
    if sampler:
        trained, told = (
            [row[:n].tolist() for row, n in zip(table, peers.LENGTHS, strict=True)]
            for table in (mask.int(), rollout)
        )
        trainer.use_vllm = True
        trainer.script = (prompts, tokens, trained, texts, told, {}, None, None)
    trainer.model.train()
    scored = trainer._generate_and_score_completions([{"prompt": text} for text in texts])
    shift(trainer.model, 3)
    loss = torch.zeros(())
    for rows in (slice(0, ROWS // 2), slice(ROWS // 2, ROWS)):
        part = {name: t[rows] if t.dim() else t for name, t in scored.items()}
        loss = loss + trainer._compute_loss(trainer.model, part)
    loss.backward()
    slope = torch.cat([seen.grad for seen in trainer.seen])
    logprobs = logprobs_of(trainer.model, prompts, tokens)
    hold_to_the_weights(trainer.model, logprobs, slope)
    assert ((((logprobs - old) * mask).exp() - 1).abs() > 0.2).any()
    batch = peers.Batch(
        rewards=torch.tensor(peers.SCORES, dtype=torch.float64),
        groups=torch.arange(peers.GROUPS).repeat_interleave(GROUP),
        mask=mask,
        logprobs=logprobs.detach(),
        old=old,
        rollout=rollout,
        reference=reference,
    )
    weights = scored["advantages"].double()[:, None].expand(ROWS, WIDTH)
    return batch, peers.Outcome(weights, loss.item(), slope)


def hold_to_the_weights(model: Any, logprobs: Tensor, slope: Tensor) -> None:
    """Check that the weights got the gradient which `slope` at our own log-probabilities gives."""
    slopes = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    logprobs.backward(slope)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, slopes[name], atol=2e-6, rtol=0)


def test_every_pair_of_presets_differs_on_this_batch() -> None:
    batch = peers.draw()
    found = {name: ours(batch, name).gradient for name in PRESETS}
    for one, other in combinations(found, 2):
        assert (found[one] - found[other]).abs().max() > 1e-5, f"{one} is {other} here"


def test_trl_grpo(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    trainer = trainer_of_trl("GRPO", tiny, tmp_path)
    batch, theirs = trl(trainer, tiny[1], peers.trained_tokens(), sampler=True)
    ratios = ((batch.old - batch.rollout) * batch.mask).sum(dim=1).exp()
    assert 0 < (ratios > 3).sum() < ROWS
    check(batch, ours(batch, "trl-grpo"), theirs, 1e-6)


def test_trl_grpo_with_a_reference(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    trainer = trainer_of_trl("GRPO", tiny, tmp_path, beta=0.04)
    batch, theirs = trl(trainer, tiny[1], peers.trained_tokens(), sampler=True)
    row = ours(batch, "trl-grpo", kl="loss", kl_estimator="rho_k3", beta=0.04)
    check(batch, row, theirs, 1e-6)


def test_trl_rloo(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    trainer = trainer_of_trl("RLOO", tiny, tmp_path)
    mask = torch.arange(WIDTH) < torch.tensor(peers.LENGTHS)[:, None]
    batch, theirs = trl(trainer, tiny[1], mask, sampler=False)
    halved = peers.Outcome(
        theirs.advantages, theirs.loss / 2, theirs.gradient / 2
    )  # by accumulation
    check(batch, ours(batch, "trl-rloo"), halved, 1e-6)


def test_verl_grpo() -> None:
    batch = peers.draw()
    check(batch, ours(batch, "verl-grpo"), peers.verl(batch, kl=False), 1e-12)


def test_verl_grpo_with_its_kl_loss() -> None:
    batch = peers.draw()
    row = ours(batch, "verl-grpo", kl="loss", kl_estimator="k3", beta=0.001)
    check(batch, row, peers.verl(batch, kl=True), 1e-12)


def test_openrlhf_grpo() -> None:
    batch = peers.draw()
    check(batch, ours(batch, "openrlhf-grpo"), peers.openrlhf(batch), 1e-6)


def test_skyrl_grpo() -> None:
    batch = peers.draw()
    check(batch, ours(batch, "skyrl-grpo"), peers.skyrl(batch), 1e-6)
