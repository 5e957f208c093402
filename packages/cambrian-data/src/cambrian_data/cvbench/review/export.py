"""The reviewed set: the questions that reviewers kept, as they want them, in the hub's layout, with what they decided.

Only accepted and modified questions are exported. What is left out is counted and named, with the reasons given.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from functools import partial
from pathlib import Path

import msgspec

from cambrian_data.cvbench import layout
from cambrian_data.cvbench.card import CARD
from cambrian_data.cvbench.folder import Kind, Writer, make_once
from cambrian_data.cvbench.geometry import FILE as GEOMETRY
from cambrian_data.cvbench.review.agreement import AgreementSummary, measure_agreement
from cambrian_data.cvbench.review.benchmark import Benchmark, load_picture, picture_bytes
from cambrian_data.cvbench.review.card import BEFORE, Account, write_card
from cambrian_data.cvbench.review.decisions import FOLDER, count_kinds, cut_lines, read_decisions, reviewers
from cambrian_data.cvbench.review.verdicts import KEPT, Decisions, Outcome, Rule, Verdict, reach_verdicts
from cambrian_data.cvbench.rows import PARTS
from cambrian_data.errors import DataError, ImageError, RecordError
from cambrian_data.formats.rows import encode, read_rows
from cambrian_data.images import locate

FORMAT_VERSION = 3  # raised whenever the same decisions give other bytes
REVIEWED = Kind("reviewed questions", "review.json", "review.unfinished")
SHOWN = 5  # questions named in a message


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that determines the bytes, but for the pictures: they are those of the benchmark."""

    name: str
    benchmark: str
    decisions: str
    rule: Rule
    include_undecided: bool
    format_version: int = FORMAT_VERSION


class Vote(msgspec.Struct, frozen=True, kw_only=True):
    """What a reviewer decided, and why."""

    reviewer: str
    decision: str
    reason: str


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A question that is not exported."""

    idx: int
    task: str
    outcome: Outcome
    votes: list[Vote]


class ExportSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a reviewed set holds, and what became of every question.

    Attributes:
        num_questions: exported.
        num_pictures: written.
        outcomes: of each task, how many questions were accepted, modified, rejected, disputed and undecided.
        reviewers: how many questions each accepted, modified and rejected.
        cut_lines: how many lines of each log a crash has cut, which count for nothing; 0 is left out.
        left_out: in the order of the tables.
        agreement: of the reviewers; None if there is but one.
        tables: their files; a part of which nothing is left has none.
        content_hash: SHA-256 over the bytes of all files but the manifest.
    """

    num_questions: int
    num_pictures: int
    outcomes: dict[str, dict[str, int]]
    reviewers: dict[str, dict[str, int]]
    cut_lines: dict[str, int]
    left_out: list[LeftOut]
    agreement: AgreementSummary | None
    tables: list[str]
    content_hash: str


def read_reviews(benchmark: Benchmark) -> Decisions:
    """The decisions of everybody who has a log.

    Raises:
        DataError: if nobody has, or a log is damaged or another benchmark's.
    """
    names = reviewers(benchmark.folder)
    if not names:
        raise DataError(f"{benchmark.folder / FOLDER} holds no decisions; review the benchmark first.")
    return {name: read_decisions(benchmark, name) for name in names}


def export_reviewed(
    benchmark: Benchmark, output: Path, *, rule: Rule = Rule.UNANIMOUS, include_undecided: bool = False
) -> ExportSummary:
    """Writes the reviewed set; on a finished folder of the same decisions it only reads the manifest.

    Args:
        benchmark: that was reviewed; every log in it counts.
        output: made if missing; must be empty, or hold the same set, finished or not.
        rule: how several reviewers come to one verdict.
        include_undecided: export questions that nobody decided, as they stand.

    Raises:
        DataError: if questions are undecided and were not asked for, nothing is left, a log is damaged, or the folder
            cannot be used.
        ImageError: if pictures of what is kept cannot be shown; nothing is written then.
    """
    output = Path(output)
    decisions = read_reviews(benchmark)
    verdicts = reach_verdicts(benchmark, decisions, rule)
    kept = choose(verdicts, include_undecided)
    if not (output / REVIEWED.manifest).exists():  # of a finished set, they were looked at before it was written
        check_pictures(kept)
    cut = {name: len(lines) for name, lines in cut_lines(benchmark.folder).items()}
    name, old_card = benchmark.folder.resolve().name, read_card(benchmark.folder)
    request = Request(
        name=name,
        benchmark=digest([old_card, *(item.fingerprint for item in benchmark.items.values())]),
        decisions=digest([verdict.decisions for verdict in verdicts]),
        rule=rule,
        include_undecided=include_undecided,
    )
    account = Account(
        name=name,
        card=old_card,
        rule=rule,
        include_undecided=include_undecided,
        outcomes=count_outcomes(verdicts),
        reviewers={name: count_kinds(of) for name, of in sorted(decisions.items())},
        agreement=measure_agreement(benchmark, decisions) if len(decisions) > 1 else None,
    )

    def make(writer: Writer) -> ExportSummary:
        tables = write_set(writer, output, benchmark, kept)
        writer.table(CARD, write_card(account, kept).encode())
        if old_card is not None:
            writer.table(BEFORE, old_card.encode())
        return ExportSummary(
            num_questions=len(kept),
            num_pictures=writer.num_pictures,
            outcomes=account.outcomes,
            reviewers=account.reviewers,
            cut_lines=cut,
            left_out=leave_out(verdicts, kept),
            agreement=account.agreement,
            tables=tables,
            content_hash=writer.content_hash,
        )

    pictures = {one.item.asked.filename for one in kept}
    return make_once(output, request, ExportSummary, make, partial(missing, output, pictures), REVIEWED)


