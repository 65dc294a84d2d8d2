"""The source plans' serverless training, as RunPod's Axolotl worker (llm-fine-tuning) takes it.

`configs/runpod_request.json` is this request for one recipe: rendered and checked, not sent from here. The worker says
COMPLETED whatever became of the training, takes the credentials in the request's body alone, and its jobs cannot be
found by name when an answer is lost; `elle pod up` has none of these faults. To render it anew:
`python docs/serverless_request.py configs/config_qlora.yaml elle-7b-lora`.
"""

import json
import sys
from typing import Any

from elle.base import paths, storage
from elle.plan import preflight
from renting.orders import MARGIN, SETUP
from renting.record import own_repository

#: Milliseconds in an hour, that a job may wait for a worker, and that RunPod keeps one at the longest.
HOUR, WAIT, LONGEST = 3_600_000, 3_600_000, 7 * 86_400_000


def render_job(recipe: str, run_id: str) -> dict[str, Any]:
    """The body of the request. Secrets are their variables' names; RunPod's own execution limit, ten minutes, is
    replaced by one that the plan's highest hours set."""
    plan = preflight.plan(recipe)
    limit = min(LONGEST, round((plan.budget.hours[1] * MARGIN + SETUP) * HOUR))
    return {
        "input": {
            "run_id": run_id,
            "credentials": {"hf_token": "$HF_TOKEN", "wandb_api_key": "$WANDB_API_KEY"},
            "args": worker_arguments(plan.config, run_id),
        },
        "policy": {"executionTimeout": limit, "ttl": min(LONGEST, limit + WAIT)},
    }


def worker_arguments(recipe: dict[str, Any], run_id: str) -> dict[str, Any]:
    """A recipe as the worker needs it: its data from the Hub, DeepSpeed's file within it, the weights to the Hub once.

    The worker sets `output_dir` itself.
    """
    config = {key: value for key, value in recipe.items() if key not in ("output_dir", "hub_model_id")}
    (first, *_) = config.get("datasets") or [{}]
    where = {"path": own_repository("HF_DATASET_REPO"), "ds_type": "json"}
    where["data_files"] = [f"runs/{run_id}/data/train.jsonl"]
    config["datasets"] = [where | {key: value for key, value in first.items() if key not in where}]
    if config.pop("test_datasets", None):
        config["val_set_size"] = 0.05
    if isinstance(zero := config.get("deepspeed"), str):
        config["deepspeed"] = storage.read_json(paths.located(zero))
    return config | {"hub_model_id": own_repository("HF_MODEL_REPO"), "hub_strategy": "end"}


if __name__ == "__main__":
    print(json.dumps(render_job(*sys.argv[1:3]), indent=2))
