"""Multiple-choice benchmarks: what is read from their data, how it is asked, how it is scored."""

import csv
import dataclasses
import io
import json
import shutil
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cambrian_eval import TASKS, Answer, DataError
from cambrian_eval.examples import FILES, PICTURE, example_files, write_example
from cambrian_eval.labelled_options import UNKNOWN, cut_lines, cut_options
from cambrian_eval.selection import shuffle_pictures
from cambrian_eval.tasks.blink import ONE_PICTURE, SUBTASKS
from cambrian_eval.tasks.mmstar import find_options
from cambrian_eval.types import ScoredAnswer
from tests.eval.benchmark_folder import png
from tests.eval.task_folders import LAYOUTS, picture, write_split

NAMES = (
    "ai2d",
    "blink",
    "mmbench-cn",
    "mmbench-en",
    "mmmu",
    "mmstar",
    "mmvp",
    "qbench",
    "realworldqa",
    "scienceqa",
    "seed",
    "vstar",
)
OPTIONS = ["it's a cat", 'the "dog"', "公交车", "a tree"]
LETTERS = "ABCD"


def read(name, folder, split=None):
    task = TASKS.get(name)
    return task.questions(folder, split or task.splits[0])


def example(name, folder):
    """A folder with the made-up rows of a task, and its questions."""
    folder.mkdir(exist_ok=True)
    write_example(TASKS.get(name), folder, png(1))
    return read(name, folder)


def lines(folder, name, rows):
    """Writes rows as they are, with one picture beside them that they may name."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / PICTURE).write_bytes(png(1))
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return folder


def made_up(name, **changes):
    """One made-up row of a task, with changes."""
    (rows, *_) = FILES[name].values()
    return {**rows[0], **changes}


def only_file(name):
    (file, *_) = FILES[name]
    return file


def metrics(name, questions, reply):
    """The metrics of a task where every question is answered with what `reply` says to it."""
    task = TASKS.get(name)
    answers = [
        ScoredAnswer(question, task.prompt(question), Answer(reply(question)), task.score(question, reply(question)))
        for question in questions
    ]
    return task.metrics(answers).to_dict()


def right(question):
    return question.answers[0]


# What every one of them holds to.


@pytest.mark.parametrize("name", NAMES)
def test_example_is_read_asked_and_scored_with_the_right_letter(name, tmp_path):
    questions = example(name, tmp_path)
    for question in questions:
        prompt = TASKS.get(name).prompt(question)
        assert prompt.choices == question.choices
        assert len(question.choices) >= 2
        assert question.answers[0] in LETTERS
        assert prompt.pictures == question.pictures
        assert len(prompt.pictures) >= 1
        assert prompt.text.endswith(prompt.instruction)
        assert "letter" in prompt.instruction or "字母" in prompt.instruction
        assert all(choice in prompt.text for choice in question.choices)
    found = metrics(name, questions, right)
    assert found["score"] == 100
    assert found["parse_rate"] == 100
    assert found["published"] is False
    assert found["expected_n"] == TASKS.get(name).num_questions
    first, *_ = found["scores"]
    assert first == "score"
    wrong = metrics(name, questions, lambda question: "B" if right(question) == "A" else "A")
    assert wrong["score"] == 0
    silent = metrics(name, questions, lambda question: "")
    assert (silent["score"], silent["parse_rate"]) == (0, 0)


@pytest.mark.parametrize(("name", "field"), [(name, field) for name in NAMES for field in TASKS.get(name).fields])
def test_missing_field_is_named_beside_those_needed(name, field, tmp_path):
    if " to " in field:
        field = field.split(" to ")[0]
    files = {file: [{k: v for k, v in row.items() if k != field} for row in rows] for file, rows in FILES[name].items()}
    if files == FILES[name]:
        pytest.skip(f"{field} may be missing")
    for file, rows in files.items():
        lines(tmp_path, file, rows)
        if file.endswith(".json"):
            (tmp_path / file).write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(DataError, match=rf"(missing field '{field}'.*needed: )|(found picture '')|(MMVP Images)"):
        read(name, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_split_is_named_beside_the_one_needed(name, tmp_path):
    lines(tmp_path, "train2.jsonl", [made_up(name)])
    with pytest.raises(DataError) as error:
        read(name, tmp_path)
    assert "'train2'" in str(error.value) or "train2.jsonl" in str(error.value)
    assert f"'{TASKS.get(name).splits[0]}'" in str(error.value)


@pytest.mark.parametrize("name", ["blink", "mmbench-en", "mmmu", "mmstar", "mmvp", "seed", "vstar"])
def test_two_questions_of_one_id_are_refused(name, tmp_path):
    lines(tmp_path, only_file(name), [made_up(name), made_up(name)])
    with pytest.raises(DataError, match="occurs twice"):
        read(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("ai2d", "answer", "4"),
        ("ai2d", "answer", "A"),
        ("blink", "answer", "(D)"),
        ("blink", "answer", "hidden"),
        ("mmbench-en", "answer", "E"),
        ("mmbench-en", "answer", "nan"),
        ("mmmu", "answer", "E"),
        ("mmstar", "answer", "F"),
        ("mmvp", "Correct Answer", "(c)"),
        ("qbench", "correct_ans", "Maybe"),
        ("realworldqa", "answer", "E"),
        ("scienceqa", "answer", 2),
        ("scienceqa", "answer", -1),
        ("seed", "answer", "E"),
        ("vstar", "label", "C"),
    ],
)
def test_answer_that_is_not_offered_is_refused_with_its_place(name, field, value, tmp_path):
    file = only_file(name)
    lines(tmp_path, file, [made_up(name, **{field: value})])
    if file.endswith(".json"):
        (tmp_path / file).write_text(json.dumps([made_up(name, **{field: value})]), encoding="utf-8")
    with pytest.raises(DataError, match=rf"{file}:1: found {field}"):
        read(name, tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["ai2d", "mmbench-cn", "mmstar", "mmvp", "realworldqa", "scienceqa", "seed"])
def test_every_layout_gives_the_same_questions(name, layout, tmp_path):
    task = TASKS.get(name)
    (rows,) = FILES[name].values()
    embedded = [{**row, "image": picture(7)} for row in rows]
    questions = read(name, write_split(tmp_path / layout, task.splits[0], embedded, layout=layout))
    expected = example(name, tmp_path / "example")
    assert [question.text for question in questions] == [question.text for question in expected]
    assert [question.answers for question in questions] == [question.answers for question in expected]
    assert all(question.pictures[0].read() == png(7) for question in questions)


def test_picture_that_leads_out_of_the_folder_is_refused(tmp_path):
    lines(tmp_path, "test.jsonl", [made_up("ai2d", image="../picture.png")])
    with pytest.raises(DataError, match="inside the data's folder"):
        read("ai2d", tmp_path)


# Prompts, against those of the original.


def _reference(shared, benchmark):
    """The rows of the recorded prompts and the user's turn that the original makes of each."""
    path = shared / "reference" / "scoring" / "eval_prompts" / "prompts.json"
    if not path.is_file():
        pytest.skip(f"recorded prompts are not here: {path}")
    recorded = json.loads(path.read_text(encoding="utf-8"))[benchmark]["prompts"]
    return [
        (entry["row"], entry["prompt"].split("<|user|>\n")[1].split("<|end|>")[0])
        for entry in recorded
        if entry["conv_mode"] == "phi3"
    ]


