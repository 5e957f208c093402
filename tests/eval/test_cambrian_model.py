"""The Cambrian adapter on a real checkpoint in miniature: batches, blind prompts, fingerprints, mistakes."""

import dataclasses
import json
import math
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image

from cambrian_eval import TASKS, Answer, DataError, Failure, ModelError, RunMismatchError, evaluate, load_model
from cambrian_eval.errors import OutOfMemoryError
from cambrian_eval.models.cambrian import Cambrian
from cambrian_eval.models.local import letter_tokens
from cambrian_eval.picture import Picture
from cambrian_model import CambrianForConditionalGeneration, CambrianProcessor
from tests.eval.benchmark_folder import SCENES, write_cvbench
from tests.support.tiny_checkpoint import write_tiny_checkpoint
from tests.support.tokenizers import load_tokenizer

TOKENS = 6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def model(checkpoint):
    return load_model(f"cambrian:{checkpoint}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_cvbench(tmp_path_factory.mktemp("cvbench"), sources=SCENES, per_group=3)


@pytest.fixture(scope="module")
def prompts(folder):
    task = TASKS.get("cvbench")
    found = [task.prompt(question) for question in task.questions(folder, "test")]
    return [dataclasses.replace(prompt, max_new_tokens=TOKENS) for prompt in found]


def blind(prompt):
    return dataclasses.replace(prompt, content=(prompt.text,))


def test_one_prompt_is_answered_as_generate_answers_it(model, checkpoint, prompts):
    reference = CambrianForConditionalGeneration.from_pretrained(checkpoint, dtype="auto").eval()
    processor = CambrianProcessor.from_pretrained(checkpoint)
    inputs = processor.apply_chat_template(
        prompts[0].messages(), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    ids = reference.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, eos_token_id=processor.stop_token_ids)
    (reply,) = processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    (answer,) = model.answer(prompts[:1])
    assert answer.text == reply.strip()
    assert answer.text


def test_a_batch_is_answered_as_its_prompts_alone_in_their_order(model, prompts):
    """The random model's logits lie far apart; padding moves them by rounding only, which flips none of its choices."""
    mixed = [blind(prompt) if place % 3 == 0 else prompt for place, prompt in enumerate(prompts)]
    alone = [model.answer([prompt])[0] for prompt in mixed]
    assert model.answer(mixed) == alone
    assert len({answer.text for answer in alone}) > 3


def test_pictures_change_what_is_said_and_blind_prompts_are_answered(model, prompts):
    seen, unseen = model.answer(prompts), model.answer([blind(prompt) for prompt in prompts])
    assert [answer.text for answer in seen] != [answer.text for answer in unseen]


def test_a_reply_that_never_ends_is_called_truncated(model, prompts, monkeypatch):
    (long,) = model.answer(prompts[:1])
    assert (long.truncated, long.reply_tokens) == (True, TOKENS)
    monkeypatch.setattr(model, "_stop_ids", list(range(model._model.config.get_text_config().vocab_size)))
    (ended,) = model.answer(prompts[:1])
    assert (ended.text, ended.truncated, ended.reply_tokens) == ("", False, 0)


def test_replies_end_where_the_generation_configuration_says(checkpoint, prompts):
    network, processor = parts(checkpoint)
    free = Cambrian(network, processor, checkpoint)
    (batch,) = free.prepare(prompts[:1]).batches
    third = free._decode(batch, [TOKENS])[0][2]
    network.generation_config.eos_token_id = [2, third]
    network.generation_config.do_sample = True  # and is not asked
    (ended,) = Cambrian(network, processor, checkpoint).answer(prompts[:1])
    assert isinstance(ended, Answer)
    assert (ended.truncated, ended.reply_tokens) == (False, 2)


def test_every_prompt_of_a_batch_has_its_own_budget(model, prompts):
    mixed = [
        dataclasses.replace(prompt, max_new_tokens=budget)
        for prompt, budget in zip(prompts[:4], (1, 9, 4, 2), strict=True)
    ]
    answers = model.answer(mixed)
    assert [answer.reply_tokens for answer in answers] == [1, 9, 4, 2]
    assert answers == [model.answer([prompt])[0] for prompt in mixed]


def test_answers_tell_what_their_pictures_cost(model, prompts):
    two = dataclasses.replace(prompts[1], content=(*prompts[0].pictures, *prompts[1].content))
    asked = [prompts[0], blind(prompts[1]), two]
    told = [answer.image_tokens for answer in model.answer(asked)]
    assert told == [model.length(prompt).image_tokens for prompt in asked]
    assert told[1:] == [0, 2 * told[0]]


def test_lengths_from_headers_are_those_of_the_prompt(model, prompts, tmp_path):
    tall = picture(tmp_path, (30, 90))
    turned = picture(tmp_path, (30, 90), orientation=6)
    asked = [
        prompts[0],
        blind(prompts[0]),
        *(dataclasses.replace(prompts[0], content=(p, "Hi?")) for p in (tall, turned)),
    ]
    for prompt in asked:
        (batch,) = model.prepare([prompt]).batches
        assert sum(model.length(prompt)) == batch.inputs["input_ids"].shape[1]
    with_header = dataclasses.replace(prompts[0], content=(cut(tall), "Hi?"))
    assert model.length(with_header) == model.length(asked[2])


def picture(folder, size, orientation=1):
    path = folder / f"{orientation}.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.radial_gradient("L").resize(size).convert("RGB").save(path, exif=exif)
    return Picture.from_file(path.name, path)


def cut(whole):
    """The same picture without its pixels."""
    data = whole.read()
    return Picture.from_bytes("cut", data[: data.index(b"\xff\xda")])


def test_a_picture_is_encoded_once_however_many_ask_about_it(model, prompts, monkeypatch):
    one, other = prompts[0].pictures[0], prompts[1].pictures[0]
    copy = Picture.from_bytes("the same bytes under another name", one.read())
    asked = [
        dataclasses.replace(prompts[2], content=(*pictures, f"Question {number}?"))
        for number, pictures in enumerate([(one,), (other,), (copy,), (one, other), (one, one), ()])
    ]
    plain = [plainly(model, prompt) for prompt in asked]
    encoded = []
    encode = model._model.encode_images

    def counted(pixels):
        encoded.append(len(pixels[0]))
        return encode(pixels)

    monkeypatch.setattr(model._model, "encode_images", counted)
    assert [answer.text for answer in model.answer(asked)] == plain
    assert encoded == [2]
    assert len(set(plain)) == len(asked)


def plainly(model, prompt):
    """The reply as the model and its processor give it, with nothing of the adapter between."""
    network, processor = model._model, CambrianProcessor.from_pretrained(model._folder)
    inputs = processor.apply_chat_template(
        prompt.messages(), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    ids = network.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, eos_token_id=processor.stop_token_ids)
    return processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def test_letters_are_weighed_by_one_prefill_over_all_their_forms(model, checkpoint, prompts):
    asked = [blind(prompt) if place == 1 else prompt for place, prompt in enumerate(prompts)]
    answers = model.choose(asked)
    for prompt, answer in zip(asked, answers, strict=True):
        scores = first_scores(model, checkpoint, prompt)
        # The vocabulary spells byte by byte, so "A" is its only form that is one token; rounding differs with padding.
        expected = [scores[model._vocabulary[letter]] for letter in "ABCD"[: len(prompt.choices)]]
        assert answer.option_scores == pytest.approx(expected, abs=1e-4)
        assert answer.text == "ABCD"[expected.index(max(expected))]
    assert len({answer.text for answer in answers}) > 1


def first_scores(model, checkpoint, prompt):
    processor = CambrianProcessor.from_pretrained(checkpoint)
    inputs = processor.apply_chat_template(
        prompt.messages(), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    with torch.inference_mode():
        return model._model(**inputs).logits[0, -1].log_softmax(-1).tolist()


def test_probabilities_of_the_forms_of_a_letter_are_summed(model, prompts, monkeypatch):
    four = dataclasses.replace(prompts[0], choices=("x",) * 4)
    plain = model.choose([four])[0].option_scores
    for letter, other in zip("AB", "CD", strict=True):
        monkeypatch.setitem(model._vocabulary, f"Ġ{letter}", model._vocabulary[other])
    (summed,) = model.choose([dataclasses.replace(four, choices=("x", "y"))])
    expected = [math.log(math.exp(plain[0]) + math.exp(plain[2])), math.log(math.exp(plain[1]) + math.exp(plain[3]))]
    assert summed.option_scores == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "letters", "forms"),
    [
        ("phi3", "ABCD", ["A", "▁A"]),
        ("qwen2", "ABCD", ["A", "(A", "ĠA"]),
        ("qwen2", "ABCDEFGHIJ", ["A", "(A", "ĠA"]),
        ("llama2_vicuna", "ABCD", ["A", "▁A"]),
    ],
)
def test_a_letter_has_the_forms_that_all_letters_have_in_its_tokenizer(name, letters, forms):
    tokenizer = load_tokenizer(name)
    tokens = letter_tokens(tokenizer.get_vocab(), letters)
    for letter, of_letter in zip(letters, tokens, strict=True):
        assert set(tokenizer.convert_ids_to_tokens(of_letter)) == {form.replace("A", letter) for form in forms}


