"""The picture of a run: what it must show for whoever looks at it, and data that could spoil it."""

import numpy as np
import pytest
from PIL import Image

from cambrian_model.errors import TrainingError
from cambrian_model.training import train
from cambrian_model.training.curve import draw_curve
from tests.support.pictures import Pictures
from tests.support.small_run import small_recipe

MARK = (0x2A, 0x6F, 0x97)  # the color of the first stage


def steps(stage, count, skipped=()):
    return [
        {"stage": stage, "step": i, "loss": None if i in skipped else 4.0 / i, "lr": 1e-3, "tokens": 10}
        for i in range(1, count + 1)
    ]


def validation(stage, step, **losses):
    return {"kind": "validation", "stage": stage, "step": step, "losses": losses}


def drawn(folder, lines):
    """Returns the picture of these lines, and how much of it has the first stage's color."""
    folder.mkdir()
    draw_curve(lines, folder / "curve.png", "run")
    assert [path.name for path in folder.iterdir()] == ["curve.png"]
    picture = Image.open(folder / "curve.png").convert("RGB")
    return picture, int((np.array(picture) == MARK).all(axis=-1).sum())


def test_validation_losses_are_marked_for_every_source(tmp_path):
    lines = steps("align", 12)
    once = [validation("align", step, held=2.0) for step in (4, 8, 12)]
    twice = [validation("align", step, held=2.0, more=3.0) for step in (4, 8, 12)]
    evaluation = {"kind": "evaluation", "stage": "align", "step": 12, "scores": {"accuracy": 0.5}}
    inks = [
        drawn(tmp_path / name, sorted([*lines, *marks, evaluation], key=lambda line: line["step"]))[1]
        for name, marks in (("none", []), ("once", once), ("twice", twice))
    ]
    assert inks[0] < inks[1] < inks[2]


@pytest.mark.parametrize("skipped", [(1,), (3, 4), (12,), range(1, 13)])
def test_skipped_steps_are_gaps_and_no_warnings(skipped, tmp_path):
    whole, _ = drawn(tmp_path / "whole", steps("align", 12))
    with_gaps, _ = drawn(tmp_path / "gaps", steps("align", 12, skipped))
    assert with_gaps.size == whole.size
    assert with_gaps.tobytes() != whole.tobytes()


def test_stages_of_different_validation_are_drawn_one_behind_the_other(tmp_path):
    align = [*steps("align", 6), validation("align", 6, held=2.0)]
    finetune = [*steps("finetune", 6), validation("finetune", 3, more=1.0), validation("finetune", 6, more=0.5)]
    both, ink = drawn(tmp_path / "both", [*align, *finetune])
    alone, ink_alone = drawn(tmp_path / "alone", align)
    assert ink < ink_alone  # it has half of the axis
    assert both.size == alone.size


def test_a_single_step_is_a_picture_too(tmp_path):
    assert drawn(tmp_path / "one", steps("align", 1))[0].size[0] > 500


def test_a_picture_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "curve.png").mkdir()
    with pytest.raises(TrainingError, match=r"could not write .*curve\.png.*--resume"):
        draw_curve(steps("align", 2), tmp_path / "curve.png", "run")


def test_a_run_draws_its_curve(tmp_path):
    pictures = Pictures(tmp_path / "pictures")
    recipe = small_recipe("stages.align.validation={data: held, every: 1}", "stages.align.max_steps=2")
    data = {"scenes": pictures, "held": pictures}
    run = train(recipe, datasets=data, output=tmp_path / "run", stages=["align"]).run_dir
    with Image.open(run / "curve.png") as picture:
        picture.verify()
