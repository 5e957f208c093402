"""What a run trains on: few samples, several sources, streams, saved features, samples that cannot be read."""

import json
import shutil
from pathlib import Path

import pytest

from cambrian_model.errors import TrainingError
from cambrian_model.training import Progress, train
from cambrian_model.training.stream_sources import DatasetSource
from tests.support.pictures import Pictures
from tests.support.small_run import Interrupt, assert_same_run, lines, losses, small_recipe, spoil_pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def datasets(folder):
    return {"scenes": Pictures(folder), "more": Pictures(folder, 10, pictures=(2, 0), prefix="more")}


def align(output, datasets, *overrides, **options):
    return train(small_recipe(*overrides), datasets=datasets, output=output, stages=["align"], **options)


def facts(run):
    return json.loads((run / "run.json").read_text())


def test_less_data_than_a_batch_makes_one_short_step_of_every_epoch(folder, tmp_path):
    two = {"scenes": Pictures(folder, 2)}
    large = "stages.align.batch.rows=8"
    steps = lines(align(tmp_path / "steps", two, large, "stages.align.max_steps=3").run_dir)
    assert [(line["epoch"], line["samples"]) for line in steps] == [(0, 2), (1, 2), (2, 2)]

    ended = align(tmp_path / "epochs", two, large, "stages.align.max_steps=null", "stages.align.epochs=2")
    assert ended.stages["align"].steps == 2


def test_sources_are_mixed_by_weight_and_their_share_of_tokens_is_noted(datasets, tmp_path):
    mixture = ("stages.align.data={scenes: 1, more: 0.5}", "stages.align.max_steps=null", "stages.align.epochs=1")
    run = align(tmp_path / "run", datasets, *mixture).run_dir

    assert sum(line["samples"] for line in lines(run)) == 23 + 5
    packing, data = facts(run)["packing"]["align"], facts(run)["data"]
    share, total = packing["token_share"], sum(line["tokens"] for line in lines(run))
    assert packing["weights"] == {"scenes": 1, "more": 0.5}
    assert sum(share.values()) == pytest.approx(1, abs=1e-4)  # four digits are noted
    assert share["scenes"] == pytest.approx(data["scenes"]["tokens"] / total, abs=1e-4)


STREAM = ("checkpoint.every=1", "stages.align.max_steps=7")  # an epoch of 23 samples has three steps


def streams(folder, count=23):
    return {"scenes": DatasetSource(Pictures(folder, count), seed=5)}


def test_a_stream_is_trained_on_and_continues_bit_for_bit_within_an_epoch(folder, tmp_path):
    whole = align(tmp_path / "whole", streams(folder), *STREAM).run_dir
    for name, step in (("first", 3), ("later", 6)):  # of the first epoch, and of the next
        with pytest.raises(KeyboardInterrupt):
            align(tmp_path / name, streams(folder), *STREAM, progress=Interrupt(step))
        state = json.loads((tmp_path / name / "checkpoints" / f"align-{step - 1:06d}" / "state.json").read_text())
        assert state["place"]["window_step"] > 0
        assert_same_run(align(tmp_path / name, streams(folder), *STREAM, resume=True).run_dir, whole)

    epochs = [line["epoch"] for line in lines(whole)]
    assert set(epochs) >= {0, 1}
    assert sum(line["samples"] for line in lines(whole) if line["epoch"] == 0) == 23