def test_a_form_that_only_some_letters_have_counts_for_none():
    assert letter_tokens({"A": 1, "B": 2, "(A": 3, "ĠA": 4, "ĠB": 5}, "AB") == [[1, 4], [2, 5]]
    assert letter_tokens({"A": 1, "B": 2, "(A": 3}, "A") == [[1, 3]]
    assert letter_tokens({"A": 1}, "AB") == [[], []]


def test_questions_without_letters_cannot_be_chosen_from(model, prompts, monkeypatch):
    with pytest.raises(ModelError, match="offers no choices"):
        model.choose([*prompts[:2], dataclasses.replace(prompts[2], choices=())])
    with pytest.raises(ModelError, match="offers 27 choices"):
        model.choose([dataclasses.replace(prompts[2], choices=("x",) * 27)])
    monkeypatch.delitem(model._vocabulary, "B")
    with pytest.raises(ModelError, match="no form in which each of the 2 letters"):
        model.choose([dataclasses.replace(prompts[0], choices=("x", "y"))])


@pytest.mark.parametrize("ask", ["answer", "choose"])
def test_a_full_memory_is_told_and_a_smaller_batch_goes_on(model, prompts, ask):
    """The network really asks for more memory than there is, as soon as it sees more than two rows."""

    def grab(module, arguments, keywords):
        rows = len(keywords["inputs_embeds"])
        torch.empty(1 if rows <= 2 else 2**60)

    hook = model._model.language_model.register_forward_pre_hook(grab, with_kwargs=True)
    try:
        with pytest.raises(
            OutOfMemoryError, match=r"CPU \(.*\) does not hold a batch of 4 prompts \(.*memory"
        ) as caught:
            getattr(model, ask)(prompts[:4])
        assert caught.value.__context__ is None  # it would keep alive what did not fit
        assert len(getattr(model, ask)(prompts[:2])) == 2
    finally:
        hook.remove()