def _seen(prompt):
    return "\n".join(part if isinstance(part, str) else "<image>" for part in prompt.content)


def _as_data(name, row):
    """A recorded row with what our reader needs beside it."""
    changes = {field: value for field, value in row.items() if not field.startswith("image") and field != "img_path"}
    if name == "mmvp":
        changes = {"Question": row["question"], "Options": row["options"]}
    if name == "blink":
        changes |= {"image_2": None, "image_3": None, "choices": ["x", "y"]}
    if name == "mmmu":
        changes |= {"answer": "x" if row["question_type"] == "open" else "A", "image_2": row["image_2"] and PICTURE}
    if name == "qbench":
        changes |= {"correct_ans": row["candidates"][0]}
    if name == "realworldqa":
        changes |= {"answer": "x"}
    if name == "scienceqa":
        changes |= {"image": row["image"] and PICTURE}
    if name == "seed":
        changes |= {"image": [PICTURE]}
    return made_up(name, **changes)


@pytest.mark.parametrize("name", NAMES)
def test_prompt_is_what_the_original_asks(name, shared, tmp_path):
    benchmark = name.replace("-", "_")
    for number, (row, expected) in enumerate(_reference(shared, benchmark)):
        if name == "mmmu" and number > 0:
            continue  # the original shows one picture of two, and cuts options at apostrophes: see below
        folder = tmp_path / str(number)
        data = _as_data(name, row)
        lines(folder, only_file(name), [data])
        if name == "qbench":
            (folder / only_file(name)).write_text(json.dumps([data]), encoding="utf-8")
        (question,) = read(name, folder)
        assert _seen(TASKS.get(name).prompt(question)) == expected


