"""Comparing runs: the difference of their scores, its test, what flips and why; and what does not compare."""

import dataclasses
import json
import math

import pytest
from scipy import stats  # type: ignore[import-untyped]

from cambrian_eval import EvalError
from cambrian_eval.compare import compare, compare_all
from cambrian_eval.estimand import find
from cambrian_eval.log import SampleLog
from cambrian_eval.metrics import Metrics, mean_row, unit_row, weighted_row
from cambrian_eval.picture import Picture
from cambrian_eval.report import comparison as report
from cambrian_eval.statistics import mcnemar, paired_difference, sign_flip
from cambrian_eval.tasks import TASKS
from cambrian_eval.types import Answer, Prompt, Question, Score, ScoredAnswer
from cambrian_eval.whole_units import SIZE

SOURCES = {"ADE20K": ("2D", "Count"), "COCO": ("2D", "Relation"), "Omni3D": ("3D", "Depth")}
LETTER = "Answer with the letter."


def answer(id, reply, *, source="COCO", truth="A", choices=("left", "right"), group="", instruction=LETTER, **fields):
    part, task = SOURCES.get(source, ("", ""))
    question = Question(id, f"Where is {id}?", choices, (truth,), (), part, task, source, group)
    picture = Picture(id, fields.pop("picture", "0" * 64))
    prompt = Prompt(id, (picture, f"Where is {id}?\n{instruction}"), choices, fields.pop("budget", 16), instruction)
    value, rule = fields.pop("value", float(reply == truth)), fields.pop("rule", "letter")
    said = Answer(reply, **fields)
    return ScoredAnswer(question, prompt, said, Score(value, reply or None, rule))


def some(replies, **fields):
    return [answer(f"q{place}", reply, **fields) for place, reply in enumerate(replies)]


def write(folder, answers, *, provenance=None, complete=True, **identity):
    """A run's folder as an evaluation leaves it."""
    folder.mkdir(parents=True)
    plain = {"task": "plain", "task_version": 1, "model": "m", "model_fingerprint": "m:1", "limit": None, "seed": 0}
    SampleLog(folder, {**plain, **identity}).finish(answers)
    (folder / "metrics.json").write_text(json.dumps({"complete": complete, "provenance": provenance or {}}))
    return folder


def told(found, kind):
    return [reason for reason in found.reasons if reason.kind == kind]


def test_a_plain_benchmark_has_the_paired_difference_and_exact_mcnemar(tmp_path):
    first = write(tmp_path / "a", some("ABAABBAABA"))
    second = write(tmp_path / "b", some("AAAAABBAAA"))
    found = compare(first, second)
    changes = [100 * ((new == "A") - (old == "A")) for old, new in zip("ABAABBAABA", "AAAAABBAAA", strict=True)]
    expected = paired_difference(changes, range(10))
    assert found.difference.mean == pytest.approx(20)
    assert (found.difference.low, found.difference.high) == pytest.approx((expected.low, expected.high))
    assert (found.gained, found.lost, found.p, found.test) == (3, 1, mcnemar(3, 1), "exact McNemar")
    assert found.scores == (60, 80)
    assert found.detectable == pytest.approx(found.difference.standard_error * 2.8016, rel=1e-4)
    assert [flip.id for flip in found.flips] == ["q6", "q1", "q4", "q8"]
    assert found.flips[0].replies == ("A", "B")


def test_a_run_compared_with_itself_does_not_differ(tmp_path):
    run = write(tmp_path / "a", some("ABAB"))
    found = compare(run, run)
    assert (found.difference.mean, found.p, found.flips, found.reasons) == (0, 1, (), ())


def test_cvbench_differs_as_its_score_does(tmp_path):
    """One of two ADE20K questions weighs as much as two of four of COCO, and half of one of two of Omni3D."""
    counts = {"ADE20K": 2, "COCO": 4, "Omni3D": 2}
    ids = [(f"{source}-{place}", source) for source, count in counts.items() for place in range(count)]
    first = write(tmp_path / "a", [answer(id, "A", source=source) for id, source in ids], task="cvbench")
    wrong = {"ADE20K-0", "COCO-0", "COCO-1"}
    second = write(
        tmp_path / "b", [answer(id, "B" if id in wrong else "A", source=source) for id, source in ids], task="cvbench"
    )
    found = compare(first, second)
    assert found.difference.mean == pytest.approx(-100 * (1 / 4 * 1 / 2 + 1 / 4 * 2 / 4))
    assert found.scores == (pytest.approx(100), pytest.approx(75))
    assert "3 strata" in found.what
    changes = [-1.0 * (id in wrong) for id, _ in ids]
    strata = [source for _, source in ids]
    weights = {"ADE20K": 25.0, "COCO": 25.0, "Omni3D": 50.0}
    assert found.difference.standard_error == paired_difference(changes, range(8), strata, weights).standard_error


