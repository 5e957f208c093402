"""How long the quick commands take beside the least that a command of typer and rich can take.

`cambrian --help` should stay below 1.5 times that, `cambrian tasks list`, which prints a table of all benchmarks, below
twice. Each pair of runs follows directly on each other, so that a machine that slows down slows both. Prints the median
ratio of the pairs and the range that holds the middle 80 % of them.

    uv run python benchmarks/startup.py --pairs 25
"""

import argparse
import statistics
import subprocess
import sys
import time

LEAST = [sys.executable, "-c", "import typer, rich.console"]
COMMANDS = {
    "cambrian --help": [sys.executable, "-m", "cambrian_cli", "--help"],
    "cambrian tasks list": [sys.executable, "-m", "cambrian_cli", "tasks", "list"],
}


def seconds(command: list[str]) -> float:
    """Runs a command as a whole process and returns its wall time."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begin


def compare(name: str, command: list[str], pairs: int) -> None:
    """Times the pairs after one warm-up of each, and prints the ratio."""
    seconds(command), seconds(LEAST)
    times = [(seconds(command), seconds(LEAST)) for _ in range(pairs)]
    ratios = sorted(a / b for a, b in times)
    low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
    print(f"{name} {statistics.median(a for a, _ in times):.3f} s")
    print(f"import typer, rich.console {statistics.median(b for _, b in times):.3f} s")
    print(f"ratio {statistics.median(ratios):.2f} (middle 80 % of {pairs} pairs: {low:.2f} to {high:.2f})")


def main() -> None:
    """Compares every quick command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=25)
    pairs = parser.parse_args().pairs
    for name, command in COMMANDS.items():
        compare(name, command, pairs)


if __name__ == "__main__":
    main()