def test_mmmu_differs_from_the_original_in_pictures_and_quotes(shared, tmp_path):
    _, (two, their_two), (quoted, their_quoted) = _reference(shared, "mmmu")
    lines(tmp_path / "two", "validation.jsonl", [_as_data("mmmu", two)])
    lines(tmp_path / "quoted", "validation.jsonl", [_as_data("mmmu", quoted)])
    task = TASKS.get("mmmu")
    (question,) = read("mmmu", tmp_path / "two")
    assert _seen(task.prompt(question)).count("<image>") == 2 > their_two.count("<image>")
    (question,) = read("mmmu", tmp_path / "quoted")
    assert question.choices == ("it's", "x", "y")
    assert "A. it's\nB. x\nC. y" in task.prompt(question).text
    assert "A. it's\nB. x" not in their_quoted


# Options with apostrophes, quotes, Chinese, and equal ones.


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("ai2d", {"options": OPTIONS}),
        ("blink", {"choices": OPTIONS, "prompt": "\n".join(OPTIONS)}),
        ("mmbench-cn", dict(zip(LETTERS, OPTIONS, strict=True))),
        ("mmmu", {"options": repr(OPTIONS)}),
        ("mmmu", {"options": OPTIONS}),
        ("mmstar", {"question": 'What?\nOptions: A: it\'s a cat, B: the "dog", C: 公交车, D: a tree'}),
        ("mmstar", {"question": 'What?\nChoices:\n(A) it\'s a cat\n(B) the "dog"\n(C) 公交车\n(D) a tree'}),
        ("mmvp", {"Options": '(a) it\'s a cat (b) the "dog" (c) 公交车 (d) a tree'}),
        (
            "realworldqa",
            {
                "question": 'What?\n\nA. it\'s a cat\nB. the "dog"\nC. 公交车\nD. a tree\n'
                "Please answer directly with only the letter of the correct option and nothing else."
            },
        ),
        ("scienceqa", {"choices": OPTIONS}),
        ("seed", {f"choice_{letter.lower()}": text for letter, text in zip(LETTERS, OPTIONS, strict=True)}),
        ("vstar", {"text": 'What?\n(A) it\'s a cat\n(B) the "dog"\n(C) 公交车\n(D) a tree'}),
    ],
)
def test_options_are_read_as_they_stand(name, changes, tmp_path):
    (question,) = read(name, lines(tmp_path, only_file(name), [made_up(name, **changes)]))
    assert list(question.choices) == OPTIONS
    assert all(option in TASKS.get(name).prompt(question).text for option in OPTIONS)
    for letter, option in zip(LETTERS, OPTIONS, strict=True):
        assert TASKS.get(name).score(question, option).extracted == letter


def test_equal_options_are_told_apart_by_letter_only(tmp_path):
    (question,) = read("ai2d", lines(tmp_path, "test.jsonl", [made_up("ai2d", options=["cat", "cat", "bus", "tree"])]))
    assert TASKS.get("ai2d").score(question, "A").value == 1
    assert TASKS.get("ai2d").score(question, "B").value == 0
    assert TASKS.get("ai2d").score(question, "cat").extracted is None


def test_qbench_takes_the_right_text_under_any_letter(tmp_path):
    row = made_up("qbench", candidates=["blur", "noise", "blur"], correct_ans="blur")
    (tmp_path / PICTURE).write_bytes(png(1))
    (tmp_path / "llvisionqa_dev.json").write_text(json.dumps([row]), encoding="utf-8")
    (question,) = read("qbench", tmp_path)
    assert [TASKS.get("qbench").score(question, letter).value for letter in "ABC"] == [1, 0, 1]


def test_cut_options_stops_where_the_letters_do():
    assert cut_options("What (a)? x", r"\({}\)") == ("What (a)? x", ())
    assert cut_options("(A) one (B) two (D) four", r"\({}\)") == ("", ("one", "two (D) four"))
    assert cut_lines("Which?\nA. left (B)\nB. right\nA. again") == ("left (B)", "right\nA. again")
    assert cut_lines("A.M. or P.M.?") == ()


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("Q?\nOptions: A: 1, B: 2, C: 3, D: 4", ("1", "2", "3", "4")),
        ("Q?\nOptions: A: Yes, B: No, C: nan, D: nan", ("Yes", "No")),
        ("Hint: A: no. Q?\nOptions: A: a, b, B: c: d", ("a, b", "c: d")),
        ("Choices: none\nOptions: A: x, B: y", ("x", "y")),
        ("Q without a list", ()),
    ],
)
def test_options_of_mmstar_are_found_in_its_text(text, options):
    assert find_options(text) == options


