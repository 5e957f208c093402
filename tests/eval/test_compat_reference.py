"""The profile `reference` against what the original's scripts gave, every row of the four tables."""

from collections.abc import Iterator
from typing import Any

import pytest

from cambrian_eval import compat
from cambrian_eval.errors import DataError, UnknownNameError
from cambrian_model.processing.chat import ChatTemplate, named_template
from tests.support.golden import golden_json

LETTERS = golden_json("scoring/letter_answers")
FREE = golden_json("scoring/free_answers")
AGGREGATES = golden_json("scoring/aggregates")
PROMPTS = golden_json("scoring/eval_prompts")

PERCENT = {"gqa", "chartqa", "pope", "realworldqa", "ocrbench"}  # tables whose `score` is of 100
COUNTED = ("letter rows", "letter scores", "free scores", "aggregates", "prompts")


def crashes(recorded: Any) -> bool:
    return isinstance(recorded, dict) and "raises" in recorded


def assert_abstains(score, why: Any) -> None:
    assert crashes(why)
    assert (score.value, score.extracted) == (0.0, None)
    assert score.rule.startswith("abstain: the original crashes")


def letter_cases() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for name, table in LETTERS.items():
        for row in table["rows"]:
            yield name, table["row_constants"], row


@pytest.mark.parametrize("benchmark", LETTERS)
def test_letters_are_read_as_the_original_reads_them(benchmark):
    table = LETTERS[benchmark]
    for row in table["rows"]:
        for truth, recorded in row["score_by_gt"].items():
            score = compat.score("reference", benchmark, row["raw"], truth, **table["row_constants"])
            if crashes(recorded):
                assert_abstains(score, recorded)
                continue
            assert score.value == recorded, (row["raw"], truth)
            # The submission was read back from a spreadsheet, which makes a number of "1".
            read = row.get("extracted", str(row.get("submitted_prediction", score.extracted)))
            assert score.extracted == read, row["raw"]


def free_cases() -> Iterator[tuple[str, dict[str, Any], Any, Any, dict[str, Any]]]:
    """Table, row, truth, recorded value from 0 to 1, columns."""
    for name, table in FREE.items():
        if name in ("vizwiz_end_to_end", "submission_only", "synthdog"):
            continue
        rows = table if isinstance(table, list) else table["rows"]
        for row in rows:
            columns = {key: row[key] for key in ("category", "extra_penalization") if key in row}
            if name == "textvqa":
                for truth, value in zip(table["gt_sets"], row["score_by_gt_set"], strict=True):
                    yield name, row, truth, value, columns
                continue
            truth = row.get("gt", row.get("gts", row.get("gt_answers")))
            value = row["score"]
            yield name, row, truth, value if crashes(value) else value / (100 if name in PERCENT else 1), columns


@pytest.mark.parametrize("benchmark", sorted({case[0] for case in free_cases()}))
def test_free_answers_are_scored_as_the_original_scores_them(benchmark):
    for _, row, truth, recorded, columns in (case for case in free_cases() if case[0] == benchmark):
        score = compat.score("reference", benchmark, row["raw"], truth, **columns)
        if crashes(recorded):
            assert_abstains(score, recorded)
            continue
        assert score.value == recorded, (row["raw"], truth)
        assert score.extracted == row.get("extracted", row.get("processed", score.extracted))


def test_fewer_than_ten_reference_answers_crash_the_original():
    assert_abstains(compat.score("reference", "textvqa", "red", ["red"] * 9), FREE["textvqa"]["nine_gt_answers"])


def test_answers_of_people_are_normalised_as_the_original_does():
    table = FREE["textvqa"]
    for raw, processed in zip(table["gt_sets"], table["gt_sets_processed"], strict=True):
        for one, wanted in zip(raw, processed, strict=True):
            assert compat.score("reference", "textvqa", one, raw).extracted == wanted


def test_only_the_first_thirty_two_full_stops_vanish():
    assert compat.score("reference", "textvqa", "." * 40, [""] * 10).extracted == "." * 8


@pytest.mark.parametrize("case", AGGREGATES)
def test_whole_files_give_the_original_result(case):
    recorded = AGGREGATES[case]
    result = compat.aggregate("reference", recorded["benchmark"], recorded["rows"], **recorded["kwargs"])
    if crashes(recorded["result"]):
        assert result["multimodal_acc"] is None
        assert result["accuracy"] == 1
    else:
        assert result == recorded["result"]
        assert list(result) == [key for key in recorded["result"] if key != "submission_files"] + [
            key for key in recorded["result"] if key == "submission_files"
        ]


@pytest.mark.parametrize("benchmark", ["vizwiz", "synthdog"])
def test_files_kept_among_free_answers_give_the_original_result(benchmark):
    recorded = FREE["vizwiz_end_to_end" if benchmark == "vizwiz" else benchmark]
    rows = [{"model_id": "m", **row} for row in recorded["rows"]]
    assert compat.aggregate("reference", benchmark, rows) == recorded["result"]


