"""`cambrian check-model`: a table for people, an object for machines, exit status 2 where a check fails."""

import json

import pytest

from cambrian_eval.conformance import CHECKS
from tests.support.tiny_checkpoint import write_tiny_checkpoint


def test_a_model_that_passes_is_shown_with_what_it_does_not_support(cambrian):
    outcome = cambrian("check-model", "random")
    assert outcome.status == 0
    lines = {line.split("│")[1].strip(): line for line in outcome.stdout.splitlines() if line.startswith("│")}
    assert set(CHECKS) <= set(lines)
    assert "pass" in lines["answers one prompt"]
    assert "not supported" in lines["scores the offered letters"]


@pytest.mark.slow
def test_our_own_checkpoint_passes_every_check(cambrian, tmp_path):
    folder = write_tiny_checkpoint(tmp_path / "model")
    outcome = cambrian("check-model", folder, "--json")
    assert outcome.status == 0
    (line,) = outcome.stdout.splitlines()
    found = json.loads(line)
    assert (found["model"], found["passed"]) == ("cambrian:model", True)
    assert {check["outcome"] for check in found["checks"]} == {"pass"}


def test_a_model_that_fails_ends_with_status_two_and_says_where(cambrian, write_jsonl):
    replies = write_jsonl({"id": "conformance-1", "reply": "A"}, name="replies.jsonl")
    outcome = cambrian("check-model", f"canned:{replies}", "--json")
    assert outcome.status == 2
    assert '"answers one prompt"' in outcome.stderr
    found = json.loads(outcome.stdout)
    assert found["passed"] is False
    detail = {check["name"]: check["detail"] for check in found["checks"]}["answers one prompt"]
    assert "none of them for question conformance-0" in detail


def test_a_model_that_cannot_be_loaded_is_refused(refused, tmp_path):
    assert 'did you mean "constant"' in refused("check-model", "constnt:B")
    assert "no config.json" in refused("check-model", f"huggingface:{tmp_path}")
