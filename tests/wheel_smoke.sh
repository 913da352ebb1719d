#!/usr/bin/env bash
# Install a built wheel in a fresh environment and use it from elsewhere: the one way to notice a
# folder that is missing from the list of packages. Without torch: verify, step, list, check.
set -euo pipefail
wheel=$(realpath "$1")
constraints=$(realpath "$(dirname "$0")/../constraints.txt")
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/python -m pip install --quiet --constraint "$constraints" "$wheel"
venv/bin/python - <<'PY'
import gymnasium

env = gymnasium.make("rlvr.envs:rlvr/Arithmetic-v0")
prompt, info = env.reset(seed=0)
left, right = prompt.removesuffix(" = ?").split(" + ")
assert env.step(str(int(left) + int(right)))[1] == 1, prompt
import sys

assert "torch" not in sys.modules
PY
venv/bin/rlvr list > list.txt
grep -q "rlvr/GSM8K-v0" list.txt
venv/bin/rlvr explain rloo grpo > /dev/null
venv/bin/rlvr sandbox > /dev/null
venv/bin/rlvr check rlvr/GCD-v0
if venv/bin/rlvr train > train.txt 2>&1; then echo "train without torch did not fail"; exit 1; fi
grep -q "rlvr\[train\]" train.txt
echo "wheel smoke test passed"
