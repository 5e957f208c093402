"""Saved features: the same losses without an encoder, found only by what made them, and never believed when damaged."""

import copy
import io
import json
import math
import os
import pickle
import resource
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch.utils.data import DataLoader

from cambrian_model.config import VisionEncoderConfig
from cambrian_model.errors import ImageError, TrainingError
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.processing.processor import CambrianProcessor
from cambrian_model.training.collate import collate
from cambrian_model.training.feature_cache import CachedEncoder, DatasetImages, FeatureCache
from cambrian_model.training.feature_estimate import estimate
from cambrian_model.training.feature_shards import ABANDONED_SECONDS
from cambrian_model.vision import build_vision_encoder
from tests.support.gloo import ROOT, RankError, run_ranks
from tests.support.tiny_model import tiny_config, tiny_encoders
from tests.support.tokenizers import tiny_bytes

SIZES = [(40, 30), (21, 64), (64, 64), (33, 50), (50, 20)]  # (width, height)
ROW_BYTES = 4 * 4 * 64 * 4  # of the first encoder: 4 x 4 tokens of width 64 in float32
UPRIGHT, QUARTER_TURN = 1, 6  # values of EXIF's orientation


def build():
    """Model and processor, the encoders frozen."""
    config, tokenizer = tiny_config(), tiny_bytes()
    processor = CambrianProcessor.from_config(config, tokenizer, "user_assistant")
    config.get_text_config().vocab_size, config.image_token_id = len(processor.tokenizer), processor.image_token_id
    torch.manual_seed(0)
    model = CambrianForConditionalGeneration(config)
    model.vision_encoders.requires_grad_(False)
    for block in (module for name, module in model.named_modules() if name.endswith("write_back")):
        torch.nn.init.normal_(block.weight, std=0.2)  # blocks that begin at zero would hide what they see
    return model, processor


@pytest.fixture(scope="module")
def tiny():
    return build()


