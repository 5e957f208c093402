import asyncio
import base64
import io
import json
import math
import re
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from PIL import Image

from cambrian_eval import Answer, Failure, ModelError, Prompt, evaluate, load_model
from cambrian_eval.endpoint.address import Address
from cambrian_eval.endpoint.client import ChatClient, Patience
from cambrian_eval.endpoint.pace import Pace, read_retry_after
from cambrian_eval.endpoint.wire import ChatRequest
from cambrian_eval.models.openai_compatible import OpenAICompatible
from cambrian_eval.picture import Picture
from tests.eval.benchmark_folder import png, write_cvbench
from tests.support.endpoint import BROKEN, CUT, NO_CHOICES, STALL, Reply, fail, say, serve

QUICK = Patience(attempts=4, timeout=5.0, first_wait=0.01, longest_wait=2.0, outage=60, probe_every=0.2)
HASTY = Patience(attempts=2, timeout=0.3, first_wait=0.01, longest_wait=0.5, outage=0, probe_every=0.1)


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_cvbench(tmp_path_factory.mktemp("cvbench"), per_group=6)  # 36 questions


def model_at(server, patience=QUICK, concurrency=64):
    return OpenAICompatible(
        ChatClient(Address.parse(f"{server.base_url}#m"), concurrency=concurrency, patience=patience)
    )


def prompt(number=0, pictures=(), choices=("x", "y"), text="Which?"):
    return Prompt(f"q-{number}", (*pictures, text), choices, 16)


def first(*replies):
    """The given replies to the first requests, then A to all others."""
    return lambda number, body: replies[number] if number < len(replies) else say("A")


def lines(run):
    return [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]


def encoded(kind):
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (200, 30, 90)).save(file, format=kind)
    return file.getvalue()


# What is sent.


def test_request_is_greedy_and_carries_the_budget_and_the_content_in_order():
    with serve(first()) as server:
        picture = Picture.from_bytes("a", png(1))
        assert model_at(server).answer([prompt(pictures=(picture,))]) == [Answer("A", reply_tokens=2)]
    seen = server.seen[0]
    assert seen.path == "/v1/chat/completions"
    assert seen.body["temperature"] == 0
    assert (seen.body["model"], seen.body["max_tokens"], seen.body["stream"]) == ("m", 16, False)
    assert [part["type"] for part in seen.body["messages"][0]["content"]] == ["image_url", "text"]
    assert "Authorization" not in seen.headers


@pytest.mark.parametrize(("kind", "media"), [("PNG", "image/png"), ("JPEG", "image/jpeg")])
def test_png_and_jpeg_are_sent_byte_for_byte(kind, media):
    data = encoded(kind)
    with serve(first()) as server:
        model_at(server).answer([prompt(pictures=(Picture.from_bytes("a", data),))])
    url = server.seen[0].body["messages"][0]["content"][0]["image_url"]["url"]
    assert url == f"data:{media};base64,{base64.b64encode(data).decode()}"


