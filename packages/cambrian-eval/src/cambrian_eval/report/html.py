"""One self-contained HTML page a run: scores with intervals, what the replies are like, and what went wrong.

Nothing is loaded from outside and there is no script; a content security policy in the page holds it to that. Every
text that comes from data or a model is escaped.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from cambrian_eval.atomic import write_atomically
from cambrian_eval.judge import agreement
from cambrian_eval.report import image_tokens, lengths, positions
from cambrian_eval.report.bars import count_bars, row_bar
from cambrian_eval.report.csv import ROW_COLUMNS, row_cells, write_csv
from cambrian_eval.report.page import figures, legend, page, paragraph, section, table, text, with_navigation
from cambrian_eval.report.table import HEADER, count, heading, level, markdown, notes, table_rows
from cambrian_eval.report.verdicts import read_judgements
from cambrian_eval.report.wrong import MAX_SHOWN, cards, pick_wrong, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from cambrian_eval.judge import Agreement, Judgement
    from cambrian_eval.metrics import MetricRow
    from cambrian_eval.types import Result, ScoredAnswer

MARKDOWN = "metrics.md"
CSV = "metrics.csv"
MAX_DISAGREEMENTS = 30

_GROUPS = {
    "scores": "Scores",
    "tasks": "By task",
    "sources": "By source",
    "permuted": "Options in several orders",
    "positions": "By place of the right option",
}


def write_report(path: Path, result: Result, scored: Sequence[ScoredAnswer]) -> None:
    """Write the page, and beside it the same table as `metrics.md` and `metrics.csv`.

    At most 60 wrong answers are shown. What a judge has said is read from the run's `judge.jsonl`, if there is one.
    """
    write_atomically(path, run_page(result, scored))
    write_atomically(path.with_name(MARKDOWN), markdown(result))
    write_atomically(path.with_name(CSV), write_csv(ROW_COLUMNS, map(row_cells, result.metrics.rows)))


def run_page(result: Result, scored: Sequence[ScoredAnswer]) -> str:
    """The page of one run."""
    wrong = pick_wrong(scored)
    num_scored = sum(answer.score.value is not None for answer in scored)
    sections = [
        section("scores", "Scores", *_scores(result.metrics.rows)),
        section("table", "Table", table(HEADER, table_rows(result)) if result.metrics.rows else ""),
        section("readings", "How replies were read", _rules(scored)),
        section("positions", "Letters given and letters that are right", *_positions(scored)),
        section("replies", "Length of replies", *lengths_parts([lengths.measure_lengths("replies", scored)])),
        section("tokens", "Image tokens for a picture", *_tokens(scored)),
        section("judge", "Rule and judge", *_judges(read_judgements(result.output, scored), scored)),
        section("wrong", f"Wrong answers: {len(wrong)} of {num_scored}", *_wrong(wrong)),
        section("checks", "Checks", _checks(result)),
        section("identity", "What was run", *identity(result.provenance)),
    ]
    warnings = [paragraph(f"Warning: {warning}", "warning") for warning in result.checks.get("warnings", ())]
    head = [
        f"<h1>{text(heading(result))}</h1>",
        figures(_figures(result)),
        *warnings,
        *(paragraph(note, "warning" if note.startswith("incomplete") else "") for note in notes(result)),
    ]
    return page(heading(result), [*head, *with_navigation(sections)])


def lengths_parts(measured: Sequence[lengths.Lengths]) -> Iterator[str]:
    """Table and histogram of the replies of one run or several."""
    yield table(
        lengths.COLUMNS,
        [one.row() for one in measured],
        caption="Open questions neither offer options nor are answered by yes or no.",
    )
    yield legend([one.label for one in measured]) if len(measured) > 1 else ""
    yield count_bars(lengths.BIN_LABELS, [one.histogram() for one in measured])


def identity(provenance: Mapping[str, Any]) -> Iterator[str]:
    """A table for each part of a run's provenance."""
    for name, values in provenance.items():
        if isinstance(values, dict):
            rows = [(str(key), _plain(value)) for key, value in values.items()]
            yield table(("", name), rows, kind="texts")