def test_options_that_cannot_be_found_are_letters_and_counted(tmp_path):
    rows = [made_up("mmstar", index=0), made_up("mmstar", index=1, question="Which one?", answer="D")]
    questions = read("mmstar", lines(tmp_path, "val.jsonl", rows))
    assert questions[1].choices == UNKNOWN
    assert metrics("mmstar", questions, right)["score"] == 100
    assert metrics("mmstar", questions, right)["n_unknown_options"] == 1


# MMVP.


def mmvp_row(index, answer, question="Open or closed?"):
    return {"Index": index, "Question": question, "Options": "(a) Open (b) Closed", "Correct Answer": answer}


def write_mmvp(folder, rows, header=("lndex", "Question", "Options", "Correct Answer")):
    """The published form: a table with its misspelt header, pictures in their folder."""
    (folder / "MMVP Images").mkdir(parents=True)
    with (folder / "Questions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerows(row.values() for row in rows)
    for row in rows:
        (folder / "MMVP Images" / f"{row['Index']}.jpg").write_bytes(png(row["Index"]))
    return folder


def test_mmvp_counts_pairs_by_index_and_not_by_line(tmp_path):
    rows = [mmvp_row(2, "(b)"), mmvp_row(3, "(a)"), mmvp_row(1, "(a)"), mmvp_row(4, "(b)")]
    questions = read("mmvp", write_mmvp(tmp_path, rows))
    assert [question.group for question in questions] == ["pair 1", "pair 2", "pair 1", "pair 2"]
    assert questions[0].pictures[0].read() == png(2)
    always_a = metrics("mmvp", questions, lambda question: "(a)")
    assert (always_a["score"], always_a["scores"]["single"]["accuracy"]) == (0, 50)
    half = metrics("mmvp", questions, lambda question: right(question) if question.id in "123" else "A")
    assert half["score"] == 50
    assert half["scores"]["score"]["num_units"] == 2
    assert half["scores"]["score"]["chance"] == 25
    assert half["scores"]["score"]["best_constant"] == 0
    assert half["scores"]["single"]["accuracy"] == 75


def test_mmvp_leaves_a_broken_pair_out_and_says_so(tmp_path):
    questions = read("mmvp", write_mmvp(tmp_path, [mmvp_row(n, "(a)" if n % 2 else "(b)") for n in (1, 2, 3, 4)]))
    found = metrics("mmvp", questions[:3], right)
    assert found["n_incomplete_pairs"] == 1
    assert found["scores"]["score"]["num_units"] == 1
    alone = metrics("mmvp", questions[:1], right)
    assert alone["score"] is None
    assert alone["scores"]["single"]["accuracy"] == 100


def test_mmvp_is_scored_on_published_and_on_corrected_labels(tmp_path):
    asked = "Does the elephant have long or short tusks?"
    rows = [mmvp_row(1, "(a)"), mmvp_row(2, "(b)"), mmvp_row(99, "(a)", asked), mmvp_row(100, "(b)", asked)]
    questions = read("mmvp", write_mmvp(tmp_path / "published", rows))
    found = metrics("mmvp", questions, right)
    assert (found["score"], found["scores"]["corrected"]["accuracy"], found["labels"]) == (100, 50, "published")
    swapped = [*rows[:2], mmvp_row(99, "(b)", asked), mmvp_row(100, "(a)", asked)]
    found = metrics("mmvp", read("mmvp", write_mmvp(tmp_path / "corrected", swapped)), right)
    assert (found["score"], found["scores"]["corrected"]["accuracy"], found["labels"]) == (100, 100, "corrected")


def test_mmvp_without_an_index_is_refused(tmp_path):
    header = ("Number", "Question", "Options", "Correct Answer")
    with pytest.raises(DataError, match="missing field 'Index'"):
        read("mmvp", write_mmvp(tmp_path, [mmvp_row(1, "(a)")], header))


def test_mmvp_without_a_picture_names_it(tmp_path):
    write_mmvp(tmp_path, [mmvp_row(1, "(a)")])
    (tmp_path / "MMVP Images" / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"Questions.csv:2: picture MMVP Images/1.jpg is missing"):
        read("mmvp", tmp_path)


# MMBench.


def rotations(index, options, answer, **changes):
    """A question as MMBench has it: once for every turn of its options."""
    turned = []
    for turn in range(len(options)):
        order = options[turn:] + options[:turn]
        cells = dict(zip(LETTERS, [*order, *["nan"] * (4 - len(order))], strict=True))
        letter = LETTERS[order.index(answer)]
        turned.append(made_up("mmbench-en", index=index + turn * 1_000_000, answer=letter, **cells, **changes))
    return turned


def test_mmbench_is_right_where_all_rotations_are(tmp_path):
    rows = [*rotations(1, ["cat", "dog", "bus"], "dog"), *rotations(2, ["left", "right"], "left", category="place")]
    questions = read("mmbench-en", lines(tmp_path, "dev.jsonl", rows))
    assert [question.group for question in questions] == ["1", "1", "1", "2", "2"]
    assert [len(question.choices) for question in questions] == [3, 3, 3, 2, 2]
    found = metrics("mmbench-en", questions, lambda question: "left" if question.group == "2" else "A")
    scores = found["scores"]
    assert (scores["score"]["accuracy"], scores["vanilla"]["accuracy"]) == (50, 50)
    assert scores["micro"]["accuracy"] == pytest.approx(60)
    assert scores["score"]["num_units"] == 2
    assert scores["score"]["chance"] == pytest.approx(100 * (1 / 27 + 1 / 4) / 2)
    assert scores["vanilla"]["chance"] == pytest.approx(100 * (1 / 3 + 1 / 2) / 2)
    assert found["tasks"]["place"]["accuracy"] == 100
    assert metrics("mmbench-en", questions, lambda question: "A")["scores"]["score"]["accuracy"] == 0


def test_mmbench_with_unnumbered_rotations_groups_what_is_asked_of_one_picture(tmp_path):
    rows = [{**row, "index": number} for number, row in enumerate(rotations(1, ["cat", "dog"], "dog"))]
    rows.append(made_up("mmbench-en", index=9, question="Another one?"))
    questions = read("mmbench-en", lines(tmp_path, "dev.jsonl", rows))
    assert [question.group for question in questions] == ["0", "0", "9"]
    assert [question.details["rotation"] for question in questions] == [0, 1, 0]


def test_mmbench_test_rows_without_answers_are_asked_and_not_scored(tmp_path):
    rows = [made_up("mmbench-cn", index=1, answer="nan"), made_up("mmbench-cn", index=2, question="几只?", answer="B")]
    questions = read("mmbench-cn", lines(tmp_path, "test.jsonl", rows), "test")
    assert [question.answers for question in questions] == [(), ("B",)]
    found = metrics("mmbench-cn", questions, lambda question: "B")
    assert (found["n_unscored"], found["score"], found["parse_rate"]) == (1, 100, 100)
    none = metrics("mmbench-cn", questions[:1], lambda question: "B")
    assert none["score"] is None


def test_mmbench_in_chinese_is_asked_and_read_in_chinese(tmp_path):
    (question,) = example("mmbench-cn", tmp_path)
    assert TASKS.get("mmbench-cn").prompt(question).instruction == "请直接回答选项字母。"
    assert TASKS.get("mmbench-cn").score(question, "答案是(A)").value == 1
    assert TASKS.get("mmbench-cn").score(question, "狗").extracted == "B"


def test_mmbench_options_with_a_gap_are_refused(tmp_path):
    with pytest.raises(DataError, match="found options A, B, D, expected"):
        read("mmbench-en", lines(tmp_path, "dev.jsonl", [made_up("mmbench-en", C="nan")]))


def test_mmbench_reads_either_spelling_of_the_ability_and_needs_one(tmp_path):
    row = made_up("mmbench-en")
    row["L2-category"] = row.pop("l2-category")
    (question,) = read("mmbench-en", lines(tmp_path, "dev.jsonl", [row]))
    assert question.part == "finegrained_perception"
    del row["L2-category"]
    with pytest.raises(DataError, match="missing field 'l2-category'"):
        read("mmbench-en", lines(tmp_path, "dev.jsonl", [row]))


def test_mmbench_hint_stands_before_the_question(tmp_path):
    (question,) = read("mmbench-en", lines(tmp_path, "dev.jsonl", [made_up("mmbench-en", hint="Look closely.")]))
    assert question.text.startswith("Look closely.\nWhat is on the table? Options:\nA. a cat")


# SEED-Bench.


def test_seed_leaves_videos_out_and_counts_them(tmp_path):
    frames = [picture(1), picture(2)]
    rows = [
        {**made_up("seed", question_id="1", data_type="image"), "image": [picture(1)]},
        {**made_up("seed", question_id="2", data_type="video", question_type_id=10), "image": frames},
        {**made_up("seed", question_id="3", data_type="image"), "image": [picture(1)]},
    ]
    questions = read("seed", write_split(tmp_path, "test", rows))
    assert [question.id for question in questions] == ["1", "3"]
    assert questions[0].group == questions[1].group
    assert questions[0].pictures[0].data is questions[1].pictures[0].data
    found = metrics("seed", questions, right)
    assert (found["n_left_out"], found["scores"]["score"]["num_units"]) == (1, 1)
    with pytest.raises(DataError, match="found 1 questions on videos only"):
        read("seed", write_split(tmp_path / "videos", "test", rows[1:2]))


def test_seed_refuses_a_kind_it_does_not_know(tmp_path):
    with pytest.raises(DataError, match="found question_type_id 12, expected a number from 1 to 9"):
        read("seed", lines(tmp_path, "test.jsonl", [made_up("seed", question_type_id=12)]))


# MMMU.


def mmmu(folder, **changes):
    (question,) = read("mmmu", lines(folder, "validation.jsonl", [made_up("mmmu", **changes)]))
    return question


def test_mmmu_shows_pictures_where_they_are_named(tmp_path):
    question = mmmu(tmp_path, question="Compare <image 2> with <image 1>.", options="['<image 2>', 'none']")
    content = TASKS.get("mmmu").prompt(question).content
    assert [part if isinstance(part, str) else "P" for part in content] == [
        "Compare",
        "P",
        "with",
        "P",
        ". Options:\nA.",
        "P",
        f"B. none\n{TASKS.get('mmmu').prompt(question).instruction}",
    ]
    assert content[1] is question.pictures[1]
    assert content[3] is question.pictures[0]


def test_mmmu_without_pictures_or_with_others_still_asks(tmp_path):
    question = mmmu(tmp_path)
    task = TASKS.get("mmmu")
    blind = task.prompt(dataclasses.replace(question, pictures=()))
    assert blind.pictures == ()
    assert "<image" not in blind.text
    assert blind.text.startswith("Which work is older,")
    one = task.prompt(dataclasses.replace(question, pictures=question.pictures[:1]))
    assert len(one.pictures) == 1
    three = task.prompt(dataclasses.replace(question, pictures=(*question.pictures, question.pictures[0])))
    assert len(three.pictures) == 3


def test_mmmu_names_a_picture_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="names <image 3> and 2 pictures"):
        mmmu(tmp_path, question="What is in <image 3>?")


