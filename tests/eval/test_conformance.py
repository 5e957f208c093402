"""One test for all models: every adapter passes it, and every way to break the protocol fails in its own line."""

import hashlib
import json

import numpy as np
import pytest

import cambrian_model  # noqa: F401 - registers our models with transformers
from cambrian_eval import Answer, Failure, ModelError, load_model
from cambrian_eval.conformance import CHECKS, check_model, make_prompts
from cambrian_eval.models.canned import Canned
from tests.support.endpoint import say, serve
from tests.support.tiny_checkpoint import write_tiny_checkpoint
from tests.support.tiny_vlms import FAMILIES, write_tiny_vlm

ABILITIES = {
    "scores the offered letters",
    "knows lengths beforehand",
    "prepares batches in another thread",
    "keeps to the budget of tokens",
}
NO_PICTURE = {"answers without a picture", "mixes kinds of prompts in a batch"}
MARKUP = {"takes markup in a question as text"}
DECLINED = {"paligemma": NO_PICTURE | MARKUP, "idefics3": MARKUP}


def outcomes(load):
    return {check.name: check.outcome for check in check_model(load).checks}


def declined(found):
    return {name for name, outcome in found.items() if outcome == "not supported"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def test_our_own_model_has_every_ability(checkpoint):
    assert set(outcomes(lambda: load_model(f"cambrian:{checkpoint}")).values()) == {"pass"}


# Batches of every family are compared in test_huggingface_model.py too, at once.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # the processor of PaliGemma
@pytest.mark.parametrize(
    "family", [pytest.param(one, marks=[] if one == "qwen2_vl" else pytest.mark.slow) for one in FAMILIES]
)
def test_any_family_of_transformers_passes(family, tmp_path):
    folder = write_tiny_vlm(family, tmp_path)
    found = outcomes(lambda: load_model(f"huggingface:{folder}"))
    assert "fail" not in found.values()
    assert declined(found) == DECLINED.get(family, set())


@pytest.mark.slow
def test_our_own_model_passes_as_any_other_of_transformers(checkpoint):
    found = outcomes(lambda: load_model(f"huggingface:{checkpoint}"))
    assert set(found.values()) == {"pass"}


def test_an_endpoint_passes(monkeypatch):
    """A real server on loopback, whose reply is a function of what it was sent."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def behave(number, body):
        sent = json.dumps(body["messages"])
        words = hashlib.sha256(sent.encode()).hexdigest()[: body["max_tokens"]]
        return say(words, usage={"prompt_tokens": len(sent), "completion_tokens": len(words)})

    with serve(behave) as server:
        found = outcomes(lambda: load_model(f"openai:{server.base_url}#m"))
    assert "fail" not in found.values()
    assert declined(found) == ABILITIES - {"keeps to the budget of tokens"}


@pytest.mark.parametrize("spec", ["random:3", "constant:B"])
def test_baselines_pass_without_the_abilities_of_real_models(spec):
    found = outcomes(lambda: load_model(spec))
    assert "fail" not in found.values()
    assert declined(found) == ABILITIES


def test_canned_replies_pass_where_there_is_one_for_every_question(tmp_path):
    path = tmp_path / "replies.jsonl"
    path.write_text("".join(json.dumps({"id": prompt.id, "reply": "B"}) + "\n" for prompt in make_prompts()))
    found = outcomes(lambda: load_model(f"canned:{path}"))
    assert "fail" not in found.values()
    assert outcomes(lambda: Canned({}))["answers one prompt"] == "fail"


class Good:
    """A model to break: says the first words of a prompt and how many pictures it has."""

    name = fingerprint = "good"

    def answer(self, prompts):
        return [self.reply(prompt) for prompt in prompts]

    def reply(self, prompt):
        budget = prompt.max_new_tokens
        tokens = [*prompt.text.split()[:3], str(len(prompt.pictures))][:budget]
        return Answer(" ".join(tokens), image_tokens=9 * len(prompt.pictures), reply_tokens=len(tokens))

    def length(self, prompt):
        return 9 * len(prompt.pictures), len(prompt.text.split())

    def choose(self, prompts):
        if not all(prompt.choices for prompt in prompts):
            raise ModelError("no choices")
        return [Answer("A", option_scores=(-1.0,) + (-3.0,) * (len(prompt.choices) - 1)) for prompt in prompts]

    def prepare(self, prompts):
        return prompts

    def answer_prepared(self, prepared):
        return self.answer(prepared)


class Named(Good):
    """Says which prompt it answers."""

    def reply(self, prompt):
        return Answer(f"{prompt.id}, {len(prompt.pictures)}")


class TooFew(Good):
    def answer(self, prompts):
        return super().answer(prompts)[:-1]


class Backwards(Good):
    def answer(self, prompts):
        answers = [Answer(prompt.pictures[0].sha256 if prompt.pictures else "") for prompt in prompts]
        return answers[::-1]


class PaddedWrongly(Good):
    def answer(self, prompts):
        return [Answer(f"{prompt.text[:40]} of {len(prompts)}") for prompt in prompts]


class Sampling(Good):
    count = 0

    def reply(self, prompt):
        Sampling.count += 1
        return Answer(str(self.count))


class Chatty(Good):
    def reply(self, prompt):
        return Answer("word " * 9, reply_tokens=9)


class FailsAll(Good):
    def reply(self, prompt):
        return Failure("down")


class Nothing(Good):
    def reply(self, prompt):
        return None


class Forgetful(Good):
    """Loaded anew it is another."""

    def __init__(self):
        self.fingerprint = str(id(self))


class NoFingerprint(Good):
    fingerprint = ""


class WorstLetter(Good):
    def choose(self, prompts):
        return [Answer("B", option_scores=(-1.0, *(-3.0 for _ in prompt.choices[1:]))) for prompt in prompts]


class NoLogarithms(Good):
    def choose(self, prompts):
        return [Answer("A", option_scores=(0.9, *(0.1 for _ in prompt.choices[1:]))) for prompt in prompts]


class OneLetterTooMany(Good):
    def choose(self, prompts):
        return [Answer("A", option_scores=(-1.0, *(-3.0 for _ in prompt.choices))) for prompt in prompts]


class SameLengths(Good):
    def length(self, prompt):
        return 9 * len(prompt.pictures), 5


class OtherImageTokens(Good):
    def length(self, prompt):
        return 8 * len(prompt.pictures), len(prompt.text.split())


class PreparesWrongly(Good):
    def prepare(self, prompts):
        return prompts[::-1]


class Crashes(Good):
    def reply(self, prompt):
        if "图" in prompt.text:
            raise UnicodeError("ascii only")
        return super().reply(prompt)


class BlindCrash(Good):
    def reply(self, prompt):
        return Answer(prompt.pictures[0].sha256)


class TakesNeighboursDown(Good):
    def answer(self, prompts):
        if any(len(prompt.text) > 10_000 for prompt in prompts):
            return [Failure("too long")] * len(prompts)
        return super().answer(prompts)


class CountsLikeNumPy(Good):
    def reply(self, prompt):
        return Answer("A", reply_tokens=np.int64(1))  # type: ignore[arg-type]


BROKEN = {
    CountsLikeNumPy: "answers one prompt",
    TooFew: "answers one prompt",
    Backwards: "answers a batch as one by one",
    PaddedWrongly: "answers a batch as one by one",
    Sampling: "gives the same answer again",
    Chatty: "keeps to the budget of tokens",
    FailsAll: "answers one prompt",
    Nothing: "answers one prompt",
    Forgetful: "has the same fingerprint when loaded again",
    NoFingerprint: "has a name and a fingerprint",
    WorstLetter: "scores the offered letters",
    NoLogarithms: "scores the offered letters",
    OneLetterTooMany: "scores the offered letters",
    SameLengths: "knows lengths beforehand",
    OtherImageTokens: "knows lengths beforehand",
    PreparesWrongly: "prepares batches in another thread",
    Crashes: "reads quotes, Chinese and emoji",
    BlindCrash: "answers without a picture",
    TakesNeighboursDown: "fails alone where a prompt is too long",
}


def test_a_model_of_a_few_lines_passes_everything():
    assert outcomes(Good) == dict.fromkeys(CHECKS, "pass")


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_model_fails_where_it_is_broken(broken):
    found = check_model(broken)
    failed = {check.name: check.detail for check in found.failed}
    assert BROKEN[broken] in failed
    assert failed[BROKEN[broken]]
    assert found.to_dict()["passed"] is False


def test_how_many_replies_hang_on_the_picture_is_told():
    class Unseeing(Good):
        def reply(self, prompt):
            return Answer(prompt.text[:9])

    for model, changed in ((Good, 6), (Unseeing, 0)):
        details = {check.name: check.detail for check in check_model(model).checks}
        assert details["answers without a picture"].endswith(f"with pictures {changed} of 6 replies are others")


def test_a_model_that_leans_on_ids_without_saying_so_is_found_out():
    """Equal prompts are asked once, unless a model says that it answers by id."""
    assert "gives the same answer again" in {check.name for check in check_model(Named).failed}
    by_id = type("ById", (Named,), {"answers_by_id": True})
    assert "gives the same answer again" not in {check.name for check in check_model(by_id).failed}