def test_other_kinds_of_pictures_are_sent_as_png_with_the_same_pixels():
    with serve(first()) as server:
        model_at(server).answer([prompt(pictures=(Picture.from_bytes("a", encoded("BMP")),))])
    head, _, data = server.seen[0].body["messages"][0]["content"][0]["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.getpixel((3, 2)) == (200, 30, 90)


def test_text_alone_is_one_string_and_half_a_surrogate_pair_survives():
    with serve(first()) as server:
        model_at(server).answer([prompt(text="A \ud83d? 中文")])
    assert server.seen[0].body["messages"][0]["content"] == "A \ud83d? 中文"


def test_key_goes_to_the_server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    with serve(first()) as server:
        model_at(server).answer([prompt()])
    assert server.seen[0].headers["Authorization"] == "Bearer sk-very-secret"


def test_secrets_are_written_nowhere(monkeypatch, folder, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")

    def telltale(number, body):
        return fail(400, "key sk-very-secret, password hunter2, hush") if number % 3 == 0 else say("A")

    with serve(telltale) as server:
        url = server.base_url.replace("//", "//user:hunter2@")
        client = ChatClient(Address.parse(f"{url}?key=hush#m"), patience=QUICK)
        model = OpenAICompatible(client)
        evaluate("cvbench", model, data=folder, output=tmp_path / "run", batch_size=12)
    assert server.seen[0].path == "/v1/chat/completions?key=hush"
    assert server.seen[0].headers["Authorization"].startswith("Basic ")  # the credentials of this URL, not the key
    assert model.name == f"openai:{server.base_url}#m"
    written = b"".join(path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file())
    shown = written + repr((model, client.address, model.fingerprint)).encode()
    assert b"key ***, password ***, ***" in written
    assert not any(secret in shown for secret in (b"sk-very-secret", b"hunter2", b"hush"))


@pytest.mark.parametrize("place", range(260, 300, 5))
def test_half_a_key_at_the_end_of_a_quoted_message_is_not_shown(monkeypatch, place):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    message = "x" * place + "sk-very-secret" + "y" * 300
    with serve(lambda *_: fail(400, message)) as server:
        [failure] = model_at(server).answer([prompt()])
    assert "sk-" not in failure.reason
    with serve(lambda *_: Reply(body={"error": {"message": message}})) as server:
        [failure] = model_at(server).answer([prompt()])
    assert "sk-" not in failure.reason


@pytest.mark.parametrize("credentials", ["user:hunter2-and-more", "a-token-without-password"])
def test_credentials_are_hidden_where_the_server_repeats_their_header(credentials):
    with serve(lambda *_: Reply()) as server:
        address = Address.parse(f"http://{credentials}@127.0.0.1:{server.port}/v1#m")
        OpenAICompatible(ChatClient(address, patience=QUICK)).answer([prompt()])
    header = server.seen[0].headers["Authorization"]
    assert address.redact(f"sent {header}, {credentials}").startswith("sent Basic ***, ")
    assert "hunter2" not in address.redact(credentials)
    assert "token" not in address.redact(credentials)


def test_reply_that_repeats_the_key_is_a_failure_and_one_with_a_short_key_is_a_reply(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    with serve(lambda *_: say("A, says sk-very-secret")) as server:
        failures = model_at(server).answer([prompt()])
    assert failures == [Failure("the endpoint's reply repeats the key or the credentials")]
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")  # what servers without keys are given
    with serve(lambda *_: say("It is EMPTY.")) as server:
        assert model_at(server).answer([prompt()]) == [Answer("It is EMPTY.", reply_tokens=2)]


def test_fingerprint_tells_servers_and_models_apart_but_not_keys(monkeypatch):
    one = load_model("openai:http://127.0.0.1:1/v1#m")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    assert load_model("openai:http://127.0.0.1:1/v1/#m").fingerprint == one.fingerprint
    assert load_model("openai:http://127.0.0.1:1/v1#n").fingerprint != one.fingerprint
    assert load_model("openai:http://127.0.0.1:2/v1#m").fingerprint != one.fingerprint


@pytest.mark.parametrize("bad", ["", "#m", "http://127.0.0.1:1/v1", "127.0.0.1:1/v1#m", "http://#m", "http://h:x/v1#m"])
def test_address_of_another_form_is_an_error(bad):
    with pytest.raises(ModelError, match=r"expected BASE_URL#MODEL, as in http://127\.0\.0\.1:8000/v1#my-model"):
        load_model(f"openai:{bad}")


def test_address_that_cannot_be_read_is_shown_without_its_password():
    with pytest.raises(ModelError, match=r'found "\*\*\*@h:x/v1"'):
        load_model("openai:http://user:hunter2@h:x/v1#m")


@pytest.mark.parametrize("address", ["http://h/v1?key=hush", "http://h/v1?mail=a@b&key=hush", "http://u:p@h?key=hush"])
def test_address_that_cannot_be_read_is_shown_without_its_query(address):
    with pytest.raises(ModelError, match="expected BASE_URL#MODEL") as raised:
        load_model(f"openai:{address}")
    assert "hush" not in str(raised.value)


def test_server_that_wants_the_budget_under_another_name_gets_it():
    def choosy(number, body):
        if "max_tokens" in body:
            return fail(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return say("B")

    with serve(choosy) as server:
        model = model_at(server, concurrency=1)
        assert [answer.text for answer in model.answer([prompt(n) for n in range(3)])] == ["B"] * 3
    assert len(server.seen) == 4
    assert server.seen[-1].body["max_completion_tokens"] == 16


# What comes back.


def test_reply_out_of_tokens_is_truncated_and_usage_is_kept_and_summed():
    usage = {"prompt_tokens": 100, "completion_tokens": 16, "prompt_tokens_details": {"image_tokens": 64}}
    with serve(lambda *_: say(" B, because ", ended="length", usage=usage, system_fingerprint="fp_1")) as server:
        model = model_at(server)
        answers = model.answer([prompt(0), prompt(1)])
    assert answers == [Answer("B, because", truncated=True, image_tokens=64, reply_tokens=16)] * 2
    assert (model.client.usage.requests, model.client.usage.retries) == (2, 0)
    assert (model.client.usage.prompt_tokens, model.client.usage.reply_tokens) == (200, 32)
    assert model.client.system_fingerprints == {"fp_1": 2}


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (say(""), Answer("", reply_tokens=2)),
        (say(None, ended="length"), Answer("", truncated=True, reply_tokens=2)),
        (Reply(body={"choices": [{"message": {"content": [{"type": "text", "text": "A"}]}}]}), Answer("A")),
        (Reply(body={"choices": [{"message": {"content": None, "refusal": "I cannot."}}]}), Answer("I cannot.")),
        (Reply(body={"choices": [{"message": {"content": "A"}}], "usage": "many"}), Answer("A")),
    ],
)
def test_forms_of_a_reply(reply, answer):
    with serve(lambda *_: reply) as server:
        assert model_at(server).answer([prompt()]) == [answer]


RUBBISH = {
    "status 500": fail(500, "out of order"),
    "status 503": fail(503),
    "a body that is not JSON": BROKEN,
    "a body that is a list": Reply(body=[]),
    r"a completion whose choices are \[\]": NO_CHOICES,
    "a message whose content is None": say(None),
    "a choice whose message is None": Reply(body={"choices": [{"message": None}]}),
    "an error under status 200: model crashed": Reply(body={"error": "model crashed"}),
    "the connection failed": CUT,
    "a message whose content is \\[1, 2\\]": Reply(body={"choices": [{"message": {"content": [1, 2]}}]}),
    "a message whose content is \\[\\]": Reply(body={"choices": [{"message": {"content": []}}]}),
    "a reply that the server broke off: finish_reason 'abort'": say("The", ended="abort"),
    "error .*upstream is gone": Reply(
        body={"choices": [{"message": {"content": ""}, "error": {"message": "upstream is gone"}}]}
    ),
    "more than 16 MiB": Reply(body="x" * (17 << 20)),
}


@pytest.mark.parametrize("reason", RUBBISH)
def test_one_bad_reply_is_asked_again(reason):
    with serve(first(RUBBISH[reason])) as server:
        assert model_at(server).answer([prompt()]) == [Answer("A", reply_tokens=2)]
    assert len(server.seen) == 2


@pytest.mark.parametrize("reason", RUBBISH)
def test_nothing_but_bad_replies_is_a_failure_with_its_reason(reason):
    with serve(lambda *_: RUBBISH[reason]) as server:
        [failure] = model_at(server).answer([prompt()])
    assert isinstance(failure, Failure)
    assert failure.reason.endswith("(4 tries)")
    assert re.search(reason, failure.reason)
    assert len(server.seen) == 4


def test_silence_is_a_failure_after_the_timeout():
    with serve(lambda *_: STALL) as server:
        assert model_at(server, HASTY).answer([prompt()]) == [Failure("no answer within 0.3 s")]


def test_server_that_is_not_there_is_a_failure():
    with serve(first()) as server:
        pass
    [failure] = model_at(server, HASTY).answer([prompt()])
    assert "connection failed" in failure.reason


@pytest.mark.parametrize("status", [400, 413, 422])
def test_refused_request_fails_at_once_and_alone(status):
    with serve(lambda number, body: fail(status, "too long") if "long" in str(body) else say("A")) as server:
        answers = model_at(server).answer([prompt(0), prompt(1, text="long"), prompt(2)])
    assert answers[1] == Failure(f"status {status}: too long")
    assert [answers[0], answers[2]] == [Answer("A", reply_tokens=2)] * 2
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "check the key"), (403, "check the key"), (404, "check the base URL"), (405, "/v1")]
)
def test_wrong_key_or_address_stops_the_run_at_once(status, advice, folder, tmp_path):
    with (
        serve(lambda *_: fail(status, "no")) as server,
        pytest.raises(ModelError, match=rf"#m: status {status}: no; .*{advice}"),
    ):
        evaluate("cvbench", model_at(server, concurrency=1), data=folder, output=tmp_path / "run")
    assert len(server.seen) == 1
    assert not (tmp_path / "run" / "samples.jsonl").exists()


