"""Forms of records: the way there and back is the identity, and broken files are refused with file and line."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cambrian_data import DataError, Record, RecordError, read_records
from cambrian_data.formats import chat, llava, plain

SHARED = Path(__file__).parents[2].parent / "shared"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
spaces = st.sampled_from(["", "\n", " ", "\r\n", "\n\n", "\t"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
turn_keys = texts.filter(lambda key: key not in ("from", "value", "role", "content"))
row_keys = (texts | st.sampled_from(["messages", "images", "llava", "extra", "model"])).filter(
    lambda key: key not in ("id", "source", "image", "conversations")
)


@st.composite
def llava_rows(draw):
    """Rows as they are found: marks anywhere, with or without line breaks, odd image keys, further keys."""
    names = draw(st.sampled_from([[], ["system"]])) + ["human", "gpt", "human", "gpt"][: draw(st.integers(1, 4))]
    turns = []
    marks = 0
    for name in names:
        value = draw(texts.filter(lambda words: "<image>" not in words))
        for _ in range(draw(st.integers(0, 2))):
            value += draw(spaces) + "<image>" + draw(spaces) + draw(texts.filter(lambda words: "<image>" not in words))
            marks += 1
        turns.append({"from": name, "value": value} | draw(st.dictionaries(turn_keys, json_values, max_size=1)))
    row = draw(st.dictionaries(row_keys, json_values, max_size=2)) | {"conversations": turns}
    if draw(st.booleans()):
        row["id"] = draw(texts | st.integers() | st.none())
    if draw(st.booleans()):
        row["source"] = draw(texts | st.none())
    paths = [f"{number}.jpg" for number in range(marks)]
    if marks == 0 and draw(st.booleans()):
        row["image"] = draw(st.sampled_from([None, "", []]))
    elif marks:
        row["image"] = paths[0] if marks == 1 and draw(st.booleans()) else paths
    return row


@st.composite
def chat_rows(draw):
    """Rows in chat form, some of which LLaVA's form can hold."""
    roles = draw(st.sampled_from([[], ["system"]])) + ["user", "assistant"] * 2
    messages = []
    images: list[str] = []
    for role in roles[: draw(st.integers(2, 5))]:
        content = []
        for is_image in draw(st.lists(st.booleans(), min_size=1, max_size=4)):
            part = {"type": "image"} if is_image else {"type": "text", "text": draw(spaces) + draw(texts)}
            content.append(part)
        images += [f"{len(images) + number}.jpg" for number in range(sum(p["type"] == "image" for p in content))]
        messages.append({"role": role, "content": content})
    extra_keys = (texts | st.sampled_from(["image", "conversations", "llava"])).filter(
        lambda key: key not in ("id", "source", "messages", "images")
    )
    row = draw(st.dictionaries(extra_keys, json_values, max_size=2)) | {"messages": messages, "images": images}
    if draw(st.booleans()):
        row["id"] = draw(texts | st.integers())
    if draw(st.booleans()):
        row["source"] = draw(texts)
    return row


def through_json(row):
    return json.loads(json.dumps(row))


@given(llava_rows())
def test_llava_to_chat_to_llava_is_the_identity(row):
    chat_row = chat.from_record(llava.to_record(row))
    assert llava.from_record(chat.to_record(through_json(chat_row))) == row


@given(chat_rows())
def test_chat_through_record_is_the_identity(row):
    assert chat.from_record(chat.to_record(row)) == row


@given(chat_rows())
def test_chat_to_llava_to_chat_is_the_identity_or_refused(row):
    refusals = []
    try:
        back = chat.from_record(llava.to_record(through_json(llava.from_record(chat.to_record(row)))))
    except RecordError as error:
        refusals.append(str(error))
        back = row
    assert back == row
    assert all("LLaVA's form cannot hold" in refusal for refusal in refusals)


def test_ordinary_chat_records_have_a_llava_form():
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "\nWhat is it?"}]}
    reply = {"role": "assistant", "content": [{"type": "text", "text": "An owl."}]}
    assert llava.from_record(Record("a", "owls", [user, reply], ["owl.jpg"])) == {
        "id": "a",
        "source": "owls",
        "image": "owl.jpg",
        "conversations": [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "An owl."}],
    }


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        [{"type": "text", "text": "the mark <image> itself"}],
        [{"type": "text", "text": "a", "language": "en"}],
    ],
)
def test_what_llava_cannot_say_is_refused(content):
    with pytest.raises(RecordError, match="Keep this record in chat form"):
        llava.from_record(Record("a", "s", [{"role": "user", "content": content}], []))


