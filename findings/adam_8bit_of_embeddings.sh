#!/usr/bin/env bash
# transformers + bitsandbytes: 8-bit Adam keeps an embedding's states in 32 bits; under DeepSpeed's ZeRO it does not.
#
# One would guess: optim="adamw_bnb_8bit" takes 2 bytes a parameter (and a little) for all large matrices, with DeepSpeed
# as without.
# What happens: Trainer tells bitsandbytes to use 32 bits for each nn.Embedding, so these take 8 bytes a parameter: 3.3 GB
# more for 7B's 152k words. A tied head is the embedding. ZeRO hands the optimizer flat tensors of its own, to which this
# does not apply: the embedding is 8-bit there, and so are the small norms and biases that bitsandbytes leaves in 32 bits.
# The same recipe has other states on one GPU than under ZeRO.
# Versions: transformers 5.20.1, bitsandbytes 0.50.2, deepspeed 0.19.8, torch 2.13.0 (CPU). Seen 2026-11-28:
#
#   alone: bytes a parameter: embedding 8.0, a layer's matrix 2.05, a norm 8.0
#   ZeRO-2: bytes a parameter: 2.03 for all; the states' types: {'torch.uint8'}
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
unset PYTHONPATH
export CUDA_VISIBLE_DEVICES= HF_HUB_OFFLINE=1 HF_HOME="$work/hf" AXOLOTL_DO_NOT_TRACK=1
uv=uv
command -v uv >/dev/null || uv="python3 -m uv"
$uv venv -q --python 3.12 .venv
$uv pip install -q --python .venv transformers==5.20.1 torch==2.13.0 accelerate==1.15.0 \
    bitsandbytes==0.50.2 deepspeed==0.19.8 numpy==2.3.5
export DS_ACCELERATOR=cpu RANK=0 LOCAL_RANK=0 WORLD_SIZE=1 MASTER_ADDR=127.0.0.1
cat >check.py <<'END'
import os
import socket
import sys

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    os.environ["MASTER_PORT"] = str(free.getsockname()[1])

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Trainer, TrainingArguments

zero = sys.argv[1] == "zero"
if zero:
    import deepspeed

    deepspeed.init_distributed("gloo")
sizes = {"vocab_size": 512, "hidden_size": 1024, "num_hidden_layers": 1, "intermediate_size": 128}
model = Qwen2ForCausalLM(Qwen2Config(**sizes, num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True))
settings = {"per_device_train_batch_size": 1, "max_steps": 1, "save_strategy": "no", "report_to": []}
if zero:
    batch = {"train_micro_batch_size_per_gpu": 1}
    more = {"bf16": {"enabled": True}, "zero_optimization": {"stage": 2}, "zero_allow_untested_optimizer": True}
    settings |= {"deepspeed": batch | more, "bf16": True}
arguments = TrainingArguments("out", use_cpu=True, optim="adamw_bnb_8bit", disable_tqdm=True, **settings)
rows = [{"input_ids": [i + 1] * 8, "labels": [i + 1] * 8} for i in range(4)]
trainer = Trainer(model, arguments, train_dataset=rows)
trainer.train()
optimizer = trainer.optimizer
while hasattr(optimizer, "optimizer"):
    optimizer = optimizer.optimizer
states = {id(weight): state for weight, state in optimizer.state.items()}


def held(state):
    return sum(value.nbytes for value in state.values() if torch.is_tensor(value))


count = sum(weight.numel() for weight in model.parameters())
each = sum(map(held, states.values())) / count
kinds = {str(state["state1"].dtype) for state in states.values()}
if zero:
    print(f"RESULT ZeRO-2: bytes a parameter: {each:.2f} for all; the states' types: {kinds}", flush=True)
    torch.distributed.destroy_process_group()
    sys.exit(0 if each < 2.3 and kinds == {"torch.uint8"} else "it changed")
words = model.model.embed_tokens.weight
matrix, norm = model.model.layers[0].mlp.up_proj.weight, model.model.norm.weight
of = [round(held(states[id(weight)]) / weight.numel(), 2) for weight in (words, matrix, norm)]
print(f"RESULT alone: bytes a parameter: embedding {of[0]}, a layer's matrix {of[1]}, a norm {of[2]}", flush=True)
sys.exit(0 if of[0] == of[2] == 8 and of[1] < 2.3 else "it changed")
END
for case in alone zero; do
    .venv/bin/python check.py $case >log 2>&1 || { tail -n 20 log; exit 1; }
    sed -n 's/^RESULT //p' log
done