def test_questions_about_one_picture_are_tested_as_one(tmp_path):
    groups = [f"picture {place // 2}" for place in range(8)]
    first = write(tmp_path / "a", [answer(f"q{p}", "A", group=group) for p, group in enumerate(groups)])
    second = write(
        tmp_path / "b", [answer(f"q{p}", "B" if p < 4 else "A", group=group) for p, group in enumerate(groups)]
    )
    found = compare(first, second)
    changes = [-1.0] * 4 + [0.0] * 4
    assert found.p == found.sign_flip == sign_flip(changes, groups)
    assert found.test == "sign flips by group"
    assert found.mcnemar == mcnemar(0, 4)
    assert found.difference.num_units == 4
    assert found.difference.design_effect > 1


def test_graded_values_are_tested_by_sign_flips(tmp_path):
    values = [(0.2, 0.9), (0.5, 0.4), (1.0, 1.0), (0.0, 0.6)]
    runs = [
        write(tmp_path / name, [answer(f"q{place}", str(pair), value=pair[side]) for place, pair in enumerate(values)])
        for side, name in enumerate("ab")
    ]
    found = compare(*runs)
    assert found.p == sign_flip([new - old for old, new in values], range(4))
    assert (found.test, found.mcnemar, found.gained) == ("sign flips", None, None)


def pair_metrics(answers):
    row = unit_row("scores", "score", "pairs", answers)
    return Metrics({"score": row.accuracy}, (row,))


def both_metrics(answers):
    """Accuracy plus pair accuracy, summed over tasks, as MME does."""
    tasks = sorted({each.question.source for each in answers})
    rows = []
    for task in tasks:
        own = [each for each in answers if each.question.source == task]
        rows += [mean_row("t", task, task, own), unit_row("t", task, task, own)]
    row = weighted_row("scores", "score", "sum", [(1.0, each) for each in rows])
    return Metrics({"score": row.accuracy}, (row,))


def f1_metrics(answers):
    right = sum(each.score.value for each in answers)
    return Metrics({"score": 200 * right / (len(answers) + right)}, ())


