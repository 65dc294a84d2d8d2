"""Seconds that planning takes: every recipe in one fresh process, import included; and with the trainer's validators.

python benchmarks/plan.py [--full]
"""

import subprocess
import sys
import time

CODE = """
from elle.plan import preflight
from elle.base.yaml_files import config_table
plans = [preflight.plan(f"configs/{name}") for name in config_table("recipes")["recipes"]]
if FULL:
    plans = preflight.ask_trainer(plans)
print(len(plans), "recipes,", sum(p.ok for p in plans), "pass")
"""


def seconds(full: bool) -> tuple[float, str]:
    began = time.perf_counter()
    code = CODE.replace("FULL", str(full))
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return time.perf_counter() - began, said.strip()


if __name__ == "__main__":
    runs = [seconds(False) for _ in range(5)]
    print(f"planning      {min(t for t, _ in runs):.2f} s (best of {len(runs)}): {runs[0][1]}")
    if "--full" in sys.argv:
        taken, said = seconds(True)
        print(f"full check    {taken:.1f} s: {said}")
