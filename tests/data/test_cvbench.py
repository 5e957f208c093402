"""CV-Bench makers: properties, and every generated question against an oracle written from the rules' text."""

import json
import re
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cambrian_data.boxes import Box
from cambrian_data.cvbench import CountRules, RelationRules, Rules, SeenRules, SpaceRules, Task, scene_questions
from cambrian_data.cvbench.annotations import Cuboid, Instance, Picture
from cambrian_data.cvbench.balance import choose, places
from cambrian_data.cvbench.build import candidates_2d, candidates_3d, select
from cambrian_data.cvbench.makers import (
    count_candidates,
    depth_candidates,
    distance_candidates,
    relation_candidates,
)
from cambrian_data.cvbench.sources import coco, omni3d
from cambrian_data.errors import DataError
from cambrian_data.scenes import write_scenes

NUM_SCENES = 300


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=NUM_SCENES, seed=11)
    return folder


@pytest.fixture(scope="module")
def made(scenes):
    return scene_questions(scenes, count_per_task=None, seed=4)


@pytest.fixture(scope="module")
def annotations(scenes):
    return coco.read(scenes / "instances.json"), omni3d.read(scenes / "cuboids.json")


# --- the oracle: raw JSON, the question's words, and the rule's text; nothing of the package


def words(pattern, text):
    """The groups of a pattern that the whole text must match."""
    match = re.fullmatch(pattern, text)
    assert match is not None, text
    return match.groups("")


class Oracle:
    def __init__(self, folder):
        self.flat = self.by_picture(json.loads((folder / "instances.json").read_text()), "file_name")
        self.solid = self.by_picture(json.loads((folder / "cuboids.json").read_text()), "file_path")

    @staticmethod
    def by_picture(data, key):
        names = {image["id"]: image[key] for image in data["images"]}
        kinds = {category["id"]: category["name"] for category in data["categories"]}
        found = defaultdict(list)
        for annotation in data["annotations"]:
            found[names[annotation["image_id"]]].append(annotation | {"kind": kinds[annotation["category_id"]]})
        return found

    def check(self, question):
        picture = question.candidate.picture.file_name
        check = {"Count": self.count, "Relation": self.relation, "Depth": self.depth, "Distance": self.distance}
        expected = check[question.task](question, picture)
        assert question.choices["ABCDEF".index(question.letter)] == expected
        assert question.choices.count(expected) == 1

    def count(self, question, picture):
        (kind,) = words(r"How many (\w+)s are in the image\?", question.text)
        assert sorted(map(int, question.choices)) == list(
            range(min(map(int, question.choices)), min(map(int, question.choices)) + 4)
        )
        return str(sum(thing["kind"] == kind for thing in self.flat[picture]))

    def thing(self, things, name, subject):
        """The thing that a name stands for: the one in the box, or the only one of its kind."""
        alike = [thing for thing in things if thing["kind"] == name]
        if "box" not in subject:
            assert len(alike) == 1
            return alike[0]
        (colour,) = words(r".*\b(red|blue|green) box\)?", subject)
        return next(thing for thing in alike if thing["id"] == self.boxed[colour])

    def relation(self, question, picture):
        subject = r"the (\w+)( \(annotated by the \w+ box\))?"
        text = (
            rf"Considering the relative positions of {subject} and {subject} in the image provided, "
            r"where is (.*) located with respect to (.*)\?"
        )
        name, mark, other, other_mark, located, reference = words(text, question.text)
        assert (located, reference) == (f"the {name}{mark}", f"the {other}{other_mark}")
        self.boxed = dict(zip(("red", "blue"), [thing.id for thing in question.candidate.subjects], strict=True))
        a, b = (self.thing(self.flat[picture], n, m) for n, m in ((name, mark), (other, other_mark)))
        assert ("red" in mark, "blue" in other_mark) == tuple(
            sum(thing["kind"] == n for thing in self.flat[picture]) > 1 for n in (name, other)
        )
        axis = 0 if set(question.choices) == {"left", "right"} else 1
        assert set(question.choices) == ({"left", "right"} if axis == 0 else {"above", "below"})
        low_a, low_b = a["bbox"][axis], b["bbox"][axis]
        high_a, high_b = low_a + a["bbox"][axis + 2], low_b + b["bbox"][axis + 2]
        assert abs((low_a + high_a) / 2 - (low_b + high_b) / 2) >= 0.1 * 64 - 1e-9
        assert min(high_a, high_b) - max(low_a, low_b) <= 0.25 * min(high_a - low_a, high_b - low_b) + 1e-9
        return (("left", "above") if low_a + high_a < low_b + high_b else ("right", "below"))[axis == 1]

    def cuboids(self, question, picture, names):
        self.boxed = dict(
            zip(("red", "blue", "green"), [thing.id for thing in question.candidate.subjects], strict=False)
        )
        marks = [f"{colour} box" for colour in ("red", "blue", "green")]
        return [
            np.array(self.thing(self.solid[picture], name, mark)["bbox3D_cam"])
            for name, mark in zip(names, marks, strict=False)
        ]

    def closer(self, first, second, names):
        if np.linalg.norm(first, axis=1).max() * 1.1 <= np.linalg.norm(second, axis=1).min():
            return names[0]
        assert np.linalg.norm(second, axis=1).max() * 1.1 <= np.linalg.norm(first, axis=1).min()
        return names[1]

    def depth(self, question, picture):
        names = words(
            r"Which object is closer to the camera taking this photo, the (\w+) \(highlighted by a red box\) or the "
            r"(\w+) \(highlighted by a blue box\)\?",
            question.text,
        )
        assert len(set(names)) == 2
        red, blue = self.cuboids(question, picture, names)
        return self.closer(red, blue, names)

    def distance(self, question, picture):
        names = words(
            r"Estimate the real-world distances between objects in this image\. Which object is closer to the (\w+) "
            r"\(highlighted by a red box\), the (\w+) \(highlighted by a blue box\) or the (\w+) "
            r"\(highlighted by a green box\)\?",
            question.text,
        )
        assert len(set(names)) == 3
        reference, blue, green = self.cuboids(question, picture, names)
        origin = reference.sum(axis=0) / 8
        return self.closer(blue - origin, green - origin, names[1:])