def test_every_real_row_survives_both_files(tmp_path):
    source = SHARED / "assets" / "instruct" / "llava_format.jsonl"
    if not source.exists():
        pytest.skip("needs ../shared/assets/instruct/llava_format.jsonl, which is absent")
    chat_file, llava_file = tmp_path / "chat.jsonl", tmp_path / "llava.jsonl"
    assert chat.write(chat_file, read_records(source)) == 340
    assert llava.write(llava_file, read_records(chat_file)) == 340
    original = [json.loads(line) for line in source.read_text().splitlines()]
    assert [json.loads(line) for line in llava_file.read_text().splitlines()] == original


GOOD = {"id": "a", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}
LINE = json.dumps(GOOD).encode()


def written(tmp_path, content, name="clip.jsonl"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        LINE + b"\n" + LINE + b"\n",
        LINE + b"\n" + LINE,
        b"\xef\xbb\xbf" + LINE + b"\r\n" + LINE + b"\r\n",
        b"\n" + LINE + b"\n  \n" + LINE + b"\n\n",
        b"[" + LINE + b"," + LINE + b"]",
        b"\xef\xbb\xbf\r\n[\r\n" + LINE + b"\r\n,\n" + LINE + b"]\n",
        json.dumps([GOOD, GOOD], indent=2).encode(),
    ],
    ids=["lines", "no last line end", "BOM and CRLF", "blank lines", "array", "array with BOM", "indented array"],
)
def test_honest_variants_of_json_are_read(tmp_path, content):
    assert [llava.from_record(record) for record in read_records(written(tmp_path, content))] == [GOOD, GOOD]


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        (LINE + b"\n" + LINE[:-9] + b"\n" + LINE, 2, "malformed JSON: .* at column"),
        (LINE + b"\n" + LINE[:-9], 2, "the file ends in the middle of this record"),
        (LINE + b"\n" + LINE.replace(b"hello", b"h\xff"), 2, "invalid UTF-8"),
        (LINE + b"\n\n" + b"\xff\xfe{", 3, "invalid UTF-8"),
        (LINE + b"\n[1, 2]\n", 2, r"found \[1, 2\]; expected a JSON object"),
        (LINE + b"\n" + LINE.replace(b"hello", b"cut \\ud83d"), 2, "half of a surrogate pair"),
        (LINE + b"\n" + LINE.replace(b'"a"', b"NaN"), 2, "malformed JSON"),
        (LINE + b"\n" + b'{"a":' + b"[" * 9999 + b"\n", 2, "malformed JSON"),
        (LINE + b"\n" + LINE.replace(b"human", b"gpt"), 2, 'turn 1 has role "gpt"; a conversation begins with "human"'),
        (LINE + b"\n" + b'{"id": "b"}', 2, 'the record has no "conversations"'),
        (LINE + b"\n" + b'{"conversations": null}', 2, '"conversations" is null'),
        (LINE + b"\n" + LINE.replace(b"hello", b"h\0"), 2, "not UTF-8: found NUL bytes"),
        (LINE + b"\n" + bytes(512), 2, "not UTF-8: found NUL bytes"),
        (b"[" + LINE + b",\n" + bytes(512), 1, "not UTF-8: in this record or after it are NUL bytes"),
        (b"[" + LINE + b",\n" + LINE[:-9], 2, "malformed JSON array: .* at line 2"),
        (b"[" + LINE + b",\n" + LINE + b"\n", 3, 'found the end of the file, expected ","'),
        (b"[\n" + LINE + b"\n" + LINE + b"]", 3, 'found "{", expected ","'),
        (b"[\n" + LINE + b",\n3]", 3, "expected an object"),
        (b"[\n" + LINE + b"]\n[]", 3, "text after the end of the array"),
        (b"[\n" + LINE.replace(b"hello", b"\xff") + b"]", 1, "invalid UTF-8"),
    ],
)
def test_broken_files_are_refused_with_file_and_line(tmp_path, content, line, problem):
    path = written(tmp_path, content)
    with pytest.raises(RecordError, match=problem) as caught:
        list(read_records(path))
    assert str(caught.value).startswith(f"{path}:{line}: ")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("text", [f"{LINE.decode()}\n", f"[{LINE.decode()}]"], ids=["lines", "array"])
def test_another_encoding_is_named(tmp_path, encoding, text):
    path = written(tmp_path, text.encode(encoding))
    with pytest.raises(DataError, match="is not UTF-8 but UTF-16 or no text at all; save the file as UTF-8"):
        list(read_records(path))


CHAT_LINE = json.dumps(chat.from_record(llava.to_record(GOOD))).encode()


