"""Runs the main job as a new user would, in an empty folder with an empty cache, and checks what README claims of it.

Every task must be above chance with 95 % confidence and the score at least 65; without pictures, and with those of
other questions, no task may be above the best constant answer. Prints one line a task.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SCORE = 65.0
SECONDS = 900  # several times what two idle cores take: a limit for CI, not a measurement


def main() -> None:
    """Trains, evaluates, checks."""
    with tempfile.TemporaryDirectory(prefix="cambrian-tiny-") as folder:
        environment = os.environ | {"XDG_CACHE_HOME": str(Path(folder) / "cache")}
        command = [sys.executable, "-m", "cambrian_cli", "train", "--json"]
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, timeout=SECONDS, check=False, text=True
        )
        if done.returncode:
            sys.exit(f"cambrian train ended with status {done.returncode}")
        result = json.loads(done.stdout)
        for name in ("report.html", "captions.png", "curve.png", "checkpoint/config.json"):
            if not (Path(folder) / result["run_dir"] / name).is_file():
                sys.exit(f"cambrian train wrote no {name}")
    failures = problems(result["evaluation"])
    print(f"trained in {result['seconds']:.0f} s; score {result['evaluation']['cvbench']['score']:.1f}")  # noqa: T201
    if failures:
        sys.exit("\n".join(failures))


def problems(evaluation: dict[str, Any]) -> list[str]:
    """Returns what does not hold, in words."""
    found = []
    if (score := evaluation["cvbench"]["score"]) < SCORE:
        found.append(f"the score is {score:.1f}; expected at least {SCORE}")
    for name, levels in evaluation.items():
        for task, row in levels["tasks"].items():
            print(f"{name} {task}: {row['accuracy']:.1f} ({row['low']:.1f} to {row['high']:.1f}), n {row['n']}")  # noqa: T201
            if row["n"] < 200:
                found.append(f"{name} {task}: {row['n']} questions; expected at least 200")
            if name == "cvbench" and row["low"] <= row["chance"]:
                found.append(f"{task} is not above chance {row['chance']:.1f}: {row['low']:.1f} at least")
            if name != "cvbench" and row["low"] > row["best_constant"]:
                found.append(f"{name} {task} is above the best constant {row['best_constant']:.1f}: {row['low']:.1f}")
    return found


if __name__ == "__main__":
    main()
