"""The tasks whose answers are written and not chosen: what they read, show, score and report."""

import dataclasses
import json

import pytest

from cambrian_eval import TASKS, DataError
from cambrian_eval.tasks import textvqa
from cambrian_eval.types import Answer, ScoredAnswer
from tests.eval.task_folders import LAYOUTS, ROWS, picture, rows_of, write_open_task, write_split
from tests.support.golden import golden_json

SPLITS = {name: TASKS.get(name).splits[0] for name in ROWS}


def read(task, folder, rows=None, *, split=None, layout="parquet"):
    write_open_task(folder, task, split or SPLITS[task], rows_of(task) if rows is None else rows, layout=layout)
    return TASKS.get(task).questions(folder, split or SPLITS[task])


def score(task, questions, replies):
    """Scored answers; `replies` is a text for all, a list, or a function of the question."""
    if isinstance(replies, str):
        replies = [replies] * len(questions)
    elif callable(replies):
        replies = [replies(question) for question in questions]
    return [
        ScoredAnswer(question, task.prompt(question), Answer(reply), task.score(question, reply))
        for question, reply in zip(questions, replies, strict=True)
    ]


def measure(name, questions, replies):
    task = TASKS.get(name)
    return task.metrics(score(task, questions, replies)).to_dict()


def truth(question):
    """What a model that knows everything replies: a letter where there are options, anything where nobody knows."""
    return question.answers[0] if question.answers else "anything"


def comparable(questions):
    return [
        (dataclasses.replace(question, pictures=()), [one.sha256 for one in question.pictures])
        for question in questions
    ]


@pytest.mark.parametrize("name", ROWS)
def test_every_form_of_the_data_holds_the_same_questions(tmp_path, name):
    rows = rows_of(name)
    if name == "mathvista":  # an imagefolder has one column of pictures, and it is `image`
        rows = [row | {"image": row["decoded_image"], "decoded_image": None} for row in rows]
    found = [comparable(read(name, tmp_path / layout, rows, layout=layout)) for layout in LAYOUTS]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 12