def _figures(result: Result) -> Iterator[tuple[str, str]]:
    headline = next((row for row in result.metrics.rows if row.name == "score"), None)
    if headline is not None:
        of = "" if headline.full == 100 else f" of {headline.full:g}"
        yield f"{headline.accuracy:.1f}{of}", headline.label
        yield f"{headline.low:.1f} to {headline.high:.1f}", "95 % interval"
        if headline.chance is not None:
            yield level(headline.chance), "chance"
        if headline.best_constant is not None:
            yield level(headline.best_constant), "best constant reply"
    if "parse_rate" in result.metrics.summary:
        yield f"{result.metrics.summary['parse_rate']:.1f} %", "replies in which an answer was found"
    yield str(result.num_answered), "questions answered"
    if result.num_failed:
        yield str(result.num_failed), "not answered"


def _scores(rows: Sequence[MetricRow]) -> Iterator[str]:
    if rows:
        yield paragraph(
            "Bars with 95 % intervals. Dotted line: chance. Orange line: the best constant reply, such as one letter "
            "always given. Rows in another unit than percent are drawn as shares of what a perfect model scores.",
            "faint",
        )
    for group in dict.fromkeys(row.group for row in rows):
        yield f"<h3>{text(_GROUPS.get(group, group))}</h3>"
        yield from (row_bar(row) for row in rows if row.group == group)
    clustered = [row for row in rows if row.num_units != row.n]
    if clustered:
        yield table(
            ("questions that are not independent", "n", "design effect", "parsed %"),
            [(row.label, count(row), f"{row.design_effect:.2f}", level(row.parse_rate)) for row in clustered],
            caption="Questions about one picture, of a pair or of a circle count as one unit in the intervals.",
        )


def _rules(scored: Sequence[ScoredAnswer]) -> str:
    """Which rule read how many replies, and how often it found the right answer."""
    counts = Counter(answer.score.rule for answer in scored)
    rows = []
    for rule, num in counts.most_common():
        mine = [answer.score for answer in scored if answer.score.rule == rule]
        values = [score.value for score in mine if score.value is not None]
        mean = f"{100 * sum(values) / len(values):.1f}" if values else ""
        parsed = 100 * sum(score.extracted is not None for score in mine) / num
        rows.append((rule, str(num), f"{100 * num / len(scored):.1f}", mean, f"{parsed:.1f}"))
    return table(("rule", "replies", "share %", "mean value %", "parsed %"), rows)


def _positions(scored: Sequence[ScoredAnswer]) -> Iterator[str]:
    found = positions.measure_positions(scored)
    if found is None:
        return
    yield paragraph(
        "Each question was asked with its options in several orders: what differs between places is the model's bias."
        if found.is_permuted
        else "Options stand where the benchmark has them, so places differ in their questions too; --permute asks each "
        "question in several orders.",
        "faint",
    )
    yield legend(["letter given", "letter that is right"])
    yield count_bars(tuple(found.letters), [found.given, found.true])
    yield table(positions.COLUMNS, found.table(), caption=f"{found.unread} replies without one of these letters.")


def _tokens(scored: Sequence[ScoredAnswer]) -> Iterator[str]:
    if not any(answer.prompt.pictures for answer in scored):
        yield paragraph("No pictures were shown.")
        return
    found = image_tokens.measure_image_tokens("all prompts", scored)
    if found is None:
        yield paragraph("The model does not tell what a picture costs.")
        return
    yield table(image_tokens.COLUMNS, [found.row()])
    labels, counts = found.histogram()
    yield count_bars(labels, [counts]) if labels else paragraph("Every picture costs the same.", "faint")


