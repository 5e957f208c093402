"""A task as another tool would run it: prompt, parser and metrics replaced, name, version and questions kept."""

import pytest

from cambrian_eval import TASKS, compat
from cambrian_eval.dataset import read_split
from cambrian_eval.errors import DataError, UnknownNameError
from cambrian_eval.types import Answer, Question, ScoredAnswer
from tests.eval.benchmark_folder import write_cvbench
from tests.eval.task_folders import ROWS, picture, rows_of, write_open_task, write_split

SHARED_TASKS = ("cvbench", "cvbench-2d", "cvbench-3d", "mmvp", "mmbench-en", "mmbench-cn")
LETTER = "Answer with the option's letter from the given choices directly."


def mmvp_rows():
    """Two pairs; the second one's labels are known to be swapped."""
    rows = [(1, "Is the door open?", "(a)"), (2, "Is the door open?", "(b)")]
    rows += [(99, "Are its tusks long?", "(a)"), (100, "Are its tusks long?", "(b)")]
    return [
        {
            "Index": index,
            "Question": asked,
            "Options": "(a) Yes (b) No",
            "Correct Answer": right,
            "image": picture(index),
        }
        for index, asked, right in rows
    ]


def mmbench_rows():
    """A question with two options and one with three and a hint, each asked twice."""
    first = {"question": "Is it a cat?", "hint": "nan", "A": "cat", "B": "dog", "C": "nan", "D": "nan"}
    second = {"question": "Which colour?", "hint": "Look.", "A": "red", "B": "green", "C": "blue", "D": "nan"}
    rows = [(0, first, "A"), (1_000_000, {**first, "A": "dog", "B": "cat"}, "B"), (1, second, "C")]
    rows += [(1_000_001, {**second, "A": "blue", "C": "red"}, "A")]
    return [
        {
            "index": index,
            **columns,
            "answer": answer,
            "category": "c",
            "source": "s",
            "l2-category": "l",
            "image": picture(index % 7),
        }
        for index, columns, answer in rows
    ]


def questions_of(name, folder):
    task = TASKS.get(name)
    if name.startswith("cvbench"):
        write_cvbench(folder)
    elif name == "mmvp":
        write_split(folder, task.splits[0], mmvp_rows())
    elif name.startswith("mmbench"):
        write_split(folder, task.splits[0], mmbench_rows())
    else:
        write_open_task(folder, name, task.splits[0], rows_of(name))
    return task.questions(folder, task.splits[0])


def scored(task, questions, reply):
    return [ScoredAnswer(q, task.prompt(q), Answer(reply(q)), task.score(q, reply(q))) for q in questions]


def text_of(task, question):
    return task.prompt(question).text


@pytest.mark.parametrize("profile", compat.PROFILES)
@pytest.mark.parametrize("name", SHARED_TASKS)
def test_every_profile_runs_the_shared_tasks(tmp_path, profile, name):
    own = TASKS.get(name)
    task = compat.apply(profile, own)
    questions = questions_of(name, tmp_path)
    assert (task.name, task.version, task.questions, task.splits) == (own.name, own.version, own.questions, own.splits)
    prompts = [task.prompt(question) for question in questions]
    assert [p.pictures for p in prompts] == [q.pictures for q in questions]
    assert {p.id for p in prompts} == {q.id for q in questions}

    def known(question):
        lmms_mmvp = profile == "lmms-eval" and name == "mmvp"
        return question.details.get("corrected", question.answers[0]) if lmms_mmvp else question.answers[0]

    right = task.metrics(scored(task, questions, known))
    assert right.summary["score"] == 100
    assert right.summary["parse_rate"] == 100
    unread = task.metrics(scored(task, questions, lambda _: "..."))
    assert (unread.summary["score"], unread.summary["parse_rate"]) == (0, 0)


@pytest.mark.parametrize("name", sorted({*SHARED_TASKS, *ROWS} - {"docvqa", "infovqa", "stvqa", "mmvet", "synthdog"}))
def test_the_reference_asks_as_we_do_with_its_own_budget(tmp_path, name):
    own, task = TASKS.get(name), compat.apply("reference", TASKS.get(name))
    budgets = {"mme": 32, "gqa": 128, "chartqa": 128, "pope": 128, "vizwiz": 128, "mmbench-cn": 128}
    for question in questions_of(name, tmp_path):
        assert text_of(task, question) == text_of(own, question)
        assert task.prompt(question).max_new_tokens == budgets.get(name, 512)
        assert task.score(question, question.answers[0]).value not in (0, None)


