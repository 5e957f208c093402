"""`cambrian cvbench review`: the page served and ended, agreement, the reviewed set, and what is refused."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from typing import Any

import pytest

from cambrian_data.cvbench.review import Review, read_benchmark
from tests.support.folders import read_rows
from tests.support.reviewable import write_reviewable


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    base = tmp_path_factory.mktemp("review")
    return write_reviewable(base / "scenes", base / "bench")


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "bench")


def decide(folder, reviewer, rejected=(), count=16):
    review = Review(read_benchmark(folder), reviewer)
    for idx in range(count):
        if idx in rejected:
            review.decide(idx, "reject", "tiny object")
        else:
            review.decide(idx, "accept")


COMMAND = [sys.executable, "-m", "cambrian_cli", "cvbench", "review"]


def ask(url, path="", body=None, **headers):
    """The JSON, or text, that the server gives."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, headers | {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as reply:
        content = reply.read().decode()
    return json.loads(content) if path.startswith("api") else content


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_page_is_served_until_the_command_is_interrupted(folder, number):
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [*COMMAND, str(folder), "--reviewer", "anna", "--no-open"]
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        assert process.stdout is not None
        told = [process.stdout.readline(), process.stdout.readline()]
        assert told[0].startswith("anna has decided 0 of 16 questions: ")
        assert re.fullmatch(r"page: http://127\.0\.0\.1:\d+/ \(Ctrl-C ends it\)\n", told[1])
        url = told[1].split()[1]
        assert "<title>CV-Bench review</title>" in ask(url)
        token = ask(url, "api/questions")["token"]
        wish = {"idx": 7, "decision": "reject", "reason": "ambiguous wording"}
        ask(url, "api/decisions", wish, **{"x-review-token": token})
        os.killpg(process.pid, number)
        said, problems = process.communicate(timeout=30)
    assert problems == ""
    if number == signal.SIGINT:
        assert process.returncode == 0
        assert said.startswith("anna has decided 1 of 16 questions: ")
    else:
        assert process.returncode in (-signal.SIGTERM, 143)
    (line,) = (folder / "review" / "anna.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "ambiguous wording"


def test_another_host_is_warned_of(folder):
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [*COMMAND, str(folder), "--reviewer", "anna", "--no-open", "--host", "0.0.0.0", "--json"]
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        assert process.stderr is not None
        told = [process.stderr.readline() for _ in range(3)]
        ask(told[2].split()[1])
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    assert told[1].startswith(
        "warning: whoever reaches this machine on 0.0.0.0 can see the pictures and decide as anna"
    )
    assert told[2].startswith("page: http://127.0.0.1:")
    assert process.returncode == 0
    assert json.loads(said) == {
        "reviewer": "anna",
        "decided": 0,
        "questions": 16,
        "log": str(folder / "review" / "anna.jsonl"),
    }


def test_the_reviewed_set_is_written_and_accounted_for(cambrian, folder, tmp_path):
    decide(folder, "anna", rejected=[2, 9])
    outcome = cambrian("cvbench", "review", folder, "--export", tmp_path / "out", "--json")
    assert outcome.status == 0
    result = json.loads(outcome.stdout)["export"]
    assert (result["num_questions"], result["reviewers"]) == (14, {"anna": {"accept": 14, "modify": 0, "reject": 2}})
    assert "question 2 (Count) is left out, rejected; anna: reject (tiny object)" in outcome.stderr
    assert f"14 questions: {tmp_path / 'out'}" in outcome.stderr
    assert len(read_rows(tmp_path / "out")) == 14


def test_undecided_questions_are_refused_unless_asked_for(cambrian, refused, folder, tmp_path):
    decide(folder, "anna", count=3)
    message = refused("cvbench", "review", folder, "--export", tmp_path / "out")
    assert "13 of 16 questions are undecided" in message
    assert "--include-undecided" in message
    outcome = cambrian("cvbench", "review", folder, "--export", tmp_path / "out", "--include-undecided")
    assert outcome.status == 0
    assert f"16 questions: {tmp_path / 'out'}" in outcome.stdout


def test_agreement_is_printed_with_what_is_disputed(cambrian, folder, tmp_path):
    decide(folder, "anna", rejected=[1, 2])
    decide(folder, "ben", rejected=[2, 3])
    outcome = cambrian("cvbench", "review", folder, "--agreement", "--json")
    assert outcome.status == 0
    result = json.loads(outcome.stdout)["agreement"]
    assert result["coefficient"] == "Cohen's kappa"
    assert result["overall"]["raw"] == 14 / 16
    expected = (14 / 16 - (14 * 14 + 2 * 2) / 256) / (1 - (14 * 14 + 2 * 2) / 256)
    assert result["overall"]["coefficient"] == pytest.approx(expected)
    assert "question 1 (Count) is disputed: anna: reject, ben: accept" in outcome.stderr
    majority = cambrian("cvbench", "review", folder, "--export", tmp_path / "out", "--rule", "majority", "--agreement")
    assert "question 3 (Count) is left out, disputed" in majority.stdout
    assert "Cohen's kappa" in majority.stdout


def cut(folder, reviewer):
    with (folder / "review" / f"{reviewer}.jsonl").open("ab") as file:
        file.write(b'{"idx":7,"reason":"\xc3')


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_lines_that_a_crash_has_cut_are_told_with_agreement_and_export(cambrian, folder, tmp_path, as_json):
    decide(folder, "anna")
    decide(folder, "ben")
    cut(folder, "ben")
    told = "note: Line 17 of ben.jsonl was cut by a crash and is skipped"
    for arguments in (("--agreement",), ("--export", tmp_path / "out")):
        outcome = cambrian("cvbench", "review", folder, *arguments, *as_json)
        assert outcome.status == 0
        assert (outcome.stderr if as_json else outcome.stdout).count(told) == 1
        if as_json:
            (line,) = outcome.stdout.splitlines()
            assert told not in line
    manifest = json.loads((tmp_path / "out" / "review.json").read_text())
    assert manifest["summary"]["cut_lines"] == {"ben": 1}


def test_a_broken_picture_stops_the_export(refused, folder, tmp_path):
    decide(folder, "anna")
    (folder / read_rows(folder)[3]["filename"]).write_bytes(b"no picture")
    message = refused("cvbench", "review", folder, "--export", tmp_path / "out", "--include-undecided")
    assert "question 3: " in message
    assert read_rows(folder)[3]["filename"] in message
    assert not (tmp_path / "out").exists()


def test_a_line_break_in_a_reason_makes_no_line_of_its_own(cambrian, folder, tmp_path):
    decide(folder, "anna")
    Review(read_benchmark(folder), "anna").decide(2, "reject", "tiny\nquestion 3 (Count) is left out\x1b[31m\u2028é")
    outcome = cambrian("cvbench", "review", folder, "--export", tmp_path / "out")
    told = [line for line in outcome.stdout.splitlines() if "is left out" in line]
    assert told == [
        "question 2 (Count) is left out, rejected; anna: reject "
        r"(tiny\nquestion 3 (Count) is left out\x1b[31m\u2028é)"
    ]


def test_what_cannot_be_reviewed_is_refused(refused, folder, tmp_path):
    assert "is not a folder" in refused("cvbench", "review", tmp_path / "nowhere")
    assert "names no log" in refused("cvbench", "review", folder, "--reviewer", "../anna")
    nowhere = ("--host", "203.0.113.7", "--no-open")  # no page can be served there: a failing test does not hang
    assert 'reviewer "" names no log' in refused("cvbench", "review", folder, "--reviewer", "", *nowhere)
    assert "say what --export writes" in refused("cvbench", "review", folder, "--include-undecided")
    assert "say what --export writes" in refused("cvbench", "review", folder, "--rule", "majority")
    assert "holds no decisions" in refused("cvbench", "review", folder, "--agreement")
    decide(folder, "anna", count=1)
    assert "has one reviewer, anna; agreement needs two" in refused("cvbench", "review", folder, "--agreement")
    assert "cannot listen on 203.0.113.7" in refused("cvbench", "review", folder, *nowhere)