def _judges(judgements: Sequence[Judgement], scored: Sequence[ScoredAnswer]) -> Iterator[str]:
    for judgement in judgements:
        found = agreement(scored, judgement)
        yield f"<h3>{text(f'{judgement.judge}, rubric {judgement.rubric}')}</h3>"
        yield _verdicts(judgement, scored) if found is None else _agreement(found)
        differing = () if found is None else (*found.judge_only, *found.rule_only)
        yield _disagreements(differing, judgement, scored)


def _verdicts(judgement: Judgement, scored: Sequence[ScoredAnswer]) -> str:
    """A task that only a judge can score."""
    values = [verdict.value for verdict in judgement.verdicts.values() if verdict.value is not None]
    mean = f"{100 * sum(values) / len(values):.1f}" if values else ""
    row = (
        "all",
        mean,
        str(len(values)),
        f"{100 * len(values) / max(1, len(judgement.verdicts)):.1f}",
        str(len(scored)),
    )
    return table(("", "judge's mean %", "verdicts", "verdicts read %", "answers"), [row])


def _agreement(found: Agreement) -> str:
    kappa = "undefined: both always say the same" if found.kappa is None else f"{found.kappa:.3f}"
    read = 100 * found.n / max(1, found.n + found.n_unread)
    rows = [
        ("rule says right, judge too (or both wrong)", f"{found.rate:.1f} % ({found.low:.1f} to {found.high:.1f})"),
        ("Cohen's kappa", kappa),
        ("score by the rule", f"{found.rule_score:.1f} %"),
        ("score by the judge", f"{found.judge_score:.1f} %"),
        ("only the judge says right", str(len(found.judge_only))),
        ("only the rule says right", str(len(found.rule_only))),
        ("answers with both", str(found.n)),
        ("verdicts read", f"{read:.1f} % ({found.n_unread} could not be read)"),
    ]
    return table(("", "agreement"), rows, kind="texts")


def _disagreements(ids: Sequence[str], judgement: Judgement, scored: Sequence[ScoredAnswer]) -> str:
    if not ids:
        return ""
    answers = {answer.question.id: answer for answer in scored}
    rows = [
        (
            name,
            shorten(" | ".join(answers[name].question.answers), 120),
            shorten(answers[name].answer.text, 200),
            f"{answers[name].score.value:.2f} ({answers[name].score.rule})",
            shorten(judgement.verdicts[name].words, 80),
        )
        for name in ids[:MAX_DISAGREEMENTS]
    ]
    caption = f"{len(rows)} of {len(ids)} answers on which rule and judge differ"
    return table(("question", "truth", "reply", "rule", "judge"), rows, caption=caption, kind="texts")


def _wrong(wrong: Sequence[ScoredAnswer]) -> Iterator[str]:
    unread = sum(answer.score.extracted is None for answer in wrong)
    yield paragraph(
        f"{min(len(wrong), MAX_SHOWN)} are shown: first those of the {unread} in which no answer was found, then those "
        "that were read and are not wholly right, in turn from each part of the benchmark.",
        "faint",
    )
    yield cards(wrong[:MAX_SHOWN])


def _checks(result: Result) -> str:
    checks = result.checks
    verified = checks.get("verify_batching")
    rows = [
        ("questions not answered", str(result.num_failed)),
        ("replies that ran out of tokens", f"{checks.get('truncation_rate', 0.0):.1f} %"),
        ("batches halved for want of memory", str(checks.get("num_halved", 0))),
        ("batches against single prompts", _verified(verified) if verified else "not compared"),
    ]
    if "rescored" in checks:
        rows.append(("rescored", _plain(checks["rescored"])))
    return table(("", "found"), rows, kind="texts")


def _verified(found: Mapping[str, Any]) -> str:
    different = f"; different: {', '.join(found['different'])}" if found["different"] else ""
    return f"{found['n_equal']} of {found['n']} replies equal in batches of {found['batch_size']}{different}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