def test_the_oracle_agrees_with_every_question(scenes, made):
    oracle = Oracle(scenes)
    assert len(made.questions) > 800
    for question in made.questions:
        oracle.check(question)


# --- yield and balance


def test_three_hundred_scenes_give_two_hundred_questions_a_task(made):
    assert {task: summary.questions >= 200 for task, summary in made.tasks.items()} == dict.fromkeys(Task, True)


@pytest.mark.parametrize("count", [1, 7, 50, 201])
def test_letters_and_answers_are_balanced(scenes, count):
    made = scene_questions(scenes, count_per_task=count, seed=1)
    for task in Task:
        questions = [question for question in made.questions if question.task is task]
        assert len(questions) == count
        letters = Counter(question.letter for question in questions)
        expected = "ABCD" if task is Task.COUNT else "AB"
        assert max(letters.values()) - min(letters[letter] for letter in expected) <= 1
        by_choices: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for question in questions:
            group = tuple(sorted(question.choices)) if task.part == "2D" else ()
            by_choices[group][question.candidate.answer] += 1
        for group, answers in by_choices.items():
            assert max(answers.values()) - min(answers[a] for a in group or answers) <= 1


def test_letters_are_balanced_for_each_answer_too(made):
    for task in Task:
        cells = Counter(
            (question.candidate.answer, question.letter) for question in made.questions if question.task is task
        )
        for answer in {answer for answer, _ in cells}:
            found = [cells[answer, letter] for letter in ("ABCD" if task is Task.COUNT else "AB")]
            assert max(found) - min(found) <= 2


def test_no_fact_is_asked_twice_and_pictures_are_capped(made):
    caps = {Task.COUNT: 2, Task.RELATION: 2, Task.DEPTH: 2, Task.DISTANCE: 6}
    for task in Task:
        candidates = [question.candidate for question in made.questions if question.task is task]
        assert len({candidate.fact for candidate in candidates}) == len(candidates)
        in_picture = Counter(candidate.picture.file_name for candidate in candidates)
        assert max(in_picture.values()) <= caps[task]


def test_choices_can_stand_in_the_published_order(scenes):
    made = scene_questions(scenes, count_per_task=40, seed=1, rules=Rules(shuffle_choices=False))
    for question in made.questions:
        if question.task is Task.RELATION:
            assert question.choices in (("left", "right"), ("above", "below"))
        elif question.task is not Task.COUNT:
            assert question.choices == tuple(thing.category for thing in question.candidate.subjects[-2:])
    for summary in made.tasks.values():
        assert max(summary.letters.values()) - min(summary.letters.values()) == 0


def test_what_is_frequent_does_not_tell_the_answer(made):
    """Within the shown numbers every one is right equally often, though the data hold four zeros for each three."""
    shown: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for question in made.questions:
        if question.task is Task.COUNT:
            shown[tuple(sorted(question.choices))][question.candidate.answer] += 1
    assert len(shown) > 1
    for answers in shown.values():
        assert len(set(answers.values())) == 1


# --- properties of the makers

EDGES = st.integers(0, 60)


@st.composite
def boxes(draw):
    left, top = draw(EDGES), draw(EDGES)
    return Box(left, top, left + draw(st.integers(4, 30)), top + draw(st.integers(4, 30)))