def test_redirects_are_not_followed():
    with serve(first()) as other:
        away = Reply(307, "", {"Location": f"{other.base_url}/chat/completions"})
        with serve(lambda *_: away) as server:
            [failure] = model_at(server).answer([prompt()])
    assert failure == Failure("status 307: the endpoint points elsewhere, and redirects are not followed")
    assert other.seen == []


def test_filtered_reply_is_a_failure_and_no_text():
    with serve(lambda *_: say("partial", ended="content_filter")) as server:
        [failure] = model_at(server).answer([prompt()])
    assert failure == Failure("the endpoint's content filter withheld the reply")
    assert len(server.seen) == 1


# How fast.


def test_many_requests_travel_at_once_and_answers_keep_their_order():
    def echo(number, body):
        # Long beside what a busy machine adds: the client slows down where replies take three times as long.
        return say(body["messages"][0]["content"])._replace(seconds=0.2 + 0.02 * (number % 3))

    with serve(echo) as server:
        answers = model_at(server).answer([prompt(n, text=f"{n}") for n in range(100)])
    assert [answer.text for answer in answers] == [f"{n}" for n in range(100)]
    assert 8 < server.most_at_once <= 64


def test_concurrency_never_exceeds_its_cap():
    with serve(lambda *_: say("A")._replace(seconds=0.1)) as server:
        model_at(server, concurrency=3).answer([prompt(n) for n in range(12)])
    assert server.most_at_once == 3


