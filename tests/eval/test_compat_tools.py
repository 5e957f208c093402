"""The profiles `lmms-eval` and `vlmevalkit`: what those tools' own parsers and prompts gave, written down once.

The columns were made by running lmms-eval 0.7.2 (commit 75571cf) and VLMEvalKit (commit e8e78f0) on these replies; a
run over 47,000 more replies, most of them generated, found no difference. None is where a tool finds nothing: it scores
nothing, asks a judge, or picks an option at random.
"""

import pytest

from cambrian_eval import compat
from cambrian_eval.compat import lmms_eval
from cambrian_eval.errors import DataError

OPTIONS = {"A": "cat", "B": "the red bus", "C": "nan", "D": "yes"}  # as the hub's MMBench writes an empty cell

# Reply; lmms-eval on CV-Bench, on MMVP, on MMBench before its judge; VLMEvalKit before its judge.
REPLIES = [
    ("A", "A", "A", "A", "A"),
    ("b", "B", "B", None, None),
    ("(C)", "C", None, "C", "C"),
    ("(c)", "C", None, None, None),
    ("C.", "C", None, "C", "C"),
    ("c)", "C", None, None, None),
    ("[B]", None, None, None, "B"),
    ("B:", "B", "B", "B", "B"),
    ("The answer is (B).", "T", "B", "B", "B"),
    ("the answer is: d", "T", None, None, None),
    ("Answer: A", "A", "A", "A", "A"),
    ("The correct answer is C because of the colour.", "T", None, "C", "C"),
    ("I think the answer is B. No, the answer is C.", "I", "B", None, "B"),
    ("Option B", "O", "B", "B", "B"),
    ("option (a)", "O", "A", None, None),
    ("", None, None, None, None),
    ("A)", "A", "A", "A", "A"),
    ("((B))", "B", None, None, "B"),
    ("B. The red bus", "B", "B", "B", "B"),
    ("B The red bus", "B", "B", "B", "B"),
    ("A cat", "A", "A", "A", "A"),
    ("a bus", "A", "A", None, None),
    ("The bus", "T", None, None, None),
    ("None of the above", "N", None, None, None),
    ("Both A and C", "B", "A", None, None),
    ("A, B", "A", "B", "B", None),
    ("A or B", "A", "A", None, None),
    ("**B**", None, None, None, "B"),
    ("The correct answer is **B**. Here is why: the bus is red.", "T", None, None, "B"),
    ("The answer is a bus.", "T", "A", None, "A"),
    ("The answer is between them.", "T", "B", None, "B"),
    ("`C`", None, None, None, None),
    ('"D"', None, None, None, None),
    ("答案是B", None, "B", None, None),
    ("1", None, None, None, None),
    ("Final Answer: \\boxed{C}", "F", None, None, "C"),
    ("D.\n\nExplanation: the answer is not A", "D", "A", "D", None),
    ("E", "E", None, "E", None),
    ("(E).", "E", None, "E", None),
    ("not A", "N", "A", "A", "A"),
    (".A", None, "A", None, "A"),
    ("...", None, None, None, None),
    ("B\n\nThe bus is red and it is in front of the house.", "B", "B", "B", None),
    ("It is the red bus", "I", None, "B", "B"),
    ("cat", "C", None, "A", "A"),
    ("yes", "Y", None, "D", "D"),
    ("Yes", "Y", None, "D", "D"),
    ("a banana", "A", "A", "C", "C"),
    ("Yes, the camera is near", "Y", "A", "D", "D"),
    ("The cat is on the red bus", "T", None, None, None),
    ("There is a tuba", "T", "A", None, None),
    ("I cannot tell from the picture.", "I", None, None, None),
    ("Cannot determine the answer", "C", None, None, None),
    ("I can't process this file.", "I", None, None, None),
    ("Failed to obtain answer via API", "F", "A", None, None),
    ("Failed to obtain answer via API. B", "F", "A", None, None),
    ("A dog is seen here", "A", "A", None, None),
    ("It must be A", "I", "A", None, "A"),
    ("I see A dog, B bird", "I", "A", None, None),
    ("Z", "Z", None, None, None),
    ("It is (B), the bus", "I", None, None, "B"),
    ("(B) the red bus, not (A) the cat", "B", "B", None, None),
    ("The bus, hence B, as anyone can see in the picture", "T", None, "B", None),
    ("D: yes", "D", None, "D", "D"),
    ("Answer is C:", "A", "A", "C", "C"),
    ("<answer>B</answer>", None, None, None, None),
    ("The object in box B", "T", "B", "B", "B"),
    ("No", "N", None, None, None),
    ("Three", "T", None, None, None),
    ("left", "L", None, None, None),
]

READERS = {
    "lmms-eval cvbench": lambda reply: compat.score("lmms-eval", "cvbench", reply, "(A)"),
    "lmms-eval mmvp": lambda reply: compat.score("lmms-eval", "mmvp", reply, "(a)"),
    "lmms-eval mmbench_en": lambda reply: compat.score("lmms-eval", "mmbench_en", reply, "A", **OPTIONS),
    "vlmevalkit mmbench_en": lambda reply: compat.score("vlmevalkit", "mmbench_en", reply, "A", **OPTIONS),
}


