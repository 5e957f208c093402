import csv
import dataclasses
import io
import json
import re
from typing import Any

import pytest

from cambrian_eval import TASKS, Answer, DataError, EvalError, UnknownNameError, evaluate, load_model
from cambrian_eval.examples import write_example
from cambrian_eval.judge import VERDICTS
from cambrian_eval.metrics import measure
from cambrian_eval.models.canned import Canned
from cambrian_eval.picture import Picture
from cambrian_eval.report import side_by_side
from cambrian_eval.report.csv import write_csv
from cambrian_eval.report.html import run_page, write_report
from cambrian_eval.report.image_tokens import measure_image_tokens
from cambrian_eval.report.lengths import measure_lengths, num_words
from cambrian_eval.report.markdown import markdown_cell
from cambrian_eval.report.positions import measure_positions
from cambrian_eval.report.recorded import read_recorded
from cambrian_eval.report.side_by_side_page import side_by_side_page
from cambrian_eval.report.table import markdown
from cambrian_eval.report.wrong import MAX_SHOWN, pick_wrong
from cambrian_eval.rubric import MATCH
from cambrian_eval.tasks.cvbench import CVBENCH
from cambrian_eval.types import Prompt, Question, Result, Score, ScoredAnswer
from tests.data.conftest import browser  # noqa: F401
from tests.eval.benchmark_folder import png, row, truths, write_cvbench, write_jsonl

EVIL = "<img src=x onerror=alert(1)>\"'</style><script>alert(2)</script>&amp;"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_cvbench(tmp_path_factory.mktemp("cvbench"), per_group=6)


@pytest.fixture(scope="module")
def runs(folder, tmp_path_factory):
    """A plain run, one without format prompt, a blind one, a limited one and a permuted one."""
    made = tmp_path_factory.mktemp("runs")
    ways: dict[str, dict[str, Any]] = {
        "plain": {},
        "bare": {"prompt": "bare"},
        "blind": {"mode": "blind"},
        "some": {"limit": 12},
        "permuted": {"permute": 2},
    }
    for name, way in ways.items():
        evaluate("cvbench", load_model("random:1"), data=folder, output=made / name, **way)
    return made


def answer(id, text, value, *, choices=(), truths=("x",), pictures=(), **fields):
    question = Question(id, "Q", choices, truths, pictures, "", fields.pop("task", ""), "", fields.pop("group", ""))
    score = Score(value, fields.pop("extracted", text or None), fields.pop("rule", "exact"))
    return ScoredAnswer(question, Prompt(id, (*pictures, "Q"), choices, 8), Answer(text, **fields), score)


def result_of(answers, output, **fields):
    run = {"task": "own", "model": "m"}
    plain = {"task": "own", "task_version": 1, "model": "m", "mode": "normal", "num_answered": len(answers)}
    return Result(
        **{
            **plain,
            "metrics": measure(answers),
            "num_failed": 0,
            "output": output,
            "provenance": {"run": run},
            **fields,
        }
    )


def cards(page):
    return page.split('<article class="card">')[1:]


# Tables.


def test_markdown_has_a_row_for_every_score_task_and_source(tmp_path):
    folder = write_cvbench(tmp_path / "data")
    table = markdown(evaluate("cvbench", load_model("constant:A"), data=folder, output=tmp_path / "run", mode="blind"))
    for name in ("CV-Bench 2D", "CV-Bench 3D", "micro mean", "Count", "Relation", "Depth", "Distance", "COCO (2D)"):
        assert f"| {name}" in table
    assert "without pictures" in table
    assert "score = 1/2 ((ADE20K + COCO)/2 + Omni3D) (the published score)" in table
    assert (tmp_path / "run" / "metrics.md").read_text() == table


def test_csv_has_every_level_to_full_precision(runs):
    held = read_recorded(runs / "plain")
    lines = list(csv.DictReader(io.StringIO((runs / "plain" / "metrics.csv").read_text())))
    assert [line["label"] for line in lines] == [row.label for row in held.result.metrics.rows]
    for line, shown in zip(lines, held.result.metrics.rows, strict=True):
        for name, value in shown.to_dict().items():
            assert float(line[name]) == value


