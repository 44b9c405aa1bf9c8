"""One demo per category and family, and ten clean ones per family, on seeds that trained nothing.

    python tests/benchmarks/demo_table.py --jobs 2

Each line is one ``defaultpp-monitor demo --headless --json``: what was injected, what was answered.
The root cause shown for a category is the first of the taxonomy that can befall the family.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from diagnoser.taxonomy import operators
from monitor.demo import FIRST_SEED, MODELS, check_fault
from monitor.usage import UsageError


def first_causes(model: str) -> list[str]:
    """One ``category/root_cause`` per category that can befall the model."""
    found: dict[str, str] = {}
    for operator in operators().values():
        fault = f"{operator.category}/{operator.root_cause}"
        try:
            check_fault(fault, model)
        except UsageError:
            continue
        found.setdefault(operator.category, fault)
    return list(found.values())


def demo(model: str, fault: str, seed: int, steps: int) -> dict:
    command = [sys.executable, "-m", "monitor.cli", "demo", "--headless", "--json"]
    command += ["--model", model, "--fault", fault, "--seed", str(seed)]
    command += ["--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        answer = json.loads(done.stdout)
    except json.JSONDecodeError:
        answer = {"verdict": f"failed: {done.stderr.strip()[-200:]}"}
    return {"model": model, "fault": fault, "seed": seed, "status": done.returncode, **answer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--clean", type=int, default=10)
    parser.add_argument("--steps", type=int, default=180)
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    given = parser.parse_args()
    wanted = [
        (model, fault, FIRST_SEED + 100 + at)
        for model in given.models
        for at, fault in enumerate(first_causes(model))
    ]
    wanted += [
        (model, "none", FIRST_SEED + 200 + at)
        for model in given.models
        for at in range(given.clean)
    ]
    right: dict[str, list[bool]] = {}
    flagged: dict[str, list[bool]] = {}
    print("| model | injected | verdict | p | since | category | root cause | layers |")
    print("|---|---|---|---|---|---|---|---|")
    with ThreadPoolExecutor(given.jobs) as pool:
        for row in pool.map(lambda w: demo(*w, given.steps), wanted):
            if row["fault"] == "none":
                ever = row.get("first_flagged_step") is not None
                flagged.setdefault(row["model"], []).append(ever)
            else:
                hit = row.get("category") == row["fault"].split("/")[0]
                right.setdefault(row["model"], []).append(hit)
            print(
                f"| {row['model']} | {row['fault']} | {row['verdict']} "
                f"| {row.get('probability', float('nan')):.2f} | {row.get('first_flagged_step')} "
                f"| {row.get('category')} | {row.get('root_cause')} | {row.get('layers')} |",
                flush=True,
            )
    for model in given.models:
        print(
            f"{model}: category right {sum(right[model])} of {len(right[model])}; "
            f"clean flagged {sum(flagged.get(model, []))} of {len(flagged.get(model, []))}"
        )


if __name__ == "__main__":
    main()
