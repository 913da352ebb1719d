"""The slow rest: the main job learned for real, killed and resumed, on other architectures."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import transformers
from training_harness import lines, weights

from rlvr.agents import load_model
from rlvr.agents.embedded import byte_tokenizer
from rlvr.rl_core import TrainConfig, train

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
RLVR = [sys.executable, "-c", "import sys; from rlvr.rl_core.cli import main; sys.exit(main())"]
DEMO = ROOT / "examples" / "arithmetic.toml"


def test_a_hundred_steps_are_fifty_a_kill_and_a_resume(tmp_path: Path) -> None:
    shared = ["--config", str(DEMO), "--steps", "100", "--checkpoint-every", "20",
              "--eval-every", "25", "--threads", "1"]  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*RLVR, "train", *shared, "--out", str(whole)], check=True)
    process = subprocess.Popen([*RLVR, "train", *shared, "--out", str(killed)])
    while process.poll() is None:
        log = killed / "metrics.jsonl"
        if log.exists() and len(log.read_bytes().splitlines()) > 55:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.05)
    assert process.wait() == -signal.SIGKILL
    done = [line["step"] for line in lines(killed)]
    assert 50 <= done[-1] < 100
    subprocess.run([*RLVR, "train", "--resume", "--out", str(killed)], check=True)
    for name in ("metrics.jsonl", "rollouts.jsonl", "evaluations.jsonl"):
        assert lines(whole, name) == lines(killed, name)
    assert [line["step"] for line in lines(killed)] == list(range(101))
    first, second = weights(whole), weights(killed)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_main_job_learns(tmp_path: Path) -> None:
    config = TrainConfig.from_toml(DEMO)
    result = train(config, seed=1, out=str(tmp_path / "run"), quiet=True)
    before, after = result.evaluations[0][1], result.evaluations[-1][1]
    assert before.tasks == after.tasks >= 200
    assert before.solved < 0.35
    assert after.solved > 0.90


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the form of GSM8K."""
    path = tmp_path_factory.mktemp("data") / "gsm8k.jsonl"
    rows = [
        {
            "question": f"Ann has {i} pears and buys {i + 1}. How many has she?",
            "answer": f"{i} + {i + 1} = <<{i}+{i + 1}={2 * i + 1}>>{2 * i + 1}.\n#### {2 * i + 1}",
        }
        for i in range(300)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_word_problems_train_and_evaluate_end_to_end(problems: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    env = f"rlvr/GSM8K-v0 path={problems}"
    words = ["--max-tokens", "64", "--steps", "3", "--eval-tasks", "20", "--out", str(out)]
    subprocess.run([*RLVR, "train", "--env", env, *words], check=True)
    told = lines(out, "evaluations.jsonl")
    assert {row["step"] for row in told} == {0, 3}
    assert len(told) == 40
    for line in lines(out):
        if line["step"] in (0, 3):
            own = [row for row in told if row["step"] == line["step"]]
            assert line["eval/solved"] == sum(row["solved"] for row in own) / 20
    samples = tmp_path / "samples.jsonl"
    subprocess.run(
        [*RLVR, "eval", env, "--model", str(out / "model"), "--tasks", "20", "--samples", "2",
         "--max-tokens", "64", "--out", str(samples)],
        check=True,
    )  # fmt: skip
    assert len(samples.read_text().splitlines()) == 40


def test_a_model_of_another_architecture_trains_from_its_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = byte_tokenizer(256)
    config = transformers.Qwen2Config(
        vocab_size=len(tokenizer) + 2, hidden_size=48, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        initializer_range=0.144,
        max_position_embeddings=256, eos_token_id=1, bos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    transformers.Qwen2ForCausalLM(config).save_pretrained(tmp_path / "qwen")
    tokenizer.save_pretrained(tmp_path / "qwen")
    env = "rlvr/Arithmetic-v0 digits=1"
    taught, out = tmp_path / "taught", tmp_path / "run"
    subprocess.run(
        [*RLVR, "sft", "--model", str(tmp_path / "qwen"), "--env", env, "--steps", "300",
         "--batch", "64", "--lr", "3e-3", "--right", "0.4", "--out", str(taught)],
        check=True,
    )  # fmt: skip
    subprocess.run(
        [*RLVR, "train", "--model", str(taught), "--env", env, "--beta", "0", "--group-size", "8",
         "--lr", "5e-4", "--steps", "60", "--max-tokens", "4", "--eval-tasks", "0",
         "--out", str(out)],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )  # fmt: skip
    rewards = [line["reward"] for line in lines(out)]
    assert sum(rewards[-10:]) > sum(rewards[:10]) + 1
    model, _ = load_model(out / "model")
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert model.lm_head.weight is model.model.embed_tokens.weight