def test_csv_cells_are_no_formulas_to_a_spreadsheet():
    text = write_csv(("a", "b"), [("=HYPERLINK(1)", -1.5), ("@x", None), ("+1", "-2"), ("a,b", 'c"d')])
    assert list(csv.reader(io.StringIO(text)))[1:] == [
        ["'=HYPERLINK(1)", "-1.5"],
        ["'@x", ""],
        ["'+1", "'-2"],
        ["a,b", 'c"d'],
    ]


def test_open_questions_have_no_chance_and_other_units_say_of_what(tmp_path):
    answers = [answer(f"q{n}", "x" if n % 3 else "y", float(n % 3 > 0), group=f"g{n // 2}") for n in range(12)]
    rows = measure(answers).rows
    perception = dataclasses.replace(rows[0], name="other", label="perception", full=2000.0, accuracy=1500.5, high=1600)
    result = result_of(answers, tmp_path)
    result = dataclasses.replace(
        result, metrics=dataclasses.replace(result.metrics, rows=(*result.metrics.rows, perception))
    )
    table, page = markdown(result), run_page(result, answers)
    assert re.search(r"accuracy \| 66\.7 \|[^|]+\|  \|  \| 100\.0 \| 12 \(6 units\) \|", table)
    assert "1500.5 of 2000" in table
    assert 'class="fill c0" style="width:75.02%"' in page  # a share of what a perfect model scores
    assert "None" not in table + page


def test_secret_answers_are_counted_and_not_wrong(tmp_path):
    answers = [answer(f"q{n}", "x", None, truths=()) for n in range(3)] + [answer("q9", "x", 1.0)]
    page = run_page(result_of(answers, tmp_path), answers)
    assert "Wrong answers: 0 of 1" in page
    assert "3 replies have no known truth and are in no score" in page


# The page of a run.


def test_page_loads_nothing_from_outside_and_has_no_script(runs):
    page = (runs / "plain" / "report.html").read_text()
    assert "<script" not in page
    assert "://" not in page
    assert 'src="data:image/jpeg;base64,' in page
    assert set(re.findall(r'(?:src|href)="(\w+):', page)) == {"data"}
    assert "default-src 'none'" in page