def picture(seed, size, orientation=UPRIGHT):
    """A JPEG of noise, which its tag may turn."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", exif=exif)
    return file.getvalue()


def write_pictures(folder):
    folder.mkdir(exist_ok=True)
    files = [folder / f"{i}.jpg" for i in range(len(SIZES))]
    for i, file in enumerate(files):
        file.write_bytes(picture(i, SIZES[i], QUARTER_TURN if i == 1 else UPRIGHT))
    return files


@pytest.fixture
def files(tmp_path):
    return write_pictures(tmp_path / "pictures")


def opened(folder, tiny, **options):
    model, processor = tiny
    return FeatureCache.open(folder, model.encoders, processor, **options)


def filled(folder, tiny, images, **options):
    cache = opened(folder, tiny)
    cache.write(images, tiny[0].encoders, batch_size=2, **options)
    return cache


def conversation(number, images=1):
    user = [{"type": "image"}] * images + [{"type": "text", "text": f"What is in {number}?"}]
    answer = "abc " * (1 + number % 4)
    return [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]


def shard_files(folder):
    return sorted(folder.rglob("*.safetensors"))


def flip_byte(file, position):
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


def samples(encoder, files):
    """Conversations with one, none and two pictures."""
    chosen = [files[:1], [], files[1:3], files[3:4], files[2:0:-1], files[4:], [files[0], files[0]], []]
    return [encoder.encode(conversation(i, len(images)), images) for i, images in enumerate(chosen)]


def train(model, batches, precision="fp32"):
    """Losses of some steps, and the weights after them."""
    model = copy.deepcopy(model).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    losses = []
    for batch in batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model(**batch.inputs, num_items_in_batch=batch.supervised_tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, torch.cat([parameter.detach().flatten() for parameter in trained])


def packed(encoder, files):
    made = samples(encoder, files)
    steps = [[made[:3], made[3:5]], [made[5:], made[:2]], [[made[1]], [made[7]]], [made[2:4], made[4:6]]]
    return [collate(rows, 192, 0) for rows in steps * 2]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_from_saved_features_gives_the_same_losses_and_weights_to_the_bit(tiny, files, tmp_path, precision):
    model, processor = tiny
    cache = opened(tmp_path / "features", tiny, precision=precision)
    cache.write(files, model.encoders, batch_size=3)
    without, weights = train(model, packed(processor, files), precision)
    blind = copy.deepcopy(model)
    for parameter in blind.vision_encoders.parameters():
        parameter.fill_(torch.nan)  # whoever runs an encoder learns of it
    losses, weights_from_cache = train(blind, packed(CachedEncoder(processor, cache), files), precision)

    assert losses == without
    assert losses[-1] < losses[0]
    # Exact: on a CPU these encoders give a picture the same bits, whatever else is in its batch.
    torch.testing.assert_close(weights_from_cache, weights, rtol=0, atol=0)


def test_a_sample_is_the_processors_with_features_for_pixels(tiny, files, tmp_path):
    model, processor = tiny
    encoder = CachedEncoder(processor, filled(tmp_path / "features", tiny, files))
    for found, expected in zip(samples(encoder, files), samples(processor, files), strict=True):
        assert found.input_ids.tolist() == expected.input_ids.tolist()
        assert found.labels.tolist() == expected.labels.tolist()
        assert found.image_sizes.dtype == expected.image_sizes.dtype
        assert found.image_sizes.tolist() == expected.image_sizes.tolist()
        assert found.pixel_values == []
        for features, of_pixels in zip(found.vision_features, model.encode_images(expected.pixel_values), strict=True):
            torch.testing.assert_close(features, of_pixels, rtol=0, atol=0)


def test_the_size_of_a_turned_picture_is_that_which_is_seen(tiny, files, tmp_path):
    cache = filled(tmp_path / "features", tiny, files)

    assert cache.find(files[0]).size == (30, 40)
    assert cache.find(files[1]).size == (21, 64)  # stored as 21 wide, 64 high, and shown lying


def test_no_picture_is_decoded_once_its_features_are_saved(tiny, files, tmp_path):
    cache = filled(tmp_path / "features", tiny, files)
    features = cache.features(files[2])
    status = files[2].stat()
    files[2].write_bytes(b"x" * status.st_size)
    os.utime(files[2], ns=(status.st_atime_ns, status.st_mtime_ns))

    torch.testing.assert_close(cache.features(files[2]), features, rtol=0, atol=0)


def test_a_batch_without_samples_runs_like_one_without_pictures(tiny, files, tmp_path):
    encoder = CachedEncoder(tiny[1], filled(tmp_path / "features", tiny, files))
    batch = collate([[]], 16, 0, empty=encoder.empty_sample())

    assert [list(x.shape) for x in batch.inputs["vision_features"]] == [[0, 16, 64], [0, 64, 32]]
    assert tiny[0](**batch.inputs, num_items_in_batch=1).loss == 0


def test_the_same_picture_is_saved_once_wherever_it_comes_from(tiny, files, tmp_path):
    again = shutil.copy(files[0], tmp_path / "copy.jpg")
    images = [files[0], str(files[0]), files[0].read_bytes(), again, files[1]]
    cache = opened(tmp_path / "features", tiny)
    assert cache.missing(images) == [0, 4]
    cache.write(images, tiny[0].encoders)

    assert [len(shards) for shards in cache.shards] == [2, 2]
    assert len({cache.find(image).rows[0] for image in images[:4]}) == 1
    assert cache.missing(images) == []


def test_two_encoders_of_one_kind_share_their_features(files, tmp_path):
    encoders = [build_vision_encoder(tiny_encoders()[0]).requires_grad_(False) for _ in range(2)]
    encoders[1].load_state_dict(encoders[0].state_dict())
    config = tiny_config()
    config.vision_encoders = [vars(tiny_encoders()[0])] * 2
    processor = CambrianProcessor.from_config(config, tiny_bytes(), "user_assistant")
    cache = FeatureCache.open(tmp_path / "features", encoders, processor)
    cache.write(files, encoders)

    assert len(shard_files(tmp_path / "features")) == 1
    torch.testing.assert_close(*cache.features(files[0]), rtol=0, atol=0)


def changed_weights(model, processor):
    next(model.vision_encoders[1].parameters()).data[0] += 1e-3


def changed_level(model, processor):
    model.encoders[1].config = VisionEncoderConfig(**{**vars(model.encoders[1].config), "feature_layer": 2})


def changed_preparation(model, processor):
    processor.image_processor.encoders[1]["interpolation"] = "bilinear"


@pytest.mark.parametrize("change", [changed_weights, changed_level, changed_preparation])
def test_whatever_changes_an_encoder_hides_its_old_features_and_no_others(files, tmp_path, change):
    tiny = build()
    filled(tmp_path / "features", tiny, files)
    change(*tiny)
    cache = opened(tmp_path / "features", tiny)

    assert [len(shards) for shards in cache.shards] == [5, 0]
    assert cache.missing(files) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("other", [{"precision": "bf16"}, {"device": "cuda"}])
def test_another_precision_or_kind_of_device_has_features_of_its_own(tiny, files, tmp_path, other):
    filled(tmp_path / "features", tiny, files)

    assert opened(tmp_path / "features", tiny, **other).missing(files) == [0, 1, 2, 3, 4]


def test_data_without_pictures_needs_no_features(tiny, tmp_path):
    cache = filled(tmp_path / "features", tiny, [])
    sample = CachedEncoder(tiny[1], cache).encode(conversation(0, images=0))

    assert shard_files(tmp_path / "features") == []
    assert [list(x.shape) for x in sample.vision_features or []] == [[0, 16, 64], [0, 64, 32]]


def test_a_changed_picture_does_not_meet_its_old_features(tiny, files, tmp_path):
    cache = filled(tmp_path / "features", tiny, files)
    files[3].write_bytes(picture(99, SIZES[3]))
    with pytest.raises(
        ImageError, match=r"3\.jpg: .*features has no features of this picture, which has changed since"
    ):
        cache.features(files[3])

    assert opened(tmp_path / "features", tiny).missing(files) == [3]


class Stopped(Exception):
    pass


def test_what_was_encoded_before_an_interruption_is_not_encoded_again(tiny, files, tmp_path):
    def stop(phase, done, total):
        if phase == "encode" and done == 4:
            raise Stopped

    with pytest.raises(Stopped):
        filled(tmp_path / "features", tiny, files, report=stop, shard_bytes=ROW_BYTES)
    progress = []
    cache = opened(tmp_path / "features", tiny)
    assert cache.missing(files) == [4]
    cache.write(files, tiny[0].encoders, report=lambda *at: progress.append(at))

    assert progress == [("hash", 5, 5), ("encode", 1, 1)]
    assert cache.missing(files) == []


def test_only_the_encoder_that_lacks_a_picture_runs_again(tiny, files, tmp_path):
    cache = filled(tmp_path / "features", tiny, files)
    expected, others = cache.features(files[0]), cache.shards[1].shards
    shutil.rmtree(cache.shards[0].folder)
    cache = filled(tmp_path / "features", tiny, files)

    assert [len(shards) for shards in cache.shards] == [5, 5]
    assert cache.shards[1].shards == others
    torch.testing.assert_close(cache.features(files[0]), expected, rtol=0, atol=0)


def test_what_a_killed_writer_left_is_ignored_and_swept_once_it_is_old(tiny, files, tmp_path):
    cache = filled(tmp_path / "features", tiny, files[:3])
    folder = cache.shards[0].folder
    half = [".unfinished-00ff-000000.safetensors", ".unfinished-00ff-000000.json", ".unfinished-00ff.json"]
    left = [folder / name for name in (*half, "00ff-000000.safetensors")]  # the last one whole, but without a manifest
    for file in left:
        file.write_bytes(b"half")
    cache = filled(tmp_path / "features", tiny, files[3:4])
    assert all(file.exists() for file in left)  # they may be a living writer's
    long_ago = left[0].stat().st_mtime - ABANDONED_SECONDS - 1
    for file in left:
        os.utime(file, (long_ago, long_ago))
    cache = filled(tmp_path / "features", tiny, files[4:])

    assert not any(file.exists() for file in left)
    assert cache.missing(files) == []


def test_shards_are_about_as_large_as_asked_and_hold_nothing_but_tensors(tiny, files, tmp_path):
    cache = filled(tmp_path / "features", tiny, files, shard_bytes=2 * ROW_BYTES)
    counts = [[shard.num_images for shard in shards.shards] for shards in cache.shards]
    assert [sorted(count) for count in counts] == [
        [1, 2, 2],
        [1, 1, 1, 1, 1],
    ]  # the second encoder's are twice as large
    with safe_open(shard_files(tmp_path / "features")[0], "pt") as file:
        assert sorted(file.keys()) == ["checksums", "features", "hashes", "sizes"]
    manifest = json.loads(cache.shards[0].shards[0].manifest.read_text())

    assert manifest["size"] == cache.shards[0].shards[0].path.stat().st_size
    assert json.loads((cache.shards[1].folder / "encoder.json").read_text())["encoder"]["name"] == "test_convnext"


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


def damage_header(file):
    flip_byte(file, 0)


def replace_by_less(file):
    size = file.stat().st_size
    file.write_bytes(b"\0" * size)


@pytest.mark.parametrize("damage", [truncate, damage_header, replace_by_less, Path.unlink])
def test_a_damaged_shard_is_refused_when_the_cache_is_opened(tiny, files, tmp_path, damage):
    filled(tmp_path / "features", tiny, files)
    victim = shard_files(tmp_path / "features")[0]
    damage(victim)
    with pytest.raises(TrainingError, match=f"{victim} are damaged: .*; delete .*json and {victim.name}.* made again"):
        opened(tmp_path / "features", tiny)
    victim.with_suffix(".json").unlink()
    victim.unlink(missing_ok=True)

    assert opened(tmp_path / "features", tiny).missing(files) == [0, 1, 2, 3, 4]


def test_a_damaged_manifest_is_refused(tiny, files, tmp_path):
    cache = filled(tmp_path / "features", tiny, files)
    manifest = cache.shards[0].shards[0].manifest
    manifest.write_text("{")
    with pytest.raises(
        TrainingError, match=rf"{manifest} is no manifest of saved features .*delete it and .*safetensors"
    ):
        opened(tmp_path / "features", tiny)


def test_a_flipped_bit_is_found_by_whoever_reads_that_picture_or_verifies(tiny, files, tmp_path):
    cache = filled(tmp_path / "features", tiny, files)
    with safe_open(cache.shards[0].shards[0].path, "pt") as file:
        start = file.get_slice("features")[3].data_ptr() - file.get_slice("features")[0].data_ptr()
    content = cache.shards[0].shards[0].path.read_bytes()
    position = content.index(cache.features(files[3])[0].numpy().tobytes()) + 5
    assert start == 3 * ROW_BYTES
    flip_byte(cache.shards[0].shards[0].path, position)
    cache = opened(tmp_path / "features", tiny)
    cache.features(files[2])  # its neighbors are whole
    with pytest.raises(TrainingError, match=r"are damaged: picture 3 of it is not as it was written; delete"):
        cache.features(files[3])
    with pytest.raises(TrainingError, match=r"are damaged: its checksum is [0-9a-f]+, expected [0-9a-f]+; delete"):
        opened(tmp_path / "features", tiny, verify=True)


def test_a_full_disk_is_an_error_that_leaves_finished_shards_whole(tiny, files, tmp_path):
    whole = filled(tmp_path / "features", tiny, files[:2])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(TrainingError, match=r"could not write .*safetensors.*free disk space.*continues"):
            filled(tmp_path / "features", tiny, files)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert len(list((tmp_path / "features").rglob(".unfinished*"))) == 0
    assert opened(tmp_path / "features", tiny, verify=True).missing(files) == [2, 3, 4]
    whole.features(files[0])


def test_what_cannot_fit_is_refused_before_anything_is_encoded(files, tmp_path):
    model, processor = build()
    # An encoder that claims more tokens than any disk holds: 10^7 per side of 32 channels in 16 bits.
    config = VisionEncoderConfig(**{**vars(model.encoders[1].config), "grid_side": 10**7})
    model.encoders[1].config = config
    cache = opened(tmp_path / "features", (model, processor))
    with pytest.raises(TrainingError, match=r"features of 5 pictures need at least 32000000\.0 GB, but .* GB free"):
        cache.write(files, model.encoders)


def test_a_picture_that_cannot_be_read_stops_or_is_left_out_and_named(tiny, files, tmp_path):
    files[1].write_bytes(files[1].read_bytes()[:400])
    gone = tmp_path / "gone.jpg"
    with pytest.raises(ImageError, match=r"1\.jpg: cannot be read"):
        filled(tmp_path / "features", tiny, files)
    with pytest.raises(ImageError, match=r"gone\.jpg: cannot be read"):
        filled(tmp_path / "features", tiny, [*files, gone])
    cache = opened(tmp_path / "features", tiny)
    bad = cache.write([*files, gone], tiny[0].encoders, on_bad="skip")

    assert [reason.partition(": ")[0] for reason in bad] == [str(files[1])]
    assert [len(shards) for shards in cache.shards] == [4, 4]
    with pytest.raises(ImageError, match=r"1\.jpg: .*could not be read then"):
        CachedEncoder(tiny[1], cache).encode(conversation(0), [files[1]])


def test_a_picture_given_as_bytes_is_named_by_its_conversation(tiny, files, tmp_path):
    cache = opened(tmp_path / "features", tiny)
    with pytest.raises(ImageError, match=r"sample 7, image 0: .*has no features of this picture"):
        CachedEncoder(tiny[1], cache).encode(conversation(0), [files[0].read_bytes()], name="sample 7")


def test_an_encoder_that_is_trained_or_never_sees_pixels_is_refused(tiny, tmp_path):
    model, processor = copy.deepcopy(tiny[0]), tiny[1]
    next(model.vision_encoders[1].parameters()).requires_grad_(True)
    with pytest.raises(TrainingError, match=r"vision encoder test_convnext is trained.*set feature_cache: false"):
        FeatureCache.open(tmp_path, model.encoders, processor)
    saved = build_vision_encoder(VisionEncoderConfig("precomputed", "other", 64, 32, 4))
    with pytest.raises(TrainingError, match=r"vision encoder other is precomputed"):
        FeatureCache.open(tmp_path, [model.encoders[0], saved], processor)


def test_encoders_come_back_as_they_were(files, tmp_path):
    tiny = build()
    before = copy.deepcopy(tiny[0].vision_encoders.state_dict())
    random_state = torch.get_rng_state()
    filled(tmp_path / "features", tiny, files)

    assert torch.equal(torch.get_rng_state(), random_state)
    assert not tiny[0].vision_encoders[0].training
    torch.testing.assert_close(dict(tiny[0].vision_encoders.state_dict()), dict(before), rtol=0, atol=0)


class Encoded(torch.utils.data.Dataset):
    def __init__(self, encoder, files):
        self.encoder, self.files = encoder, files

    def __len__(self):
        return len(self.files)

    def __getitem__(self, number):
        return self.encoder.encode(conversation(number), [self.files[number]]).vision_features


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_what_the_main_process_reads(tiny, files, tmp_path, method, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)  # a spawned process imports this file
    cache = filled(tmp_path / "features", tiny, files)
    encoder = CachedEncoder(tiny[1], cache)
    loader = DataLoader(Encoded(encoder, files), batch_size=None, num_workers=2, multiprocessing_context=method)
    expected = [encoder.encode(conversation(i), [file]).vision_features for i, file in enumerate(files)]

    torch.testing.assert_close([[x.clone() for x in features] for features in loader], expected, rtol=0, atol=0)


def test_a_cache_sent_to_another_process_takes_no_features_along(tiny, files, tmp_path):
    cache = filled(tmp_path / "features", tiny, files)
    sent = pickle.dumps(cache)
    received = pickle.loads(sent)

    assert len(sent) < 5 * ROW_BYTES
    torch.testing.assert_close(received.features(files[0]), cache.features(files[0]), rtol=0, atol=0)


def test_features_are_views_of_the_file(tiny, files, tmp_path):
    cache = filled(tmp_path / "features", tiny, files)
    first, second = cache.features(files[0])[0], cache.features(files[1])[0]

    assert abs(second.data_ptr() - first.data_ptr()) % ROW_BYTES == 0
    assert cache.features(files[0])[0].data_ptr() == first.data_ptr()


def test_pictures_decoded_by_workers_are_the_same(tiny, files, tmp_path):
    cache = filled(tmp_path / "features", tiny, files, num_workers=2)
    expected = filled(tmp_path / "others", tiny, files)
    for file in files:
        torch.testing.assert_close(cache.features(file), expected.features(file), rtol=0, atol=0)


def test_pictures_of_a_dataset_are_numbered_through(files):
    dataset = [{"images": files[:2]}, {"images": None}, {"images": [files[2]]}, {}, {"images": files[3:]}]
    images = DatasetImages(dataset, [2, 0, 1, 0, 2])

    assert [images[i] for i in range(len(images))] == files
    assert [DatasetImages(dataset, [0, 0, 1, 0, 2])[i] for i in range(3)] == files[2:]


def write_as_rank(folder):
    """What each of two ranks does: write its share of one cache, and then read all of it."""
    torch.set_num_threads(1)
    model, processor = build()
    images = [*sorted((folder / "pictures").iterdir()), folder / "gone.jpg"]
    cache = FeatureCache.open(folder / "features", model.encoders, processor)
    progress = []
    cache.write(images, model.encoders, on_bad="skip", report=lambda *at: progress.append(at))
    found = [cache.features(image)[0].tolist() for image in images[:-1]]
    return progress, cache.missing(images, "skip"), found


def test_two_ranks_write_disjoint_shards_and_both_read_all(tiny, files, tmp_path):
    progress, missing, found = zip(*run_ranks(write_as_rank, 2, tmp_path), strict=True)
    cache = filled(tmp_path / "alone", tiny, files)
    shards = opened(tmp_path / "features", tiny).shards

    assert progress == ([("hash", 3, 3), ("encode", 3, 3)], [("hash", 3, 3), ("encode", 2, 2)])
    assert [sorted(shard.num_images for shard in part.shards) for part in shards] == [[2, 3], [2, 3]]
    assert missing == ([], [])
    for features in found:
        assert features == [cache.features(file)[0].tolist() for file in files]


def write_until_killed(folder, seconds):
    model, processor = build()
    cache = FeatureCache.open(folder / "features", model.encoders, processor)
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
    cache.write(sorted((folder / "many").iterdir()), model.encoders, batch_size=2, shard_bytes=2 * ROW_BYTES)
    time.sleep(60)


def test_a_writer_killed_at_any_moment_leaves_only_whole_features(tiny, tmp_path):
    (tmp_path / "many").mkdir()
    for i in range(40):
        (tmp_path / "many" / f"{i}.jpg").write_bytes(picture(i, SIZES[i % len(SIZES)]))
    images, left = sorted((tmp_path / "many").iterdir()), [40]
    for seconds in (0.03, 0.2, 1.5):
        with pytest.raises(RankError, match="ended with exit code -9"):
            run_ranks(write_until_killed, 1, tmp_path, seconds)
        left.append(len(opened(tmp_path / "features", tiny, verify=True).missing(images)))
    cache = filled(tmp_path / "features", tiny, images)
    alone = filled(tmp_path / "alone", tiny, images)

    assert left == sorted(left, reverse=True)
    assert left[-1] < 40
    assert [len(shards) for shards in cache.shards] == [40, 40]  # none twice
    for image in images:
        torch.testing.assert_close(cache.features(image), alone.features(image), rtol=0, atol=0)


def write_with_a_bad_picture(folder):
    model, processor = build()
    cache = FeatureCache.open(folder / "features", model.encoders, processor)
    try:
        cache.write([folder / "pictures" / f"{i}.jpg" for i in range(4)], model.encoders)
    except (ImageError, TrainingError) as error:
        return f"{type(error).__name__}: {error}"
    return "written"


def test_a_picture_that_one_rank_cannot_read_stops_all(files, tmp_path):
    files[1].write_bytes(files[1].read_bytes()[:400])
    first, second = run_ranks(write_with_a_bad_picture, 2, tmp_path)

    assert second.startswith(f"ImageError: {files[1]}: cannot be read")
    assert first.startswith(f"TrainingError: encoding pictures for the feature cache failed on rank 1: {files[1]}")


def test_the_estimated_size_is_that_of_the_files(tiny, files, tmp_path):
    filled(tmp_path / "features", tiny, files)
    shards = shard_files(tmp_path / "features")
    headers = sum(8 + int.from_bytes(shard.read_bytes()[:8], "little") for shard in shards)
    expected = estimate(tiny[0].config, len(files), dtype_bytes=4, encoder_flops_per_image=1e9)

    assert sum(shard.stat().st_size for shard in shards) - headers == expected.bytes
    assert expected.bytes_per_image * len(files) == expected.bytes
    assert expected.break_even_epochs is None


@pytest.mark.parametrize("images_per_epoch", [None, 300, 50])
def test_from_break_even_on_a_run_with_the_cache_takes_less_time(images_per_epoch):
    speeds = {"flops_per_second": 1e14, "read_bytes_per_second": 1e9, "write_bytes_per_second": 5e8}
    flops = 3e9
    found = estimate(tiny_config(), 100, 4, flops, images_per_epoch=images_per_epoch, **speeds)
    seen = images_per_epoch or 100

    def seconds(epochs, cached):
        encoded, written, read = (100, 100, epochs * seen) if cached else (epochs * seen, 0, 0)
        return encoded * flops / 1e14 + found.bytes_per_image * (written / 5e8 + read / 1e9)

    epochs = found.break_even_epochs
    assert epochs is not None
    assert epochs > 100 / seen  # every picture has to be encoded once
    assert seconds(epochs * 0.99, cached=True) > seconds(epochs * 0.99, cached=False)
    assert seconds(epochs * 1.01, cached=True) < seconds(epochs * 1.01, cached=False)


def test_a_cache_that_reads_longer_than_encoders_run_never_pays():
    assert estimate(tiny_config(), 100, 4, 1e6, flops_per_second=1e14).break_even_epochs == math.inf
