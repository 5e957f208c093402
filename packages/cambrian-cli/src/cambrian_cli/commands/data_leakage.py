"""`cambrian data leakage`: what of a benchmark stands in the data that models are trained on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cambrian_cli.commands.train import AsJson
from cambrian_cli.output import Report, progress_of_parts, report

if TYPE_CHECKING:
    from cambrian_data.leakage import AuditSummary

SETS = "Folder in CV-Bench's layout, folder of pictures or of Parquet files, Parquet file, records, or CV-Bench's rows"


def leakage(
    benchmark: Annotated[list[Path], typer.Option(metavar="PATH", help=f"{SETS}. May be given again.")],
    training: Annotated[list[Path], typer.Option(metavar="PATH", help="The same, of training. May be given again.")],
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for tables, page and hashes; empty, missing, or of an audit.")
    ],
    images: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Folder in which image paths of records begin; beside the records if not given. May be given again.",
        ),
    ] = None,
    source_images: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the pictures that boxes were drawn on (source_filename): they are compared too. May be "
            "given again.",
        ),
    ] = None,
    hash: Annotated[str, typer.Option("--hash", metavar="NAME", help="dhash, phash, ahash or whash.")] = "dhash",
    hash_size: Annotated[int, typer.Option(help="Side of the hash's square of bits; 8 gives 64 bits.")] = 8,
    threshold: Annotated[
        int | None, typer.Option(help="Largest distance of a near-duplicate in bits; a sixteenth of the bits if unset.")
    ] = None,
    ngram: Annotated[int, typer.Option(help="Words of an n-gram of questions.")] = 8,
    text_threshold: Annotated[
        float, typer.Option(help="Share of a question's n-grams that must occur in one training question.")
    ] = 0.7,
    processes: Annotated[int, typer.Option(min=1, help="Processes that hash; the result does not depend on it.")] = 1,
    pairs_shown: Annotated[int, typer.Option(min=0, help="Pairs on the page at each distance.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Find near-duplicates of a benchmark's pictures, and its questions, in training sets."""
    import msgspec

    from cambrian_data.leakage import audit

    with report(as_json) as out:
        with progress_of_parts() as advance:
            summary = audit(
                benchmark,
                training,
                output,
                images=images or (),
                source_images=source_images or (),
                hash=hash,
                hash_size=hash_size,
                threshold=threshold,
                ngram=ngram,
                text_threshold=text_threshold,
                processes=processes,
                pairs_shown=pairs_shown,
                progress=advance,
            )
        tell(out, summary)
        out.line(f"{summary.num_pairs} pairs of pictures, {summary.num_texts} of questions: {output / 'index.html'}")
        out.result({"output": output, **msgspec.to_builtins(summary)})


def tell(out: Report, summary: "AuditSummary") -> None:
    """Prints the tables."""
    for role, sets in (("benchmark", summary.benchmarks), ("training", summary.training)):
        for each in sets:
            left_out = f"; left out: {each.told}" if each.told else ""
            counts = f"{number(each.pictures)} pictures, {number(each.questions)} questions"
            out.line(f"{role} {each.name}: {each.kind}, {counts}{left_out}")
    several = len(summary.training) > 1
    bits = range(summary.request.threshold + 1)
    out.table(
        "Pictures of the benchmark with a near-duplicate in training",
        ["benchmark", "training set", "pictures", "exact", *(f"{bit} bits" for bit in bits)],
        [
            [
                *(overlap.benchmark, overlap.training or "all", str(overlap.pictures)),
                *(share(count, overlap.pictures) for count in (overlap.exact, *overlap.found)),
            ]
            for overlap in summary.overlaps
            if overlap.training is not None or several
        ],
    )
    for drawing in summary.drawings:
        parts = ", ".join(f"{count} by {bits}" for bits, count in drawing.bits.items())
        out.line(f"{drawing.benchmark}: boxes change the hash of so many pictures by so many bits: {parts}")
    if summary.questions:
        out.table(
            "Questions of the benchmark asked in training",
            ["benchmark", "training set", "questions", "wording", "same words", "and picture", "and answer"],
            [
                [
                    *(each.benchmark, each.training, str(each.questions)),
                    *(share(count, each.questions) for count in (each.worded, each.same)),
                    *(share(count, each.questions) for count in (each.with_picture, each.with_answer)),
                ]
                for each in summary.questions
            ],
        )


def number(count: int | None) -> str:
    """A count; of what was not read, because no benchmark has any, that there is none."""
    return "unread" if count is None else str(count)


def share(count: int, total: int) -> str:
    """A count with its share."""
    return f"{count} ({count / total:.2%})" if total else "-"