@pytest.mark.parametrize("name", ["docvqa", "infovqa", "stvqa", "mmvet", "synthdog"])
def test_what_the_reference_does_not_score_by_reply_is_refused(name):
    with pytest.raises(DataError, match=f'does not know the task "{name}"; it knows ai2d, blink'):
        compat.apply("reference", TASKS.get(name))


def test_an_unknown_profile_and_a_task_that_a_profile_lacks_are_errors():
    with pytest.raises(UnknownNameError, match='did you mean "lmms-eval"'):
        compat.apply("lmms_eval", TASKS.get("cvbench"))
    with pytest.raises(DataError, match="it knows cvbench, cvbench-2d, cvbench-3d, mmbench-cn, mmbench-en, mmvp"):
        compat.apply("vlmevalkit", TASKS.get("gqa"))


def test_the_same_replies_score_differently_by_profile(tmp_path):
    questions = questions_of("cvbench", tmp_path)
    scores = {}
    for profile in (None, *compat.PROFILES):
        task = TASKS.get("cvbench") if profile is None else compat.apply(profile, TASKS.get("cvbench"))
        answers = scored(task, questions, lambda question: f"The option is ({question.answers[0]}).")
        scores[profile] = task.metrics(answers).summary["score"]
    assert scores[None] == scores["vlmevalkit"] == 100
    assert scores["reference"] == scores["lmms-eval"] == 0  # both read the first letter, T


def test_lmms_eval_weighs_questions_where_the_published_score_weighs_sources(tmp_path):
    folder = write_cvbench(tmp_path, sources={"2D": ("ADE20K", "COCO"), "3D": ("Omni3D",)})
    task = TASKS.get("cvbench")
    questions = task.questions(folder, "test")

    def reply(question):
        return question.answers[0] if question.part == "3D" else "Z"

    published = task.metrics(scored(task, questions, reply)).summary["score"]
    other = compat.apply("lmms-eval", task)
    micro = other.metrics(scored(other, questions, reply)).summary["score"]
    assert published == pytest.approx(50)
    assert micro == pytest.approx(100 / 3)


def test_a_picture_of_another_collection_is_read_as_its_part_is(tmp_path):
    folder = write_cvbench(tmp_path, sources={"2D": ("Scenes2D",), "3D": ("Scenes3D",)})
    task = compat.apply("reference", TASKS.get("cvbench"))
    questions = task.questions(folder, "test")
    rules = {question.part: task.score(question, "B,").rule for question in questions}
    assert rules == {"2D": "first letter", "3D": "first letter or option text"}


def test_lmms_eval_scores_mmvp_on_its_corrected_labels(tmp_path):
    questions = questions_of("mmvp", tmp_path)
    task = compat.apply("lmms-eval", TASKS.get("mmvp"))
    answers = scored(task, questions, lambda question: question.answers[0])
    assert [answer.score.value for answer in answers] == [1, 1, 0, 0]
    metrics = task.metrics(answers)
    assert (metrics.summary["score"], metrics.summary["labels"]) == (50, "corrected")


def test_prompts_of_the_other_tools_are_built_from_our_questions(tmp_path):
    lmms, vlm = (lambda name, p=profile: compat.apply(p, TASKS.get(name)) for profile in ("lmms-eval", "vlmevalkit"))
    mmvp = questions_of("mmvp", tmp_path / "mmvp")[0]
    assert text_of(lmms("mmvp"), mmvp) == f"Is the door open?\nA. Yes\nB. No\n{LETTER}"
    request = "Please select the correct answer from the options above. \n"
    assert text_of(vlm("mmvp"), mmvp) == f"Question: Is the door open?\nOptions:\nA. Yes\nB. No\n{request}"
    plain, _, hinted, _ = questions_of("mmbench-en", tmp_path / "mmbench")
    options = "A. red\nB. green\nC. blue\n"
    assert text_of(lmms("mmbench-en"), plain).startswith("Is it a cat? There are several options:\nA. cat\nB. dog\n\n")
    assert text_of(lmms("mmbench-en"), hinted) == f"Look. Which colour? There are several options:\n{options}\n{LETTER}"
    assert text_of(vlm("mmbench-en"), hinted) == f"Hint: Look.\nQuestion: Which colour?\nOptions:\n{options}{request}"
    cvbench = questions_of("cvbench", tmp_path / "cvbench")[0]
    assert text_of(vlm("cvbench"), cvbench) == cvbench.text
    note = "Note: You only need to respond with A, B, C, D without providing any additional information.\n\n"
    assert text_of(lmms("cvbench"), cvbench) == note + cvbench.text


