"""How long `cambrian --help` takes beside importing what it needs at least (typer, rich's console).

The two run in turn, so that a machine that slows down slows both. Prints the median ratio of the pairs and the range
that holds the middle 80 % of them.

    uv run python benchmarks/startup.py --pairs 25
"""

import argparse
import statistics
import subprocess
import sys
import time

HELP = [sys.executable, "-m", "cambrian_cli", "--help"]
LEAST = [sys.executable, "-c", "import typer, rich.console"]


def seconds(command: list[str]) -> float:
    """Runs a command as a whole process and returns its wall time."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begin


def main() -> None:
    """Times the pairs after one warm-up of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=25)
    pairs = parser.parse_args().pairs
    seconds(HELP), seconds(LEAST)
    times = [(seconds(HELP), seconds(LEAST)) for _ in range(pairs)]
    ratios = sorted(a / b for a, b in times)
    low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
    print(f"cambrian --help {statistics.median(a for a, _ in times):.3f} s")
    print(f"import typer, rich.console {statistics.median(b for _, b in times):.3f} s")
    print(f"ratio {statistics.median(ratios):.2f} (middle 80 % of {pairs} pairs: {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
