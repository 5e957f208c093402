"""The pretrained parts of the recipe `tiny`: the package holds what the command makes, and how that is made."""

import hashlib
import multiprocessing
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cambrian_cli import datasets
from cambrian_cli.errors import CommandError
from cambrian_cli.tiny_parts import encoders, language_model, texts
from cambrian_cli.tiny_parts.build import WEIGHTS, build_parts, read_part
from cambrian_cli.tiny_parts.recipe import LANGUAGE_MODEL, TinyPartsRecipe
from cambrian_data.errors import DataError
from cambrian_data.grounding import cell_items, read_inventories
from cambrian_eval.scoring.letters import extract_letter
from cambrian_model.errors import RecipeError
from cambrian_model.processing.sample import IGNORED_LABEL
from cambrian_model.training import load_recipe

PARTS = Path(str(load_recipe("tiny").model.language_model.path)).parent
GRID_SIDE = 8


@pytest.fixture(scope="module")
def scenes_dir(cache, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        return datasets.cached_scenes(40, 101, 64)


@pytest.fixture(scope="module")
def inventories(scenes_dir):
    return read_inventories(scenes_dir)


def short(**changes):
    recipe = TinyPartsRecipe(scene_count=40, held_out=8, **changes)
    return replace(
        recipe,
        language_model=replace(recipe.language_model, steps=3, rows=4),
        encoders=tuple(replace(encoder, steps=2, rows=4) for encoder in recipe.encoders),
    )


# --- the parts in the package


@pytest.mark.parametrize("name", TinyPartsRecipe().parts)
def test_the_parts_in_the_package_are_those_of_the_recipe(name):
    part = read_part(PARTS / name)
    assert part is not None
    assert part.recipe_hash == TinyPartsRecipe().hash_of(name)
    content = (PARTS / name / WEIGHTS).read_bytes()
    assert (hashlib.sha256(content).hexdigest(), len(content)) == (part.sha256, part.num_bytes)


def test_the_parts_are_small():
    assert sum((PARTS / name / WEIGHTS).stat().st_size for name in TinyPartsRecipe().parts) <= 2e6


def test_parts_training_and_evaluation_see_other_scenes(cache):
    recipe = load_recipe("tiny")
    assert recipe.evaluation is not None
    held_out = recipe.evaluation.cvbench.scenes
    assert recipe.model.scene_seeds == (TinyPartsRecipe().scene_seed,)
    seeds = set(recipe.training_seeds().values())
    assert seeds == {0, TinyPartsRecipe().scene_seed}
    assert held_out.seed not in seeds
    with pytest.raises(RecipeError, match=r"evaluation.cvbench.scenes.seed is 101, and so is that of model.scene_see"):
        load_recipe("tiny", ["evaluation.cvbench.scenes.seed=101"])
    assert datasets.held_out_seed(recipe) not in {held_out.seed, *seeds}

    def pictures(seed):
        folder = datasets.cached_scenes(40, seed, held_out.side) / "images"
        return {path.read_bytes() for path in folder.iterdir()}

    found = [pictures(seed) for seed in (held_out.seed, *seeds)]
    assert len(set.union(*found)) == sum(map(len, found))


# --- texts


def test_every_answer_can_be_read_off_the_cells(inventories):
    draw = random.Random(0)
    asked = set()
    for inventory in inventories * 5:
        text = texts.converse(texts.imagine(inventory, draw, GRID_SIDE), draw, GRID_SIDE)
        cells = {" ".join(cell) for cell in text.cells}
        for turn in text.turns:
            asked.add(turn.question.split()[0])
            for place in re.findall(r"at x\d+ y\d+", turn.answer):
                assert any(place in cell for cell in cells), (turn, cells)
            choices = re.findall(r"^\([A-F]\) (.*)$", turn.question, flags=re.MULTILINE)
            if choices:
                letter = extract_letter(turn.answer, choices).letter
                assert letter is not None
                assert f" {choices['ABCDEF'.index(letter)]}" in turn.answer
    assert asked == {"How", "Considering", "Which", "Estimate", "Describe"}


def test_imagined_scenes_keep_their_geometry(inventories):
    draw = random.Random(1)
    for inventory in inventories:
        imagined = texts.imagine(inventory, draw, GRID_SIDE)
        by_id = {item.id: item for item in inventory.items}
        assert 0 < len(imagined.items) <= len(inventory.items)
        for item in imagined.items:
            first, width = by_id[item.id], inventory.width
            mirrored = first.box._replace(left=width - first.box.right, right=width - first.box.left)
            assert item.box in (first.box, mirrored)
            assert (item.instance.category, item.instance.box) == (item.cuboid.category, item.cuboid.box)
            assert item.depth == pytest.approx(first.depth)


def test_rows_are_the_same_every_time_and_leave_out_only_empty_cells(inventories):
    recipe = short()
    processor = language_model.text_processor(recipe)
    first, second = (list(language_model.TextRows(inventories, processor, recipe)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    for rows in first:
        is_image = rows.input_ids == processor.image_token_id
        assert is_image.sum() == len(rows.words)
        assert is_image.sum(dim=1).max() <= GRID_SIDE * (GRID_SIDE + 1)
        assert not (is_image & (rows.labels != IGNORED_LABEL)).any()
        assert (rows.weights.sum(dim=1) >= 1 - 1e-6).all()  # blurring shares a word's weight, it loses none


def test_whole_rows_are_what_the_processor_makes_of_a_picture(inventories):
    recipe, draw = short(), random.Random(2)
    processor = language_model.text_processor(recipe)
    text = texts.read(inventories[0], draw, GRID_SIDE)
    rows = language_model.RowMaker(processor, GRID_SIDE, recipe.language_model, draw).make([text], whole=True)
    (turn,) = text.turns
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": turn.question}]},
        {"role": "assistant", "content": [{"type": "text", "text": turn.answer}]},
    ]
    ids, labels = processor.encode_text(messages, [(64, 64)])
    assert (rows.input_ids[0].tolist(), rows.labels[0].tolist()) == (ids, labels)
    assert rows.position_ids[0].tolist() == list(range(len(ids)))


# --- labels of pictures


def test_labels_lie_where_the_things_do(scenes_dir, inventories):
    pictures = encoders.Pictures(scenes_dir, GRID_SIDE)
    batch = pictures.batch(range(len(inventories)), random.Random(0), augment=False)
    for labels, present, inventory in zip(batch.labels, batch.present, inventories, strict=True):
        cells = cell_items(inventory, GRID_SIDE)
        assert present.tolist() == [item is not None for item in cells]
        for values, item in zip(labels.tolist(), cells, strict=True):
            if item is not None:
                assert values[0] == list(encoders.KINDS).index(item.kind)
                assert values[3] == min(15, int(item.box.centre[0] / inventory.width * 16))


def test_mirrored_pictures_have_mirrored_labels(inventories):
    inventory = inventories[0]
    plain = encoders.label(inventory, {}, GRID_SIDE).reshape(GRID_SIDE, GRID_SIDE, -1)
    twice = encoders.mirrored(encoders.mirrored(inventory))
    np.testing.assert_array_equal(encoders.label(twice, {}, GRID_SIDE).reshape(plain.shape), plain)
    columns = {item.id: item.box.centre[0] for item in inventory.items}
    for item in encoders.mirrored(inventory).items:
        assert item.box.centre[0] == inventory.width - columns[item.id]


# --- building


def test_a_build_goes_on_where_it_was_left_and_gives_the_same_bytes(scenes_dir, tmp_path):
    told = []
    first = build_parts(tmp_path / "a", short(), scenes_dir, lambda *report, **_: told.append(report))
    second = build_parts(tmp_path / "b", short(), scenes_dir, lambda *report, **_: None)
    assert [part.name for part in first] == TinyPartsRecipe().parts
    assert [part.sha256 for part in first] == [part.sha256 for part in second]
    weights = tmp_path / "a" / LANGUAGE_MODEL / WEIGHTS
    written = weights.stat().st_mtime_ns
    assert build_parts(tmp_path / "a", short(), scenes_dir, lambda *report, **_: None) == first
    assert weights.stat().st_mtime_ns == written
    with pytest.raises(CommandError, match=r"a/language_model was made from another recipe .*delete it"):
        build_parts(tmp_path / "a", short(seed=1), scenes_dir, lambda *report, **_: None)


def test_a_part_concerns_only_its_own_recipe():
    recipe = TinyPartsRecipe()
    other = replace(recipe, language_model=replace(recipe.language_model, steps=1))
    assert other.hash_of(LANGUAGE_MODEL) != recipe.hash_of(LANGUAGE_MODEL)
    assert [other.hash_of(encoder.name) for encoder in recipe.encoders] == [
        recipe.hash_of(encoder.name) for encoder in recipe.encoders
    ]
    assert len({recipe.hash_of(name) for name in recipe.parts}) == len(recipe.parts)


@pytest.mark.parametrize("damage", ["card", "weights", "file"])
def test_a_damaged_part_is_named(damage, tmp_path):
    folder = tmp_path / LANGUAGE_MODEL
    if damage == "file":
        folder.write_text("mine")
    else:
        shutil.copytree(PARTS / LANGUAGE_MODEL, folder)
        (folder / {"card": "part.json", "weights": WEIGHTS}[damage]).write_bytes(b"{")
    with pytest.raises(CommandError, match=r"language_model.* delete .*another --output"):
        build_parts(tmp_path, TinyPartsRecipe(), tmp_path, lambda *report, **_: None)


def test_a_folder_that_cannot_be_made_is_refused_before_any_work(refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "another --output" in refused("tiny-parts", "--output", tmp_path / "file")
    assert "another --output" in refused("tiny-parts", "--output", tmp_path / "file" / "inside")


def test_a_part_that_fails_ends_the_build_at_once_and_leaves_nothing_running(scenes_dir, tmp_path):
    scenes = tmp_path / "scenes"
    shutil.copytree(scenes_dir, scenes)
    (scenes / "images" / "000003.png").write_bytes(b"no picture")
    slow = replace(short(), language_model=replace(short().language_model, steps=100_000))
    with pytest.raises(DataError, match=r"000003.png"):
        build_parts(tmp_path / "parts", slow, scenes, lambda *report, **_: None)
    assert not multiprocessing.active_children()
    assert not (tmp_path / "parts" / LANGUAGE_MODEL).exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_build_that_is_stopped_leaves_nothing_running(number, scenes_dir, tmp_path):
    code = (
        "import sys; from pathlib import Path; from cambrian_cli.tiny_parts.build import build_parts;"
        "from cambrian_cli.tiny_parts.recipe import TinyPartsRecipe;"
        "say = lambda name, done, total, **_: print(name, flush=True);"
        "build_parts(Path(sys.argv[1]), TinyPartsRecipe(held_out=8), Path(sys.argv[2]), say)"
    )
    script = tmp_path / "build.py"
    script.write_text(f"if __name__ == '__main__':\n    {code}\n")
    command = [sys.executable, str(script), str(tmp_path / "parts"), str(scenes_dir)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, "start_new_session": True}
    with subprocess.Popen(command, **options) as process:  # type: ignore[call-overload]
        # a hundred steps are done: all is running
        assert process.stdout.readline().strip() in TinyPartsRecipe().parts
        process.send_signal(number)
        process.wait(timeout=60)
    for _ in range(100):
        if not (left := _in_group(process.pid)):
            break
        time.sleep(0.2)
    assert not left


def _in_group(group: int) -> list[int]:
    """Processes of a process group that are not dead."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found