def read_card(folder: Path) -> str | None:
    """The benchmark's own card; None if it has none.

    Raises:
        DataError: if it is no text.
    """
    path = folder / CARD
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error}); save it as UTF-8, or take it away.") from error


def choose(verdicts: Sequence[Verdict], include_undecided: bool) -> list[Verdict]:
    """What is exported.

    Raises:
        DataError: if questions are undecided and were not asked for, or nothing is left.
    """
    undecided = [str(one.item.asked.idx) for one in verdicts if one.outcome is Outcome.UNDECIDED]
    if undecided and not include_undecided:
        raise DataError(
            f"{len(undecided)} of {len(verdicts)} questions are undecided: {', '.join(undecided[:SHOWN])}"
            f"{' and more' if len(undecided) > SHOWN else ''}. Decide them, or include them as they stand "
            "(--include-undecided)."
        )
    kept = [one for one in verdicts if one.outcome in KEPT or one.outcome is Outcome.UNDECIDED]
    if not kept:
        raise DataError(f"none of {len(verdicts)} questions was kept; there is nothing to export.")
    return kept


def check_pictures(kept: Sequence[Verdict]) -> None:
    """Raises ImageError, naming the pictures, if some cannot be shown."""
    problems = []
    for one in kept:
        try:
            load_picture(one.item)
        except ImageError as error:
            problems.append(f"question {one.item.asked.idx}: {error}")
    if problems:
        more = f" And {len(problems) - SHOWN} more." if len(problems) > SHOWN else ""
        raise ImageError(
            f"{len(problems)} of {len(kept)} questions to export have a picture that cannot be shown; mend it, or "
            f"reject the question. {' '.join(problems[:SHOWN])}{more}"
        )


def count_outcomes(verdicts: Sequence[Verdict]) -> dict[str, dict[str, int]]:
    """How many questions of each task came to each outcome."""
    counts = Counter((one.item.asked.task, one.outcome) for one in verdicts)
    tasks = dict.fromkeys(one.item.asked.task for one in verdicts)
    return {task: {str(outcome): counts[task, outcome] for outcome in Outcome} for task in tasks}


def leave_out(verdicts: Sequence[Verdict], kept: Sequence[Verdict]) -> list[LeftOut]:
    """What is not exported, and why."""
    exported = {one.item.asked.idx for one in kept}
    return [
        LeftOut(
            idx=one.item.asked.idx,
            task=one.item.asked.task,
            outcome=one.outcome,
            votes=[
                Vote(reviewer=name, decision=decision.decision, reason=decision.reason)
                for name, decision in one.decisions.items()
            ],
        )
        for one in verdicts
        if one.item.asked.idx not in exported
    ]


def write_set(writer: Writer, output: Path, benchmark: Benchmark, kept: Sequence[Verdict]) -> list[str]:
    """Writes pictures, tables and geometry; gives the names of the tables."""
    tables = []
    for part in PARTS:
        of_part = [one for one in kept if one.item.asked.type == part]
        if of_part:
            write_part(writer, output, part, of_part)
            tables += [layout.table(part), layout.parquet(part)]
    if benchmark.has_geometry:
        lines = geometry_lines(benchmark.folder / GEOMETRY, {one.item.asked.idx for one in kept})
        writer.table(GEOMETRY, b"".join(lines))
    return tables


def write_part(writer: Writer, output: Path, part: str, verdicts: Sequence[Verdict]) -> None:
    """Writes the pictures and the two tables of a part."""
    from cambrian_data.cvbench.tables import PartTable

    with (
        writer.stream(layout.table(part)) as lines,
        writer.stream(layout.parquet(part)) as file,
        PartTable(file) as table,
    ):
        for one in verdicts:
            name, content = one.item.asked.filename, picture_bytes(one.item)
            locate(output, name)  # never write outside, whatever was read
            writer.picture(name, content)
            table.add(one.row, content)
            lines.write(encode(one.row) + b"\n")


def geometry_lines(path: Path, wanted: set[int]) -> Iterator[bytes]:
    """The lines of geometry of these questions, each as it stands but for white space."""
    for _, row in read_rows(path):
        if isinstance(row, RecordError):
            raise row
        if row["idx"] in wanted:
            yield encode(row) + b"\n"


def digest(value: object) -> str:
    """SHA-256 over the value as JSON."""
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()


def missing(output: Path, pictures: Set[str], summary: ExportSummary) -> str | None:
    """The first file that a finished folder lacks, in words; None if it is whole."""
    wanted = [*summary.tables, CARD, *sorted(pictures)]
    lost = next((name for name in wanted if not (output / name).is_file()), None)
    return None if lost is None else f"{output / lost} is"
