import io
import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cambrian_eval.picture import Picture
from cambrian_eval.plan import MIN_FILL, estimate_lengths, make_plan, unique_requests
from cambrian_eval.types import Prompt

PICTURES = [Picture.from_bytes(f"{number}.png", str(number).encode()) for number in range(4)]


def prompts(specs):
    """One prompt for each (picture, length of its text, budget); equal ones have equal content."""
    return [
        Prompt(f"q{number}", (PICTURES[picture], "x" * length), (), budget)
        for number, (picture, length, budget) in enumerate(specs)
    ]


def planned(asked, batch_size, *, by_id=False):
    requests = unique_requests(asked, by_id)
    firsts = [equal[0] for equal in requests.values()]
    return make_plan(requests, [(9, len(prompt.text)) for prompt in firsts], batch_size)


def length(prompt):
    return 9 + len(prompt.text)


specs = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 200), st.sampled_from([16, 512])), min_size=1, max_size=60)


@settings(max_examples=80, deadline=None)
@given(specs=specs, batch_size=st.integers(1, 9), by_id=st.booleans())
def test_every_question_is_served_exactly_once_by_a_request_equal_to_its_own(specs, batch_size, by_id):
    asked = prompts(specs)
    by_name = {prompt.id: prompt for prompt in asked}
    plan = planned(asked, batch_size, by_id=by_id)
    served = [name for batch in plan.batches for prompt in batch for name in plan.served[prompt.id]]
    assert sorted(served) == sorted(by_name)
    for batch in plan.batches:
        assert 1 <= len(batch) <= batch_size
        assert len({prompt.max_new_tokens for prompt in batch}) == 1
        assert min(map(length, batch)) >= MIN_FILL * max(map(length, batch))
        for prompt in batch:
            assert plan.served[prompt.id][0] == prompt.id
            assert all(by_name[name].content == prompt.content for name in plan.served[prompt.id])
            assert not by_id or plan.served[prompt.id] == (prompt.id,)


@settings(max_examples=40, deadline=None)
@given(specs=specs, seed=st.integers(0, 9))
def test_plan_is_that_of_the_same_prompts_and_the_longest_come_first(specs, seed):
    asked = prompts([(picture, size, 16) for picture, size, _ in specs])
    plan = planned(asked, 4)
    assert plan == planned(list(asked), 4)
    order = [length(prompt) for batch in plan.batches for prompt in batch]
    # Lengths are compared by their eighths of a power of two: none is more than an eighth longer than one before it.
    assert all(later <= earlier * 9 / 8 for earlier, later in itertools.pairwise(order))
    mixed = random.Random(seed).sample(asked, len(asked))
    assert sorted(map(length, planned(mixed, 4).batches[0]), reverse=True)[0] >= max(map(length, asked)) * 8 / 9


def test_questions_about_one_picture_stand_next_to_each_other():
    asked = prompts([(number % 4, 60 + number // 4, 16) for number in range(16)])
    shown = [prompt.pictures[0].name for batch in planned(asked, 16).batches for prompt in batch]
    assert len(shown) == 16
    assert sum(one != other for one, other in itertools.pairwise(shown)) == 3


def test_choices_and_budgets_tell_requests_apart():
    one = Prompt("a", ("?",), ("x", "y"), 16)
    others = [
        Prompt("b", ("?",), ("y", "x"), 16),
        Prompt("c", ("?",), ("x", "y"), 32),
        Prompt("d", ("?",), ("x", "y"), 16),
    ]
    assert {name: [p.id for p in equal] for name, equal in unique_requests([one, *others]).items()} == {
        "a": ["a", "d"],
        "b": ["b"],
        "c": ["c"],
    }


def png(width, height):
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, format="PNG")
    return file.getvalue()


def test_lengths_are_estimated_from_headers_and_characters(tmp_path):
    (tmp_path / "large.png").write_bytes(png(280, 560))
    small, large = Picture.from_bytes("small.png", png(56, 28)), Picture.from_file("large.png", tmp_path / "large.png")
    broken = Picture.from_bytes("broken.png", b"no picture")
    asked = [
        Prompt("a", (small, large, "x" * 40), (), 1),
        Prompt("b", (broken, "x" * 8), (), 1),
        Prompt("c", ("",), (), 1),
    ]
    assert estimate_lengths(asked) == [(202, 10), (0, 2), (0, 0)]