@pytest.mark.parametrize("name", ROWS)
def test_pictures_are_the_ones_of_their_rows(tmp_path, name):
    questions = read(name, tmp_path)
    seeds = {"mathvista": 1, "ocrbench": 1, "vizwiz": 1, "synthdog": 1, "mmvet": 1, "pope": 6}
    wanted = [picture(number // seeds.get(name, 2))["bytes"] for number in range(12)]
    assert [question.pictures[0].read() for question in questions] == wanted


REFERENCE = golden_json("scoring/eval_prompts")


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name in ROWS for case in range(len(REFERENCE[name]["prompts"]) // 3)]
)
def test_prompt_is_the_reference_s(tmp_path, name, case):
    recorded = [one for one in REFERENCE[name]["prompts"] if one["conv_mode"] == "vicuna_v1"][case]
    row = rows_of(name)[0]
    for field, value in recorded["row"].items():
        row[field] = {"<PIL image>": picture(0), 0: "n0"}.get(value, value) if not isinstance(value, list) else value
    if name == "mathvista":
        row |= {"answer_type": "text", "choices": ["3 cm", "4 cm"], "answer": "4 cm"}
    prompt = TASKS.get(name).prompt(read(name, tmp_path, [row] if name != "mme" else [row, row])[0])
    shown = recorded["prompt"].split("USER: <image>\n")[1].removesuffix(" ASSISTANT:")
    assert prompt.text == shown
    assert not isinstance(prompt.content[0], str)
    assert prompt.text.endswith("\n" + prompt.instruction) or not prompt.instruction


@pytest.mark.parametrize("name", ROWS)
def test_budget_is_no_larger_than_the_reference_s(tmp_path, name):
    task, questions = TASKS.get(name), read(name, tmp_path)
    assert all(
        0 < task.prompt(question).max_new_tokens <= REFERENCE[name]["defaults"]["max_new_tokens"]
        for question in questions
    )


@pytest.mark.parametrize("name", ROWS)
def test_hub_repository_is_the_reference_s(name):
    task = TASKS.get(name)
    assert task.hub.repo in {strings[0] for strings in REFERENCE[name]["hub_dataset_strings"]}
    assert task.description.endswith(" questions")
    assert str(task.num_questions or 4000) in task.description


REQUIRED = [
    (name, field)
    for name in ROWS
    for field in TASKS.get(name).fields
    if field not in {"unit", "metadata", "decoded_image", "question_types", "answer_type", "image"}
]


@pytest.mark.parametrize("layout", ["parquet", "jsonl"])
@pytest.mark.parametrize(("name", "field"), [*REQUIRED, ("mathvista", "answer_type"), ("pope", "image")])
def test_missing_field_is_named_with_what_is_there_and_what_is_needed(tmp_path, name, field, layout):
    rows = [{key: value for key, value in row.items() if key != field} for row in rows_of(name)]
    with pytest.raises(DataError, match=rf"missing field '{field}'; found: .*; needed: .*{field}"):
        read(name, tmp_path, rows, layout=layout)


@pytest.mark.parametrize("name", ROWS)
def test_wrong_split_names_the_one_found_and_the_one_needed(tmp_path, name):
    write_open_task(tmp_path, name, "train", rows_of(name))
    with pytest.raises(DataError, match=f"found split 'train' .*; needed split '{SPLITS[name]}'"):
        TASKS.get(name).questions(tmp_path, SPLITS[name])


@pytest.mark.parametrize("name", [name for name in ROWS if name not in {"chartqa", "ocrbench", "synthdog", "mme"}])
def test_repeated_id_is_an_error(tmp_path, name):
    rows = rows_of(name)
    with pytest.raises(DataError, match="occurs twice"):
        read(name, tmp_path, [*rows, rows[3]])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gqa", {"answer": ""}, "found answer '', expected a text"),
        ("gqa", {"types": "query"}, "found types 'query', expected named texts with 'structural'"),
        ("gqa", {"question": None}, "found question None, expected a text"),
        ("mme", {"answer": "maybe"}, "found answer 'maybe', expected one of yes, no"),
        ("mme", {"category": "dogs"}, "found category 'dogs', expected one of existence"),
        ("mathvista", {"answer": "6 cm"}, "found answer '6 cm', expected one of the choices"),
        ("mathvista", {"choices": ["4 cm"]}, "expected a list of 2 to 26"),
        ("mathvista", {"question_type": "multiple-choice"}, "expected one of multi_choice, free_form"),
        ("mathvista", {"question_type": "free_form", "precision": "two"}, "found precision 'two', expected a number"),
        ("mathvista", {"question_type": "free_form", "answer_type": "date"}, "found answer_type 'date'"),
        ("chartqa", {"type": "val"}, "found type 'val', expected one of human_test, augmented_test"),
        ("chartqa", {"answer": ["100"]}, r"found answer \['100'\], expected a text"),
        ("ocrbench", {"answer": []}, "expected at least one accepted answer"),
        ("ocrbench", {"question_type": "Poems"}, "found question_type 'Poems'"),
        ("textvqa", {"answers": ["nokia"]}, "expected the answers of 10 people"),
        ("textvqa", {"ocr_tokens": "NOKIA"}, "found ocr_tokens 'NOKIA', expected a list of texts"),
        ("docvqa", {"answers": None}, "expected at least one accepted answer"),
        ("docvqa", {"questionId": "a7"}, "found questionId 'a7', expected a whole number"),
        ("infovqa", {"answers": []}, "expected at least one accepted answer"),
        ("stvqa", {"question_id": 1.5}, "found question_id 1.5, expected a name or a whole number"),
        ("pope", {"answer": "y"}, "found answer 'y', expected one of yes, no"),
        ("pope", {"category": "rare"}, "found category 'rare'"),
        ("vizwiz", {"answers": "basil"}, "expected a list of texts"),
        ("vizwiz", {"category": None}, "found category None, expected a text"),
        ("synthdog", {"ground_truth": "text"}, "found ground_truth 'text', expected JSON such as"),
        ("synthdog", {"ground_truth": '{"gt_parse": {}}'}, "expected JSON such as"),
        ("synthdog", {"ground_truth": '{"gt_parse": {"text_sequence": " "}}'}, "expected JSON such as"),
        ("mmvet", {"answer": None}, "found answer None, expected a text"),
        ("mmvet", {"capability": 3}, "found capability 3"),
    ],
)
def test_bad_row_is_an_error_with_file_and_line(tmp_path, name, change, message):
    rows = rows_of(name)
    rows[4] = rows[4] | change
    with pytest.raises(DataError, match=rf"{SPLITS[name]}.jsonl:5: .*{message}"):
        read(name, tmp_path, rows, layout="jsonl")