@pytest.mark.parametrize(("column", "reader"), list(enumerate(READERS, start=1)))
def test_replies_are_read_as_the_tools_read_them(column, reader):
    for row in REPLIES:
        score = READERS[reader](row[0])
        assert score.extracted == row[column], row[0]
        assert score.value == float(row[column] == "A"), row[0]
        assert (score.extracted is None) == score.rule.startswith("abstain: "), row[0]


def test_the_table_is_large_and_shows_both_sides_of_every_parser():
    assert len({row[0] for row in REPLIES}) >= 50
    for column in range(1, 5):
        assert sum(row[column] is None for row in REPLIES) >= 10
        assert len({row[column] for row in REPLIES}) >= 3


def test_an_abstention_says_what_the_tool_would_do():
    lost = "left"
    assert READERS["lmms-eval cvbench"]("...").rule == "abstain: no letter at the start"
    assert READERS["lmms-eval mmvp"](lost).rule == "abstain: neither A nor B found"
    assert "random letter" in READERS["lmms-eval mmbench_en"](lost).rule
    assert "at random" in READERS["vlmevalkit mmbench_en"](lost).rule
    assert "refusal" in READERS["vlmevalkit mmbench_en"]("Cannot determine the answer").rule


def test_the_parts_of_cvbench_are_read_as_cvbench():
    for benchmark, column in {"coco": "choices", "ade": "choices", "omni": "options"}.items():
        row = {column: ["left", "right"]}
        assert compat.score("lmms-eval", benchmark, "(B)", "(B)", **row).value == 1
        assert compat.score("vlmevalkit", benchmark, "To the right", "(B)", **row).value == 1


def test_lmms_eval_is_right_only_with_the_letter_as_the_data_writes_it():
    assert compat.score("lmms-eval", "cvbench", "b", "(B)").value == 1
    assert compat.score("lmms-eval", "cvbench", "b", "(b)").value == 0


LETTER = "Answer with the option's letter from the given choices directly."
ROW = {"question": "Q?", "hint": None, "A": "a cat", "B": "a dog"}


@pytest.mark.parametrize(
    ("profile", "benchmark", "row", "expected"),
    [
        (
            "lmms-eval",
            "cvbench",
            {"prompt": "P?\n(A) x\n(B) y", "choices": ["x", "y"]},
            "Note: You only need to respond with A, B without providing any additional information.\n\n"
            "P?\n(A) x\n(B) y",
        ),
        (
            "lmms-eval",
            "mmvp",
            {"question": "Q?", "options": "(a) Open (b) Closed"},
            f"Q?\nA. Open\nB. Closed\n{LETTER}",
        ),
        # Brackets cut an option short.
        ("lmms-eval", "mmvp", {"question": "Q?", "options": "(a) a (big) cat (b) b"}, f"Q?\nA. b\n{LETTER}"),
        (
            "lmms-eval",
            "mmbench_en",
            {**ROW, "C": "nan", "D": "nan", "hint": "nan"},
            f"Q? There are several options:\nA. a cat\nB. a dog\n\n{LETTER}",
        ),
        (
            "lmms-eval",
            "mmbench_en",
            {**ROW, "hint": "Look."},
            f"Look. Q? There are several options:\nA. a cat\nB. a dog\n\n{LETTER}",
        ),
        (
            "lmms-eval",
            "mmbench_cn",
            {**ROW, "hint": "nan"},
            "nan Q? There are several options:\nA. a cat\nB. a dog\n\n"
            "\u8bf7\u76f4\u63a5\u4f7f\u7528\u6240\u63d0\u4f9b\u7684\u9009\u9879\u5b57\u6bcd\u4f5c\u4e3a"
            "\u7b54\u6848\u56de\u7b54\u3002",
        ),
        ("vlmevalkit", "cvbench", {"prompt": "P?\n(A) x"}, "P?\n(A) x"),
        (
            "vlmevalkit",
            "mmbench_cn",
            {**ROW, "hint": "Look.", "C": None},
            "Hint: Look.\nQuestion: Q?\nOptions:\nA. a cat\nB. a dog\n"
            "Please select the correct answer from the options above. \n",
        ),
        (
            "vlmevalkit",
            "mmvp",
            {"question": "Q?", "options": ["a", "b"]},
            "Question: Q?\nOptions:\nA. a\nB. b\nPlease select the correct answer from the options above. \n",
        ),
    ],
)
def test_prompts_are_the_tools_own(profile, benchmark, row, expected):
    assert compat.prompt(profile, benchmark, row) == expected


def test_budgets_are_those_of_lmms_eval():
    assert lmms_eval.MAX_NEW_TOKENS == {"cvbench": 1024, "mmvp": 16, "mmbench_en": 1024, "mmbench_cn": 256}


def test_a_row_without_options_is_an_error():
    with pytest.raises(DataError, match="expected its options"):
        compat.score("vlmevalkit", "cvbench", "A", "(A)")
    with pytest.raises(DataError, match="expected its options"):
        compat.score("lmms-eval", "mmbench_en", "A", "A")
    with pytest.raises(DataError, match="its prompt also needs 'prompt'"):
        compat.prompt("vlmevalkit", "cvbench", {"question": "Q?"})


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("unit", ["answer is ", "answer \t", "(", "A ", "option\n", "a. "])
def test_a_reply_of_100_kilobytes_is_read(reader, unit):
    assert READERS[reader](unit * (100_000 // len(unit))).value in (0, 1)
