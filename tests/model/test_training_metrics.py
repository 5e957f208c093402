import json
import resource

import pytest

from cambrian_model.errors import TrainingError
from cambrian_model.training.curve import draw_curve
from cambrian_model.training.metrics import MetricsLog, cut_metrics, read_metrics, summarise


@pytest.fixture
def no_space():
    """No file may grow beyond a few bytes, which is what a full disk looks like to the writer."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(size=10):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    yield fill
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_stops_the_metrics_with_an_error(tmp_path, no_space):
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        no_space()
        with pytest.raises(TrainingError, match=r"could not write .*metrics\.jsonl"):
            log.write({"stage": "align", "step": 1, "loss": 0.5})


def line(stage, step, loss=1.0):
    return {"stage": stage, "step": step, "loss": loss, "lr": 1e-3 / step, "tokens": 10, "seconds": 0.5}


def write_lines(path, lines, tail=""):
    path.write_text("".join(json.dumps(x) + "\n" for x in lines) + tail)


def test_metrics_are_cut_back_to_the_checkpoint_so_that_every_step_stands_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_lines(
        path, [line("align", 1), line("align", 2), line("finetune", 1), line("finetune", 2)], tail='{"stage": "fi'
    )
    kept = cut_metrics(path, ["align"], "finetune", 1)

    assert [(x["stage"], x["step"]) for x in kept] == [("align", 1), ("align", 2), ("finetune", 1)]
    assert read_metrics(path) == kept


def test_a_summary_and_a_picture_come_from_the_metrics(tmp_path):
    lines = [line("align", s, 4.0 / s) for s in range(1, 9)] + [line("finetune", s, 1.0 / s) for s in range(1, 5)]
    summary = summarise(lines)
    draw_curve(lines, tmp_path / "curve.png", "tiny")

    assert list(summary) == ["align", "finetune"]
    assert (summary["align"].first_loss, summary["align"].last_loss, summary["align"].steps) == (4.0, 0.5, 8)
    assert summary["finetune"].tokens == 40
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
