"""The GPU prices of configs/gpus.yaml, read anew from RunPod's catalogue (RUNPOD_API_KEY).

.venv/bin/python requirements/gpu_prices.py
"""

import sys
from datetime import UTC, datetime

import yaml

from elle.base import paths, storage
from elle.base.errors import ElleError
from renting import runpod


def reprice(catalogue: dict, source: str) -> dict[str, tuple[float, float]]:
    """Put current prices into `configs/gpus.yaml`; return those found, by our name.

    catalogue: `{"gpus": [{"id", "secure": bool, "community": bool, "price": {"secure", "community"}}]}`, the answer of
    `GET /v2/catalog/gpus`. A price of a cloud that does not offer the GPU is a placeholder.

    Raises:
        ElleError: it holds no price of a GPU that is listed here.
    """
    file = paths.configs() / "gpus.yaml"
    text = file.read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    answered = catalogue.get("gpus") if isinstance(catalogue, dict) else None
    offers = {offer["id"]: offer for offer in answered or [] if isinstance(offer, dict) and "id" in offer}
    found = {}
    for name, row in content["gpus"].items():
        offer = offers.get(row.get("catalogue"), {})
        prices = [float(offer["price"][cloud]) for cloud in ("secure", "community") if offer.get(cloud)]
        if prices:
            found[name] = row["price"] = [min(prices), max(prices)]
    if not found:
        raise ElleError("no price of a GPU listed here", where=source, fix=f"compare its ids with {file.name}")
    content |= {"priced": datetime.now(UTC).date(), "source": source}
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    storage.write_text(file, header + yaml.safe_dump(content, sort_keys=False, width=200, default_flow_style=None))
    return found


if __name__ == "__main__":
    try:
        for gpu, (lowest, highest) in reprice(runpod.Client().send(runpod.list_gpus()), "RunPod's catalogue").items():
            print(f"{gpu:<6} {lowest:.2f} to {highest:.2f} dollars per GPU-hour")
    except ElleError as failure:
        sys.exit(f"error: {failure}")
