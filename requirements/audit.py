"""Published faults of the locked packages, by pip-audit from OSV's data base: exit code 1 where there are any; 0 where
there are none, or where they could not be looked up ("NOT RUN", and why). Options are pip-audit's: --ignore-vuln ID."""

import json
import subprocess
import sys
from pathlib import Path

LOCKS = sorted(Path(__file__).parent.glob("*.txt"))
# OSV and not PyPI: of a package that a mirror says nothing about, pip-audit only notes that, and finds no fault.
PIP_AUDIT = [sys.executable, "-m", "pip_audit", "--vulnerability-service", "osv", "--disable-pip", "--require-hashes"]
PIP_AUDIT += ["--format", "json", "--progress-spinner", "off", *sys.argv[1:], "--requirement"]


def main() -> int:
    """Print a line for each fault: lock, package, version, names of the fault, versions that mend it."""
    found = 0
    for lock in LOCKS:
        done = subprocess.run([*PIP_AUDIT, lock], capture_output=True, text=True, check=False)
        try:
            packages = json.loads(done.stdout)["dependencies"]
        except ValueError:
            print(f"{lock.name} NOT RUN:", (done.stderr.strip().splitlines() or ["pip-audit says nothing"])[-1])
            continue
        faulty = [(package, fault) for package in packages for fault in package.get("vulns", ())]
        for package, fault in faulty:
            names, mended = ", ".join([fault["id"], *fault["aliases"]]), ", ".join(fault["fix_versions"]) or "none"
            print(f"{lock.name}: {package['name']} {package['version']}: {names}; mended in {mended}")
        print(f"{lock.name}: {len(packages)} packages looked up, {len(faulty)} published faults")
        found += len(faulty)
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