@pytest.mark.parametrize("benchmark", FREE["submission_only"])
def test_submission_only_sets_write_replies_as_they_came(benchmark):
    recorded = FREE["submission_only"][benchmark]
    key = "questionId" if benchmark in ("docvqa", "infovqa") else "question_id"
    rows = [{"model_id": "m", key: "17", "answer": " Raw Answer. "}, {"model_id": "m", key: "18", "answer": ""}]
    assert compat.aggregate("reference", benchmark, rows) == recorded


def test_synthdog_scores_single_replies_within_a_distance():
    scores = [compat.score("reference", "synthdog", " Hello", "hallo", distance=d).value for d in (0, 1)]
    assert scores == [0, 1]


@pytest.mark.parametrize("benchmark", PROMPTS)
def test_prompts_are_the_original_ones_with_its_conversation_round_them(benchmark):
    recorded = PROMPTS[benchmark]
    for case in recorded["prompts"]:
        template = ChatTemplate(named_template(case["conv_mode"]), {"bos_token": ""})
        turn = compat.prompt("reference", benchmark, case["row"])
        rendered = template.render([{"role": "user", "content": turn}], add_generation_prompt=True)
        assert rendered.text == case["prompt"]


@pytest.mark.parametrize("benchmark", PROMPTS)
def test_settings_are_the_original_defaults_and_data_sets(benchmark):
    recorded, setting = PROMPTS[benchmark], compat.setting(benchmark)
    assert setting.defaults == recorded["defaults"]
    assert [list(place) for place in setting.hub] == recorded["hub_dataset_strings"]


def test_nothing_of_the_tables_is_left_out():
    assert len(list(letter_cases())) == 17 * 68
    assert sum(len(row["score_by_gt"]) for _, _, row in letter_cases()) == 4 * 16 * 68 + 2 * 68
    assert len(list(free_cases())) == 8 * 67 + 820 + 49 * 14 + 49 + 18
    assert len(AGGREGATES) == 39
    assert sum(len(table["prompts"]) for table in PROMPTS.values()) == 105


def test_an_unknown_profile_or_benchmark_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match='did you mean "reference"'):
        compat.score("referense", "coco", "A", "(A)")
    with pytest.raises(UnknownNameError, match='did you mean "mmbench_en"'):
        compat.score("reference", "mmbench-en", "A", "A")
    with pytest.raises(UnknownNameError, match='"docvqa"'):
        compat.score("reference", "docvqa", "A", "A")
    with pytest.raises(DataError, match="known of reference only"):
        compat.aggregate("lmms-eval", "mmvp", [{}])


def test_a_truth_or_a_column_that_is_not_what_the_file_has_is_an_error():
    nothing: Any = None
    with pytest.raises(DataError, match="expected a letter in brackets"):
        compat.score("reference", "coco", "A", "A")
    with pytest.raises(DataError, match="also needs text_options"):
        compat.score("reference", "mmvp", "A", "(A)")
    with pytest.raises(DataError, match="gqa: found the truth \\['red'\\], expected a text"):
        compat.score("reference", "gqa", "red", ["red"])
    with pytest.raises(DataError, match="textvqa: found the truth 'red', expected a list of texts"):
        compat.score("reference", "textvqa", "red", "red")
    with pytest.raises(DataError, match="gqa: found the reply None, expected a text"):
        compat.score("reference", "gqa", nothing, "red")
    with pytest.raises(DataError, match="also needs 'hint'"):
        compat.prompt("reference", "scienceqa", {"question": "Q?", "image": None})


@pytest.mark.parametrize(
    ("benchmark", "rows", "message"),
    [
        ("gqa", [], "expected at least one row"),
        ("gqa", [{"answer": "red"}], "gqa: the row holds answer; its rule also needs gt_answer"),
        (
            "seed",
            [{"answer": "A", "gt_answer": "A", "category": 0}],
            "seed: found category 0, expected a number from 1",
        ),
        ("mme", [{"answer": "A", "gt_answer": "A", "category": "x"}], "mme: found category 'x'; expected one of exist"),
        ("qbench", [{"answer": "A", "gt_answer": "A", "type": ""}], "qbench: found type '', expected a whole number"),
        ("docvqa", [{"answer": "A"}], "docvqa: the row holds answer; its rule also needs questionId"),
    ],
)
def test_a_file_that_is_not_what_the_script_reads_is_an_error(benchmark, rows, message):
    with pytest.raises(DataError, match=message):
        compat.aggregate("reference", benchmark, rows)


def test_a_truth_beyond_the_options_crashes_the_original():
    assert_abstains(compat.score("reference", "omni", "D", "(D)", options=["x", "y"]), {"raises": "IndexError"})


@pytest.mark.parametrize("benchmark", sorted(LETTERS))
@pytest.mark.parametrize("unit", ["answer is ", "(", ".:,", "a. "])
def test_a_reply_of_100_kilobytes_is_read(benchmark, unit):
    table = LETTERS[benchmark]
    reply = unit * (100_000 // len(unit))
    assert compat.score("reference", benchmark, reply, table["gt_values"][0], **table["row_constants"]).value in (0, 1)