def test_other_errors_of_the_network_stay_what_they_are(model, prompts):
    hook = model._model.language_model.register_forward_pre_hook(lambda *_: torch.ones(2) @ torch.ones(3))
    try:
        with pytest.raises(RuntimeError, match="inconsistent tensor size"):
            model.answer(prompts[:1])
    finally:
        hook.remove()


def test_batches_are_prepared_while_others_are_answered(model, prompts):
    batches = [prompts[start : start + 3] for start in range(0, 12, 3)] * 3
    with ThreadPoolExecutor(1) as ahead:
        coming = [ahead.submit(model.prepare, batch) for batch in batches]
        answers = [model.answer_prepared(one.result()) for one in coming]
    assert answers == [model.answer(batch) for batch in batches]


def test_reports_learn_the_device(model):
    assert model.hardware.startswith("CPU (")


def test_two_runs_write_the_same_bytes_and_a_cap_is_part_of_the_run(checkpoint, folder, tmp_path):
    runs = [tmp_path / "one", tmp_path / "two"]
    for run in runs:
        model = load_model(f"cambrian:{checkpoint}")
        result = evaluate("cvbench", model, data=folder, output=run, batch_size=5, max_new_tokens=TOKENS)
    assert result.num_answered == 12
    for name in ("run.json", "samples.jsonl", "metrics.json", "report.html"):
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes()
    assert f"replies end after {TOKENS} tokens" in (runs[0] / "report.html").read_text()
    with pytest.raises(RunMismatchError, match="max_new_tokens: found 6, now 7"):
        evaluate("cvbench", model, data=folder, output=runs[0], max_new_tokens=7)
    with pytest.raises(ModelError, match="a cap of 0 new tokens"):
        evaluate("cvbench", model, data=folder, output=tmp_path / "none", max_new_tokens=0)