@st.composite
def flat_pictures(draw):
    kinds = draw(st.lists(st.sampled_from(["ball", "cube", "cone"]), min_size=1, max_size=6))
    things = []
    for number, kind in enumerate(kinds):
        box = draw(boxes())
        seen = draw(st.sampled_from([None, 0.2, 0.5, 1.0]))
        things.append(Instance(number, kind, box, box.area * 0.8, draw(st.booleans()) and number == 5, seen))
    return Picture("a.png", 90, 90, tuple(things))


@st.composite
def solid_pictures(draw):
    kinds = draw(st.lists(st.sampled_from(["ball", "cube", "cone", "ring"]), min_size=3, max_size=6))
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    things = []
    for number, kind in enumerate(kinds):
        size = draw(st.floats(0.1, 1.0))
        centre = np.array([draw(st.floats(-8, 8)), draw(st.floats(-2, 2)), draw(st.floats(2, 20))])
        vertices = tuple(map(tuple, (corners * size + centre).tolist()))
        things.append(Cuboid(number, kind, draw(boxes()), vertices, None, draw(st.sampled_from([None, 0.0, 0.5]))))
    return Picture("a.png", 90, 90, tuple(things))


def facts(candidates):
    return {(candidate.fact, candidate.answer, tuple(t.id for t in candidate.subjects)) for candidate in candidates}


def of_flat(picture, rules):
    counts = count_candidates(picture, ("ball", "cone", "cube", "ring"), rules.count)
    return [*counts, *relation_candidates(picture, rules.relation)]


def of_solid(picture, rules):
    return [*depth_candidates(picture, rules.depth), *distance_candidates(picture, rules.distance)]


@given(flat_pictures())
def test_a_mirrored_picture_swaps_left_and_right(picture):
    mirrored = replace(
        picture,
        things=tuple(
            replace(thing, box=thing.box._replace(left=90 - thing.box.right, right=90 - thing.box.left))
            for thing in picture.things
        ),
    )
    swap = {"left": "right", "right": "left"}
    found, other = facts(of_flat(picture, Rules())), facts(of_flat(mirrored, Rules()))
    assert other == {(fact, swap.get(answer, answer), subjects) for fact, answer, subjects in found}


@given(flat_pictures())
def test_exchanging_the_two_things_exchanges_the_sides(picture):
    opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}
    found = {(a, subjects) for _, a, subjects in facts(relation_candidates(picture, RelationRules()))}
    assert found == {(opposite[answer], subjects[::-1]) for answer, subjects in found}


@given(solid_pictures(), st.sampled_from([0.25, 0.5, 2.0, 1024.0]))
def test_scaling_all_cuboids_changes_nothing(picture, scale):
    scaled = replace(
        picture,
        things=tuple(
            replace(thing, vertices=tuple(tuple(scale * part for part in v) for v in thing.vertices))
            for thing in picture.things
        ),
    )
    assert facts(of_solid(scaled, Rules())) == facts(of_solid(picture, Rules()))


@given(st.data())
def test_the_order_of_annotations_does_not_matter(data):
    flat, solid = data.draw(flat_pictures()), data.draw(solid_pictures())
    for picture, make in ((flat, of_flat), (solid, of_solid)):
        permuted = replace(picture, things=tuple(data.draw(st.permutations(picture.things))))
        assert [c.subjects for c in make(permuted, Rules())] == [c.subjects for c in make(picture, Rules())]
        assert facts(make(permuted, Rules())) == facts(make(picture, Rules()))


def loose_and_strict(name, low, high):
    """Two sets of rules that differ in one bound."""
    if name == "margin":
        pair = [(RelationRules(margin=m), SpaceRules(margin=m)) for m in (low, high)]
    elif name == "max_overlap":
        pair = [(RelationRules(max_overlap=m), SpaceRules(max_overlap=m)) for m in (high, low)]
    elif name == "max_covered":
        pair = [(RelationRules(), SpaceRules(max_covered=m)) for m in (high, low)]
    else:
        values = (high, low) if name in ("max_truncation", "max_area") else (low, high)
        pair = [(RelationRules(seen=s), SpaceRules(seen=s)) for s in (SeenRules(**{name: v}) for v in values)]
    return [
        Rules(count=CountRules(seen=relation.seen), relation=relation, depth=space, distance=space)
        for relation, space in pair
    ]


