"""The files that benchmarks' servers take for splits whose answers are secret."""

import json

import pytest

from cambrian_eval import TASKS, DataError
from cambrian_eval.types import Answer, ScoredAnswer
from tests.eval.task_folders import rows_of, write_open_task

SECRET = {"docvqa": "test", "infovqa": "test", "stvqa": "test", "textvqa": "test", "vizwiz": "test"}


def secret_rows(name):
    """Rows of a test split: answers are null, or absent, or blank, as the hub's repositories have them."""
    rows = rows_of(name)
    if name == "textvqa":
        return [row | {"answers": [""] * 10} for row in rows]
    if name == "vizwiz":
        return [
            row | {"answers": None, "category": None, "question_id": row["question_id"].replace("val", "test")}
            for row in rows
        ]
    return [row | {"answers": None} for row in rows] if name != "stvqa" else rows


def ask(task, questions, reply):
    return [
        ScoredAnswer(question, task.prompt(question), Answer(reply), task.score(question, reply))
        for question in questions
    ]


@pytest.mark.parametrize("name", SECRET)
def test_secret_split_has_no_score_and_says_how_many_are_unscored(tmp_path, name):
    task = TASKS.get(name)
    assert SECRET[name] in task.splits
    write_open_task(tmp_path, name, "test", secret_rows(name))
    questions = task.questions(tmp_path, "test")
    assert all(question.answers == () and question.part == "test" for question in questions)
    answers = ask(task, questions, "a reply")
    assert {answer.score.value for answer in answers} == {None}
    result = task.metrics(answers).to_dict()
    assert (result["score"], result["n_unscored"], result["parse_rate"]) == (None, 12, 100)
    assert result["published"] is False
    assert "scores" not in result


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("docvqa", {"questionId": 49153, "answer": "10 März"}),
        ("infovqa", {"questionId": 98313, "answer": "10 März"}),
        ("stvqa", {"question_id": 100, "answer": "10 März"}),
        ("textvqa", {"question_id": 34602, "answer": "10 März"}),
        ("vizwiz", {"image": "VizWiz_test_00000000.jpg", "answer": "10 März"}),
    ],
)
def test_submission_is_the_list_that_the_server_takes(tmp_path, name, first):
    task = TASKS.get(name)
    write_open_task(tmp_path, name, "test", secret_rows(name))
    text = task.submission.write(ask(task, task.questions(tmp_path, "test"), " 10 März\n"))
    written = json.loads(text)
    assert len(written) == 12
    assert written[0] == first
    assert "März" in text
    assert task.submission.file == f"{name}_submission.json"


def test_textvqa_id_that_the_server_would_not_take_is_refused_before_the_run(tmp_path):
    rows = [row | {"question_id": "a7"} for row in secret_rows("textvqa")[:1]]
    write_open_task(tmp_path, "textvqa", "test", rows)
    with pytest.raises(DataError, match="found question_id 'a7', expected a whole number, which the server wants"):
        TASKS.get("textvqa").questions(tmp_path, "test")


def test_mmvet_s_file_holds_replies_by_question(tmp_path):
    task = TASKS.get("mmvet")
    write_open_task(tmp_path, "mmvet", "test", rows_of("mmvet", 2))
    written = json.loads(task.submission.write(ask(task, task.questions(tmp_path, "test"), "x = 1")))
    assert written == {"v1_0": "x = 1", "v1_1": "x = 1"}


def test_vizwiz_id_with_the_file_s_ending_is_not_doubled(tmp_path):
    rows = [row | {"question_id": row["question_id"] + ".jpg"} for row in secret_rows("vizwiz")]
    write_open_task(tmp_path, "vizwiz", "test", rows)
    task = TASKS.get("vizwiz")
    written = json.loads(task.submission.write(ask(task, task.questions(tmp_path, "test"), "basil")))
    assert written[0]["image"] == "VizWiz_test_00000000.jpg"


def test_stvqa_with_answers_of_one_s_own_is_scored(tmp_path):
    task = TASKS.get("stvqa")
    rows = [row | {"answers": ["stop"]} for row in rows_of("stvqa")]
    write_open_task(tmp_path, "stvqa", "validation", rows)
    answers = ask(task, task.questions(tmp_path, "validation"), "Stop.")
    assert task.metrics(answers).summary["score"] > 70


def test_tasks_without_a_server_have_no_submission():
    assert all(TASKS.get(name).submission is None for name in ("gqa", "mme", "chartqa", "pope", "ocrbench", "synthdog"))