def test_mmmu_open_questions_are_read_as_numbers_or_texts(tmp_path):
    score = TASKS.get("mmmu").score
    number = mmmu(tmp_path / "number", question_type="open", options="[]", answer="['1/2', '0.5']")
    assert number.answers == ("1/2", "0.5")
    assert number.choices == ()
    assert score(number, "The answer is 0.50.").value == 1
    assert score(number, "7").value == 0
    text = mmmu(tmp_path / "text", question_type="open", options="[]", answer="Baroque")
    assert score(text, "baroque").value == 1
    assert score(text, "").extracted is None
    prompt = TASKS.get("mmmu").prompt(text)
    assert prompt.instruction == "Answer the question using a single word or phrase."
    assert prompt.max_new_tokens > TASKS.get("mmmu").prompt(mmmu(tmp_path / "letters")).max_new_tokens


def test_mmmu_rows_are_by_subject_and_discipline(tmp_path):
    rows = [
        made_up("mmmu", id="validation_Art_Theory_2", question_type="open", options="[]", answer="7"),
        made_up("mmmu", id="validation_Art_Theory_1"),
        made_up("mmmu", id="validation_Architecture_and_Engineering_1"),
        made_up("mmmu", id="validation_Architecture_and_Engineering_2", answer="B"),
    ]
    questions = read("mmmu", lines(tmp_path, "validation.jsonl", rows))
    found = metrics("mmmu", questions, lambda question: "A")
    assert found["score"] == 50
    assert found["tasks"]["Architecture_and_Engineering"]["accuracy"] == 50
    assert found["scores"]["subjects"]["accuracy"] == 50
    assert found["scores"]["disciplines"]["accuracy"] == 50
    assert found["scores"]["choice"]["accuracy"] == pytest.approx(100 * 2 / 3)
    assert found["scores"]["open"]["accuracy"] == 0
    assert found["scores"]["open"]["chance"] is None
    with pytest.raises(DataError, match="found id 'validation_Arts_1', expected an id such as"):
        mmmu(tmp_path / "other", id="validation_Arts_1")