def test_everything_from_data_and_model_is_escaped(tmp_path):
    evil = EVIL
    table = [row(n, "2D", "Count", evil) | {"task": evil, "prompt": evil, "filename": f"{n}.png"} for n in range(2)]
    table = [line | {"question": evil, "choices": [evil, "b", "c", "d"]} for line in table]
    write_jsonl(tmp_path / "test_2d.jsonl", table)
    model = Canned(dict.fromkeys(truths(tmp_path), f"{evil}\ud800\0"), name=evil)
    evaluate("cvbench-2d", model, data=tmp_path, output=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<img src=x" not in page
    assert "<script" not in page
    assert page.count("</style>") == 1
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "\0" not in page
    markdown_page = (tmp_path / "run" / "metrics.md").read_text()
    assert "<img" not in markdown_page
    assert "<script" not in markdown_page


def test_markdown_shows_no_picture_and_no_link_of_a_texts_own():
    cell = markdown_cell("![x](http://e.example/p.png) [y](http://e.example) `z` a|b <img src=u> \\[w](v)")
    assert not re.search(r"(?<!\\)(?:\\\\)*[\[`|<]", cell)


def test_every_field_of_a_result_is_escaped(tmp_path):
    evil = answer(
        EVIL, EVIL, 0.0, truths=(EVIL,), choices=(EVIL, "b"), rule=EVIL, extracted=EVIL, task=EVIL, group=EVIL
    )
    lost = Picture(EVIL, "0" * 64)
    broken = Picture(EVIL, "1" * 64, data=b"no picture")
    shown = dataclasses.replace(evil, prompt=Prompt(EVIL, (lost, broken, EVIL), (EVIL, "b"), 8, EVIL))
    result = result_of(
        [evil],
        tmp_path,
        task=EVIL,
        model=EVIL,
        provenance={"run": {EVIL: EVIL, "ids": EVIL, "split": EVIL, "prompt": EVIL}, "versions": {EVIL: [EVIL]}},
        checks={"warnings": [EVIL], "rescored": {EVIL: EVIL}},
    )
    rows = tuple(dataclasses.replace(one, label=EVIL, group=EVIL) for one in result.metrics.rows)
    result = dataclasses.replace(result, metrics=dataclasses.replace(result.metrics, rows=rows))
    page = run_page(result, [shown])
    assert not re.search(r"<(?!/?(?:html|head|meta|title|style|body|h[123]|p|div|section|nav|a|span|b|bdi|br|table|"
                         r"caption|thead|tbody|tr|th|td|article|pre|details|summary|!doctype)\b)", page)  # fmt: skip
    assert set(re.findall(r"<(?:img|script)\b", page)) == set()
    assert page.count("</style>") == 1


def test_text_that_reorders_or_hides_is_made_visible(tmp_path):
    answers = [answer("q", "right \u202ethgir\x07", 0.0)]
    page = run_page(result_of(answers, tmp_path), answers)
    assert "\u202e" not in page
    assert "\x07" not in page
    assert "right \ufffdthgir\u2407" in page


@pytest.mark.parametrize("mark", ["\u200b", "\u00ad", "\ufeff", "\u2060", "\u2028", "\u0085", "\U000e0041", "\u061c"])
def test_text_without_a_width_is_made_visible_everywhere(tmp_path, mark):
    answers = [answer(f"q{mark}", f"no{mark}ne", 0.0)]
    page = run_page(result_of(answers, tmp_path), answers)
    assert mark not in page
    assert "no\ufffdne" in page


def test_words_and_signs_that_are_made_with_joiners_stay_whole(tmp_path):
    answers = [answer("q", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f468\u200d\U0001f469", 0.0)]
    assert answers[0].answer.text in run_page(result_of(answers, tmp_path), answers)


def test_unparsed_answers_come_first(tmp_path):
    folder = write_cvbench(tmp_path / "data")
    replies = {name: "A" if letter != "A" else "B" for name, letter in truths(folder).items()}
    replies[list(replies)[-1]] = "no idea at all"
    evaluate("cvbench", Canned(replies), data=folder, output=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "no idea at all" in cards(page)[0]
    assert "not read" in cards(page)[0]
    assert "not read" not in cards(page)[1]
    assert "Wrong answers: 18 of 18" in page


def test_wrong_answers_take_turns_so_that_no_task_hides_another():
    answers = [answer(f"{task}{n}", "y", 0.0, task=task) for task, num in (("a", 80), ("b", 3)) for n in range(num)]
    first = [one.question.task for one in pick_wrong(answers)[:6]]
    assert first == ["a", "b", "a", "b", "a", "b"]
    assert len(pick_wrong(answers)) == 83


def test_at_most_sixty_cards_and_long_replies_are_cut_and_say_so(tmp_path):
    answers = [answer(f"q{n}", "word " * 20_000, 0.0) for n in range(80)]
    page = run_page(result_of(answers, tmp_path), answers)
    assert len(cards(page)) == MAX_SHOWN
    assert "(99,400 more characters)" in page
    assert len(page) < 200_000


def test_pictures_have_alternative_texts_and_a_missing_one_is_said(tmp_path):
    pictures = (Picture.from_bytes("one", png(1)), Picture("two", "2" * 64))
    answers = [answer("q7", "y", 0.0, pictures=pictures)]
    card = cards(run_page(result_of(answers, tmp_path), answers))[0]
    assert 'alt="Picture 1 of 2 of question q7"' in card
    assert "picture two: not at hand" in card


def test_partly_right_answers_say_what_they_are_worth(tmp_path):
    answers = [answer("q1", "y", 0.3), answer("q2", "x", 1.0)]
    page = run_page(result_of(answers, tmp_path), answers)
    assert "worth 0.30" in cards(page)[0]
    assert len(cards(page)) == 1


def test_checks_and_warnings_stand_on_the_page(tmp_path):
    answers = [answer("q1", "y", 0.0, truncated=True)]
    verified = {"batch_size": 4, "n": 10, "n_equal": 9, "different": ["q1"], "agreement": 90.0}
    checks = {"truncation_rate": 100.0, "num_halved": 3, "verify_batching": verified, "warnings": ["beware"]}
    page = run_page(result_of(answers, tmp_path, checks=checks, num_failed=2), answers)
    assert "9 of 10 replies equal in batches of 4; different: q1" in page
    assert "Warning: beware" in page
    assert "incomplete: 2 questions were not answered" in page
    assert "100.0 % of the replies ran out of tokens" in page
    assert re.search(r"halved for want of memory</bdi></th><td><bdi>3<", page)


def test_identity_is_on_the_page(runs):
    page = (runs / "plain" / "report.html").read_text()
    held = read_recorded(runs / "plain")
    for value in (held.identity["data_sha256"], held.identity["prompts_sha256"], held.identity["model_fingerprint"]):
        assert value in page
    assert held.result.provenance["hardware"]["platform"] in page
    assert "cambrian-eval" in page


def test_judge_and_rule_are_compared_where_a_judge_was_asked(tmp_path):
    answers = [answer("q1", "y", 0.0), answer("q2", "x", 1.0), answer("q3", "z", 0.0)]
    words = {"q1": ("correct", 1.0), "q2": ("correct", 1.0), "q3": (EVIL, None)}
    write_verdicts(tmp_path, answers, words)
    page = run_page(result_of(answers, tmp_path), answers)
    assert "http://j/v1#judge, rubric match 1" in page
    assert "50.0 %" in page  # of two verdicts that were read, one agrees
    assert "66.7 % (1 could not be read)" in page
    assert "1 of 1 answers on which rule and judge differ" in page
    assert "<script" not in page


def test_a_verdict_on_another_reply_does_not_count(tmp_path):
    write_verdicts(tmp_path, [answer("q1", "an older reply", 0.0)], {"q1": ("correct", 1.0)})
    answers = [answer("q1", "y", 0.0)]
    assert "Rule and judge" not in run_page(result_of(answers, tmp_path), answers)


def write_verdicts(folder, answers, words):
    import hashlib

    lines = [
        {
            "id": one.question.id,
            "judge": "http://j/v1#judge",
            "rubric": MATCH.label,
            "asked_sha256": hashlib.sha256(MATCH.render(one).encode()).hexdigest(),
            "value": words[one.question.id][1],
            "words": words[one.question.id][0],
        }
        for one in answers
    ]
    (folder / VERDICTS).write_text("".join(json.dumps(line) + "\n" for line in lines))


# What the page counts.


def test_one_word_replies_are_those_to_open_questions():
    answers = [
        answer("1", "red", 1.0, truths=("red",)),
        answer("2", "a red bus", 0.0, truths=("bus",)),
        answer("3", "yes", 1.0, truths=("yes",)),  # nobody answers that at length
        answer("4", "A", 1.0, choices=("p", "q"), truths=("A",)),
        answer("5", "", 0.0, truths=("two words",)),
    ]
    found = measure_lengths("all", answers)
    assert found.num_open == 3
    assert found.one_word == pytest.approx(100 / 3)
    assert found.one_word_truths == pytest.approx(200 / 3)
    assert found.words == (0, 1, 1, 1, 3)
    assert found.histogram() == [1, 3, 0, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("text", "words"),
    [("", 0), ("...", 0), ("3.5", 1), ("New York.", 2), ("一只红色的猫", 6), ("B) cat", 2), ("a\nb\tc", 3)],
)
def test_words_are_counted_in_scripts_with_and_without_spaces(text, words):
    assert num_words(text) == words


def test_letters_given_and_right_are_counted_and_unread_ones_too():
    said = [("A", "A"), ("A", "B"), ("B", "B"), (None, "C")]
    answers = [
        answer(f"q{n}", "r", float(read == truth), choices=("p", "q", "r"), truths=(truth,), extracted=read)
        for n, (read, truth) in enumerate(said)
    ]
    found = measure_positions([*answers, answer("open", "A", 0.0)])
    assert found is not None
    assert (found.letters, found.given, found.true, found.unread) == ("ABC", (2, 1, 0), (1, 2, 1), 1)
    assert [one.accuracy for one in found.rows if one] == [100, 50, 0]
    assert measure_positions([answer("open", "A", 0.0)]) is None


def test_image_tokens_are_per_picture():
    pictures = tuple(Picture(str(n), str(n) * 64) for n in range(2))
    answers = [
        answer("1", "x", 1.0, pictures=pictures, image_tokens=1152),
        answer("2", "x", 1.0, pictures=pictures[:1], image_tokens=100),
        answer("3", "x", 1.0, image_tokens=0),
    ]
    found = measure_image_tokens("all", answers)
    assert found is not None
    assert found.per_picture == (100, 576)
    assert found.total == 1252
    assert sum(found.histogram()[1]) == 2
    assert measure_image_tokens("all", answers[2:]) is None


def test_permuted_run_says_that_places_compare(runs):
    assert "in several orders: what differs between places is the model" in (runs / "permuted/report.html").read_text()
    assert "--permute asks each" in (runs / "plain/report.html").read_text()


# What is read back from a folder.


@pytest.mark.parametrize("name", ["plain", "bare", "blind", "some", "permuted"])
def test_a_run_read_back_is_the_result_that_it_was(runs, folder, name, tmp_path):
    held = read_recorded(runs / name, folder)
    document = json.loads((runs / name / "metrics.json").read_text())
    assert {**held.result.to_dict(), "provenance": held.result.provenance} == document
    write_report(tmp_path / "report.html", held.result, held.answers)
    for file in ("report.html", "metrics.md", "metrics.csv"):
        assert (tmp_path / file).read_bytes() == (runs / name / file).read_bytes()


def test_data_of_another_run_is_refused(runs, tmp_path):
    other = write_cvbench(tmp_path / "data", sources={"2D": ("ADE20K",), "3D": ("Omni3D",)}, per_group=1)
    for path in other.rglob("*.png"):
        path.write_bytes(png(99))
    with pytest.raises(DataError, match=r"none of the 36 pictures"):
        read_recorded(runs / "plain", other)


def test_interrupted_run_is_reported_as_incomplete(runs, tmp_path):
    for file in ("run.json", "samples.jsonl"):
        (tmp_path / file).write_bytes((runs / "plain" / file).read_bytes())
    held = read_recorded(tmp_path)
    assert held.result.to_dict()["complete"] is False
    assert "interrupted" in run_page(held.result, held.answers)
    assert "INCOMPLETE" in side_by_side.markdown(side_by_side.arrange([held]))


def test_folder_without_answers_is_refused(runs, tmp_path):
    (tmp_path / "run.json").write_bytes((runs / "plain" / "run.json").read_bytes())
    (tmp_path / "samples.jsonl").write_text("")
    with pytest.raises(EvalError, match="found no answer in its log"):
        read_recorded(tmp_path)


# Runs side by side.


def arrange(runs, *names, published=None):
    return side_by_side.arrange(side_by_side.read_runs([runs / name for name in names]), published)


def test_ways_of_asking_stand_in_the_heads_of_columns(runs):
    found = arrange(runs, "plain", "bare", "blind", "some", "permuted")
    assert [column.label for column in found.columns] == [
        "random:1",
        "random:1, prompt bare",
        "random:1, without pictures",
        "random:1, limited to 12 (seed 0)",
        "random:1, 2 orders of the options",
    ]
    (first, *_) = found.headlines
    assert first.label == "cvbench"
    assert all(cell is not None and "parsed 100.0 %" in cell.text for cell in first.cells)
    assert first.best_constant == "differs"  # a limit leaves other questions


def test_two_versions_of_a_benchmark_share_no_row(runs, tmp_path):
    held = read_recorded(runs / "plain")
    older = held._replace(
        identity={**held.identity, "data_sha256": "f" * 64},
        result=dataclasses.replace(held.result, task_version=1, output=tmp_path),
    )
    found = side_by_side.arrange([held, older])
    rows = [line for line in found.headlines if ", 2D" not in line.label and ", 3D" not in line.label]
    assert len(rows) == 2
    assert "data ffffffff" in rows[0].label + rows[1].label


def test_second_run_of_the_same_kind_gets_a_column_of_its_own(runs, tmp_path):
    held = read_recorded(runs / "plain")
    again = held._replace(result=dataclasses.replace(held.result, output=tmp_path / "again"))
    labels = [column.label for column in side_by_side.arrange([held, again]).columns]
    assert len(set(labels)) == 2
    assert f"[{tmp_path / 'again'}]" in labels[1]


def test_published_scores_are_labelled_and_have_no_intervals(runs):
    found = arrange(runs, "plain", published="cambrian-1-8b")
    assert found.columns[1].label == "Cambrian-1-8B (published)"
    cells = {line.label: line.cells[1] for line in found.headlines}
    texts = {label: cell.text for label, cell in cells.items() if cell is not None}
    assert texts == {"cvbench": "72.2", "cvbench, 2D": "72.3", "cvbench, 3D": "72.0"}
    assert any("no intervals are published" in note for note in found.notes)
    lines = list(csv.DictReader(io.StringIO(side_by_side.csv_text(found))))
    shown = [line for line in lines if line["published"] == "true"]
    assert {line["task"] for line in shown} >= {"mme", "cvbench-2d"}
    assert all(line["low"] == line["parse_rate"] == "" for line in shown)
    assert len(arrange(runs, "plain", published="all").columns) == 16


def test_scores_on_other_questions_are_not_left_to_be_compared_with_published_ones(runs):
    """A limit, or a set of one's own, beside the paper's 2638 questions; permuted copies count as one question."""
    num = len(read_recorded(runs / "plain").answers)
    told = [note for note in arrange(runs, "plain", "permuted", published="cambrian-1-8b").notes if "compare" in note]
    assert told == [
        f"{label}, cvbench: {num} questions; the published scores are of 2638, and do not compare"
        for label in ("random:1", "random:1, 2 orders of the options")
    ]
    assert not any("do not compare" in note for note in arrange(runs, "plain").notes)


def test_a_run_without_a_score_says_so_and_what_a_judge_found(tmp_path):
    write_example(TASKS.get("mmvet"), tmp_path / "data", png(1))
    evaluate("mmvet", load_model("constant:A"), data=tmp_path / "data", output=tmp_path / "run")
    held = read_recorded(tmp_path / "run")
    judged = {"judge": "http://j/v1#judge", "rubric": "grade 1", "n": 1, "score": 70.0, "agreement": None}
    judged_too = held._replace(result=dataclasses.replace(held.result, checks={"judge": judged}))
    assert any("mmvet: no score" in note and "parsed" in note for note in side_by_side.arrange([held]).notes)
    assert any("70.0 by the judge http://j/v1#judge" in note for note in side_by_side.arrange([judged_too]).notes)


def test_unknown_published_model_names_a_near_one(runs):
    with pytest.raises(UnknownNameError, match="cambrian-1-8b"):
        arrange(runs, "plain", published="cambrian-8b")


def test_groups_are_averaged_where_all_their_runs_are_there(tmp_path, folder):
    plain = read_recorded(evaluate("cvbench", load_model("random:1"), data=folder, output=tmp_path / "cvbench").output)
    others = [
        plain._replace(
            identity={**plain.identity, "task": task, "split": TASKS.get(task).splits[0]},
            result=dataclasses.replace(plain.result, task=task),
        )
        for task in ("mmvp", "realworldqa")
    ]
    assert side_by_side.arrange([plain, others[0]]).averages == ()
    (average,) = side_by_side.arrange([plain, *others], "cambrian-1-8b").averages
    assert average.label == "mean: vision-centric"
    mine, published = average.cells
    assert mine is not None
    assert mine.level.low is not None
    assert mine.parse_rate == 100
    assert published is not None
    assert published.level.score == pytest.approx(65.0, abs=0.05)
    assert published.level.low is None


def test_reply_lengths_are_set_against_those_without_format_prompt(runs):
    page = side_by_side_page(arrange(runs, "plain", "bare", "blind"))
    assert "cvbench, random:1: 36 questions asked both ways" in page
    assert page.count("questions asked both ways") == 1  # a blind run is no counterpart
    assert "asked both ways" not in side_by_side_page(arrange(runs, "plain", "blind"))


def test_side_by_side_page_is_escaped_and_loads_nothing(runs):
    held = read_recorded(runs / "plain")
    metrics = held.result.metrics
    rows = tuple(dataclasses.replace(one, label=EVIL) for one in metrics.rows)
    evil = held._replace(
        identity={**held.identity, "task": EVIL, "ids": EVIL, "prompt": EVIL, "split": EVIL, "data_sha256": EVIL},
        result=dataclasses.replace(
            held.result,
            task=EVIL,
            model=EVIL,
            metrics=dataclasses.replace(metrics, rows=rows),
            checks={"warnings": [EVIL]},
        ),
    )
    found = side_by_side.arrange([evil, held], "all")
    page = side_by_side_page(found)
    assert not re.search(r"<(?:img|script)\b", page)
    assert page.count("</style>") == 1
    assert "<img" not in side_by_side.markdown(found)
    assert "src=" not in re.sub(r"&lt;img src=x", "", page)


def test_other_tools_rules_are_named(tmp_path, folder):
    held = read_recorded(
        evaluate("cvbench", load_model("random:1"), data=folder, output=tmp_path / "run", compat="lmms-eval").output
    )
    (column,) = side_by_side.arrange([held]).columns
    assert column.label == "random:1, prompt of lmms-eval, rules of lmms-eval"


# In a browser.


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_readable_on_a_wide_screen_and_a_telephone(browser, runs, tmp_path, scheme):  # noqa: F811
    side = tmp_path / "side.html"
    side.write_text(side_by_side_page(arrange(runs, "plain", "bare", published="cambrian-1-8b")))
    for path in (runs / "plain" / "report.html", side):
        for width in (1200, 380):
            with browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme) as page:
                told: list[str] = []
                page.on("console", lambda message, told=told: told.append(message.text))
                page.goto(path.as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt)")
                assert page.evaluate(CONTRAST) >= 4.5
                assert told == []


def test_links_of_the_page_lead_to_its_parts(browser, runs):  # noqa: F811
    with browser.new_page() as page:
        page.goto((runs / "plain" / "report.html").as_uri())
        names = page.evaluate("[...document.querySelectorAll('nav a')].map(a => a.getAttribute('href').slice(1))")
        assert {"scores", "replies", "positions", "wrong", "identity"} <= set(names)
        assert all(page.evaluate("name => document.getElementById(name) !== null", name) for name in names)


def test_hostile_texts_run_nothing_and_call_nobody(browser, tmp_path):  # noqa: F811
    picture = Picture.from_bytes(EVIL, png(1))
    answers = [answer(EVIL + str(n), EVIL, 0.0, truths=(EVIL,), task=EVIL, pictures=(picture,)) for n in range(3)]
    path = tmp_path / "page.html"
    path.write_text(run_page(result_of(answers, tmp_path, model=EVIL, checks={"warnings": [EVIL]}), answers))
    with browser.new_page() as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: asked.append("dialog"))
        page.goto(path.as_uri())
        assert [url for url in asked if not url.startswith(("data:", "file:"))] == []
        assert page.evaluate("document.scripts.length") == 0
        assert page.evaluate("[...document.querySelectorAll('*')].some(e => e.hasAttribute('onerror'))") is False
        assert page.evaluate("document.querySelector('.card pre.reply').textContent") == EVIL


CONTRAST = """() => {
  const light = color => {
    const parts = color.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255).map(
      v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (!color.endsWith(', 0)') && color !== 'transparent') return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const texts = [...document.querySelectorAll('h1, h2, p, a, td, th, pre, .value, .figures span, b, summary')];
  return Math.min(...texts.filter(e => e.textContent.trim()).map(e => {
    const [one, other] = [light(getComputedStyle(e).color), light(behind(e))].sort();
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  }));
}"""


def test_report_of_a_task_uses_its_own_labels(runs):
    held = read_recorded(runs / "plain")
    assert {one.label for one in held.result.metrics.rows} == {one.label for one in CVBENCH.metrics(held.answers).rows}
