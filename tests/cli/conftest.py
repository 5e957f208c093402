"""The command line in this process, with its cache and its working folder out of the user's way."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from cambrian_cli.main import run


class Outcome(NamedTuple):
    """How a command ended and what it printed."""

    status: int
    stdout: str
    stderr: str


Cambrian = Callable[..., Outcome]


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this test run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def cache(common: Path) -> Path:
    """The cache folder of all tests, so that scenes are rendered once."""
    return common / "cache"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture
def cambrian(capsys: pytest.CaptureFixture[str]) -> Cambrian:
    """Runs `cambrian ARGUMENTS`; an error that is a defect of ours comes through as it is, and fails the test."""

    def call(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            run([str(argument) for argument in arguments])
        status = stop.value.code or 0
        assert isinstance(status, int)
        return Outcome(status, *capsys.readouterr())

    return call


@pytest.fixture
def refused(cambrian: Cambrian) -> Callable[..., str]:
    """Runs a command that must be refused: status 2, nothing on stdout, one paragraph on stderr, which is returned."""

    def call(*arguments: str | Path) -> str:
        outcome = cambrian(*arguments)
        assert outcome.status == 2, outcome
        assert not outcome.stdout
        assert "Traceback" not in outcome.stderr
        (message,) = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
        return message

    return call