@pytest.mark.parametrize("options", ["['a'", "['a']", "{'a': 1}", "__import__('os')", None])
def test_mmmu_options_that_are_no_list_are_refused(options, tmp_path):
    with pytest.raises(DataError, match="found options"):
        mmmu(tmp_path, options=options)


# The others.


def test_scienceqa_headline_is_the_questions_with_a_picture(tmp_path):
    rows = [
        made_up("scienceqa", grade="grade10"),
        made_up("scienceqa", image=None, answer=1),
        made_up("scienceqa", answer=1),
    ]
    questions = read("scienceqa", lines(tmp_path, "test.jsonl", rows))
    assert [len(question.pictures) for question in questions] == [1, 0, 1]
    found = metrics("scienceqa", questions, lambda question: "A")
    scores = found["scores"]
    assert list(found["grades"]) == ["grade2", "grade10"]
    assert scores["score"]["accuracy"] == 50
    assert scores["all"]["accuracy"] == pytest.approx(100 / 3)
    assert scores["all"]["n"] == 3
    assert scores["text"]["accuracy"] == 0
    assert metrics("scienceqa", questions[1:2], right)["score"] is None


def test_realworldqa_reads_letters_words_and_yes_or_no_by_their_own_rules(tmp_path):
    word = "Please answer directly with a single word or number."
    rows = [
        made_up("realworldqa"),
        made_up("realworldqa", question=f"How many cars?\n{word}", answer="2"),
        made_up("realworldqa", question=f"Is it day?\n{word}", answer="Yes"),
        made_up("realworldqa", question="Where?", answer="Downhill"),
    ]
    questions = read("realworldqa", lines(tmp_path, "test.jsonl", rows))
    task = TASKS.get("realworldqa")
    assert [question.task for question in questions] == ["options", "word or number", "yes or no", "word or number"]
    assert task.prompt(questions[1]).text == f"How many cars?\n{word}"
    assert task.prompt(questions[3]).instruction == ""
    replies = ["(A)", "2.", "Yes, it is.", "downhill"]
    assert [task.score(q, reply).value for q, reply in zip(questions, replies, strict=True)] == [1, 1, 1, 1]
    assert [task.score(q, "").extracted for q in questions] == [None] * 4
    assert metrics("realworldqa", questions, right)["tasks"]["options"]["chance"] == 50