@pytest.mark.parametrize("name", ROWS)
def test_broken_picture_file_is_named_when_a_model_looks(tmp_path, name):
    task = TASKS.get(name)
    write_open_task(tmp_path, name, SPLITS[name], rows_of(name), layout="jsonl")
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:40])
    shown = task.questions(tmp_path, SPLITS[name])[2].pictures[0]
    with pytest.raises(DataError, match=r"\.png: cannot be decoded as a picture"):
        shown.open()


def test_broken_picture_in_a_table_is_named_when_a_model_looks(tmp_path):
    rows = [row | {"image": {"bytes": b"no picture", "path": "page.png"}} for row in rows_of("docvqa")]
    with pytest.raises(DataError, match=r"page\.png: cannot be decoded as a picture"):
        read("docvqa", tmp_path, rows)[0].pictures[0].open()


@pytest.mark.parametrize("name", ROWS)
def test_all_right_and_all_wrong_reach_the_ends(tmp_path, name):
    task, questions = TASKS.get(name), read(name, tmp_path)
    best, worst = measure(name, questions, truth), measure(name, questions, "zebra crossing 777")
    if name in {"stvqa", "mmvet"}:
        assert best["score"] is None
        assert best["n_unscored"] == len(questions)
        return
    full = best["scores"]["score"]["full"]
    assert best["score"] == pytest.approx({"textvqa": 100, "mme": 400}.get(name, 100))
    assert best["scores"]["score"]["accuracy"] == best["score"] <= full
    assert worst["score"] <= 30  # only SynthDoG gives anything for letters that happen to agree
    assert best["published"] is False
    assert best["expected_n"] == task.num_questions


@pytest.mark.parametrize("name", [name for name in ROWS if name not in {"mmvet"}])
def test_empty_and_endless_replies_are_read_as_no_answer_or_in_time(tmp_path, name):
    task, questions = TASKS.get(name), read(name, tmp_path)
    for question in questions[:2]:
        empty = task.score(question, "")
        assert empty.extracted is None
        assert empty.rule.startswith("abstain")
        assert not empty.value
        assert (task.score(question, "so " * 34_000).value or 0) < 0.001


# GQA.


def test_gqa_is_clustered_by_picture_and_told_apart_by_type(tmp_path):
    questions = read("gqa", tmp_path)
    assert {question.group for question in questions} == {f"n{number}" for number in range(6)}
    replies = ["red" if question.task == "query" else "blue" for question in questions]
    result = measure("gqa", questions, replies)
    assert result["score"] == pytest.approx(100 / 3)
    assert (result["scores"]["open"]["accuracy"], result["scores"]["binary"]["accuracy"]) == (100, 0)
    assert result["tasks"]["query"]["accuracy"] == 100
    assert result["tasks"]["semantic attr"]["accuracy"] == 50
    assert result["tasks"]["semantic rel"]["accuracy"] == 0
    assert result["scores"]["score"]["num_units"] == 6


