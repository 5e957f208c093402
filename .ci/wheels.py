"""Builds the four wheels and installs each one alone into a fresh environment, as a user of that one package would.

A workspace hides three mistakes: a dependency that is only there because a sibling brings it, a sibling bound that
excludes the sibling's present version (uv does not check bounds between members), and a file missing from the wheel.
Siblings come from the wheels just built, everything else from the registry that uv is set up for.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

# Runs inside the fresh environment: every module of the package imports, and nothing unwanted is there.
PROBE = """
import importlib, importlib.metadata, importlib.resources, importlib.util, pkgutil, sys
name, most = sys.argv[1], int(sys.argv[2])
unwanted, needs_extra, files = (argument.split() for argument in sys.argv[3:])
package = importlib.import_module(name)
assert "site-packages" in package.__file__, f"{name} came from {package.__file__}, not from its wheel"
names = [module.name for module in pkgutil.walk_packages(package.__path__, f"{name}.", onerror=lambda name: None)]
names = [item for item in names if not item.endswith("__main__") and not item.startswith(tuple(needs_extra))]
for item in names:
    importlib.import_module(item)
present = [item for item in unwanted if importlib.util.find_spec(item)]
assert not present, f"installing {name} alone brought {present}"
lost = [file for file in files if not importlib.resources.files(package).joinpath(file).is_file()]
assert not lost, f"the wheel of {name} lacks {lost}"
installed = len(list(importlib.metadata.distributions()))
assert installed <= most, f"installing {name} alone brought {installed} packages, at most {most} may come"
print(f"{name}: {len(names) + 1} modules imported, {installed} packages installed")
"""


class Check(NamedTuple):
    """What is expected of one package when it is installed alone.

    Attributes:
        unwanted: Packages that must not come with it.
        needs_extra: Modules that need an extra and are not imported.
        files: Files that it must hold.
        most_packages: How many packages may be installed, itself counted.
    """

    unwanted: str = ""
    needs_extra: str = ""
    files: str = ""
    most_packages: int = 1000


TINY = " ".join(f"recipes/tiny/{part}/model.safetensors" for part in ("language_model", "convnext", "vit"))


CHECKS = {
    "cambrian-data": Check(unwanted="torch transformers cambrian_model cambrian_eval cambrian_cli"),
    "cambrian-eval": Check(
        unwanted="torch transformers cambrian_model cambrian_data cambrian_cli",
        needs_extra="cambrian_eval.bridges.lmms_eval_model",  # needs lmms-eval itself
        files="listing.json analysis/data/backbones.csv analysis/data/final_models.csv",
        most_packages=40,
    ),
    "cambrian-model": Check(
        unwanted="accelerate cambrian_data cambrian_eval",
        needs_extra="cambrian_model.training",
        files=f"recipes/tiny.yaml recipes/tiny/tokenizer.json {TINY}",
    ),
    "cambrian-cli": Check(),
}


def main() -> None:
    """Builds, then checks one wheel after the other, and says how long each took."""
    parser = argparse.ArgumentParser(description="Builds the wheels and checks each one alone.")
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"check only these of {', '.join(CHECKS)}")
    packages = parser.parse_args().packages or list(CHECKS)
    dist = ROOT / "dist"  # ignored by git, and mostly on one disk with uv's cache: installing is hard-linking
    dist.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="check-", dir=dist) as folder:
        wheels = Path(folder) / "wheels"
        timed("build", lambda: build(wheels))
        for package in packages:
            timed(package, lambda package=package: check(package, wheels, Path(folder) / "env"))


def build(wheels: Path) -> None:
    """Builds every package's wheel as it would be published: workspace sources switched off."""
    for package in CHECKS:
        call("uv", "build", "--quiet", "--wheel", "--no-sources", "--package", package, "--out-dir", str(wheels))


def check(package: str, wheels: Path, environment: Path) -> None:
    """Installs one wheel with its dependencies, imports all of it, and removes the environment (torch is gigabytes)."""
    (wheel,) = wheels.glob(f"{package.replace('-', '_')}-*.whl")
    python = environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    call("uv", "venv", "--quiet", "--python", sys.executable, str(environment))
    call("uv", "pip", "install", "--quiet", "--python", str(python), "--find-links", str(wheels), str(wheel))
    name, expected = package.replace("-", "_"), CHECKS[package]
    call(
        *(str(python), "-I", "-c", PROBE, name, str(expected.most_packages)),
        *(expected.unwanted, expected.needs_extra, expected.files),
    )
    shutil.rmtree(environment)


def timed(name: str, work: Callable[[], None]) -> None:
    """Does the work and says how long it took."""
    begin = time.monotonic()
    work()
    print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)  # noqa: T201


def call(*command: str) -> None:
    """Runs a command from the root of the workspace; its failure is ours."""
    if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit(f"{' '.join(command[:6])} ... ended with status {code}")


if __name__ == "__main__":
    main()
