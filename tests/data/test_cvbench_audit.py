"""The audit of a benchmark: what luck gives, priors give and blind models give, and none is taken for another."""

import csv
import doctest
import itertools
import json
import math
import random
import subprocess
import sys
from collections import Counter
from string import ascii_uppercase

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]

from cambrian_data.cvbench import audit as library
from cambrian_data.cvbench.audit import blind, chance, items, orders, priors
from cambrian_data.cvbench.audit.chance import Trial
from cambrian_data.cvbench.audit.filter import excess_of
from cambrian_data.cvbench.audit.items import Item
from cambrian_data.errors import DataError

NAMES = (
    "bed",
    "books",
    "bottle",
    "chair",
    "desk",
    "lamp",
    "night stand",
    "sink",
    "sofa",
    "table",
    "television",
    "vase",
)
WORDED = {
    "Count": "How many {0}s are in the image?",
    "Relation": (
        "Considering the relative positions of the {0} (annotated by the red box) and the {1} in the image provided, "
        "where is the {0} (annotated by the red box) located with respect to the {1}?"
    ),
    "Depth": (
        "Which object is closer to the camera taking this photo, the {0} (highlighted by a red box) or the {1} "
        "(highlighted by a blue box)?"
    ),
    "Distance": (
        "Estimate the real-world distances between objects in this image. Which object is closer to the {0} "
        "(highlighted by a red box), the {1} (highlighted by a blue box) or the {2} (highlighted by a green box)?"
    ),
}
PARTS = {"Count": "2D", "Relation": "2D", "Depth": "3D", "Distance": "3D"}


