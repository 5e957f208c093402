"""What a record is, and what it refuses."""

import pytest

from cambrian_data import DataError, Record, RecordError


def text(words="hello"):
    return {"type": "text", "text": words}


IMAGE = {"type": "image"}


def turn(role, *content):
    return {"role": role, "content": list(content)}


def conversation(*roles):
    return [turn(role, text()) for role in roles]


def test_to_dict_is_the_chat_form_and_keeps_unknown_keys():
    messages = [turn("user", IMAGE, text("What is it?")), turn("assistant", text("An owl."))]
    record = Record("a", "owls", messages, ["owl.jpg"], {"licence": "CC0"})
    assert record.to_dict() == {
        "id": "a",
        "source": "owls",
        "messages": messages,
        "images": ["owl.jpg"],
        "licence": "CC0",
    }


@pytest.mark.parametrize("roles", [["user"], ["user", "assistant"], ["system", "user", "assistant", "user"]])
def test_roles_may_alternate_after_a_system_turn(roles):
    assert Record("a", "s", conversation(*roles), []).messages


@pytest.mark.parametrize(
    ("roles", "problem"),
    [
        (
            ["user", "assistant", "assistant"],
            'turn 3 has role "assistant" after role "assistant"; turns must alternate',
        ),
        (["assistant"], 'turn 1 has role "assistant"; a conversation begins with "user"'),
        (["system"], "without a user turn"),
        (["user", "system"], 'turn 2 has role "system" after role "user"'),
        (["user", "gpt"], 'turn 2 has role "gpt"; expected "user", "assistant" or "system"'),
        ([], "at least one user turn"),
    ],
)
def test_roles_out_of_order_are_refused(roles, problem):
    with pytest.raises(RecordError, match=problem):
        Record("a", "s", conversation(*roles), [])


@pytest.mark.parametrize(
    ("messages", "images", "problem"),
    [
        ("hello", [], '"messages" is "hello"'),
        (["hello"], [], 'turn 1 is "hello"'),
        ([{"role": "user", "content": "hello"}], [], 'content "hello"; expected a list of parts'),
        ([turn("user")], [], r"content \[\]"),
        ([turn("user", {"type": "video"})], [], 'one of type "image" or "text"'),
        ([turn("user", {"type": "text"})], [], "text null; expected a string"),
        ([turn("user", text("cut \ud83d"))], [], "half of a surrogate pair"),
        ([turn("user", IMAGE)], [], "shows 1 image but names 0; the two must agree. Fix or remove the record."),
        ([turn("user", IMAGE, IMAGE)], ["a.jpg"], "shows 2 images but names 1"),
        ([turn("user", text())], ["a.jpg"], "shows 0 images but names 1"),
        ([turn("user", text())], "a.jpg", "expected a list of paths"),
        ([turn("user", IMAGE)], [""], "expected the path"),
        ([turn("user", IMAGE)], [7], "expected the path"),
        ([{"role": ["user"], "content": [text()]}], [], "expected"),
    ],
)
def test_malformed_messages_and_images_are_refused(messages, images, problem):
    with pytest.raises(RecordError, match=problem):
        Record("a", "s", messages, images)


def test_names_of_other_types_are_refused():
    with pytest.raises(RecordError, match='"id" is true'):
        Record(True, "s", conversation("user"), [])
    with pytest.raises(RecordError, match='"source" is 3'):
        Record("a", 3, conversation("user"), [])  # type: ignore[arg-type]


def test_extra_keys_cannot_shadow_fields():
    with pytest.raises(RecordError, match='extra key "images" is a field'):
        Record("a", "s", conversation("user"), [], {"images": []})


def test_record_errors_are_data_errors_and_carry_their_place(tmp_path):
    error = RecordError("broken.").at(tmp_path / "clip.jsonl", 1204)
    assert isinstance(error, DataError)
    assert str(error) == f"{tmp_path / 'clip.jsonl'}:1204: broken."
    assert (error.file, error.line, error.problem) == (tmp_path / "clip.jsonl", 1204, "broken.")