def test_all_requests_wait_as_long_as_the_server_says():
    with serve(first(*[fail(429, Retry_After="1")] * 8)) as server:
        answers = model_at(server).answer([prompt(n) for n in range(20)])
    assert answers == [Answer("A", reply_tokens=2)] * 20
    arrivals = [seen.at for seen in server.seen]
    assert len(arrivals) == 28
    assert arrivals[8] - arrivals[7] >= 0.95


def test_server_that_asks_for_too_long_a_wait_is_not_waited_for():
    begin = time.monotonic()
    with serve(lambda *_: fail(429, "quota", Retry_After="3600")) as server:
        assert model_at(server).answer([prompt()]) == [Failure("status 429: quota")]
    assert len(server.seen) == 1
    assert time.monotonic() - begin < 60


def test_retry_after_is_a_number_or_a_date():
    assert read_retry_after("2.5") == 2.5
    assert read_retry_after("-3") == 0
    assert read_retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)) == pytest.approx(
        29, abs=2
    )
    assert read_retry_after(None) is None
    assert read_retry_after("soon") is None


def answer_rounds(pace, clock, rounds, seconds):
    for _ in range(rounds):
        started = clock[0]
        clock[0] += seconds
        for _ in range(pace.limit):
            pace.answered(started)


def test_pace_doubles_until_the_first_complaint_halves_once_a_round_and_then_grows_by_one():
    clock = [0.0]
    pace = Pace(64, lambda: clock[0])
    assert pace.limit == 8
    answer_rounds(pace, clock, 2, 1.0)
    assert pace.limit == 32
    for _ in range(32):
        pace.overloaded(clock[0] - 0.5)
    assert pace.limit == 16
    answer_rounds(pace, clock, 3, 1.0)
    assert pace.limit == 19
    answer_rounds(pace, clock, 100, 1.0)
    assert pace.limit == 64


def test_pace_shrinks_where_replies_get_slower_and_never_below_one():
    clock = [0.0]
    pace = Pace(64, lambda: clock[0])
    answer_rounds(pace, clock, 1, 1.0)
    answer_rounds(pace, clock, 1, 4.0)
    assert pace.limit == 12
    for _ in range(20):
        clock[0] += 1
        pace.overloaded(clock[0])
        clock[0] += 1
    assert pace.limit == 1