def test_gqa_reads_one_table_that_holds_its_pictures(tmp_path):
    rows = [row | {"image": picture(int(row["imageId"][1:]))} for row in rows_of("gqa")]
    write_split(tmp_path / "one", "testdev", rows)
    one = TASKS.get("gqa").questions(tmp_path / "one", "testdev")
    assert comparable(one) == comparable(read("gqa", tmp_path / "two"))


def test_gqa_names_a_picture_that_its_table_lacks(tmp_path):
    rows = rows_of("gqa")
    write_open_task(tmp_path, "gqa", "testdev", rows)
    write_split(tmp_path, "testdev", [rows[0] | {"imageId": "n77"}], config="testdev_balanced_instructions")
    with pytest.raises(DataError, match="picture 'n77' is not among the 6 of testdev_balanced_images"):
        TASKS.get("gqa").questions(tmp_path, "testdev")


# MME.


def test_mme_adds_accuracy_and_pair_accuracy_over_subtasks(tmp_path):
    questions = read("mme", tmp_path)  # two pictures, four questions in each of three subtasks
    wrong = {"existence": {0}, "OCR": {0, 1}, "code_reasoning": {0, 2}}
    seen = dict.fromkeys(wrong, -1)

    def reply(question):
        seen[question.task] += 1
        right = question.answers[0]
        return right if seen[question.task] not in wrong[question.task] else {"yes": "no", "no": "yes"}[right]

    result = measure("mme", questions, reply)
    assert result["tasks"]["existence"]["accuracy"] == pytest.approx(75 + 50)
    assert result["tasks"]["OCR"]["accuracy"] == pytest.approx(50 + 50)
    assert result["tasks"]["code_reasoning"]["accuracy"] == pytest.approx(50 + 0)
    assert result["score"] == pytest.approx(225)
    assert result["cognition"] == pytest.approx(50)
    assert result["scores"]["score"]["full"] == 400
    assert result["scores"]["cognition"]["full"] == 200
    assert result["scores"]["perception_accuracy"]["accuracy"] == pytest.approx(62.5)
    assert result["scores"]["perception_acc_plus"]["accuracy"] == pytest.approx(50)
    assert result["scores"]["score"]["chance"] == 150
    assert result["tasks"]["existence"]["best_constant"] == 50
    assert next(iter(result["scores"])) == "score"


def test_mme_of_all_subtasks_is_out_of_2000_and_800(tmp_path):
    from cambrian_eval.tasks.mme import SUBTASKS

    rows = []
    for number, name in enumerate(name for names in SUBTASKS.values() for name in names):
        pair = [rows_of("mme")[0], rows_of("mme")[1]]
        rows += [row | {"category": name, "question_id": f"{number}.png"} for row in pair]
    result = measure("mme", read("mme", tmp_path, rows), truth)
    assert (result["score"], result["cognition"]) == (2000, 800)


def test_mme_pair_with_one_question_left_out_counts_for_nothing(tmp_path):
    questions = read("mme", tmp_path)
    result = measure(
        "mme", questions[1:], lambda question: "no" if question.group == questions[0].group else truth(question)
    )
    assert result["n_incomplete_pairs"] == 1
    assert result["tasks"]["existence"]["num_units"] == 1
    assert result["score"] == pytest.approx(400)
    alone = measure("mme", [questions[0]], truth)
    assert alone["score"] is None
    assert alone["n_incomplete_pairs"] == 1


def test_mme_picture_with_three_questions_is_an_error(tmp_path):
    rows = rows_of("mme")
    with pytest.raises(DataError, match=r"picture OCR: OCR/0001.png has 3 questions, expected 2"):
        read("mme", tmp_path, [*rows, rows[2]])


# MathVista.