def to_row(idx, task, names, choices, place, source="COCO"):
    question = WORDED[task].format(*names)
    lines = [f"({letter}) {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False)]
    return {
        "idx": idx,
        "type": PARTS[task],
        "task": task,
        "question": question,
        "choices": list(choices),
        "answer": f"({ascii_uppercase[place]})",
        "prompt": "\n".join([f"{question} Select from the following choices.", *lines]),
        "filename": f"img/{idx}.png",
        "source": source,
    }


def offered(task, names, draw):
    """Choices as our builder shuffles them."""
    if task == "Count":
        first = draw.randint(0, 3)
        found = [str(number) for number in range(first, first + 4)]
    elif task == "Relation":
        found = list(draw.choice((("left", "right"), ("above", "below"))))
    else:
        found = list(names[-2:])
    draw.shuffle(found)
    return found


def fair_rows(per_task, seed, tasks=tuple(PARTS)):
    """Right answers drawn by lot: no question gives anything away."""
    draw = random.Random(seed)
    rows: list[dict] = []
    for task, _ in itertools.product(tasks, range(per_task)):
        names = draw.sample(NAMES, 3 if task == "Distance" else 2)
        choices = offered(task, names, draw)
        source = draw.choice(("ADE20K", "COCO")) if PARTS[task] == "2D" else "Omni3D"
        rows.append(to_row(len(rows), task, names, choices, draw.randrange(len(choices)), source))
    return rows


def set_right(row, choice):
    row["answer"] = f"({ascii_uppercase[row['choices'].index(choice)]})"


def right_text(row):
    return row["choices"][ascii_uppercase.index(row["answer"][1])]


def write_benchmark(folder, rows, form="jsonl"):
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("2D", "3D"):
        table = [row for row in rows if row["type"] == part]
        if table and form == "jsonl":
            lines = "".join(json.dumps(row) + "\n" for row in table)
            (folder / f"test_{part.lower()}.jsonl").write_text(lines, encoding="utf-8")
        elif table:
            pq.write_table(pa.Table.from_pylist(table), folder / f"test_{part.lower()}.parquet")
    return folder


class Opinionated:
    """Picks the same choice in every order, of its own accord; of some questions it has been told the answer."""

    def __init__(self, seed, told=()):
        self.seed, self.told = seed, set(told)

    def __call__(self, asked):
        return [one.letter if one.item.idx in self.told else self.pick(one) for one in asked]

    def pick(self, one):
        favourite = min(one.choices, key=lambda choice: random.Random(f"{self.seed}:{one.item.idx}:{choice}").random())
        return ascii_uppercase[one.choices.index(favourite)]


def always(letter):
    return lambda asked: [letter for _ in asked]


def fond_of(text):
    """Always the same text where it is offered, else the first in the alphabet."""
    return lambda asked: [
        ascii_uppercase[one.choices.index(text if text in one.choices else min(one.choices))] for one in asked
    ]


def lottery(asked):
    return [ascii_uppercase[random.Random(one.id).randrange(len(one.choices))] for one in asked]


def whole(audited, name):
    return next(model for model in audited.audit.models if model.name == name).groups[0]


def group(audited, name, wanted):
    (model,) = [model for model in audited.audit.models if model.name == name]
    return next(found for found in model.groups if found.group == wanted)


def found_priors(audited):
    return {(found.task, found.prior) for found in audited.audit.priors if found.trial.finds}


# --- a benchmark without bias, and models without knowledge


@pytest.fixture(scope="module")
def fair(tmp_path_factory):
    return write_benchmark(tmp_path_factory.mktemp("fair") / "bench", fair_rows(150, seed=4))


def test_a_fair_benchmark_gives_no_finding_whatever_a_model_prefers(fair):
    """Fond of a letter, of a text, of one choice for no reason, or of nothing: none of it is knowledge."""
    guessers = {"B": always("B"), "left": fond_of("left"), "opinion": Opinionated(1), "lots": lottery}
    audited = library.audit(fair, guessers)
    assert audited.audit.findings == []
    assert audited.drops == []
    assert audited.audit.questions == 600
    assert "found: nothing that luck does not explain" in library.notes(audited.audit)


def test_what_luck_flags_is_what_is_expected_of_this_model(fair):
    audited = library.audit(fair, {"opinion": Opinionated(1), "B": always("B"), "lots": lottery})
    settled = group(audited, "opinion", "Relation")
    assert settled.settled == settled.questions == 150
    assert settled.expected == 75  # half of two choices, though only one in four pairs of letters is right twice
    assert settled.expected_low <= settled.flagged <= settled.expected_high
    assert settled.flagged > 50
    assert whole(audited, "B").settled == whole(audited, "B").flagged == 0  # no letter stands by one choice throughout
    by_lot = group(audited, "lots", "Count")
    assert by_lot.settled < 10  # one in 64 question picks the same of four choices four times


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_what_is_reported_are_counts_of_the_tables(tmp_path, form):
    rows = fair_rows(40, seed=2)
    audited = library.audit(write_benchmark(tmp_path, rows, form), {"opinion": Opinionated(3, told=range(0, 160, 7))})
    told = set(range(0, 160, 7))
    for guess, row in zip(audited.guesses["opinion"], rows, strict=True):
        assert guess.item.idx == row["idx"]
        assert guess.item.answer == right_text(row)
        assert len(guess.picks) == len(row["choices"])
        assert guess.flagged or row["idx"] not in told
    (model,) = audited.audit.models
    assert set(model.flagged) >= told
    for level in audited.audit.tasks:
        of_task = [row for row in rows if row["task"] == level.task]
        assert level.questions == len(of_task) == 40
        assert level.chance == pytest.approx(np.mean([1 / len(row["choices"]) for row in of_task]))
        letters = Counter(row["answer"][1] for row in of_task)
        assert level.letter.score == max(letters.values()) / 40
        assert letters[level.letter.answer] == max(letters.values())
        texts = Counter(map(right_text, of_task))
        assert level.text.score * 40 == max(texts.values()) == texts[level.text.answer]
    for share in audited.audit.shares:
        of_task = [row for row in rows if row["task"] == share.task]
        if share.prior == "letter":
            assert share.right == sum(row["answer"] == f"({share.cue})" for row in of_task)
        if share.prior == "answer":
            same = [row for row in of_task if " / ".join(sorted(row["choices"])) == share.group]
            assert share.offered == len(same) >= 5
            assert share.right == sum(right_text(row) == share.cue for row in same)
        assert share.low <= share.right / share.offered <= share.high


# --- every kind of bias is found, under its name


def bias_letters(row, draw):
    if row["task"] == "Count" and draw.random() < 0.35:
        row["answer"] = "(A)"


def bias_answers(row, draw):
    if row["task"] == "Relation" and draw.random() < 0.5:
        set_right(row, sorted(row["choices"])[0])  # above, left


def bias_categories(row, draw):
    """Beds are always upper, books always lower; overall every side is as frequent as the other."""
    if row["task"] == "Relation":
        name = row["question"].partition("positions of the ")[2].partition(" (")[0]
        set_right(row, sorted(row["choices"])[NAMES.index(name) % 2])


def bias_winners(row, draw):
    """Of two things the one that comes first in the alphabet is closer: sofas never, beds always."""
    if row["task"] == "Depth":
        set_right(row, min(row["choices"]))


def bias_numbers(row, draw):
    if row["task"] == "Count" and draw.random() < 0.5:
        set_right(row, sorted(row["choices"])[1])


def bias_boxes(row, draw):
    if row["task"] == "Distance" and draw.random() < 0.5:
        set_right(row, min(row["choices"], key=row["question"].index))


def bias_lengths(row, draw):
    if row["task"] == "Depth" and draw.random() < 0.8:
        set_right(row, max(row["choices"], key=len))


BIASES = {
    "letter": (bias_letters, "Count"),
    "answer": (bias_answers, "Relation"),
    "category": (bias_categories, "Relation"),
    "category ": (bias_winners, "Depth"),
    "number": (bias_numbers, "Count"),
    "mention": (bias_boxes, "Distance"),
    "choice length": (bias_lengths, "Depth"),
}


@pytest.mark.parametrize("prior", BIASES)
def test_a_bias_is_found_under_its_name_and_in_its_task_only(tmp_path, prior):
    spoil, task = BIASES[prior]
    rows, draw = fair_rows(120, seed=8), random.Random(5)
    for row in rows:
        spoil(row, draw)
    audited = library.audit(write_benchmark(tmp_path, rows), {"B": always("B")})
    found = found_priors(audited)
    assert (task, prior.strip()) in found
    assert {name for name, _ in found} == {task}
    assert any(finding.startswith(f"{task}: who goes by {prior.strip()} ") for finding in audited.audit.findings)
    assert not whole(audited, "B").flagged_trial.finds


def test_questions_that_give_themselves_away_are_found_and_named(fair, tmp_path):
    """A model that was told a fifth of the answers, and has opinions on the rest."""
    told = set(range(0, 600, 5))
    audited = library.audit(fair, {"told": Opinionated(1, told)})
    result = whole(audited, "told")
    assert result.flagged_trial.finds
    assert result.accuracy_trial.finds
    assert result.flagged > result.expected_high
    assert any(finding.startswith("told, all: right in every order in") for finding in audited.audit.findings)
    assert told <= set(audited.audit.models[0].flagged)
    assert result.detectable is not None
    assert result.detectable < 1 / 5


def test_a_leak_in_one_category_is_found_there(tmp_path):
    rows = fair_rows(150, seed=6)
    beds = {row["idx"] for row in rows if row["task"] == "Count" and "beds" in row["question"]}
    audited = library.audit(write_benchmark(tmp_path, rows), {"told": Opinionated(9, beds)})
    assert group(audited, "told", "Count, beds").flagged_trial.finds
    assert not any(
        found.flagged_trial.finds
        for found in audited.audit.models[0].groups
        if found.level == "category" and found.group != "Count, beds"
    )


def test_dropping_the_excess_leaves_a_benchmark_that_passes_the_same_audit(tmp_path):
    """Half of the relations are "left" or "above" on top of luck; who always says so is left with its luck."""
    rows, draw = fair_rows(200, seed=3, tasks=("Relation", "Depth")), random.Random(1)
    for row in rows:
        bias_answers(row, draw)
    fond = {"fond": fond_of("left")}
    before = library.audit(write_benchmark(tmp_path / "before", rows), fond)
    assert before.audit.findings
    assert group(before, "fond", "Relation").flagged == sum(right_text(row) in ("left", "above") for row in rows)
    dropped = {drop.idx for drop in before.drops}
    assert dropped <= set(before.audit.models[0].flagged)
    assert {rows[idx]["task"] for idx in dropped} == {"Relation"}
    after = library.audit(write_benchmark(tmp_path / "after", [row for row in rows if row["idx"] not in dropped]), fond)
    assert after.audit.findings == []
    assert after.drops == []
    left = group(after, "fond", "Relation")
    assert left.expected - 1 <= left.flagged <= left.expected

    # Without everything that was flagged, only "right" and "below" would be left, which is found as well.
    flagged = set(before.audit.models[0].flagged)
    worse = library.audit(write_benchmark(tmp_path / "worse", [row for row in rows if row["idx"] not in flagged]))
    assert ("Relation", "answer") in found_priors(worse)


def test_questions_flagged_by_most_models_go_first():
    """Those that others guess right as well; each that goes takes its part of the luck with it."""
    guesses = [blind.Guess(item_of(2, 0, idx), (0, 0)) for idx in range(10)]
    votes = {idx: 2 if idx in (1, 4, 5, 8) else 1 for idx in range(10)}
    found = excess_of(guesses, votes, seed=0)
    assert set(found[:4]) == {1, 4, 5, 8}
    assert len(found) == 10  # nothing wrong is left to balance them
    half = [*guesses, *(blind.Guess(item_of(2, 1, idx), (0, 0)) for idx in range(10, 16))]
    found = excess_of(half, votes, seed=0)
    assert set(found) == {1, 4, 5, 8}  # six right ones and six wrong ones are left
    assert excess_of([guess for guess in half if guess.item.idx not in found], votes, seed=0) == []


# --- false alarms


def false_alarms(folder, runs, per_task):
    """How many fair benchmarks, and how many single tests, were found biased; and how many tests there were."""
    alarms = small = tests = 0
    for run in range(runs):
        write_benchmark(folder, fair_rows(per_task, seed=1000 + run))
        audited = library.audit(folder, {"opinion": Opinionated(run), "lots": lottery}, seed=run)
        alarms += bool(audited.audit.findings)
        trials = [found.trial for found in audited.audit.priors]
        trials += [found.flagged_trial for model in audited.audit.models for found in model.groups]
        accuracies = [found.accuracy_trial for model in audited.audit.models for found in model.groups]
        trials += [trial for trial in accuracies if trial is not None]
        small += sum(trial.p <= 0.05 for trial in trials)
        tests += len(trials)
    return alarms, small, tests


def test_false_alarms_are_as_rare_as_promised(tmp_path):
    """30 fair benchmarks: more than 5 alarms have a probability below 0.004 if each has 5 %."""
    alarms, small, tests = false_alarms(tmp_path, runs=30, per_task=20)
    assert alarms <= 5
    assert small <= 0.055 * tests


@pytest.mark.slow
def test_false_alarms_are_as_rare_as_promised_over_many_benchmarks(tmp_path):
    """1000 fair benchmarks: more than 68 alarms have a probability below 0.005 if each has 5 %."""
    alarms, small, tests = false_alarms(tmp_path, runs=1000, per_task=30)
    assert alarms <= 68
    assert small <= 0.052 * tests


# --- what luck gives, against other ways to compute it

chances = st.lists(st.sampled_from([1 / 2, 1 / 3, 1 / 4, 1 / 6]), min_size=1, max_size=60)


@given(chances, st.integers(0, 60))
@settings(max_examples=40, deadline=None)
def test_the_number_of_hits_has_the_poisson_binomial_distribution(probabilities, observed):
    found = chance.hits(probabilities)
    expected = stats.poisson_binom(probabilities)
    assert found.at_least(observed) == pytest.approx(expected.sf(observed - 1), rel=1e-9, abs=1e-14)
    low, high = found.central()
    assert expected.cdf(low - 1) <= 0.025 + 1e-12
    assert expected.sf(high) <= 0.025 + 1e-12
    assert expected.cdf(low) > 0.025 - 1e-12


def test_a_large_sum_keeps_its_tail():
    """100,000 questions of two choices; the tail is that of the binomial, to nine digits where it is 1e-19."""
    found = chance.hits([0.5] * 100_000)
    for observed in (50_000, 50_500, 51_400):
        assert found.at_least(observed) == pytest.approx(stats.binom(100_000, 0.5).sf(observed - 1), rel=1e-6)


@given(st.lists(st.lists(st.one_of(st.none(), st.integers(0, 2)), min_size=3, max_size=3), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_luck_is_what_all_right_answers_give_in_turn(picks):
    """Of one to five questions with three choices: every assignment of right answers, counted one by one."""
    guesses = [blind.Guess(item_of(3), tuple(of_one)) for of_one in picks]
    sums = Counter(
        sum(of_one.count(place) for of_one, place in zip(picks, places, strict=True))
        for places in itertools.product(range(3), repeat=len(picks))
    )
    found = chance.sum_of([guess.luck for guess in guesses])
    for total in range(3 * len(picks) + 1):
        expected = sum(count for value, count in sums.items() if value >= total) / 3 ** len(picks)
        assert found.at_least(total) == pytest.approx(expected, abs=1e-12)
    trial = chance.excess([guess.luck for guess in guesses], max(sums))
    assert trial.p == pytest.approx(trial.least_p)


@given(st.integers(1, 300).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
@settings(max_examples=40, deadline=None)
def test_intervals_are_wilsons(counts):
    expected = stats.binomtest(*counts).proportion_ci(method="wilson")
    assert chance.wilson(*counts) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_nothing_to_count_has_no_interval():
    assert chance.wilson(0, 0) == (0, 1)
    assert chance.hits([]).central() == (0, 0)
    assert chance.hits([]).at_least(0) == 1


def test_corrected_p_are_holms():
    p = [0.01, 0.04, 0.03, 0.005]
    found = chance.correct([Trial(p=value, least_p=0.0) for value in p])
    assert [trial.p_holm for trial in found] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [trial.finds for trial in found] == [True, False, False, True]


def test_tests_that_can_find_nothing_cost_nothing():
    hopeless = [Trial(p=0.125, least_p=0.125)] * 500
    found = chance.correct([Trial(p=0.03, least_p=1e-9), *hopeless])
    assert found[0].p_holm == pytest.approx(0.03)
    assert all(trial.p_holm is None and not trial.finds for trial in found[1:])
    assert chance.correct([]) == []


def test_the_smallest_leak_that_is_found_is_found_in_four_of_five_audits():
    """2000 draws: the share found has a standard error of 0.9 points."""
    probabilities = [1 / 2] * 150 + [1 / 4] * 50
    share = chance.detectable(probabilities, alpha=0.001)
    assert share is not None
    generator = np.random.default_rng(0)
    raised = [p + share * (1 - p) for p in probabilities]
    hits = (generator.random((2000, 200)) < raised).sum(axis=1)
    luck = chance.hits(probabilities)
    power = np.mean([luck.at_least(int(hit)) <= 0.001 for hit in hits])
    assert 0.77 < power < 0.84
    assert chance.detectable([1 / 2] * 5, alpha=0.001) is None


def item_of(num_choices, place=0, idx=0, question="?", choices=None):
    texts = tuple(choices or (f"choice {number}" for number in range(num_choices)))
    return Item(idx, "2D", "Count", "COCO", question, "Q\n", texts, place, items.categories(question))


def test_a_guesser_is_never_told_the_answer_it_guesses():
    """Credits of the layout equal those of a guesser written out in full, over letters of two and of four choices."""
    draw = random.Random(0)
    asked = [item_of(size, draw.randrange(size), idx) for idx, size in enumerate(draw.choices((2, 4), k=40))]
    found = priors.guess(asked, "letter")
    for item in asked:
        others = [other for other in asked if other.idx != item.idx and len(other.choices) == len(item.choices)]
        right = [sum(other.place == place for other in others) for place in range(len(item.choices))]
        best = [place for place, count in enumerate(right) if count == max(right)]
        assert found[item.idx] == pytest.approx((item.place in best) / len(best))


def test_where_nothing_is_known_a_guesser_scores_chance():
    lonely = [item_of(2, 0, 0, "How many cats are in the image?"), item_of(4, 1, 1, "How many dogs are in the image?")]
    assert priors.guess(lonely, "category") == {0: 0.5, 1: 0.25}


def test_even_answers_score_below_chance_and_are_no_finding():
    """Without the question itself its answer is the rarer one: balance looks like less than luck."""
    even = [item_of(2, idx % 2, idx) for idx in range(100)]
    layout = priors.lay_out(even, "letter")
    assert layout is not None
    found = priors.measure(layout, "letter", seed=0)
    assert found.score == 0
    assert found.trial.p > 0.9


# --- orders


@given(st.integers(2, 7), st.data())
@settings(max_examples=30, deadline=None)
def test_every_choice_stands_under_every_letter_once(size, data):
    item = item_of(size, data.draw(st.integers(0, size - 1)))
    asked = orders.in_orders(item)
    assert [one.shift for one in asked] == list(range(size))
    for place in range(size):
        assert sorted(one.choices[place] for one in asked) == sorted(item.choices)
    for one in asked:
        assert one.choices[ascii_uppercase.index(one.letter)] == item.answer
        assert one.place(one.letter) == item.place
        assert one.prompt.endswith(f"({one.letter}) {item.answer}" if one.letter == ascii_uppercase[size - 1] else "")
    assert len({one.id for one in asked}) == size
    assert asked[0].prompt.startswith("Q\n(A) choice 0\n(B) choice 1")


def test_fewer_orders_can_be_asked(fair):
    audited = library.audit(fair, {"opinion": Opinionated(1)}, orders=2)
    assert {len(guess.picks) for guess in audited.guesses["opinion"]} == {2}
    with pytest.raises(DataError, match="the number of orders is 1; expected at least 2"):
        library.audit(fair, {}, orders=1)


@pytest.mark.parametrize(
    ("guesser", "problem"),
    [
        (lambda asked: ["A"], "m: found 1 replies to 1500 questions"),
        (
            lambda asked: ["E" if len(one.choices) == 4 else "A" for one in asked],
            r"m: question .*@0: found 'E'.*A to D",
        ),
        (lambda asked: ["ab" for _ in asked], "found 'ab'"),
        (lambda asked: ["" for _ in asked], "found ''"),
    ],
)
def test_replies_that_are_no_letters_are_refused(fair, guesser, problem):
    with pytest.raises(DataError, match=problem):
        library.audit(fair, {"m": guesser})


def test_a_model_that_cannot_be_read_is_said_to_say_little(fair):
    mute = library.audit(fair, {"mute": lambda asked: [None for _ in asked]})
    assert whole(mute, "mute").readable == 0
    assert any("mute: only 0% of its replies give a letter" in note for note in library.notes(mute.audit))
    fond = library.audit(fair, {"B": always("B")})
    assert any("B: never picks the same choice in every order" in note for note in library.notes(fond.audit))
    assert "no model was asked: only priors were looked at" in library.notes(library.audit(fair).audit)


# --- files


def test_the_same_audit_gives_the_same_bytes(fair, tmp_path):
    for name in ("one", "two"):
        library.write(library.audit(fair, {"told": Opinionated(1, range(60))}, seed=5), tmp_path / name)
    for file in ("audit.json", "audit.csv", "audit.md"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_files_hold_the_result(fair, tmp_path):
    audited = library.audit(fair, {"told": Opinionated(1, range(0, 600, 7))})
    library.write(audited, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "audit.json").read_text()) == library.to_dict(audited.audit)
    with (tmp_path / "out" / "audit.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 600
    flagged = {int(row["idx"]) for row in table if row["told flagged"] == "1"}
    assert flagged == set(audited.audit.models[0].flagged)
    assert all(row["told orders"] == ("4" if row["task"] == "Count" else "2") for row in table)
    assert {int(row["idx"]) for row in table if row["drop"] == "1"} == {drop.idx for drop in audited.drops}
    by_category = [float(row["category right"]) for row in table if row["task"] == "Depth"]
    (depth,) = [level for level in audited.audit.tasks if level.task == "Depth"]
    assert np.mean(by_category) == pytest.approx(depth.category, abs=0.002)
    page = (tmp_path / "out" / "audit.md").read_text()
    widths = {line.count(" | ") for line in page.split("\n## ")[1].splitlines() if line.startswith("|")}
    assert len(widths) == 1
    for text in ("best letter", "finds leaks from", "found: told, all", "Count, beds"):
        assert text in page


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return library.audit(write_benchmark(tmp_path_factory.mktemp("small") / "small", fair_rows(6, 1, ("Depth",))))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_audit_replaces_an_older_one_of_the_same_questions_alone(small, tmp_path):
    out = tmp_path / "out"
    library.write(small, out)
    before = contents(out)
    assert set(before) == {"audit.json", "audit.csv", "audit.md"}
    library.write(small, out)
    assert contents(out) == before
    other = library.audit(write_benchmark(tmp_path / "other", fair_rows(6, 2, ("Depth",))))
    with pytest.raises(
        DataError, match=r"out holds an audit of other questions, those of small; nothing is overwritten"
    ):
        library.write(other, out)
    assert contents(out) == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("thesis.tex", "years of work", r"is not empty and holds no audit; choose an empty or a new output folder"),
        ("audit.csv", "a,b", r"is not empty and holds no audit"),
        ("audit.json", '{"vulnerabilities": []}', r"audit.json is none of an audit \(.*benchmark"),
        ("audit.json", "no JSON", r"audit.json is none of an audit"),
        ("audit.json", "[]", r"audit.json is none of an audit"),
    ],
)
def test_a_folder_of_something_else_is_left_as_it_is(small, tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        library.write(small, tmp_path)
    with pytest.raises(DataError, match="is a file; expected a folder to write an audit to"):
        library.write(small, tmp_path / name)
    assert contents(tmp_path) == {name: content.encode()}


def test_an_unfinished_audit_goes_on_with_the_same_questions_alone(small, tmp_path):
    library.claim(tmp_path / "small", small.items, tmp_path / "out")
    (tmp_path / "out" / "models").mkdir()
    with pytest.raises(DataError, match="holds an audit of other questions, those of small"):
        library.claim(tmp_path / "other", small.items[1:], tmp_path / "out")
    library.write(small, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"audit.json", "audit.csv", "audit.md", "models"}


def test_one_test_is_corrected_together_with_none(small):
    told = [library.notes(msgspec.structs.replace(small.audit, tests=number)) for number in (1, 2)]
    assert any(note.startswith("1 test: a benchmark without bias gives") for note in told[0])
    assert any(note.startswith("2 tests, corrected together: a benchmark") for note in told[1])


def test_decisions_are_a_reviewers_and_never_overwrite_anothers(fair, tmp_path):
    audited = library.audit(fair, {"told": Opinionated(1, range(0, 600, 5))})
    file = tmp_path / "review" / "blind.jsonl"
    library.write_decisions(audited.drops, file, "2026-11-25T12:00:00+00:00")
    decisions = [json.loads(line) for line in file.read_text().splitlines()]
    assert [decision["idx"] for decision in decisions] == [drop.idx for drop in audited.drops]
    assert len(decisions) == audited.audit.drops > 40
    for decision in decisions:
        assert set(decision) == {"idx", "decision", "reason", "changes", "time"}
        assert decision["decision"] == "reject"
        assert decision["reason"].startswith("blind: told is right in every order of the choices (")
    with pytest.raises(DataError, match=r"blind.jsonl exists; decisions are never overwritten"):
        library.write_decisions(audited.drops, file, "2026-11-25T12:00:00+00:00")


# --- what is read


@pytest.mark.parametrize(
    ("task", "names", "expected"),
    [
        ("Count", ("night stand",), ("night stands",)),
        ("Relation", ("book", "dining table"), ("book", "dining table")),
        ("Depth", ("sink", "bottle"), ("sink", "bottle")),
        ("Distance", ("desk", "shelves", "books"), ("desk", "shelves", "books")),
    ],
)
def test_categories_are_read_from_the_wording(task, names, expected):
    assert items.categories(WORDED[task].format(*names)) == expected
    assert items.categories("What is this?") == ()
    assert items.categories("How many mice are in the image?", "mouse") == ("mouse",)


def test_categories_of_published_questions_are_read(assets):
    lines = (assets / "bench" / "cvbench_items.jsonl").read_text().splitlines()
    found = {item["task"]: items.categories(item["question"]) for item in map(json.loads, lines)}
    assert found == {
        "Count": ("trains",),
        "Relation": ("book", "couch"),
        "Depth": ("sink", "bottle"),
        "Distance": ("desk", "shelves", "books"),
    }


def test_questions_in_other_words_are_audited_without_categories(tmp_path):
    rows = fair_rows(30, seed=1, tasks=("Relation",))
    for row in rows:
        row["prompt"] = row["prompt"].replace(row["question"], "Where is it?")
        row["question"] = "Where is it?"
    audited = library.audit(write_benchmark(tmp_path, rows), {"opinion": Opinionated(1)})
    assert audited.audit.tasks[0].category is None
    assert "category" not in {found.prior for found in audited.audit.priors}
    assert {found.level for found in audited.audit.models[0].groups} == {"all", "source"}


def test_one_part_alone_can_be_audited(tmp_path):
    audited = library.audit(write_benchmark(tmp_path, fair_rows(20, seed=1, tasks=("Depth",))))
    assert [level.task for level in audited.audit.tasks] == ["Depth"]


def change(key, value, at=3):
    return lambda rows: rows[at].update({key: value})


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (change("answer", "(E)"), r'"answer" is "\(E\)"; expected a letter from \(A\) to \(D\)'),
        (change("answer", "left"), r'"answer" is "left"; expected a letter'),
        (change("idx", 0), r'"idx" 0 is also that of .*test_2d'),
        (change("choices", ["1"]), r'"choices" is \["1"\]; expected a list of 2 to 26'),
        (change("choices", ["1", "2", "2", "3"]), "expected texts that are all different"),
        (change("prompt", "How many?"), r'"prompt" does not end with its choices'),
        (change("task", " "), r'"task" is " "; expected a text'),
        (change("type", "3D", at=-1), None),
    ],
)
def test_a_broken_row_names_file_row_and_field(tmp_path, form, spoil, problem):
    rows = fair_rows(5, seed=1)
    spoil(rows)
    write_benchmark(tmp_path, rows, form)
    if problem is None:
        (tmp_path / f"test_2d.{form}").unlink()
        (tmp_path / f"test_3d.{form}").rename(tmp_path / f"test_2d.{form}")
        problem = 'row 1|:1: "type" is "3D"; expected "2D"'
    with pytest.raises(DataError, match=problem) as error:
        library.audit(tmp_path)
    assert f"test_2d.{form}" in str(error.value)


@pytest.mark.parametrize("value", [True, "7", 1.5])
def test_an_idx_is_a_whole_number(tmp_path, value):
    rows = fair_rows(3, seed=1)
    rows[1]["idx"] = value
    with pytest.raises(DataError, match=r'test_2d.jsonl:2: "idx" is .*; expected a whole number'):
        library.audit(write_benchmark(tmp_path, rows))


def test_an_idx_is_unique_over_both_parts(tmp_path):
    rows = fair_rows(3, seed=1)
    rows[-1]["idx"] = 0
    with pytest.raises(DataError, match=r'test_3d.jsonl:6: "idx" 0 is also that of .*test_2d.jsonl:1'):
        library.audit(write_benchmark(tmp_path, rows))


def test_a_folder_without_tables_and_tables_without_rows_are_named(tmp_path):
    with pytest.raises(DataError, match="found an empty folder; expected test_2d and test_3d"):
        library.audit(tmp_path)
    with pytest.raises(DataError, match="found no folder; expected"):
        library.audit(tmp_path / "nowhere")
    (tmp_path / "train.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"found train.jsonl; expected test_2d"):
        library.audit(tmp_path)
    (tmp_path / "test_2d.jsonl").write_text("")
    with pytest.raises(DataError, match="found no question"):
        library.audit(tmp_path)
    (tmp_path / "test_2d.jsonl").write_text('{"idx": 1}\n')
    with pytest.raises(DataError, match=r'test_2d.jsonl:1: the field "type" is missing'):
        library.audit(tmp_path)
    (tmp_path / "test_2d.jsonl").write_text("{\n")
    with pytest.raises(DataError, match=r"test_2d.jsonl:1: malformed JSON"):
        library.audit(tmp_path)
    (tmp_path / "test_2d.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"test_2d.parquet: cannot be read as Parquet"):
        library.audit(tmp_path)


def test_large_pictures_in_parquet_are_not_read(tmp_path):
    """The table holds a column that cannot be turned into Python at all; only what is needed is."""
    rows = fair_rows(10, seed=1, tasks=("Relation",))
    table = pa.Table.from_pylist(rows)
    far = pa.array([2**60] * len(rows), type=pa.timestamp("us"))  # a year that Python's dates do not reach
    pq.write_table(table.append_column("image", far), tmp_path / "test_2d.parquet")
    assert library.audit(tmp_path).audit.questions == 10


# --- size, and what is imported


def test_torch_and_scipy_are_not_needed(fair):
    code = (
        "import sys\nfrom pathlib import Path\nfrom cambrian_data.cvbench import audit\n"
        f"audit.audit(Path({str(fair)!r}), {{'A': lambda asked: ['A'] * len(asked)}})\n"
        "sys.exit(bool({'torch', 'scipy', 'cambrian_eval', 'cambrian_model'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("module", [items, priors])
def test_the_examples_in_docstrings_hold(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_the_alpha_of_an_audit_is_stated(fair):
    audited = library.audit(fair)
    assert audited.audit.alpha == 0.05
    assert audited.audit.tests == len(audited.audit.priors)
    assert math.isclose(sum(level.questions for level in audited.audit.tasks), 600)
