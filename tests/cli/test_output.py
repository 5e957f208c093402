"""What commands print: one JSON object for machines, text and progress for people."""

import io
import json
import sys

import pytest

from cambrian_cli import output


def test_with_json_stdout_is_one_object_and_all_else_goes_to_stderr(capsys):
    with output.report(as_json=True) as out:
        out.line("for people")
        out.table("Table", ["a", "b"], [["1", "2"]])
        print("printed by a library")  # noqa: T201
        out.result({"answer": "écru"})
    stdout, stderr = capsys.readouterr()
    assert json.loads(stdout) == {"answer": "écru"}
    assert stdout.count("\n") == 1
    assert "for people" in stderr
    assert "printed by a library" in stderr


def test_no_letter_is_too_much_for_the_encoding_of_stdout(monkeypatch):
    for as_json, expected in ((False, "?cru\n"), (True, '{"answer": "\\u00e9cru"}\n')):
        raw = io.BytesIO()
        stdout = io.TextIOWrapper(raw, encoding="ascii")
        monkeypatch.setattr(sys, "stdout", stdout)
        with output.report(as_json) as out:
            out.line("écru")
            out.result({"answer": "écru"})
        stdout.flush()
        assert raw.getvalue().decode("ascii") == expected


def test_without_json_people_read_stdout(capsys):
    with output.report() as out:
        out.line("for people")
        out.result({"answer": 1})
    assert capsys.readouterr().out == "for people\n"


def test_only_the_first_of_several_processes_speaks(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with output.report(as_json=True) as out, output.progress("steps") as advance:
        out.line("for people")
        print("printed by a library")  # noqa: T201
        out.result({"answer": 1})
        advance(1, 2)
    assert capsys.readouterr() == ("", "")


def test_tables_print_text_as_it_is(capsys):
    with output.report() as out:
        out.table("Recipes", ["name"], [["[bold]x[/bold]"]])
    assert "[bold]x[/bold]" in capsys.readouterr().out


def test_texts_from_outside_cannot_drive_the_terminal(capsys):
    with output.report() as out:
        out.line("a\x1b[2Jb\x9bc\td")
        out.table("t\x1b]0;x\x07", ["name"], [["\x1b[31mred"]])
    shown = capsys.readouterr().out
    assert shown.startswith("a\\x1b[2Jb\\x9bc\td\n")
    assert not {"\x1b", "\x9b", "\x07"} & set(shown)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_short_work_is_silent_and_long_work_tells_rate_and_time_left(capsys):
    clock = Clock()
    advance = output._Lines(clock)
    for clock.now, done in ((0.0, 0), (1.5, 15), (2.5, 25), (3.0, 30), (12.5, 125)):
        advance("steps", done, 1000, loss=2.34567)
    assert capsys.readouterr().err.splitlines() == [
        "steps: 25/1000, 10.0/s, 0:01:38 left, loss 2.346",
        "steps: 125/1000, 10.0/s, 0:01:28 left, loss 2.346",
    ]


def test_the_rate_of_resumed_work_counts_only_what_was_done_since(capsys):
    clock = Clock()
    advance = output._Lines(clock)
    for clock.now, done in ((0.0, 500), (5.0, 510)):
        advance("steps", done, 600)
    assert capsys.readouterr().err == "steps: 510/600, 2.0/s, 0:00:45 left\n"


def test_parts_of_work_have_rates_of_their_own(capsys):
    clock = Clock()
    advance = output._Lines(clock)
    for clock.now, label, done in (
        (9.0, "align", 0),
        (13.0, "align", 8),
        (20.0, "finetune", 0),
        (40.0, "finetune", 10),
    ):
        advance(label, done, 10)
    assert capsys.readouterr().err.splitlines() == [
        "align: 8/10, 2.0/s, 0:00:01 left",
        "finetune: 10/10, 0.5/s, 0:00:00 left",
    ]


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with output.progress("steps") as advance:
        advance(1, 4, loss=2.5)
        advance(4, 4, loss=1.25)
    stdout, stderr = capsys.readouterr()
    assert not stdout
    assert "4/4" in stderr
    assert "loss 1.25" in stderr


@pytest.mark.parametrize(("numbers", "text"), [({}, ""), ({"loss": 1.23456, "lr": 2e-5}, "loss 1.235, lr 2e-05")])
def test_numbers_beside_progress_are_short(numbers, text):
    assert output._format(numbers) == text