def test_mathvista_reads_options_as_letters_and_numbers_by_their_precision(tmp_path):
    task, questions = TASKS.get("mathvista"), read("mathvista", tmp_path)
    chosen, written = questions[:2]
    assert (chosen.choices, chosen.answers) == (("3 cm", "4 cm", "5 cm"), ("B",))
    assert task.score(chosen, "It is twice as long. So the answer is (B).").value == 1
    assert task.score(chosen, "4 cm").value == 1
    assert task.score(written, "The answer is 1.5").value == 1
    assert task.score(written, "1.9").value == 0
    result = measure("mathvista", questions, lambda question: "B" if question.choices else "7")
    assert result["score"] == 50
    assert (result["scores"]["multi_choice"]["accuracy"], result["scores"]["free_form"]["accuracy"]) == (100, 0)
    assert result["scores"]["multi_choice"]["chance"] == pytest.approx(100 / 3)
    assert result["scores"]["free_form"]["chance"] is None
    assert result["tasks"]["geometry problem solving"]["accuracy"] == 100


# ChartQA, OCRBench.


def test_chartqa_has_both_halves_and_forgives_five_percent(tmp_path):
    questions = read("chartqa", tmp_path)
    result = measure("chartqa", questions, lambda question: "104" if question.answers == ("100",) else "denmark.")
    assert result["score"] == 100
    assert set(result["tasks"]) == {"human", "augmented"}
    assert measure("chartqa", questions[1:3], "106")["score"] == 0
    assert result["scores"]["score"]["num_units"] == 6


def test_ocrbench_counts_points_out_of_what_was_asked(tmp_path):
    questions = read("ocrbench", tmp_path, rows_of("ocrbench", 10))
    replies = ["the word is centre" if number < 7 else "no idea" for number in range(10)]
    result = measure("ocrbench", questions, replies)
    # Formulas keep their case: of the two handwritten ones, number 4 is answered in another case.
    assert (result["points"], result["points_of"]) == (6, 10)
    assert result["score"] == pytest.approx(60)
    assert set(result["parts"]) == {
        "Text Recognition",
        "Scene Text-centric VQA",
        "Doc-oriented VQA",
        "Key Information Extraction",
        "Handwritten Mathematical Expression Recognition",
    }
    assert result["published"] is False


def test_ocrbench_of_a_thousand_questions_is_published(tmp_path):
    question = read("ocrbench", tmp_path)[0]
    thousand = [dataclasses.replace(question, id=str(number)) for number in range(1000)]
    result = measure("ocrbench", thousand, "CENTRE")
    assert (result["points"], result["points_of"], result["published"]) == (1000, 1000, True)


# TextVQA, VizWiz.


def test_textvqa_without_ocr_shows_the_question_alone(tmp_path):
    shown = read("textvqa", tmp_path)
    assert "\nReference OCR tokens: NOKIA, 5:30\n" in textvqa.TASK.prompt(shown[0]).text
    alone = textvqa.WITHOUT_OCR.questions(tmp_path, "validation")
    assert textvqa.WITHOUT_OCR.prompt(alone[0]).text == (
        "what is the brand?\nAnswer the question using a single word or phrase."
    )
    assert [question.answers for question in alone] == [question.answers for question in shown]


def test_textvqa_without_ocr_needs_no_ocr_tokens(tmp_path):
    rows = [{name: value for name, value in row.items() if name != "ocr_tokens"} for row in rows_of("textvqa")]
    write_split(tmp_path, "validation", rows)
    assert len(textvqa.WITHOUT_OCR.questions(tmp_path, "validation")) == 12


def test_soft_accuracy_is_agreement_with_ten_people(tmp_path):
    questions = read("textvqa", tmp_path)
    assert measure("textvqa", questions, "Nokia")["score"] == 100
    assert measure("textvqa", questions, "toshiba")["score"] == pytest.approx(30)  # nine of ten see 1/3, one sees 0
    assert measure("textvqa", questions, "nokia")["scores"]["score"]["num_units"] == 6


def test_vizwiz_has_a_row_for_every_type_of_answer(tmp_path):
    result = measure("vizwiz", read("vizwiz", tmp_path), "basil")
    assert set(result["tasks"]) == {"other", "unanswerable", "yes/no", "number"}


# DocVQA, InfographicVQA.