def test_empty_cells_of_the_hub_are_options_for_lmms_eval(tmp_path):
    *_, hinted, _ = questions_of("mmbench-en", tmp_path)
    lmms, vlm = (compat.apply(profile, TASKS.get("mmbench-en")) for profile in ("lmms-eval", "vlmevalkit"))
    assert lmms.score(hinted, "It is a banana").extracted == "D"
    assert vlm.score(hinted, "It is a banana").extracted is None


def test_the_text_of_an_option_counts_as_its_letter(tmp_path):
    question = questions_of("mmvp", tmp_path)[0]
    score = compat.apply("reference", TASKS.get("mmvp")).score(question, "Yes.")
    assert (score.value, score.extracted) == (1, "A")


def question(text, choices, answers, pictures=(), part="p"):
    return Question("q", text, choices, answers, pictures, part, "t", "s")


def test_the_reference_cuts_mmmu_options_at_apostrophes_and_shows_one_picture(tmp_path):
    write_split(tmp_path, "x", [{"image": [picture(1), picture(2)], "n": 1}])
    pictures = pictures_in(tmp_path)
    asked = "Which? <image 1> <image 2> Options:\nA. it's\nB. x"
    prompt = compat.apply("reference", TASKS.get("mmmu")).prompt(question(asked, ("it's", "x"), ("A",), pictures))
    assert prompt.pictures == pictures[:1]
    assert prompt.text == f'Which?   Options:\nA. s", \n{LETTER}'
    assert prompt.max_new_tokens == 512


def test_the_reference_shows_one_picture_of_blink(tmp_path):
    write_split(tmp_path, "x", [{"image": [picture(1), picture(2)], "n": 1}])
    pictures = pictures_in(tmp_path)
    prompt = compat.apply("reference", TASKS.get("blink")).prompt(question("Which?", ("x", "y"), ("A",), pictures))
    assert prompt.pictures == pictures[:1]
    assert prompt.text.startswith("Which?\nPlease answer directly")


def pictures_in(folder):
    return next(iter(read_split(folder, "x", ("image", "n")))).pictures("image")


@pytest.mark.parametrize(
    ("name", "text", "choices", "answer", "reply", "value"),
    [
        ("ai2d", "Q", ("x", "y"), "B", "b", 1),
        ("blink", "Q", ("x", "y"), "B", "(b) y", 1),
        ("scienceqa", "Q", ("x", "a cat"), "B", "A cat!", 1),
        ("scienceqa", "Q", ("x", "a cat"), "B", "(B)", 0),
        ("seed", "Q", ("x", "y"), "B", "but", 1),
        ("vstar", "Q", ("x", "y"), "B", "B,", 1),
        ("mmstar", "Q", ("x", "y"), "B", "(B)", 0),
        ("qbench", "Q", ("x", "y"), "B", "B. y", 1),
        ("realworldqa", "Q", ("x", "y"), "B", "B", 1),
        ("mmmu", "Q Options:\nA. x\nB. y", ("x", "y"), "B", "by", 1),
        ("mmmu", "Q", (), "100", "104", 1),
        ("mathvista", "Q", ("x", "y"), "B", "B. y", 0),
    ],
)
def test_the_reference_reads_chosen_answers_its_way(name, text, choices, answer, reply, value):
    task = compat.apply("reference", TASKS.get(name))
    assert task.score(question(text, choices, (answer,)), reply).value == value


def test_a_question_without_a_known_answer_is_read_and_not_scored():
    hidden = question("Q Options:\nA. x\nB. y", ("x", "y"), ())
    score = compat.apply("reference", TASKS.get("mmbench-en")).score(hidden, "B")
    assert (score.value, score.extracted) == (None, "B")


def test_a_question_in_another_form_cannot_be_asked_as_the_tools_ask():
    with pytest.raises(DataError, match="expected it to end with its options"):
        compat.apply("vlmevalkit", TASKS.get("mmvp")).prompt(question("Which?", ("x", "y"), ("A",)))
