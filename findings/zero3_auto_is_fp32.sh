#!/usr/bin/env bash
# transformers + DeepSpeed: under ZeRO-3, `"bf16": {"enabled": "auto"}` may load and train a model in fp32.
#
# One would guess: "auto" is what TrainingArguments(bf16=True) says, and from_pretrained(dtype=torch.bfloat16) is bf16.
# What happens: if the model is loaded before the TrainingArguments are made (as Axolotl 0.21 does, with transformers' own
# HfTrainerDeepSpeedConfig), "auto" is not yet filled in; zero.Init takes it for no bf16 and makes fp32 parameters,
# whatever dtype says. They stay so: the engine says that bf16 is on, and holds, gathers and sends twice the bytes. The
# same file with `true`, or with the arguments made first, is bf16. Nothing warns.
# Versions: transformers 5.20.1, deepspeed 0.19.8, accelerate 1.15.0, torch 2.13.0 (one rank, CPU). Seen 2026-11-28:
#
#   model first, enabled auto: loaded {'torch.float32'}, trained {'torch.float32'}, engine's bf16 True
#   model first, enabled True: loaded {'torch.bfloat16'}, trained {'torch.bfloat16'}, engine's bf16 True
#   arguments first, enabled auto: loaded {'torch.bfloat16'}, trained {'torch.bfloat16'}, engine's bf16 True
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
    deepspeed==0.19.8 numpy==2.3.5
export DS_ACCELERATOR=cpu RANK=0 LOCAL_RANK=0 WORLD_SIZE=1 MASTER_ADDR=127.0.0.1
cat >check.py <<'END'
import json
import os
import socket
import sys

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    os.environ["MASTER_PORT"] = str(free.getsockname()[1])

import deepspeed
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Trainer, TrainingArguments
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

first, enabled = sys.argv[1], json.loads(sys.argv[2])
sizes = {"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 1, "intermediate_size": 64}
config = Qwen2Config(**sizes, num_attention_heads=2, num_key_value_heads=2)
Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained("base")
deepspeed.init_distributed("gloo")
sizes = dict.fromkeys(("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size"), 1)
zero = {"stage": 3, "stage3_param_persistence_threshold": 0}
with open("zero3.json", "w") as file:
    json.dump(sizes | {"bf16": {"enabled": enabled}, "zero_optimization": zero}, file)


def arguments():
    settings = {"max_steps": 2, "per_device_train_batch_size": 1, "save_strategy": "no", "report_to": []}
    return TrainingArguments("out", deepspeed="zero3.json", bf16=True, use_cpu=True, disable_tqdm=True, **settings)


if first == "arguments":
    made = arguments()
else:
    kept = HfTrainerDeepSpeedConfig("zero3.json")
model = Qwen2ForCausalLM.from_pretrained("base", dtype=torch.bfloat16)
loaded = {str(weight.ds_tensor.dtype) for weight in model.parameters()}
rows = [{"input_ids": [i + 1] * 8, "labels": [i + 1] * 8} for i in range(4)]
trainer = Trainer(model, made if first == "arguments" else arguments(), train_dataset=rows)
trainer.train()
trained = {str(weight.ds_tensor.dtype) for weight in model.parameters()}
on = trainer.deepspeed.bfloat16_enabled()
wanted = {"torch.float32" if (first, enabled) == ("model", "auto") else "torch.bfloat16"}
print(f"RESULT {first} first, enabled {enabled}: loaded {loaded}, trained {trained}, engine's bf16 {on}", flush=True)
torch.distributed.destroy_process_group()
sys.exit(0 if on and loaded == trained == wanted else "it changed")
END
for case in 'model "auto"' 'model true' 'arguments "auto"'; do
    # shellcheck disable=SC2086
    .venv/bin/python check.py $case >log 2>&1 || { tail -n 20 log; exit 1; }
    sed -n 's/^RESULT //p' log
done