def paired_answers(replies):
    names = sorted(SOURCES)
    return [
        answer(f"q{place}", reply, group=f"g{place // 2}", source=names[place // 8])
        for place, reply in enumerate(replies)
    ]


def score(metrics):
    return lambda answers: metrics(answers).summary["score"]


@pytest.mark.parametrize(
    ("metrics", "count", "full"), [(pair_metrics, "units", 100), (both_metrics, "questions and units", 600)]
)
def test_what_a_score_counts_is_found_by_asking_its_metrics(metrics, count, full):
    runs = [paired_answers("AABABBAA" * 3), paired_answers("ABABAAAABBBBAAAABABABABA")]
    found = find(score(metrics), runs)
    assert found is not None
    assert (found.count, found.full) == (count, pytest.approx(full))
    for run in runs:
        parts: dict[tuple[str, str, str], list[float]] = {}
        for term in found.terms(run).values():
            parts.setdefault(term.stratum, []).append(term.value)
        mean = math.fsum(found.weights[name] * math.fsum(values) / len(values) for name, values in parts.items())
        assert mean == pytest.approx(metrics(run).summary["score"])


def benchmark_answers(task, replies):
    """Pairs of yes or no on pictures, or circular groups, one of them incomplete as a limit leaves it."""
    subtasks = {"mme": ("OCR", "color", "code_reasoning"), "pope": ("adversarial", "popular")}.get(task, ("a", "b"))
    made = []
    for place, reply in enumerate(replies):
        each = answer(f"q{place}", reply, group=f"g{place // 2}")
        subtask = subtasks[place // 2 % len(subtasks)]
        question = dataclasses.replace(
            each.question,
            answers=("yes",) if task == "pope" else ("A",),
            part="Cognition" if "code" in subtask else "Perception" if task == "mme" else subtask,
            task=subtask,
            source="",
            details={SIZE: 2, "rotation": place % 2},
        )
        made.append(dataclasses.replace(each, question=question))
    return made


@pytest.mark.parametrize(
    ("task", "count", "full"),
    [
        ("mme", "questions and units", 400),
        ("mmvp", "units", 100),
        ("mmbench-en", "units", 100),
        ("pope", "questions", 100),
    ],
)
def test_the_scores_of_registered_benchmarks_are_found_to_be_means(task, count, full):
    runs = [benchmark_answers(task, replies) for replies in ("AABABBAA" * 5 + "A", "ABAAABBB" * 5 + "A")]
    found = find(lambda answers: TASKS.get(task).metrics(answers).summary["score"], runs)
    assert found is not None
    assert (found.count, found.full) == (count, pytest.approx(full))
    groups = {term.group for term in found.terms(runs[0]).values()}
    assert len(groups) == {"mme": 14, "pope": 21}.get(task, 20)  # without code reasoning, and without half a unit


def test_a_score_that_is_no_mean_is_not_taken_for_one():
    assert find(score(f1_metrics), [paired_answers("AABABBAA" * 3)]) is None


def test_weights_that_depend_on_the_question_are_not_taken_for_those_of_strata():
    def uneven(answers):
        weights = {each.question.id: 1 + int(each.question.id[1:]) for each in answers}
        right = sum(weights[each.question.id] * each.score.value for each in answers)
        return Metrics({"score": 100 * right / sum(weights.values())}, ())

    assert find(score(uneven), [some("ABAABBABAB")]) is None


def test_a_prompt_that_changed_is_told_with_what_changed_in_it(tmp_path):
    first = write(tmp_path / "a", some("AAB"), prompt="direct")
    second = write(tmp_path / "b", some("ABA", instruction="Think first."), prompt="cot")
    form, texts = told(compare(first, second), "prompt")
    assert form.text == "form: direct against cot"
    assert texts.num == 3
    assert f"only the format instruction: {LETTER} against Think first." in texts.text
    assert texts.example["id"] == "q0"


def test_a_parser_that_changed_is_told_from_equal_replies(tmp_path):
    first = write(tmp_path / "a", some("AB"), task_version=1)
    changed = [dataclasses.replace(each, score=Score(1.0, "A", "new rule")) for each in some("AB")]
    second = write(tmp_path / "b", changed, task_version=2)
    found = compare(first, second)
    version, readings = told(found, "parser")
    assert version.text == "version of the task: 1 against 2"
    assert readings.text == "of 2 replies that are equal in both runs, 2 are read differently"
    assert found.causes == {"same reply, read differently": 1}


def test_another_tools_profile_is_told(tmp_path):
    first, second = write(tmp_path / "a", some("AB")), write(tmp_path / "b", some("AB"), compat="lmms-eval")
    assert [reason.text for reason in told(compare(first, second), "parser")] == [
        "tool whose prompt and parser are used: none against lmms-eval"
    ]


def test_decoding_that_changed_is_told_with_truncations(tmp_path):
    first = write(tmp_path / "a", some("AAAA"), max_new_tokens=None)
    second = write(tmp_path / "b", some("AABA", budget=4, truncated=True), max_new_tokens=4)
    found = compare(first, second)
    assert [reason.text for reason in told(found, "decoding")] == [
        "cap on new tokens: none against 4",
        "budgets of new tokens differ on 4 of 4 shared questions",
        "replies cut off by the budget: 0 against 4",
    ]
    assert found.causes == {"truncated in one run": 1}


def test_data_that_changed_is_told_down_to_the_label(tmp_path):
    first = write(tmp_path / "a", some("A" * 8), data_sha256="1", provenance={"data": {"commit": "aaa"}})
    relabelled = [*some("A" * 7), answer("q7", "A", truth="B")]
    second = write(tmp_path / "b", relabelled, data_sha256="2", mode="blind", provenance={"data": {"commit": "bbb"}})
    found = compare(first, second)
    texts = [reason.text for reason in told(found, "data")]
    assert "hash of the questions: 1 against 2" in texts
    assert "pictures shown: none against blind" in texts
    assert "truths differ on 1 of 8 shared questions" in texts
    assert "commit: aaa against bbb" in texts
    assert found.causes == {"other truth": 1}


def test_a_flip_with_other_pictures_is_not_put_down_to_the_model(tmp_path):
    seeing, shuffled = write(tmp_path / "a", some("AA")), write(tmp_path / "b", some("AB", picture="1" * 64))
    assert compare(seeing, shuffled).causes == {"other pictures": 1}


def test_a_flip_between_a_reply_and_the_likeliest_letter_says_so(tmp_path):
    replied, chosen = write(tmp_path / "a", some("AA")), write(tmp_path / "b", some("AB", option_scores=(-1.0, -2.0)))
    assert compare(replied, chosen).causes == {"letters scored in one run": 1}


def test_subjects_of_a_plain_benchmark_need_no_spread_of_their_own(tmp_path):
    """A mean over questions has the paired t interval, though a limit left one question of a subject."""
    sources = ["a", "b", "b", "c", "c", "c", "c"]
    runs = [
        write(
            tmp_path / name,
            [answer(f"q{p}", r, source=s) for p, (r, s) in enumerate(zip(replies, sources, strict=True))],
        )
        for name, replies in (("one", "ABAABBA"), ("two", "AAABBAA"))
    ]
    found = compare(*runs)
    changes = [(new == "A") - (old == "A") for old, new in zip("ABAABBA", "AAABBAA", strict=True)]
    expected = stats.ttest_1samp([100 * change for change in changes], 0).confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx((expected.low, expected.high))
    assert (found.what, found.sign_flip) == ("the score, a mean of questions", None)


def test_the_model_and_the_software_are_told(tmp_path):
    versions = [{"versions": {"torch": version, "numpy": "2"}} for version in ("2.11", "2.12")]
    first = write(tmp_path / "a", some("AB"), provenance=versions[0])
    second = write(tmp_path / "b", some("AB"), provenance=versions[1], model_fingerprint="m:2")
    found = compare(first, second)
    assert [reason.text for reason in found.reasons] == [
        "fingerprint (weights, processor or code): m:1 against m:2",
        "torch: 2.11 against 2.12",
    ]


def test_a_log_that_is_too_old_for_the_benchmarks_metrics_is_named(tmp_path):
    """MMVP counts whole pairs, and an older log does not say how many questions a pair has."""
    runs = [write(tmp_path / name, some("AB"), task="mmvp") for name in "ab"]
    with pytest.raises(EvalError, match=f"{runs[0]}: its questions have no detail 'group_size'.* Evaluate it again"):
        compare(*runs)


def test_shared_questions_that_make_no_score_do_not_compare(tmp_path):
    """Halves of MMVP's pairs, say: the score counts pairs."""
    halves = [dataclasses.replace(each.question, details={SIZE: 2}) for each in some("AB")]
    answers = [dataclasses.replace(a, question=q) for a, q in zip(some("AB"), halves, strict=True)]
    runs = [write(tmp_path / name, answers, task="mmvp") for name in "ab"]
    with pytest.raises(EvalError, match="the 2 shared questions make no score of mmvp"):
        compare(*runs)


def test_other_benchmarks_do_not_compare(tmp_path):
    runs = [write(tmp_path / name, some("AB"), task=name) for name in ("mmvp", "gqa")]
    with pytest.raises(EvalError, match="found mmvp and gqa, expected two runs of one benchmark"):
        compare(*runs)


def test_runs_without_a_common_question_do_not_compare(tmp_path):
    runs = [write(tmp_path / name, [answer(f"{name}{place}", "A") for place in range(3)]) for name in "ab"]
    with pytest.raises(EvalError, match=r"no question that both answered \(a0, a1, a2 against b0, b1, b2\)"):
        compare(*runs, shared=True)


def test_a_limited_run_compares_with_a_full_one_only_when_told_to(tmp_path):
    full = write(tmp_path / "full", some("ABABAB"))
    limited = write(tmp_path / "limited", some("AAAB"), limit=4)
    with pytest.raises(
        EvalError, match=r"found 2 questions that only the first .*\(no limit against limit 4, seed 0\)"
    ):
        compare(full, limited)
    found = compare(full, limited, shared=True)
    assert (found.num_shared, found.num_only) == (4, (2, 0))
    assert found.difference.mean == pytest.approx(25)
    assert any("only the 4 shared questions count" in note for note in report.notes(found))


def test_runs_that_are_not_finished_compare_only_when_told_to(tmp_path):
    """Though both lack the same answers: what one endpoint refused, or what two processes had done when killed."""
    whole, refused, killed = (
        write(tmp_path / name, some("AB"), complete=name != "refused") for name in ("whole", "refused", "killed")
    )
    (killed / "metrics.json").unlink()
    for other in (refused, killed):
        with pytest.raises(EvalError, match=f"{other}: found an evaluation that is not finished"):
            compare(whole, other)
        found = compare(whole, other, shared=True)
        assert found.unfinished == (other,)
        assert found.to_dict()["unfinished"] == [str(other)]
        assert any(str(other) in note and "not finished" in note for note in report.notes(found))
    (whole / "samples.1.jsonl").write_text("")
    with pytest.raises(EvalError, match=f"{whole}: found an evaluation that is not finished"):
        compare(whole, whole)


def test_equally_limited_runs_compare(tmp_path):
    runs = [write(tmp_path / name, some("AB"), limit=2) for name in "ab"]
    assert compare(*runs).num_shared == 2


def test_other_questions_under_the_same_ids_do_not_compare(tmp_path):
    first = write(tmp_path / "a", some("AAAA"))
    other = [answer(f"q{place}", "A", choices=("up", "down")) for place in range(4)]
    renamed = [dataclasses.replace(each, question=dataclasses.replace(each.question, text="Else?")) for each in other]
    with pytest.raises(EvalError, match="other questions under the same ids: 4 of 4 ask something else"):
        compare(first, write(tmp_path / "b", renamed))
    with pytest.raises(EvalError, match="2 have another truth"):
        compare(first, write(tmp_path / "c", [*some("AA"), *some("AAAA", truth="B")[2:]]))


def test_questions_with_secret_answers_have_nothing_to_compare(tmp_path):
    runs = [write(tmp_path / name, some("AB", value=None)) for name in "ab"]
    with pytest.raises(EvalError, match="no question whose truth is known"):
        compare(*runs)


def test_a_permuted_run_compares_in_the_published_order(tmp_path):
    plain = write(tmp_path / "plain", some("AB"))
    copies = []
    for place, reply in enumerate("AA"):
        for number in (0, 1):
            each = answer(f"q{place}{'@1' if number else ''}", reply, truth="BA"[number == 0])
            details = {"permutation": {"number": number, "order": [number, 1 - number], "group": ""}}
            question = dataclasses.replace(each.question, group=f"q{place}", details=details)
            copies.append(dataclasses.replace(each, question=question))
    found = compare(plain, write(tmp_path / "permuted", copies, permute=2))
    assert (found.num_shared, found.gained, found.lost) == (2, 1, 0)
    assert found.test == "exact McNemar"


def test_folders_of_runs_are_compared_benchmark_by_benchmark_with_holms_correction(tmp_path):
    for model, (mmvp, gqa) in {"one": ("A" * 12, "A" * 12), "two": ("B" * 12, "A" * 10 + "BB")}.items():
        write(tmp_path / model / "x", some(mmvp), task="x")
        write(tmp_path / model / "y", some(gqa), task="y")
    family = compare_all([tmp_path / "one", tmp_path / "two"])
    assert [found.task for found in family.comparisons] == ["x", "y"]
    assert family.adjusted == (pytest.approx(2 * mcnemar(0, 12)), mcnemar(0, 2))


def test_the_first_run_is_compared_with_each_of_the_others(tmp_path):
    runs = [
        write(tmp_path / name, some(replies), model=name) for name, replies in (("a", "AA"), ("b", "AB"), ("c", "BB"))
    ]
    family = compare_all(runs)
    assert [found.runs for found in family.comparisons] == [("a", "b"), ("a", "c")]
    assert [found.difference.mean for found in family.comparisons] == [-50, -100]


def test_runs_of_two_folders_find_each_other_by_benchmark(tmp_path):
    one = (
        write(tmp_path / "one" / "cvbench-m", some("AB"), task="x"),
        write(tmp_path / "one" / "z", some("AB"), task="z"),
    )
    two = write(tmp_path / "two" / "z", some("AB"), task="z"), write(tmp_path / "two" / "else", some("AA"), task="x")
    family = compare_all([tmp_path / "one", tmp_path / "two"])
    assert {found.folders for found in family.comparisons} == {(one[0], two[1]), (one[1], two[0])}


def test_a_run_without_counterpart_is_named(tmp_path):
    write(tmp_path / "one" / "x", some("AB"), task="x")
    left = write(tmp_path / "one" / "y", some("AB"), task="y")
    write(tmp_path / "two" / "x", some("AB"), task="x")
    with pytest.raises(EvalError, match=f"no counterpart for {left}"):
        compare_all([tmp_path / "one", tmp_path / "two"])


def test_folders_that_are_no_runs_are_named(tmp_path):
    with pytest.raises(EvalError, match=r"found no run\.json in it or below"):
        compare_all([tmp_path, tmp_path])
    with pytest.raises(EvalError, match="found no such folder"):
        compare_all([tmp_path / "missing", tmp_path])
    with pytest.raises(EvalError, match="found 1 runs, expected two or more"):
        compare_all([tmp_path])
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(EvalError, match="found a list, expected an object"):
        compare(tmp_path, tmp_path)


def test_a_comparison_is_plain_json_even_where_nothing_is_known(tmp_path):
    runs = [write(tmp_path / name, some(reply)) for name, reply in (("a", "A"), ("b", "B"))]
    found = compare(*runs)
    assert found.difference.high == math.inf
    assert json.loads(json.dumps(found.to_dict()))["difference"]["high"] is None


def test_the_page_tells_everything_and_no_reply_breaks_it(tmp_path):
    first = write(tmp_path / "a", some("AAAA"))
    second = write(tmp_path / "b", some(["A", "| <b>x</b>\n# no", "", "A"]), prompt="cot")
    page = report.markdown(compare_all([first, second]))
    assert "| q1 | A | A | \\| &lt;b>x&lt;/b> # no | -1 | other reply to the same prompt |" in page
    assert "| q2 | A | A | (empty) | -1 |" in page
    assert "- prompt: form: none against cot" in page


def test_runs_of_one_label_are_told_apart_by_their_folders(tmp_path):
    first, second = write(tmp_path / "a", some("AA")), write(tmp_path / "b", some("AB"))
    found = compare(first, second)
    assert report.heading(found) == f"plain: m [{first}] against m [{second}]"
    other = compare(first, write(tmp_path / "c", some("AB"), permute=2, compat="lmms-eval"))
    assert report.names(other) == ("m", "m, prompt of lmms-eval, rules of lmms-eval, 2 orders of the options")


def test_scores_are_shown_with_the_share_of_replies_that_was_read(tmp_path):
    family = compare_all([write(tmp_path / "a", some("ABAB")), write(tmp_path / "b", some(["A", "", "", "B"]))])
    columns, (row,) = report.overview(family).columns, report.overview(family).rows
    assert dict(zip(columns, row, strict=True))["parsed %"] == "100.0 to 50.0"
    assert family.comparisons[0].to_dict()["parse_rates"] == (100, 50)


def test_what_is_known_of_one_run_only_is_one_reason(tmp_path):
    versions = {"versions": dict.fromkeys("abcdefgh", "1")}
    first, second = write(tmp_path / "a", some("AB"), provenance=versions), write(tmp_path / "b", some("AB"))
    assert [reason.text for reason in told(compare(first, second), "software")] == [
        "versions: known of the first run only"
    ]


def test_rules_of_a_second_scoring_are_told_in_words(tmp_path):
    rules = {"compat": "lmms-eval", "task_version": 2}
    first, second = write(tmp_path / "a", some("AB")), write(tmp_path / "b", some("AB"), rescored=rules)
    (reason,) = told(compare(first, second), "parser")
    assert reason.text == ("rules with which replies were read again: none against compat lmms-eval, task_version 2")


def test_a_short_list_of_flips_shows_losses_and_gains(tmp_path):
    first, second = write(tmp_path / "a", some("AAABBB")), write(tmp_path / "b", some("BBBAAA"))
    shown = report.flips(compare(first, second), 3)
    assert shown.title == "plain: 3 of 6 questions that score differently"
    assert [row[4] for row in shown.rows] == ["-1", "-1", "+1"]
