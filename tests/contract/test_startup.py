"""`cambrian --help` stays as quick as the library that draws it: nothing heavy is imported, and the clock agrees."""

import subprocess
import sys
import time
from pathlib import Path

HEAVY = {
    "accelerate",
    "cambrian_data",
    "cambrian_eval",
    "cambrian_model",
    "matplotlib",
    "msgspec",
    "numpy",
    "PIL",
    "pydantic",
    "rich",
    "timm",
    "torch",
    "transformers",
    "yaml",
}
ROUNDS = 9


def seconds(*command: str) -> float:
    """How long a command takes from start to end."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, timeout=60)
    return time.perf_counter() - begin


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from cambrian_cli.main import run\n"
        "try:\n    run(['--help'])\n"
        "except SystemExit:\n    print('MODULES', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    modules = set(done.stdout.rpartition("MODULES ")[2].split())
    assert "typer" in modules
    assert not modules & HEAVY


def test_help_takes_at_most_half_as_long_again_as_importing_typer_and_rich():
    """Interleaved runs, and the quickest of each: what else the machine does only ever adds time."""
    help_command = str(Path(sys.executable).with_name("cambrian"))
    times = [
        (seconds(help_command, "--help"), seconds(sys.executable, "-c", "import typer, rich.console"))
        for _ in range(ROUNDS)
    ]
    ours, theirs = (min(column) for column in zip(*times, strict=True))
    assert ours <= 1.5 * theirs, f"cambrian --help took {ours:.3f} s, importing typer and rich {theirs:.3f} s"