@pytest.mark.parametrize(
    ("content", "line", "found", "other"),
    [
        (LINE + b"\n" + CHAT_LINE, 2, "LLaVA's form", "the chat form"),
        (CHAT_LINE + b"\n\n" + LINE, 3, "the chat form", "LLaVA's form"),
        (b"[" + LINE + b",\n" + CHAT_LINE + b"]", 2, "LLaVA's form", "the chat form"),
    ],
)
def test_a_file_of_two_forms_is_refused_by_name(tmp_path, content, line, found, other):
    path = written(tmp_path, content)
    with pytest.raises(RecordError) as caught:
        list(read_records(path))
    assert str(caught.value) == (
        f"{path}:{line}: this file is in {found}, line {line} is in {other}; give each form a file of its own."
    )
    dropped: list[RecordError] = []
    assert len(list(read_records(path, on_invalid=dropped.append))) == len(dropped) == 1


def test_the_guide_shows_a_readable_file_of_each_form(tmp_path):
    guide = Path(__file__).parents[2] / "docs" / "train-on-your-data.md"
    examples = re.findall(r"```json\n(.*?)```", guide.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(examples) == 2
    first, second = ([*read_records(written(tmp_path, example.encode()))] for example in examples)
    assert [record.images for record in first] == [record.images for record in second] == [["photos/cat.jpg"]]


def test_two_turns_of_one_speaker_are_named_in_the_words_of_the_file(tmp_path):
    turns = [{"from": name, "value": "hi"} for name in ("human", "gpt", "gpt")]
    path = written(tmp_path, LINE + b"\n" + json.dumps({"conversations": turns}).encode())
    with pytest.raises(RecordError) as caught:
        list(read_records(path))
    assert str(caught.value) == (
        f'{path}:2: turn 3 has role "gpt" after role "gpt"; turns must alternate. Fix or remove the record.'
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"image": "a.jpg"}, "shows 0 images but names 1"),
        ({"image": 7}, '"image" is 7'),
        ({"conversations": [{"from": "human", "value": "<image>"}]}, "shows 1 image but names 0"),
        ({"conversations": [{"from": "user", "value": "hi"}]}, 'turn 1 is from "user"; expected "human"'),
        ({"conversations": [{"from": "human"}]}, 'the text "value"'),
        ({"conversations": [{"from": "human", "value": "hi", "role": "user"}]}, 'the key "role"'),
        ({"conversations": []}, "at least one turn"),
    ],
)
def test_malformed_llava_rows_are_refused(change, problem):
    with pytest.raises(RecordError, match=problem):
        llava.to_record(GOOD | change)


def test_a_caller_may_drop_and_count_the_invalid(tmp_path):
    path = written(tmp_path, LINE + b"\n{broken\n" + LINE + b"\n" + b'{"id": "b"}\n' + LINE)
    dropped: list[RecordError] = []
    assert len(list(read_records(path, on_invalid=dropped.append))) == 3
    assert [(error.file, error.line) for error in dropped] == [(path, 2), (path, 4)]


def test_reading_streams(tmp_path):
    path = written(tmp_path, LINE + b"\n" + b"{broken\n")
    assert next(iter(read_records(path))).id == "a"


def test_an_array_longer_than_a_chunk_is_read_in_pieces(tmp_path):
    turns = [{"from": "human", "value": "é" * 400_000}]
    rows = [{"id": number, "conversations": turns} for number in range(3)]
    path = written(tmp_path, json.dumps(rows, ensure_ascii=False, indent=1).encode(), "clip.json")
    assert [llava.from_record(record) for record in read_records(path)] == rows


def test_records_know_where_they_come_from(tmp_path):
    path = written(tmp_path, b"\n" + LINE + b"\n")
    assert [record.location for record in read_records(path)] == [f"{path}:2"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"[]"])
def test_a_file_without_records_is_refused(tmp_path, content):
    with pytest.raises(DataError, match="holds no records"):
        list(read_records(written(tmp_path, content)))