def test_server_that_is_down_is_not_asked_every_question():
    with serve(lambda *_: fail(503, "rebooting")) as server:
        model = model_at(server, Patience(50, 5, 0.01, 0.1, outage=0.5, probe_every=60))
        answers = model.answer([prompt(n) for n in range(64)])
        asked = len(server.seen)
        assert all(isinstance(answer, Failure) for answer in answers)
        assert "the endpoint is down: status 503: rebooting" in {answer.reason for answer in answers}
        assert all(isinstance(answer, Failure) for answer in model.answer([prompt(n) for n in range(64)]))
    assert len(server.seen) == asked


def test_server_that_is_down_is_tried_once_now_and_then_and_used_when_it_is_back():
    down = [True]
    with serve(lambda *_: fail(503) if down[0] else say("A")) as server:
        model = model_at(server, HASTY)
        assert all(isinstance(answer, Failure) for answer in model.answer([prompt(n) for n in range(9)]))
        time.sleep(0.15)
        asked = len(server.seen)
        assert all(isinstance(answer, Failure) for answer in model.answer([prompt(n) for n in range(9)]))
        assert len(server.seen) == asked + 1
        down[0] = False
        time.sleep(0.15)
        assert model.answer([prompt(n) for n in range(9)]) == [Answer("A", reply_tokens=2)] * 9


def test_answers_inside_a_running_event_loop():
    async def ask():
        return model_at(server).answer([prompt()])

    with serve(first()) as server:
        assert asyncio.run(ask()) == [Answer("A", reply_tokens=2)]


# Options.


def with_logprobs(*told):
    return {"content": [{"token": told[0][0], "top_logprobs": [{"token": t, "logprob": p} for t, p in told]}]}


def test_choose_adds_up_the_tokens_that_say_a_letter():
    told = [("B", -1.0), (" A", -1.2), ("A", -1.5), ("(B", -5.0), ("The", -6.0), ("C", -math.inf)]
    with serve(lambda *_: say("B", logprobs=with_logprobs(*told))) as server:
        [answer] = model_at(server).choose([prompt(choices=("x", "y", "z"))])
    assert answer.text == "A"
    assert answer.option_scores == pytest.approx(
        (math.log(math.exp(-1.2) + math.exp(-1.5)), math.log(math.exp(-1.0) + math.exp(-5.0)), -6.0)
    )
    assert (server.seen[0].body["logprobs"], server.seen[0].body["top_logprobs"]) == (True, 20)
    assert server.seen[0].body["max_tokens"] == 1


def test_letters_that_are_not_told_share_what_the_others_leave():
    with serve(lambda *_: say("A", logprobs=with_logprobs(("A", math.log(0.9)), ("B", math.log(0.08))))) as server:
        [answer] = model_at(server).choose([prompt(choices=("x", "y", "z", "u"))])
    assert [math.exp(score) for score in answer.option_scores] == pytest.approx([0.9, 0.08, 0.01, 0.01])
    with serve(lambda *_: say("A", logprobs=with_logprobs(("A", 0.0)))) as server:
        [answer] = model_at(server).choose([prompt(choices=("x", "y"))])
    assert answer.text == "A"
    assert answer.option_scores[1] < -20


def test_choose_without_any_letter_told_is_a_failure():
    with serve(lambda *_: say("The", logprobs=with_logprobs(("The", -0.1), ("An", -3.0)))) as server:
        [failure] = model_at(server).choose([prompt()])
    assert failure == Failure("none of the offered letters is among the likeliest first tokens ('The', 'An', ...)")


def test_choose_at_a_server_without_logprobs_is_an_error():
    with (
        serve(first()) as server,
        pytest.raises(ModelError, match=r"gives no log-probabilities .* use scoring"),
    ):
        model_at(server).choose([prompt()])


def test_choose_at_a_server_that_lists_no_tokens_is_an_error():
    nothing = {"content": [{"token": "A", "logprob": -0.1, "top_logprobs": []}]}
    with (
        serve(lambda *_: say("A", logprobs=nothing)) as server,
        pytest.raises(ModelError, match="gives no log-probabilities"),
    ):
        model_at(server).choose([prompt()])