def test_document_s_kind_may_be_one_text_or_a_list(tmp_path):
    rows = rows_of("infovqa")
    rows[0]["answer_type"] = "multi span"
    questions = read("infovqa", tmp_path, rows, layout="jsonl")
    assert (questions[0].details["kinds"], questions[1].details["kinds"]) == (["multi span"], ["single span"])


def test_documents_are_scored_by_their_nearest_answer_and_by_kind(tmp_path):
    questions = read("docvqa", tmp_path)
    result = measure("docvqa", questions, lambda question: "May 3, 1969" if int(question.id) % 2 else "banana")
    assert result["score"] == 50
    assert result["tasks"]["form"]["n"] == 12
    assert result["tasks"]["handwritten"]["n"] == 6
    assert {result["tasks"]["handwritten"]["accuracy"], result["tasks"]["form"]["accuracy"]} == {0, 50}
    assert questions[0].group == questions[1].group != questions[2].group


# POPE.


def test_pope_counts_the_yes_of_the_answers_and_leaves_the_unread_out_of_both(tmp_path):
    questions = read("pope", tmp_path, rows_of("pope", 24))
    assert measure("pope", questions, "yes")["yes_rate"] == 100
    assert measure("pope", questions, "yes")["score"] == 50

    def reply(question):
        return {"random": "Yes.", "popular": truth(question), "adversarial": "I see trees."}[question.part]

    result = measure("pope", questions, reply)
    # 8 in each category, half of them present. Random: 4 of 8 right, all yes. Popular: all right. Adversarial: unread.
    assert result["score"] == pytest.approx(100 * 12 / 24)
    assert result["precision"] == pytest.approx(100 * 8 / 12)
    assert result["recall"] == pytest.approx(100 * 8 / 12)
    assert result["f1"] == pytest.approx(100 * 8 / 12)
    assert result["yes_rate"] == pytest.approx(100 * 12 / 24)
    assert result["parse_rate"] == pytest.approx(100 * 16 / 24)
    assert result["by_category"]["random"]["precision"] == 50
    assert result["by_category"]["random"]["recall"] == 100
    assert result["by_category"]["adversarial"] == {
        "accuracy": 0,
        "precision": None,
        "recall": 0,
        "f1": 0,
        "yes_rate": 0,
    }
    assert result["scores"]["score"]["num_units"] == 4
    assert result["scores"]["score"]["chance"] == result["scores"]["score"]["best_constant"] == 50


# SynthDoG, MM-Vet.


def test_synthdog_counts_pages_within_a_number_of_edits(tmp_path):
    questions = read("synthdog", tmp_path, rows_of("synthdog", 4))
    texts = [question.answers[0] for question in questions]
    result = measure("synthdog", questions, [texts[0].upper(), texts[1] + "abc", texts[2] + " and more!", ""])
    within = {limit: result["scores"][f"within_{limit}"]["accuracy"] for limit in (0, 5, 10, 25, 50)}
    assert within == {0: 25, 5: 50, 10: 75, 25: 75, 50: 100}
    assert 50 < result["score"] < 75


def test_mmvet_has_no_score_without_a_judge_and_says_so(tmp_path):
    task, questions = TASKS.get("mmvet"), read("mmvet", tmp_path)
    scored = task.score(questions[0], "x = -1 or -5")
    assert (scored.value, scored.extracted, scored.rule) == (None, "x = -1 or -5", "none: needs a judge")
    assert task.score(questions[0], " ").rule == "abstain: empty reply"
    assert questions[0].task == "math, ocr"


def test_the_judge_s_scores_make_mmvet_s_score(tmp_path):
    task, questions = TASKS.get("mmvet"), read("mmvet", tmp_path)
    answers = score(task, questions, "x = -1")
    judged = [dataclasses.replace(one, score=dataclasses.replace(one.score, value=0.5)) for one in answers]
    assert task.metrics(judged).summary["score"] == 50


def test_details_of_questions_are_plain_json(tmp_path):
    for name in ROWS:
        for question in read(name, tmp_path / name):
            assert json.loads(json.dumps(dict(question.details))) == question.details