def test_the_fingerprint_tells_weights_and_processors_apart_and_nothing_else(model, checkpoint, tmp_path):
    def fingerprint(changed):
        copy = shutil.copytree(checkpoint, tmp_path / changed)
        with (copy / changed).open("ab") as file:
            file.write(b" ")
        return Cambrian(model._model, model._processor, copy).fingerprint

    assert fingerprint("README.md") == model.fingerprint
    others = [fingerprint(name) for name in ("model.safetensors", "generation_config.json", "tokenizer.json")]
    assert len({model.fingerprint, *others}) == 4


def parts(folder):
    return CambrianForConditionalGeneration.from_pretrained(folder), CambrianProcessor.from_pretrained(folder)


def test_a_run_is_answered_by_its_checkpoint(checkpoint, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(checkpoint, run / "checkpoint")
    model = load_model(f"cambrian:{run}")
    assert model.name == load_model(f"cambrian:{run / 'checkpoint'}").name == "cambrian:run"
    assert model.fingerprint == load_model(f"cambrian:{checkpoint}").fingerprint


def test_a_prompt_without_room_for_a_reply_is_a_failure(tmp_path, prompts):
    model = load_model(f"cambrian:{write_tiny_checkpoint(tmp_path / 'short', context=64)}")
    short = dataclasses.replace(prompts[0], content=("Hi?",))
    full, answered = model.answer([prompts[0], short])
    assert isinstance(full, Failure)
    assert "context holds 64" in full.reason
    assert isinstance(answered, Answer)


def test_half_precision_checkpoints_see_too(checkpoint, prompts, tmp_path):
    model, processor = parts(checkpoint)
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = load_model(f"cambrian:{tmp_path}")
    assert loaded.fingerprint.split(":")[2:] == ["torch.bfloat16", "cpu"]
    assert loaded.answer(prompts[:2])


def test_folders_of_something_else_are_refused(checkpoint, tmp_path):
    def refused(folder):
        with pytest.raises(ModelError) as caught:
            load_model(f"cambrian:{folder}")
        return str(caught.value)

    assert 'found no folder "' in refused(tmp_path / "nowhere")
    assert "write cambrian:PATH" in refused("")
    assert "no config.json" in refused(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").touch()
    assert "a run without a checkpoint" in refused(tmp_path / "run")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert 'model_type is "llama"' in refused(other)
    cut = shutil.copytree(checkpoint, tmp_path / "cut")
    weights = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "cannot be loaded" in refused(cut)
    bare = shutil.copytree(checkpoint, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    assert "cannot be loaded" in refused(bare)


def test_without_cambrian_model_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cambrian_model", None)
    with pytest.raises(ModelError, match=r"pip install 'cambrian-eval\[cambrian\]'"):
        load_model(f"cambrian:{tmp_path}")


def test_a_broken_picture_is_named(model, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    picture = next(copy.rglob("*.png"))
    picture.write_bytes(picture.read_bytes()[:30])
    with pytest.raises(DataError, match=picture.name):
        evaluate("cvbench", model, data=copy, output=tmp_path / "run", max_new_tokens=2)
