"""The app, and the one place where an error becomes an exit status.

Nothing heavy is imported here or at the top of a command module: `cambrian --help` stays as quick as typer itself.
"""

import errno
import re
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from cambrian_cli.commands import analysis, ask, cvbench, data, encoders, recipes, tasks, train
from cambrian_cli.commands.check_model import check_model
from cambrian_cli.commands.compare import compare
from cambrian_cli.commands.convert import convert
from cambrian_cli.commands.eval import evaluate
from cambrian_cli.commands.export import export
from cambrian_cli.commands.export_predictions import export_predictions
from cambrian_cli.commands.inspect import inspect
from cambrian_cli.commands.report import report
from cambrian_cli.commands.rescore import rescore
from cambrian_cli.commands.tiny_parts import tiny_parts
from cambrian_cli.quick import QUICK

EXIT_STATUSES = (
    "Exit status: 0 done, 1 a defect of this program (with its traceback), 2 an input or a machine that does not "
    "allow the work (with what to do about it), 130 interrupted, 143 told to stop (SIGTERM), training having saved."
)

# The base class of each package's errors. Looked up among the modules already loaded, never imported: an error that was
# raised has its module loaded.
ERROR_BASES = (
    ("cambrian_cli.errors", "CommandError"),
    ("cambrian_data.errors", "DataError"),
    ("cambrian_eval.errors", "EvalError"),
    ("cambrian_model.errors", "CambrianModelError"),
)

# What the machine refuses, and what the user can do. Any other OSError is a defect of ours and keeps its traceback.
MACHINE_REFUSALS = {
    errno.ENOSPC: "free some space or choose another folder, then repeat the command (a training run: with --resume)",
    errno.EDQUOT: "free some space or choose another folder, then repeat the command (a training run: with --resume)",
    errno.EFBIG: "the limit on file sizes (ulimit -f) is too low; raise it or choose another folder",
    errno.EACCES: "choose a folder that you may write to, or change its permissions",
    errno.EPERM: "choose a folder that you may write to, or change its permissions",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENOTDIR: "a part of this path is a file; choose another folder",
    errno.ENAMETOOLONG: "a name in this path is too long; choose a shorter one",
    errno.ELOOP: "links in this path lead in a circle; choose another folder",
}

app = typer.Typer(
    name="cambrian",
    help="Train, ask and evaluate vision-centric multimodal language models.",
    epilog=EXIT_STATUSES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], **QUICK},
)
app.command(epilog=EXIT_STATUSES)(train.train)
app.command(epilog=EXIT_STATUSES)(train.pretrain)
app.command(epilog=EXIT_STATUSES)(train.finetune)
app.command(epilog=EXIT_STATUSES)(ask.ask)
app.command("eval", epilog=EXIT_STATUSES)(evaluate)
app.command("check-model", epilog=EXIT_STATUSES)(check_model)
app.command(epilog=EXIT_STATUSES)(compare)
app.command(epilog=EXIT_STATUSES)(convert)
app.command(epilog=EXIT_STATUSES)(export)
app.command("export-predictions", epilog=EXIT_STATUSES)(export_predictions)
app.command(epilog=EXIT_STATUSES)(inspect)
app.command(epilog=EXIT_STATUSES)(report)
app.command(epilog=EXIT_STATUSES)(rescore)
app.command("tiny-parts", epilog=EXIT_STATUSES)(tiny_parts)
app.add_typer(encoders.app)
app.add_typer(recipes.app)
app.add_typer(data.app)
app.add_typer(cvbench.app)
app.add_typer(analysis.app)
app.add_typer(tasks.app)


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import version

    libraries = ", ".join(f"{name} {version(name)}" for name in ("cambrian-model", "cambrian-data", "cambrian-eval"))
    typer.echo(f"cambrian {version('cambrian-cli')} ({libraries})")
    raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the versions and stop.")
    ] = False,
) -> None:
    """Train, ask and evaluate vision-centric multimodal language models."""


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one command and ends the process with its exit status.

    Args:
        arguments: What follows ``cambrian`` on the command line; taken from `sys.argv` if None.
    """
    try:
        app(args=None if arguments is None else list(arguments), prog_name="cambrian")
    except SystemExit as stop:
        if stop.code == 130:
            print("interrupted", file=sys.stderr)  # noqa: T201
        raise
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)  # noqa: T201
        sys.exit(getattr(error, "exit_status", 2))
    sys.exit(0)


def explain(error: BaseException) -> str | None:
    """Returns what to tell the user in one paragraph, or None if the error is a defect of ours."""
    if _is_ours(error):
        return " ".join(str(error).split())
    number = _machine_errno(error)
    if number in MACHINE_REFUSALS:
        return f"{' '.join(str(error).split())}; {MACHINE_REFUSALS[number]}."
    return None


def _is_ours(error: BaseException) -> bool:
    bases = (getattr(sys.modules.get(module), name, None) for module, name in ERROR_BASES)
    return any(base is not None and isinstance(error, base) for base in bases)


def _machine_errno(error: BaseException) -> int | None:
    """Returns the operating system's number of an error, also of one that safetensors wrote down as text."""
    if isinstance(error, OSError):
        return error.errno
    if type(error).__name__ == "SafetensorError" and (found := re.search(r"\(os error (\d+)\)", str(error))):
        return int(found.group(1))
    return None