def test_mmstar_reads_the_published_file_with_bare_bytes(tmp_path):
    rows = [made_up("mmstar", index=0), made_up("mmstar", index=1, category="math", l2_category="geometry")]
    columns = {name: [row[name] for row in rows] for name in rows[0] if name != "image"}
    pq.write_table(pa.table({**columns, "image": pa.array([png(1), png(2)])}), tmp_path / "mmstar.parquet")
    questions = read("mmstar", tmp_path)
    assert [question.pictures[0].read() for question in questions] == [png(1), png(2)]
    found = metrics("mmstar", questions, lambda question: "A" if question.part == "math" else "B")
    assert found["scores"]["abilities"]["accuracy"] == 50
    assert found["parts"]["math"]["accuracy"] == 100


def write_blink(folder):
    """One question of each task, two of counting, in the parts of the published folder."""
    for number, subtask in enumerate(SUBTASKS):
        one = subtask in ONE_PICTURE
        pictures = {f"image_{place}": picture(number + place) for place in ((1,) if one else (1, 2, 3))}
        asked = {name: made_up("blink")[name] for name in ("prompt", "choices", "answer")}
        ids = [f"val_{subtask}_{n}" for n in range(2 if subtask == "Counting" else 1)]
        write_split(folder, "val", [{"idx": name, **asked, **pictures} for name in ids], config=subtask)
    return folder


def test_blink_reads_all_tasks_of_the_published_folder_with_all_their_pictures(tmp_path):
    questions = read("blink", write_blink(tmp_path))
    assert len(questions) == 15
    assert {len(question.pictures) for question in questions} == {1, 3}
    found = metrics("blink", questions, lambda question: "A" if question.task == "Counting" else "B")
    assert found["score"] == pytest.approx(100 / 14)
    assert found["scores"]["one_picture"]["accuracy"] == pytest.approx(100 / 6)
    assert found["scores"]["micro"]["accuracy"] == pytest.approx(100 * 2 / 15)
    assert found["n_tasks"] == 14


