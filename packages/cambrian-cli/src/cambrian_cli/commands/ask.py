"""`cambrian ask`: one question about pictures to one checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from cambrian_cli.commands.train import AsJson
from cambrian_cli.output import report, silence_libraries


def ask(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CKPT", help="A run, a checkpoint folder, or a model of the hub.")
    ],
    question: Annotated[str, typer.Argument(help="What to ask.")],
    images: Annotated[
        list[Path] | None, typer.Option("--image", metavar="FILE", help="A picture; repeat it for several.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest reply, in tokens.")] = 64,
    as_json: AsJson = False,
) -> None:
    """Ask a checkpoint a question about one or more pictures."""
    from cambrian_data.images import verify

    pictures = images or []
    for picture in pictures:  # before the model is loaded, which may take a while
        verify(picture)
    from cambrian_cli.speaker import Speaker

    silence_libraries()
    with report(as_json) as out:
        answer = Speaker.load(checkpoint).answer(question, pictures, max_new_tokens)
        out.line(answer)
        out.result({"checkpoint": checkpoint, "images": pictures, "question": question, "answer": answer})
