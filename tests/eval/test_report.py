import re

from cambrian_eval import evaluate
from cambrian_eval.models.baselines import ConstantLetter
from cambrian_eval.models.canned import Canned
from cambrian_eval.report.table import markdown
from tests.eval.benchmark_folder import row, truths, write_cvbench, write_jsonl


def test_markdown_has_a_row_for_every_score_task_and_source(tmp_path):
    folder = write_cvbench(tmp_path / "data")
    table = markdown(evaluate("cvbench", ConstantLetter(), data=folder, output=tmp_path / "run", mode="blind"))
    for name in ("CV-Bench 2D", "CV-Bench 3D", "micro mean", "Count", "Relation", "Depth", "Distance", "COCO (2D)"):
        assert f"| {name}" in table
    assert "without pictures" in table
    assert "score = 1/2 ((ADE20K + COCO)/2 + Omni3D) (the published score)" in table


def test_page_loads_nothing_from_outside_and_has_no_script(tmp_path):
    folder = write_cvbench(tmp_path / "data")
    evaluate("cvbench", ConstantLetter(), data=folder, output=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert 'src="data:image/jpeg;base64,' in page
    assert set(re.findall(r'(?:src|href)="(\w+):', page)) == {"data"}


def test_everything_from_data_and_model_is_escaped(tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    table = [row(n, "2D", "Count", evil) | {"task": evil, "prompt": evil, "filename": f"{n}.png"} for n in range(2)]
    write_jsonl(tmp_path / "test_2d.jsonl", table)
    model = Canned(dict.fromkeys(truths(tmp_path), f"{evil}\ud800"), name=evil)
    evaluate("cvbench-2d", model, data=tmp_path, output=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert evil not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page


def test_unparsed_answers_come_first(tmp_path):
    folder = write_cvbench(tmp_path / "data")
    replies = {name: "A" if letter != "A" else "B" for name, letter in truths(folder).items()}
    replies[list(replies)[-1]] = "no idea at all"
    evaluate("cvbench", Canned(replies), data=folder, output=tmp_path / "run")
    cards = (tmp_path / "run" / "report.html").read_text().split('<div class="card">')[1:]
    assert "no idea at all" in cards[0]
    assert "Wrong answers: 18 of 18" in (tmp_path / "run" / "report.html").read_text()
