"""What a ZeRO-3 file makes of a model that Axolotl's own loader reads: one rank of test_zero.py's.

python -m torch.distributed.run ... tests/zero_loading.py JOB.json: {"base", "out", "cases": {name: {file, kwargs}}}.
For each case rank 0 writes the loaded and the trained weights' types, the losses, and how many layers were recomputed.
"""

import json
import os
import sys
from pathlib import Path

os.environ |= {"DS_ACCELERATOR": "cpu", "AXOLOTL_DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
os.environ["ACCELERATE_DEEPSPEED_ZERO_STAGE"] = "3"  # as Axolotl's own set-up says it to its loader

import torch
from accelerate.state import AcceleratorState
from axolotl.loaders.model import ModelLoader
from axolotl.utils.dict import DictDefault
from transformers import Trainer, TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

import deepspeed

STEPS = 3


class Words:
    """All that the loader asks of a tokenizer."""

    def __len__(self) -> int:
        return 512


def case(job: dict, file: str, kwargs: dict | None) -> dict:
    """Load as Axolotl does (the model first, the trainer's arguments after it), and train three steps."""
    sizes = dict.fromkeys(("context_parallel_size", "tensor_parallel_size", "dp_shard_size"), 1)
    batch = {"micro_batch_size": 2, "gradient_accumulation_steps": 1, "sequence_len": 64}
    names = dict.fromkeys(("base_model", "base_model_config", "tokenizer_config"), job["base"])
    model = {"model_config_type": "qwen2", "type_of_model": "AutoModelForCausalLM", "attn_implementation": "sdpa"}
    precision = {"bf16": True, "torch_dtype": torch.bfloat16}
    config = DictDefault(names | model | sizes | batch | precision | {"deepspeed": file, "datasets": []})
    model, _ = ModelLoader(config, Words()).load()
    loaded = {str(p.ds_tensor.dtype) for p in model.parameters()}
    arguments = TrainingArguments(
        output_dir=job["out"],
        deepspeed=file,
        use_cpu=True,
        bf16=True,
        per_device_train_batch_size=2,
        max_steps=STEPS,
        learning_rate=3e-3,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        gradient_checkpointing=kwargs is not None,
        gradient_checkpointing_kwargs=kwargs,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    dice = torch.Generator().manual_seed(7)
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(512, (12, 64), generator=dice).tolist()]
    passes: list[None] = []
    for layer in model.model.layers:
        layer.register_forward_pre_hook(lambda *_: passes.append(None))
    trainer = Trainer(model=model, args=arguments, train_dataset=rows)
    trainer.train()
    engine = trainer.deepspeed
    trained = {str(p.ds_tensor.dtype) for p in engine.module.parameters()}
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    engine.destroy()
    unset_hf_deepspeed_config()
    AcceleratorState._reset_state()  # the next case brings a DeepSpeed configuration of its own
    recomputed = len(passes) - STEPS * model.config.num_hidden_layers
    return {"loaded": sorted(loaded), "trained": sorted(trained), "losses": losses, "recomputed": recomputed}


if __name__ == "__main__":
    described = json.loads(Path(sys.argv[1]).read_text())
    deepspeed.init_distributed("gloo")  # by itself, it asks for NCCL where torch is built for CUDA
    found = {name: case(described, **entry) for name, entry in described["cases"].items()}
    if os.environ["RANK"] == "0":
        Path(described["out"], "result.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()
