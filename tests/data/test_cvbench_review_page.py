"""The review page in a real Chromium: keys, filters, overlays, dialogs, what goes wrong, and that data stays text."""

import json
import re
import shutil
import threading
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import pytest

from cambrian_data.cvbench.review import Review, open_server, read_benchmark
from tests.support.folders import read_rows
from tests.support.reviewable import write_reviewable

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright, which drives the browser, is not installed")
expect = sync_api.expect


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    base = tmp_path_factory.mktemp("review_page")
    return write_reviewable(base / "scenes", base / "bench")


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "bench", ignore=shutil.ignore_patterns("*.parquet"))


@contextmanager
def serve(folder):
    """A server of Anna's review of a folder."""
    server = open_server(Review(read_benchmark(folder), "anna"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(timeout=20)


@pytest.fixture
def server(folder):
    with serve(folder) as running:
        yield running


class Visit:
    """Opens pages, and writes down every error of a script and every request to anywhere else."""

    def __init__(self, context):
        self.context = context
        self.problems: list[str] = []

    def __call__(self, url, has_picture=True):
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("console", lambda said: self.problems.append(f"console: {said.text}") if said.type == "error" else None)
        page.on("dialog", lambda dialog: self.problems.append(f"dialog: {dialog.message}"))
        page.on("request", lambda asked: self.note(asked.url, url.partition("#")[0]))
        page.goto(url)
        if has_picture:
            expect(page.locator("#picture")).to_have_attribute("aria-busy", "false")
        expect(page.locator("#picture image")).to_have_count(int(has_picture))
        return page

    def note(self, asked, url):
        if not asked.startswith(url):
            self.problems.append(f"asked: {asked}")


@pytest.fixture
def visit(browser):
    context = browser.new_context(viewport={"width": 1400, "height": 850})
    context.set_default_timeout(10000)
    expect.set_options(timeout=10000)
    opened = Visit(context)
    yield opened
    context.close()
    assert opened.problems == []


def forgive_failed_requests(visit):
    """Takes it that Chromium has written down requests which failed, as the test meant them to."""
    assert all("Failed to load resource" in problem for problem in visit.problems)
    visit.problems.clear()


@pytest.fixture
def page(server, visit):  # in this order: the page is closed before its server
    return visit(server.url)


def log(folder):
    return [json.loads(line) for line in (folder / "review" / "anna.jsonl").read_text().splitlines()]


def shows(page, idx):
    """Waits until the page shows this question, with its picture and its geometry."""
    expect(page.locator("#picture")).to_have_attribute("aria-label", re.compile(rf"^Picture of question {idx}, "))
    expect(page.locator("#picture")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#caption")).to_contain_text("pixels")
    expect(page.locator("#facts .fact").first).to_have_text(f"Question {idx}")


def shown_numbers(page):
    return [int(text) for text in page.locator("#list .entry-idx").all_text_contents()]


# --- deciding


def test_a_question_is_shown_with_its_right_answer(page, folder):
    row = read_rows(folder)[0]
    shows(page, 0)
    expect(page.locator("#question")).to_have_text(row["question"])
    choices = page.locator("#choices .choice-text")
    assert choices.all_text_contents() == row["choices"]
    right = page.locator("#choices .right")
    expect(right).to_have_count(1)
    expect(right).to_contain_text(row["answer"])
    expect(right).to_contain_text("right answer")
    size = page.evaluate(
        """async () => {
            const picture = new Image();
            picture.src = document.querySelector("#picture image").getAttribute("href");
            await picture.decode();
            return [picture.naturalWidth, picture.naturalHeight];
        }"""
    )
    assert size == [64, 64]


def test_keys_accept_reject_and_undo_and_every_step_is_on_disk(page, folder, visit):
    page.keyboard.press("a")
    shows(page, 1)
    assert [(line["idx"], line["decision"]) for line in log(folder)] == [(0, "accept")]
    page.keyboard.press("r")
    expect(page.locator("#reject-dialog")).to_be_visible()
    page.keyboard.press("3")
    shows(page, 2)
    assert log(folder)[-1]["reason"] == "incomplete labels"
    expect(page.locator("#progress-text")).to_have_text("2 of 16 decided: 1 accepted, 0 modified, 1 rejected")
    expect(page.locator("#progress-bar")).to_have_attribute("aria-valuenow", "2")
    page.keyboard.press("u")
    shows(page, 1)
    expect(page.locator("#message")).to_have_text("Taken back: reject of question 1.")
    expect(page.locator("#decided")).to_have_text("not decided yet")
    expect(page.locator("#progress-text")).to_contain_text("1 of 16 decided")
    assert [line["decision"] for line in log(folder)] == ["accept", "reject", "withdraw"]
    page.keyboard.press("u")
    shows(page, 0)
    page.keyboard.press("u")
    expect(page.locator("#message")).to_have_text("there is no decision to take back.")
    forgive_failed_requests(visit)


def test_a_question_whose_picture_is_not_there_yet_cannot_be_accepted(page, folder):
    held: list[Any] = []
    page.route("**/pictures/*", lambda route: held.append(route))
    page.keyboard.press("a")
    expect(page.locator("#facts .fact").first).to_have_text("Question 1")
    page.keyboard.press("a")
    expect(page.locator("#message")).to_have_text("The picture is not there yet.")
    assert [line["idx"] for line in log(folder)] == [0]
    page.unroute("**/pictures/*")
    for route in held:
        route.continue_()
    shows(page, 1)
    page.keyboard.press("a")
    shows(page, 2)


def test_buttons_do_what_keys_do(page, folder):
    page.get_by_role("button", name="Next").click()
    shows(page, 1)
    page.get_by_role("button", name="Previous").click()
    shows(page, 0)
    page.get_by_role("button", name="Accept").click()
    shows(page, 1)
    page.locator("#reject").click()
    page.get_by_label("Another reason").fill("the picture is upside down")
    page.locator("#reject-store").click()
    shows(page, 2)
    page.get_by_role("button", name="Undo").click()
    shows(page, 1)
    assert [(line["decision"], line["reason"]) for line in log(folder)][:2] == [
        ("accept", ""),
        ("reject", "the picture is upside down"),
    ]


def test_keys_move_and_end_at_the_ends(page):
    page.keyboard.press("p")
    expect(page.locator("#message")).to_have_text("This is the first question of the list.")
    for _ in range(3):
        page.keyboard.press("n")
    shows(page, 3)
    page.keyboard.press("ArrowLeft")
    shows(page, 2)
    page.keyboard.press("ArrowRight")
    shows(page, 3)
    page.keyboard.press("f")
    shows(page, 0)
    page.locator("#list li").last.locator("button").click()
    shows(page, 15)
    page.keyboard.press("n")
    expect(page.locator("#message")).to_have_text("This is the last question of the list.")


def test_a_rejection_needs_a_reason(page, folder):
    page.keyboard.press("r")
    page.locator("#reject-store").click()
    expect(page.locator("#reject-error")).to_contain_text("A rejection needs a reason")
    page.get_by_label("Another reason").fill("1 of the 3 is a shadow")  # digits are text here
    page.keyboard.press("Escape")
    expect(page.locator("#reject-dialog")).to_be_hidden()
    shows(page, 0)
    assert not (folder / "review" / "anna.jsonl").exists()


def test_a_question_is_modified_and_what_is_wrong_with_it_is_said(page, folder, visit):
    row = read_rows(folder)[0]
    page.keyboard.press("m")
    question = page.get_by_role("textbox", name="Question", exact=True)
    expect(question).to_have_value(row["question"])
    page.locator("#modify-store").click()
    expect(page.locator("#modify-error")).to_have_text("nothing is changed; accept the question, or change it.")
    question.fill("How many pyramids are there?")
    page.get_by_label("Text of choice B").fill(row["choices"][0])
    page.keyboard.press("Control+Enter")
    expect(page.locator("#modify-error")).to_contain_text("choices (A) and (B) are both")
    page.get_by_label("Text of choice B").fill("seven")
    page.get_by_role("button", name="Remove choice D").click()
    page.get_by_role("button", name="Add a choice").click()
    page.keyboard.type("eight")
    page.get_by_label("Choice D is right").check()
    page.get_by_label("Reason (may be empty)").fill("wrong count")
    page.get_by_text("Prompt as a model reads it").click()
    lines = ["How many pyramids are there? Select from the following choices.", f"(A) {row['choices'][0]}"]
    expect(page.locator("#modify-prompt")).to_have_text(
        "\n".join([*lines, "(B) seven", f"(C) {row['choices'][2]}", "(D) eight"])
    )
    page.keyboard.press("Control+Enter")
    shows(page, 1)
    (line,) = log(folder)
    assert (line["decision"], line["reason"]) == ("modify", "wrong count")
    assert line["changes"] == {
        "question": "How many pyramids are there?",
        "choices": [row["choices"][0], "seven", row["choices"][2], "eight"],
        "answer": "(D)",
    }
    page.keyboard.press("p")
    expect(page.locator("#decided")).to_contain_text("How many pyramids are there?")
    page.keyboard.press("m")
    expect(page.get_by_label("Text of choice D")).to_have_value("eight")
    page.get_by_role("button", name="Remove choice D").click()
    page.locator("#modify-store").click()
    expect(page.locator("#modify-error")).to_have_text("No choice is marked as the right one.")
    forgive_failed_requests(visit)


def test_a_review_goes_on_at_the_first_undecided_question(folder, visit):
    review = Review(read_benchmark(folder), "anna")
    for idx in (0, 1, 3):
        review.decide(idx, "accept")
    with serve(folder) as running:
        page = visit(running.url)
        shows(page, 2)
        page.keyboard.press("a")
        shows(page, 4)
        page.close()
    for idx in range(4, 16):
        review.decide(idx, "accept")
    with serve(folder) as running:
        page = visit(running.url)
        expect(page.locator("#message")).to_have_text("All questions are decided.")
        shows(page, 0)
        page.close()


def test_typing_and_the_browsers_own_keys_decide_nothing(page, folder):
    page.keyboard.press("Control+a")
    page.keyboard.press("Alt+a")
    page.keyboard.press("/")
    page.keyboard.type("arma")
    expect(page.locator("#filter-text")).to_have_value("arma")
    page.keyboard.press("Escape")
    page.locator("#filter-task").focus()
    page.keyboard.press("r")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.locator("#help-dialog")).to_be_visible()
    page.keyboard.press("a")
    page.keyboard.press("Escape")
    shows(page, 0)
    assert not (folder / "review" / "anna.jsonl").exists()


def test_two_tabs_decide_into_one_log_and_see_each_other(server, visit, folder):
    first, second = visit(server.url), visit(server.url)
    first.keyboard.press("a")
    shows(first, 1)
    second.keyboard.press("n")
    shows(second, 1)
    second.keyboard.press("a")
    shows(second, 2)
    first.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(first.locator("#progress-text")).to_contain_text("2 of 16 decided")
    expect(first.locator("#decided")).to_contain_text("accepted")
    assert [line["idx"] for line in log(folder)] == [0, 1]


# --- filters


FILTERS = [
    ("task", "Depth", lambda row: row["task"] == "Depth"),
    ("source", "Scenes2D", lambda row: row["source"] == "Scenes2D"),
    ("answer", "(B)", lambda row: row["answer"] == "(B)"),
    ("answer", "left", lambda row: row["choices"]["ABCD".index(row["answer"][1])] == "left"),
    ("decision", "undecided", lambda row: row["idx"] > 1),
    ("decision", "accepted", lambda row: row["idx"] == 0),
    ("decision", "rejected", lambda row: row["idx"] == 1),
]


def test_filters_leave_what_they_name(page, folder):
    page.keyboard.press("a")
    shows(page, 1)
    page.keyboard.press("r")
    page.keyboard.press("1")
    shows(page, 2)
    for field, value, holds in FILTERS:
        page.locator(f"#filter-{field}").select_option(value)
        expected = [row["idx"] for row in read_rows(folder) if holds(row)]
        assert expected
        assert shown_numbers(page) == expected
        expect(page.locator("#count")).to_have_text(f"{len(expected)} of 16 questions")
        page.get_by_role("button", name="Clear filters").click()
        assert shown_numbers(page) == list(range(16))


def test_categories_and_text_filter_together_and_keys_stay_in_the_list(page, folder):
    geometry = [json.loads(line) for line in (folder / "geometry.jsonl").read_text().splitlines()]
    rows = read_rows(folder)
    page.locator("#filter-category").select_option("cube")
    of_cubes = [line["idx"] for line in geometry if "cube" in line["category"]]
    assert shown_numbers(page) == of_cubes
    page.locator("#filter-text").fill("CLOSER camera")
    expected = [idx for idx in of_cubes if rows[idx]["task"] == "Depth"]
    assert shown_numbers(page) == expected
    assert expected
    page.keyboard.press("Enter")
    expect(page.locator("#question")).to_be_focused()
    assert shown_numbers(page) == expected
    page.keyboard.press("f")
    shows(page, expected[0])
    page.keyboard.press("a")
    if len(expected) > 1:
        shows(page, expected[1])
    else:
        expect(page.locator("#message")).to_have_text("All questions of this list are decided.")


def test_escape_in_the_search_leaves_no_filter_behind(page):
    page.keyboard.press("/")
    page.keyboard.type("closer")
    assert shown_numbers(page) == list(range(8, 16))
    page.keyboard.press("Escape")
    expect(page.locator("#filter-text")).to_have_value("")
    expect(page.locator("#question")).to_be_focused()
    assert shown_numbers(page) == list(range(16))
    expect(page.locator("#count")).to_have_text("16 of 16 questions")
    page.keyboard.press("n")
    shows(page, 1)
    page.keyboard.press("f")
    shows(page, 0)


def test_a_list_of_nothing_says_so_and_nothing_in_it_is_accepted(page, folder):
    page.locator("#filter-text").fill("no such thing")
    page.keyboard.press("Enter")
    expect(page.locator("#list")).to_have_text("No question matches the filters.")
    for key in "npf":
        page.keyboard.press("b")
        page.keyboard.press(key)
        expect(page.locator("#message")).to_have_text("No question matches the filters.")
    page.keyboard.press("a")
    expect(page.locator("#message")).to_contain_text("Question 0 is not in the list")
    page.get_by_role("button", name="Accept").click()
    assert not (folder / "review" / "anna.jsonl").exists()
    page.get_by_role("button", name="Clear filters").click()
    page.locator("#question").focus()
    page.keyboard.press("a")
    shows(page, 1)
    assert [line["idx"] for line in log(folder)] == [0]


def test_a_question_that_the_filters_hide_is_not_accepted(page, folder):
    page.locator("#filter-task").select_option("Depth")
    page.locator("#question").focus()
    page.keyboard.press("a")
    expect(page.locator("#message")).to_have_text(
        "Question 0 is not in the list; change the filters, or go to one that is."
    )
    page.keyboard.press("n")
    shows(page, 8)
    page.keyboard.press("a")
    shows(page, 9)
    assert [line["idx"] for line in log(folder)] == [8]


def test_what_an_undo_makes_undecided_again_is_in_the_list_of_the_undecided(page, folder):
    page.locator("#filter-decision").select_option("undecided")
    page.locator("#question").focus()
    page.keyboard.press("a")
    shows(page, 1)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#count")).to_have_text("15 of 16 questions")
    page.keyboard.press("u")
    shows(page, 0)
    expect(page.locator("#count")).to_have_text("16 of 16 questions")
    page.keyboard.press("a")
    shows(page, 1)
    assert [line["decision"] for line in log(folder)] == ["accept", "withdraw", "accept"]


# --- the address


def test_a_number_in_the_address_is_followed_while_the_page_is_open(page, server):
    page.evaluate("location.hash = '#12'")
    shows(page, 12)
    page.evaluate("location.hash = '#999'")
    expect(page.locator("#message")).to_have_text("There is no question 999; choose one in the list.")
    shows(page, 12)
    assert page.url == f"{server.url}#12"
    page.keyboard.press("r")
    page.evaluate("location.hash = '#3'")
    expect(page).to_have_url(f"{server.url}#12")
    page.keyboard.press("Escape")
    shows(page, 12)


@pytest.mark.parametrize("name", ["999", "x", "1e1", "12.0"])
def test_an_unknown_number_shows_no_other_question(server, visit, folder, name):
    page = visit(f"{server.url}#{name}", has_picture=False)
    expect(page.locator("#message")).to_have_text(f"There is no question {name}; choose one in the list.")
    expect(page.locator("#question")).to_have_text("")
    for key in "amr":
        page.keyboard.press("b")
        page.keyboard.press(key)
        expect(page.locator("#message")).to_have_text("No question is shown; choose one in the list.")
    expect(page.locator("dialog[open]")).to_have_count(0)
    assert not (folder / "review" / "anna.jsonl").exists()
    page.keyboard.press("n")
    shows(page, 0)


def test_the_address_of_a_question_opens_it(server, visit):
    shows(visit(f"{server.url}#12"), 12)


# --- geometry


def visible_layers(page):
    return [name for name in ("boxes", "cuboids", "others") if page.locator(f".layer-{name}:not(.off)").count()]


def test_geometry_is_drawn_where_it_lies_when_asked_for(page, folder):
    review = Review(read_benchmark(folder), "ben")
    page.locator("#filter-task").select_option("Distance")
    page.locator("#list button").first.click()
    shows(page, 12)
    details = review.details(12)
    expect(page.locator(".layer-boxes rect.line")).to_have_count(3)
    assert visible_layers(page) == []
    for key, expected in (("b", ["boxes"]), ("c", ["boxes", "cuboids"]), ("b", ["cuboids"])):
        page.keyboard.press(key)
        assert visible_layers(page) == expected
    page.keyboard.press("g")
    assert visible_layers(page) == ["boxes", "cuboids", "others"]
    expect(page.locator("#show-all")).to_have_attribute("aria-pressed", "true")
    rectangles = page.locator(".layer-boxes rect.line").evaluate_all(
        "all => all.map(one => ['x', 'y', 'width', 'height'].map(name => Number(one.getAttribute(name))))"
    )
    boxes = [subject.box for subject in details.subjects]
    assert rectangles == [[left, top, right - left, bottom - top] for left, top, right, bottom in boxes]
    lines = page.locator(".layer-cuboids line.line").evaluate_all(
        "all => all.map(one => ['x1', 'y1', 'x2', 'y2'].map(name => Number(one.getAttribute(name))))"
    )
    assert lines == [list(line) for subject in details.subjects for line in subject.lines or ()]
    labels = page.locator(".layer-boxes text").all_text_contents()
    assert labels == [subject.category for subject in details.subjects]
    assert page.locator(".layer-others text").all_text_contents() == [thing.category for thing in details.others]
    told = page.locator("#geometry").inner_text()
    assert details.margin is not None
    assert f"Margin: {details.margin.metres:.2f} m ({100 * (details.margin.part or 0):.0f} %" in told
    reach = [subject.distance for subject in details.subjects if subject.distance is not None]
    assert len(reach) == 2
    for nearest, farthest in reach:
        assert f"{nearest:.2f} m\t{farthest:.2f} m" in told
    page.keyboard.press("g")
    assert visible_layers(page) == []


def test_a_box_on_the_screen_lies_over_the_thing_in_the_picture(page, folder):
    """However the picture is scaled to fit its frame, the overlay is scaled with it."""
    review = Review(read_benchmark(folder), "ben")
    depth = next(idx for idx, item in review.benchmark.items.items() if item.asked.task == "Depth")
    page.locator("#filter-task").select_option("Depth")
    page.locator("#list button").first.click()
    shows(page, depth)
    page.keyboard.press("b")
    frame = page.locator("#picture").bounding_box()
    drawn = page.locator(".layer-boxes .red rect.line").bounding_box()
    scale = min(frame["width"], frame["height"]) / 64
    left, top, right, _ = review.details(depth).subjects[0].box
    assert drawn["x"] == pytest.approx(frame["x"] + frame["width"] / 2 + (left - 32) * scale, abs=4)
    assert drawn["y"] == pytest.approx(frame["y"] + frame["height"] / 2 + (top - 32) * scale, abs=4)
    assert drawn["width"] == pytest.approx((right - left) * scale, abs=6)  # the line itself has a width


def test_counted_things_are_numbered_and_relations_measured(page, folder):
    review = Review(read_benchmark(folder), "ben")
    expected = [f"{number} {one.category}" for number, one in enumerate(review.details(0).subjects, start=1)]
    page.keyboard.press("b")
    expect(page.locator(".layer-boxes text")).to_have_text(expected)
    expect(page.locator("#show-cuboids")).to_be_disabled()
    page.locator("#filter-task").select_option("Relation")
    page.locator("#list button").first.click()
    expect(page.locator("#geometry")).to_contain_text("Centre to centre, the first thing is")


def test_a_folder_without_geometry_is_reviewed_and_says_so(folder, visit):
    (folder / "geometry.jsonl").unlink()
    with serve(folder) as running:
        page = visit(running.url)
        expect(page.locator("#notices")).to_contain_text("This folder holds no geometry.jsonl")
        for name in ("boxes", "cuboids", "others", "all"):
            expect(page.locator(f"#show-{name}")).to_be_disabled()
        page.keyboard.press("a")
        shows(page, 1)
        page.close()


# --- what goes wrong


def test_data_stays_text(folder, visit):
    attack = '<img src=x onerror="alert(1)"><script>alert(2)</script>'

    def poison(row):
        choices = [f"{attack}{number}" for number in range(len(row["choices"]))]
        return row | {"question": attack, "choices": choices, "source": attack, "source_filename": attack}

    for part in ("2d", "3d"):
        path = folder / f"test_{part}.jsonl"
        rows = [poison(json.loads(line)) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "geometry.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["category"] = [attack]
        for thing in line["subjects"] + line["others"]:
            thing["category"] = attack
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with serve(folder) as running:
        page = visit(running.url)
        page.keyboard.press("g")
        expect(page.locator("#question")).to_have_text(attack)
        expect(page.locator("#caption")).to_contain_text(attack)
        expect(page.locator(".layer-boxes text").first).to_have_text(re.compile(re.escape(attack)))
        page.keyboard.press("r")
        page.get_by_label("Another reason").fill(attack)
        page.locator("#reject-store").click()
        shows(page, 1)
        page.keyboard.press("p")
        expect(page.locator("#decided .reason")).to_have_text(attack)
        page.keyboard.press("m")
        expect(page.get_by_label("Text of choice A")).to_have_value(f"{attack}0")
        assert page.locator("body img").count() == 0
        assert page.locator("body script").count() == 0
        page.close()


def test_inline_scripts_and_outside_sources_are_blocked(page, visit):
    ran = page.evaluate(
        """async () => {
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            const fetched = await fetch("http://127.0.0.1:9/").then(() => true, () => false);
            return [window.ran === true, fetched];
        }"""
    )
    assert ran == [False, False]
    blocked = [problem for problem in visit.problems if "Content Security Policy" in problem]
    assert len(blocked) == len([problem for problem in visit.problems if "asked:" not in problem]) >= 2
    visit.problems.clear()


def test_a_server_that_is_gone_is_told_and_nothing_moves(folder, visit):
    with serve(folder) as running:
        page = visit(running.url)
    page.keyboard.press("a")
    expect(page.locator("#message")).to_contain_text("The server does not answer")
    shows(page, 0)
    expect(page.locator("#decided")).to_have_text("not decided yet")
    expect(page.locator("#accept")).to_be_enabled()
    page.keyboard.press("r")
    page.keyboard.press("1")
    expect(page.locator("#reject-error")).to_contain_text("The server does not answer")
    assert not (folder / "review" / "anna.jsonl").exists()
    forgive_failed_requests(visit)


def test_a_broken_picture_is_said_and_can_be_rejected(folder, visit):
    (folder / read_rows(folder)[0]["filename"]).write_bytes(b"no picture")
    with serve(folder) as running:
        page = visit(running.url, has_picture=False)
        expect(page.locator("#picture-error")).to_contain_text("is not a picture of a known format")
        for key in "am":
            page.keyboard.press("n")
            shows(page, 1)
            page.keyboard.press("p")
            expect(page.locator("#picture-error")).to_be_visible()
            page.keyboard.press(key)
            expect(page.locator("#message")).to_have_text(
                "The picture cannot be shown: mend it, or reject the question."
            )
        expect(page.locator("dialog[open]")).to_have_count(0)
        assert not (folder / "review" / "anna.jsonl").exists()
        page.keyboard.press("r")
        page.keyboard.press("6")
        shows(page, 1)
        expect(page.locator("#picture-error")).to_be_hidden()
        expect(page.locator("#picture image")).to_be_attached()
        page.close()
    assert log(folder)[0]["reason"] == "broken picture"
    forgive_failed_requests(visit)


def test_a_picture_that_breaks_while_it_is_looked_at_is_not_accepted(page, folder, visit):
    (folder / read_rows(folder)[0]["filename"]).write_bytes(b"no picture")
    page.keyboard.press("a")
    expect(page.locator("#message")).to_contain_text("question 0 cannot be kept, as its picture cannot be shown")
    shows(page, 0)
    assert not (folder / "review" / "anna.jsonl").exists()
    forgive_failed_requests(visit)


def test_a_benchmark_that_is_built_anew_under_the_page_is_not_decided_about(page, folder, visit):
    (folder / "test_2d.jsonl").write_bytes((folder / "test_2d.jsonl").read_bytes() + b"\n")
    page.keyboard.press("a")
    expect(page.locator("#message")).to_contain_text("the benchmark has changed; start again")
    shows(page, 0)
    assert not (folder / "review" / "anna.jsonl").exists()
    forgive_failed_requests(visit)


# --- for everybody


@pytest.mark.parametrize("choice", ["word " * 60, "w" * 300])
def test_a_long_choice_leaves_its_letter_on_one_line(folder, visit, choice):
    path = folder / "test_2d.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["choices"] = [f"{choice}{number}" for number in range(len(rows[0]["choices"]))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serve(folder) as running:
        page = visit(running.url)
        height = page.locator(".entry-idx").first.bounding_box()["height"]
        for number in range(len(rows[0]["choices"])):
            letter = page.locator(".choice-letter").nth(number).bounding_box()
            assert letter["height"] < 1.8 * height
            assert letter["width"] > 10
        panel = page.locator(".panel").evaluate("one => one.scrollWidth - one.clientWidth")
        assert panel <= 0
        page.close()


def test_every_control_has_a_name_and_keys_are_told(page):
    page.keyboard.press("m")
    expect(page.locator("#modify-dialog")).to_be_visible()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea")]
            .filter((one) => !(one.ariaLabel || [...(one.labels ?? [])].some((label) => label.textContent.trim())
                               || (one.tagName === "BUTTON" && one.textContent.trim())))
            .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    told = page.locator("#help-dialog kbd").all_text_contents()
    for shortcut in page.locator("[aria-keyshortcuts]").evaluate_all("all => all.map(one => one.ariaKeyShortcuts)"):
        assert shortcut.split()[0] in told


def test_dialogs_give_the_focus_back(page):
    page.locator("#reject").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#reasons button").first).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#reject")).to_be_focused()


def luminance(colour):
    """Relative luminance, as in the Web Content Accessibility Guidelines 2.1."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_can_be_read_in_light_and_in_dark():
    style = files("cambrian_data.cvbench.review").joinpath("page", "style.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
        pairs = [(ink, ground) for ink in ("text", "muted") for ground in ("back", "surface", "raised", "chosen")]
        pairs += [("muted", f"{kind}-tint") for kind in ("accept", "modify", "reject")]
        pairs += [(kind, f"{kind}-tint") for kind in ("accept", "modify", "reject")] + [("reject", "surface")]
        for ink, ground in pairs:
            low, high = sorted((luminance(colours[ink]), luminance(colours[ground])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_the_screen_and_follows_its_scheme(browser, server, scheme):
    context = browser.new_context(viewport={"width": 1280, "height": 760}, color_scheme=scheme)
    try:
        page = context.new_page()
        page.goto(server.url)
        expect(page.locator("#picture image")).to_be_attached()
        brightness = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert (sum(brightness) / 3 > 128) is (scheme == "light")
        for width, height in ((1280, 760), (700, 900)):
            page.set_viewport_size({"width": width, "height": height})
            overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert overflow <= 0
        frame = page.locator("#frame").bounding_box()
        assert min(frame["width"], frame["height"]) > 150
    finally:
        context.close()