def test_a_stream_that_changed_or_has_no_end_is_refused(folder, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        align(tmp_path / "run", streams(folder), *STREAM, progress=Interrupt(3))
    with pytest.raises(TrainingError, match=r"had 23 samples when the run was saved and has 22 now"):
        align(tmp_path / "run", streams(folder, 22), *STREAM, resume=True)
    with pytest.raises(TrainingError, match=r"a stage of 1 epochs reads a stream.*set max_steps"):
        align(tmp_path / "epochs", streams(folder), "stages.align.max_steps=null", "stages.align.epochs=1")


def test_a_stream_and_records_are_mixed(folder, datasets, tmp_path):
    mixed = {**streams(folder), "more": datasets["more"]}
    run = align(tmp_path / "run", mixed, "stages.align.data={scenes: 1, more: 1}").run_dir
    assert sum(line["samples"] for line in lines(run) if line["epoch"] == 0) == 33


class Broken(Pictures):
    """Pictures of which the red one has no pixels and the green one no header: each is in every fifth sample."""

    def __init__(self, folder, **options):
        super().__init__(folder, **options)
        spoil_pixels(self.folder / "red.png")
        (self.folder / "green.png").write_bytes(b"no picture")


RED = {f'sample "picture-{i}"' for i in (0, 5, 10, 15, 20)}
GREEN = {f'sample "picture-{i}"' for i in (1, 6, 11, 16, 21)}
SKIP = ("on_bad_sample=skip", "stages.align.batch.rows=1", "stages.align.max_steps=null", "stages.align.epochs=2")


def listed(run):
    return [json.loads(line) for line in (run / "bad_samples.jsonl").read_text().splitlines()]


def test_bad_samples_are_left_out_counted_and_listed_once_over_epochs_and_resumes(tmp_path):
    data = {"scenes": Broken(tmp_path / "pictures")}
    whole = align(tmp_path / "whole", data, *SKIP)
    with pytest.raises(KeyboardInterrupt):
        align(tmp_path / "again", data, *SKIP, progress=Interrupt(5))
    again = align(tmp_path / "again", data, *SKIP, resume=True)

    assert_same_run(again.run_dir, whole.run_dir)
    for result in (whole, again):
        found = listed(result.run_dir)
        assert {line["name"] for line in found if line["when"] == "index"} == GREEN
        assert {line["name"] for line in found if line["when"] == "train"} == RED
        assert len(found) == result.bad == 10
        assert all("red.png" in line["reason"] for line in found if line["when"] == "train")
        assert facts(result.run_dir)["data"]["scenes"]["bad"] == 5
        assert list(result.dropped["align"].values()) == [5]
        for epoch in (0, 1):
            of_epoch = [line for line in lines(result.run_dir) if line["epoch"] == epoch]
            assert sum(line.get("bad", 0) for line in of_epoch) == 5
            assert sum(line["samples"] for line in of_epoch) == 23 - 10


def test_bad_samples_of_a_stream_are_left_out_counted_and_listed(tmp_path):
    data = {"scenes": DatasetSource(Broken(tmp_path / "pictures"), seed=5)}
    result = align(tmp_path / "run", data, "on_bad_sample=skip", "stages.align.max_steps=6")

    assert {line["name"] for line in listed(result.run_dir)} == RED | GREEN
    assert result.bad == 10
    first = [line for line in lines(result.run_dir) if line["epoch"] == 0]
    assert sum(line.get("bad", 0) for line in first) == 10
    assert sum(line["samples"] for line in first) == 23 - 10


def test_a_step_of_which_nothing_can_be_read_is_passed_over(tmp_path):
    alone = ("stages.align.batch={rows: 1, row_tokens: 64, max_images: 1}", "on_bad_sample=skip", "max_bad_steps=3")
    data = {"scenes": Broken(tmp_path / "pictures", count=10, pictures=(1,))}  # each has a row of its own
    told: list[Progress] = []
    run = align(tmp_path / "run", data, *alone, "stages.align.max_steps=8", progress=told.append).run_dir

    assert sorted(line["samples"] for line in lines(run)) == [0] * 2 + [1] * 6
    for line in lines(run):
        assert (line["loss"] is None) == (line["grad_norm"] is None) == (line.get("bad") == 1) == (not line["samples"])
    assert [now.note for now in told if now.phase == "skip"] == ["skipped: none of its samples could be read"] * 2


def test_steps_in_a_row_of_which_nothing_can_be_read_end_the_run(tmp_path):
    alone = ("stages.align.batch={rows: 1, row_tokens: 64, max_images: 1}", "on_bad_sample=skip", "max_bad_steps=2")
    data = {"scenes": Broken(tmp_path / "pictures", count=1, pictures=(1,))}
    with pytest.raises(TrainingError, match=r"step 2: none of its samples could be read, and 2 steps in a row taught"):
        align(tmp_path / "run", data, *alone)


CACHED = ("stages.align.feature_cache=true", "stages.finetune.feature_cache=true")
FROZEN = ("stages.finetune.train=[connector, in_llm, language_model]",)


def test_saved_features_give_the_same_losses_and_are_made_once(datasets, tmp_path):
    told: list[Progress] = []
    plain = train(small_recipe(*FROZEN), datasets=datasets, output=tmp_path / "plain").run_dir
    with pytest.raises(KeyboardInterrupt):
        train(small_recipe(*CACHED, *FROZEN), datasets=datasets, output=tmp_path / "cached", progress=Interrupt(4))
    cached = train(
        small_recipe(*CACHED, *FROZEN), datasets=datasets, output=tmp_path / "cached", resume=True, progress=told.append
    ).run_dir

    assert losses(cached) == losses(plain)  # docs/feature-cache.md: these encoders, in these sizes, to the bit
    assert [(now.stage, now.done) for now in told if now.phase == "encode" and now.note == "encode"] == []
    encoders = {path.parent.name for path in (cached / "features").glob("*/*.safetensors")}
    assert len(encoders) == 2


def test_a_damaged_file_of_saved_features_stops_the_run_whatever_the_policy(datasets, tmp_path):
    recipe = small_recipe(*CACHED, *FROZEN, "on_bad_sample=skip")
    output = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(recipe, datasets=datasets, output=output, stages=["align"], progress=Interrupt(3))
    shard = next((output / "features").glob("*/*.safetensors"))
    whole = shard.read_bytes()

    shard.write_bytes(whole[:-100])
    with pytest.raises(TrainingError, match=shard.name):
        train(recipe, datasets=datasets, output=output, stages=["align"], resume=True)
    middle = len(whole) // 2
    shard.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(TrainingError, match=shard.name):
        train(recipe, datasets=datasets, output=output, stages=["align"], resume=True)
    shutil.rmtree(shard.parent)
    train(recipe, datasets=datasets, output=output, stages=["align"], resume=True)
    assert not (output / "bad_samples.jsonl").exists()


def test_a_picture_without_pixels_is_left_out_of_saved_features_and_counted(tmp_path):
    result = align(tmp_path / "run", {"scenes": Broken(tmp_path / "pictures")}, *SKIP, CACHED[0])

    found = listed(result.run_dir)
    assert {line["name"] for line in found if line["when"] == "train"} == RED
    assert result.bad == 10
    assert sum(line["samples"] for line in lines(result.run_dir)) == 2 * 13
    assert Path(result.run_dir / "features").is_dir()
