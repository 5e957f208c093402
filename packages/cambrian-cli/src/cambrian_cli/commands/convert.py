"""`cambrian convert`: a released checkpoint or stage-1 projector to ours, or ours to the released form."""

from pathlib import Path
from typing import Annotated

import typer

from cambrian_cli.commands.train import AsJson
from cambrian_cli.errors import CommandError
from cambrian_cli.output import progress, report, silence_libraries

MEGABYTE = 1_000_000


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="A folder with a checkpoint, or with a stage-1 mm_projector.bin.")
    ],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="A new folder.")],
    to: Annotated[str, typer.Option(metavar="FORMAT", help="native (ours) or released (the original's).")] = "native",
    precomputed_encoders: Annotated[
        str | None,
        typer.Option(
            metavar="W1,W2,...",
            help="Leave the vision encoders out: the model takes their features, of these widths, at run time.",
        ),
    ] = None,
    encoders: Annotated[
        list[str] | None,
        typer.Option("--encoder", metavar="NAME=FOLDER", help="Where an encoder's weights are; repeat it for several."),
    ] = None,
    chat_template: Annotated[
        str | None, typer.Option(metavar="NAME", help="A chat template other than the one it was trained with.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert a released Cambrian-1 checkpoint to ours, or back; the same command continues what was interrupted."""
    widths = None if precomputed_encoders is None else _widths(precomputed_encoders)
    folders = dict(_name_and_folder(text) for text in encoders or ())
    from cambrian_model.checkpoints import convert as library
    from cambrian_model.checkpoints.plan import Options

    silence_libraries()
    options = Options(to, widths, folders, chat_template)
    with report(as_json) as out:
        with progress("copying, MB") as advance:
            made = library.convert(
                source,
                destination,
                options,
                lambda done, total: advance(done // MEGABYTE, total // MEGABYTE),
            )
        for note in made.notes:
            out.line(f"note: {note}")
        if made.kept:
            out.line(f"kept from before: {', '.join(made.kept)}")
        out.line(
            f"{made.kind}: {made.folder} ({made.num_tensors:,} tensors, {made.num_bytes:,} bytes in "
            f"{made.seconds:.1f} s; copies have the hashes of their sources)"
        )
        out.result(made._asdict())


def _widths(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise CommandError(f'--precomputed-encoders is "{text}"; expected widths such as 1152,1024,1536,5760')
    return tuple(map(int, parts))


def _name_and_folder(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise CommandError(f'--encoder is "{text}"; expected NAME=FOLDER')
    return name, Path(folder)