@pytest.mark.parametrize("level", [800.0, math.nan, math.inf])
def test_levels_that_are_no_log_probabilities_are_a_failure(level):
    with serve(lambda *_: say("A", logprobs=with_logprobs(("A", level), ("B", -1.0)))) as server:
        [failure] = model_at(server).choose([prompt()])
    assert isinstance(failure, Failure)
    assert "log-probabilities that are none" in failure.reason


def test_choose_without_choices_is_an_error():
    with serve(first()) as server, pytest.raises(ModelError, match="question q-0 offers no choices"):
        model_at(server).choose([prompt(choices=())])
    assert server.seen == []


# A whole evaluation.

TEXTS = ("overloaded", "out of order", "status", "tries")


def test_failing_stalling_limiting_endpoint_leaves_the_run_incomplete_until_it_is_whole(folder, tmp_path):
    bad = [fail(500, "out of order"), STALL, fail(429, Retry_After="0.05"), BROKEN, NO_CHOICES, CUT]
    places = {base64.b64encode(png(idx)).decode(): place for place, idx in enumerate([*range(24), *range(1438, 1450)])}

    def ill(number, body):
        place = places[body["messages"][0]["content"][0]["image_url"]["url"].partition(",")[2]]
        return say("A") if place % 6 == 5 else bad[(place // 6 + place) % 6]  # one answer in each group of questions

    run = tmp_path / "run"
    with serve(ill) as server:
        model = model_at(server, Patience(attempts=1, timeout=0.25, outage=60))
        first_result = evaluate("cvbench", model, data=folder, output=run, batch_size=36)
        assert not first_result.to_dict()["complete"]
        assert (first_result.num_answered, first_result.num_failed) == (6, 30)
        kept = lines(run)
        assert [line["reply"] for line in kept] == ["A"] * 6
        assert len(json.loads((run / "failures.json").read_text())) == 30
        server.behave = lambda number, body: say("A")
        asked = len(server.seen)
        result = evaluate("cvbench", model, data=folder, output=run, batch_size=36)
    assert result.to_dict()["complete"]
    assert result.num_failed == 0
    assert len(server.seen) - asked <= 36
    assert len(lines(run)) == 36
    assert not any(text in (run / "samples.jsonl").read_text() for text in TEXTS)
    assert json.loads((run / "failures.json").read_text()) == {}
    with serve(first()) as healthy:
        healthy_model = model_at(healthy)
        healthy_model.name, healthy_model.fingerprint = model.name, model.fingerprint
        evaluate("cvbench", healthy_model, data=folder, output=tmp_path / "whole", batch_size=36)
    assert (run / "metrics.json").read_bytes() == (tmp_path / "whole" / "metrics.json").read_bytes()


def test_endpoint_that_recovers_within_a_run_leaves_no_trace(folder, tmp_path):
    def recovering(number, body):
        return (fail(503), STALL, BROKEN, fail(429, Retry_After="0.2"))[number % 4] if number < 20 else say("B")

    with serve(recovering) as server:
        patient = Patience(attempts=8, timeout=0.3, first_wait=0.01, longest_wait=1, outage=60)
        result = evaluate("cvbench", model_at(server, patient), data=folder, output=tmp_path / "run", batch_size=36)
    assert result.num_failed == 0
    assert {line["reply"] for line in lines(tmp_path / "run")} == {"B"}
    assert len(server.seen) == 56


def test_client_refuses_no_concurrency():
    with pytest.raises(ModelError, match="found concurrency 0, expected at least 1"):
        ChatClient(Address.parse("http://127.0.0.1:1/v1#m"), concurrency=0)


def test_no_requests_are_no_replies():
    assert ChatClient(Address.parse("http://127.0.0.1:1/v1#m")).complete([]) == []


def test_unreadable_picture_is_an_error_that_names_it():
    broken = Picture.from_bytes("cat.webp", b"RIFF no picture")
    with serve(first()) as server, pytest.raises(Exception, match=r"cat\.webp: cannot be decoded"):
        ChatClient(Address.parse(f"{server.base_url}#m")).complete([ChatRequest((broken, "x"), 4)])