def test_blink_without_one_of_its_tasks_names_it(tmp_path):
    write_blink(tmp_path)
    shutil.rmtree(tmp_path / "Jigsaw")
    with pytest.raises(DataError, match="of 'Jigsaw'"):
        read("blink", tmp_path)


def test_vstar_ids_are_unique_over_its_categories(tmp_path):
    rows = [made_up("vstar"), made_up("vstar", category="relative_position", label="B")]
    questions = read("vstar", lines(tmp_path, "test_questions.jsonl", rows))
    assert len({question.id for question in questions}) == 2
    found = metrics("vstar", questions, lambda question: "A")
    assert found["tasks"]["direct_attributes"]["accuracy"] == 100
    assert found["tasks"]["relative_position"]["accuracy"] == 0


def test_vstar_without_an_instruction_gets_none(tmp_path):
    (question,) = read("vstar", lines(tmp_path, "test_questions.jsonl", [made_up("vstar", text="Q?\n(A) x\n(B) y")]))
    assert TASKS.get("vstar").prompt(question).text == "Q?\n(A) x\n(B) y"


def test_qbench_reads_pictures_of_a_folder_or_of_the_archive_unpacked_nowhere(tmp_path):
    for name in ("folder", "archive"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "llvisionqa_dev.json").write_text(json.dumps([made_up("qbench")]), encoding="utf-8")
    (tmp_path / "folder" / "images").mkdir()
    (tmp_path / "folder" / "images" / PICTURE).write_bytes(png(1))
    with tarfile.open(tmp_path / "archive" / "images_llvisionqa.tar", "w") as tar:
        for name, data in ((f"images/{PICTURE}", png(1)), ("../../evil.png", png(2))):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    (from_folder,) = read("qbench", tmp_path / "folder")
    (from_archive,) = read("qbench", tmp_path / "archive")
    assert from_folder.pictures[0].read() == from_archive.pictures[0].read() == png(1)
    assert sorted(path.name for path in (tmp_path / "archive").iterdir()) == [
        "images_llvisionqa.tar",
        "llvisionqa_dev.json",
    ]
    assert (from_folder.task, from_folder.source) == ("yes or no", "distortion")


@pytest.mark.parametrize(("text", "found"), [("{}", "found dict"), ("[]", "found an empty list"), ("[1", "not JSON")])
def test_qbench_file_that_is_no_list_is_refused(text, found, tmp_path):
    (tmp_path / "llvisionqa_dev.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=found):
        read("qbench", tmp_path)


def test_qbench_archive_that_is_broken_is_refused(tmp_path):
    (tmp_path / "llvisionqa_dev.json").write_text(json.dumps([made_up("qbench")]), encoding="utf-8")
    (tmp_path / "images_llvisionqa.tar").write_bytes(b"not a tar")
    with pytest.raises(DataError, match=r"images_llvisionqa.tar: cannot be read as a tar archive"):
        read("qbench", tmp_path)


def test_qbench_reads_a_table_that_holds_pictures(tmp_path):
    row = {k: v for k, v in made_up("qbench", image=picture(3)).items() if k != "img_path"}
    (question,) = read("qbench", write_split(tmp_path, "dev", [row]))
    assert question.pictures[0].read() == png(3)


def test_reply_of_a_hundred_kilobytes_is_read_without_inventing_an_answer(tmp_path):
    for name in NAMES:
        (question, *_) = example(name, tmp_path / name)
        score = TASKS.get(name).score(question, "word " * 20_000)
        assert score.extracted is None
        assert score.value == 0


def test_groups_of_one_picture_are_exchanged_as_a_whole(tmp_path):
    rows = [{**made_up("ai2d"), "image": picture(seed)} for seed in (1, 1, 2, 2)]
    questions = read("ai2d", write_split(tmp_path, "test", rows))
    assert questions[0].group == questions[1].group != questions[2].group
    shown = shuffle_pictures(questions, seed=0)
    assert all(new.pictures != old.pictures for new, old in zip(shown, questions, strict=True))


def test_examples_name_the_files_that_the_task_reads():
    for name in NAMES:
        assert all(rows for rows in example_files(TASKS.get(name)).values())