@settings(max_examples=200)
@given(
    st.data(),
    st.sampled_from(
        ["margin", "max_overlap", "min_area", "max_area", "min_visibility", "max_truncation", "max_covered"]
    ),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_stricter_rules_only_remove_questions(data, name, bounds):
    loose, strict = loose_and_strict(name, min(bounds), max(bounds))
    for picture, make in ((data.draw(flat_pictures()), of_flat), (data.draw(solid_pictures()), of_solid)):
        assert facts(make(picture, strict)) <= facts(make(picture, loose))


@given(flat_pictures())
def test_what_is_not_fully_annotated_is_not_counted_and_only_told_apart_by_a_box(picture):
    rules = Rules(relation=RelationRules(draw_boxes=False))
    partly = replace(picture, complete=frozenset({"ball", "ring"}))
    found, other = of_flat(picture, rules), of_flat(partly, rules)
    assert facts(c for c in other if c.answer != "0") <= facts(found)
    assert {name for candidate in other for name in candidate.category} <= {"ball", "ring"}


@given(flat_pictures(), solid_pictures())
def test_an_infinite_margin_removes_all_but_counts(flat, solid):
    rules = Rules(relation=RelationRules(margin=float("inf")))
    space = SpaceRules(margin=float("inf"))
    assert {c.task for c in of_flat(flat, rules)} <= {Task.COUNT}
    assert of_solid(solid, Rules(depth=space, distance=space)) == []


# --- makers, by example


def instance(number, kind, box, **more):
    return Instance(number, kind, Box(*box), Box(*box).area, **more)


def test_a_crowd_or_a_hidden_thing_makes_a_count_unaskable_but_never_zero():
    crowd = Picture("a.png", 90, 90, (instance(1, "ball", (0, 0, 20, 20), is_crowd=True),))
    hidden = Picture("a.png", 90, 90, (instance(1, "ball", (0, 0, 20, 20), visibility=0.1),))
    tiny = Picture("a.png", 90, 90, (instance(1, "ball", (0, 0, 2, 2)),))
    for picture in (crowd, hidden, tiny):
        assert [*count_candidates(picture, ("ball",), CountRules())] == []


def test_absent_categories_are_asked_about():
    picture = Picture("a.png", 90, 90, (instance(1, "ball", (0, 0, 20, 20)),))
    found = [*count_candidates(picture, ("ball", "cube", "ring", "cone"), CountRules(absent_per_picture=2))]
    assert sorted(c.answer for c in found) == ["0", "0", "1"]
    assert all(c.subjects == () and c.category != ("ball",) for c in found if c.answer == "0")


def test_boxes_are_drawn_only_where_a_category_has_several():
    things = (
        instance(1, "ball", (0, 0, 20, 20)),
        instance(2, "ball", (0, 60, 20, 80)),
        instance(3, "cube", (60, 0, 80, 20)),
    )
    picture = Picture("a.png", 90, 90, things)
    boxed = {tuple(t.category for t in c.subjects): c.boxed for c in relation_candidates(picture, RelationRules())}
    assert boxed == {("ball", "cube"): (True, False), ("cube", "ball"): (False, True)}
    assert [*relation_candidates(picture, RelationRules(draw_boxes=False))] == []


def test_touching_ranges_of_depth_are_not_asked_about():
    def cuboid(number, kind, near, far):
        corners = tuple((x, 0.0, z) for x in (0.0, 0.0) for _ in (0, 1) for z in (near, far))
        return Cuboid(number, kind, Box(30 * number, 0, 30 * number + 20, 20), corners)

    def asked(gap):
        picture = Picture("a.png", 90, 90, (cuboid(0, "ball", 2.0, 4.0), cuboid(1, "cube", 4.0 + gap, 9.0)))
        return bool([*depth_candidates(picture, SpaceRules(margin=0.125))])

    assert [asked(gap) for gap in (-0.5, 0.0, 0.25, 0.5, 1.0)] == [False, False, False, True, True]


def test_selection_does_not_depend_on_the_order_of_candidates(annotations):
    rules = Rules()
    found = candidates_2d(annotations[0], rules) | candidates_3d(annotations[1], rules)
    for task, candidates in found.items():
        first = select(candidates, task, count=60, seed=2, rules=rules)
        again = select(candidates[::-1], task, count=60, seed=2, rules=rules)
        other = select(candidates, task, count=60, seed=3, rules=rules)
        assert first == again
        assert first != other


def test_with_many_scenes_no_picture_is_asked_about_twice(annotations):
    found = candidates_3d(annotations[1], Rules())[Task.DEPTH]
    chosen = choose(found, 60, 2, 0)
    assert len({one.candidate.picture.file_name for one in chosen}) == 60
    assert Counter(places(chosen, 0)) == {0: 30, 1: 30}


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        (lambda: RelationRules(margin=-0.1), "rule margin is -0.1; expected 0 to inf"),
        (lambda: CountRules(num_choices=7), "rule num_choices is 7; expected 2 to 6"),
        (lambda: SpaceRules(max_overlap=float("nan")), "rule max_overlap is nan"),
        (lambda: SeenRules(min_visibility=2), "rule min_visibility is 2; expected 0 to 1"),
    ],
)
def test_rules_out_of_range_are_refused(rule, problem):
    with pytest.raises(DataError, match=problem):
        rule()