def test_other_forms_are_refused_by_name(tmp_path):
    path = written(tmp_path, b'{"prompt": "hi", "answer": "hello"}\n')
    with pytest.raises(DataError, match=r'clip.jsonl:1: found the keys \["prompt", "answer"\]; expected "messages"'):
        list(read_records(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*nothing.jsonl: No such file"):
        list(read_records(tmp_path / "nothing.jsonl"))


def test_chat_rows_without_their_fields_are_refused():
    with pytest.raises(RecordError, match='has no "images"'):
        chat.to_record({"messages": []})
    with pytest.raises(RecordError, match='"id" is null'):
        chat.to_record({"id": None, "messages": [], "images": []})


def test_pictures_held_as_bytes_are_not_written_to_json(tmp_path):
    record = Record("a", "s", [{"role": "user", "content": [{"type": "image"}]}], [b"\x89PNG"])
    for form in (chat, llava):
        with pytest.raises(RecordError, match="holds a picture as bytes"):
            form.write(tmp_path / "out.jsonl", [record])
    assert not list(tmp_path.iterdir())


def test_no_space_left_is_said_plainly(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, which this system lacks")
    (tmp_path / "out.jsonl.tmp").symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"cannot write .*out.jsonl: No space left on device"):
        chat.write(tmp_path / "out.jsonl", [llava.to_record(GOOD)])


# --- plain rows, read in one go


def turns(*texts_of_turns: str) -> list[dict]:
    names = ("human", "gpt") * 2
    return [{"from": name, "value": value} for name, value in zip(names, texts_of_turns, strict=False)]


def message(role: str, *parts: dict) -> dict:
    return {"role": role, "content": list(parts)}


TEXT, PICTURE = {"type": "text", "text": "a\u2028<image>"}, {"type": "image"}
PLAIN = [
    (llava, {"id": "é", "image": "a/b.png", "conversations": turns("<image>\nb", "c")}),
    (llava, {"id": 2**70, "source": "s", "image": ["a", "b"], "conversations": turns("<image>b<image>", "", "d")}),
    (llava, {"conversations": turns("")}),
    (chat, {"id": -1, "source": "s", "messages": [message("user", PICTURE, TEXT)], "images": ["a"]}),
    (chat, {"messages": [message("system", TEXT), message("user", TEXT), message("assistant", TEXT)], "images": []}),
]
UNUSUAL = [
    (llava, {"id": None, "conversations": turns("b")}),
    (llava, {"image": ["a"], "conversations": turns("<image>")}),
    (llava, {"image": "", "conversations": turns("b")}),
    (llava, {"conversations": turns("b"), "further": 1}),
    (llava, {"conversations": [turns("b")[0] | {"further": 1}]}),
    (chat, {"messages": [message("user", {"type": "image", "path": "a"})], "images": ["a"]}),
    (chat, {"messages": [message("user", {"type": "image", "text": "a"})], "images": ["a"]}),
]
WRONG = [
    (llava, {"conversations": []}),
    (llava, {"conversations": turns("<image>")}),
    (llava, {"image": "a", "conversations": turns("b")}),
    (llava, {"image": ["a", ""], "conversations": turns("<image><image>")}),
    (llava, {"id": True, "conversations": turns("b")}),
    (llava, {"id": 1.0, "conversations": turns("b")}),
    (llava, {"source": 1, "conversations": turns("b")}),
    (llava, {"conversations": turns("b") * 2}),
    (llava, {"conversations": [{"from": "system", "value": "b"}]}),
    (llava, {"conversations": [{"from": "user", "value": "b"}]}),
    (llava, {"conversations": [{"from": "human", "value": None}]}),
    (chat, {"messages": [message("user")], "images": []}),
    (chat, {"messages": [message("user", {"type": "text"})], "images": []}),
    (chat, {"messages": [message("user", PICTURE)], "images": []}),
    (chat, {"messages": [message("user", TEXT)], "images": [], "id": None}),
    (chat, {"messages": [message("user", TEXT)]}),
    (chat, {"messages": [message("assistant", TEXT)], "images": []}),
]
READERS = {llava: plain.read_llava, chat: plain.read_chat}


@pytest.mark.parametrize(("form", "row"), PLAIN)
def test_a_plain_row_is_read_in_one_go(form, row):
    content = json.dumps(row).encode()
    assert READERS[form](content) == form.to_record(json.loads(content)).to_dict()


@pytest.mark.parametrize(("form", "row"), UNUSUAL)
def test_an_unusual_row_is_left_to_the_form(form, row):
    assert READERS[form](json.dumps(row).encode()) is None
    form.to_record(row)


@pytest.mark.parametrize(("form", "row"), WRONG)
def test_a_wrong_row_is_not_taken_for_a_plain_one(form, row):
    assert READERS[form](json.dumps(row).encode()) is None
    with pytest.raises(RecordError):
        form.to_record(row)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b'{"conversations": "\xff"}', b"[" * 100_000])
def test_what_is_no_row_is_not_taken_for_a_plain_one(content):
    assert plain.read_llava(content) is None
    assert plain.read_chat(content) is None


@given(llava_rows())
def test_plain_rows_in_llava_form_are_read_as_the_form_reads_them(row):
    found = plain.read_llava(json.dumps(row).encode())
    assert found is None or found == llava.to_record(row).to_dict()


@given(chat_rows())
def test_plain_rows_in_chat_form_are_read_as_the_form_reads_them(row):
    found = plain.read_chat(json.dumps(row).encode())
    assert found is None or found == chat.to_record(row).to_dict()
