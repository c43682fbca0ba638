"""The parsers of the upstream's bytes, against the contract's own examples cut in every way."""

from __future__ import annotations

import base64
import json
import re
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gateway.audio.wraparound import WraparoundRepair
from gateway.errors import (
    GatewayError,
    UnspeakableText,
    UpstreamBusy,
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamRouteUnknown,
)
from gateway.upstream.dialect import Parser
from gateway.upstream.parsers import (
    MOST_LINE_BYTES,
    ChatParser,
    SpeechParser,
    parse_error_body,
    parse_models,
    parse_voices,
)

quick = settings(deadline=None, max_examples=120)

# docs/contract.md section 3, byte for byte.
ERROR_TEXT = json.dumps(
    {
        "error": {
            "object": "error",
            "message": "secret words of the client",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        }
    }
).encode()
FLAT_ERROR = (
    b'{"object":"error","message":"The model `x` does not exist.",'
    b'"type":"NotFoundError","param":null,"code":404}'
)


def slices(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut `data` at the given places; equal neighbours make empty slices."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


def read(parser: Parser, pieces: list[bytes]) -> bytes:
    """Feed all pieces and return all PCM."""
    return b"".join([*(parser.feed(piece) for piece in pieces), parser.finish()])


cuts = st.lists(st.integers(0, 10_000), max_size=12)
# Bytes that look like the beginnings of error text come often.
tricky = st.lists(
    st.sampled_from([b"{", b'{"err', b'{"error"', b"RIFF", b"  ", b"\x00\x01", b'"', b"\xff"])
    | st.binary(max_size=12),
    max_size=12,
).map(b"".join)


@pytest.mark.parametrize("place", [0, 2, 40_000, 40_001, 131_000, 131_001])
def test_error_text_is_found_anywhere_in_a_long_piece(place: int) -> None:
    """Also at an odd place; two bytes that only begin like it are audio."""
    audio = bytearray(b"\x01" * 131_072)
    audio[place : place + 2] = b'{"'
    assert read(SpeechParser(), [bytes(audio)]) == audio
    audio[place : place + 40] = ERROR_TEXT[:40]
    with pytest.raises(UpstreamProtocolError):
        read(SpeechParser(), [bytes(audio)])


def even(data: bytes) -> bytes:
    """Whole samples."""
    return data + b"\x00" * (len(data) % 2)


@quick
@given(data=tricky.map(even), places=cuts)
def test_any_slicing_of_the_audio_gives_the_same_samples(data: bytes, places: list[int]) -> None:
    """How the network cuts the answer is never heard."""
    assume(b'{"error"' not in data)
    assume(not re.match(rb'\s*\{\s*"(error|object|detail|message)"|RIFF....WAVE', data, re.DOTALL))
    parser = SpeechParser()
    returned = [parser.feed(piece) for piece in slices(data, places)]
    returned.append(parser.finish())
    assert b"".join(returned) == data
    assert all(len(piece) % 2 == 0 for piece in returned)


@quick
@given(before=tricky, after=tricky, places=cuts)
def test_error_text_is_found_wherever_it_stands_and_however_it_is_cut(
    before: bytes, after: bytes, places: list[int]
) -> None:
    """A client never hears the engine's error text as noise, also at an odd place."""
    data = before + ERROR_TEXT + after
    with pytest.raises(UpstreamProtocolError) as caught:
        read(SpeechParser(), slices(data, places))
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("text", [b'{"error":"x"}', b'{"error" : {"message": "x"}}'])
def test_a_chunk_of_error_text_is_found_in_any_spelling(text: bytes) -> None:
    """An engine sends it as a chunk of its own; its first bytes may come alone."""
    for cut in range(len(text)):
        parser = SpeechParser()
        assert parser.feed(bytes(4801)) == bytes(4800)
        with pytest.raises(UpstreamProtocolError):
            read(parser, [text[:cut], text[cut:]])


def test_error_text_that_the_answer_ends_within_is_found() -> None:
    """What an engine that dies has sent of it is not heard."""
    for end in range(len(b'{"error"'), len(ERROR_TEXT)):
        with pytest.raises(UpstreamProtocolError):
            read(SpeechParser(), [bytes(4801) + ERROR_TEXT[:end]])


@pytest.mark.parametrize("lead", [32_640, 32_641])
def test_error_text_behind_a_chunk_is_found_at_every_cut(lead: int) -> None:
    """The mark is found when a read ends at any of its bytes, and nothing of it is returned."""
    audio = bytes(lead)
    for cut in range(len(ERROR_TEXT) + 1):
        parser = SpeechParser()
        pieces = (audio, ERROR_TEXT[:cut], ERROR_TEXT[cut:], bytes(38_400))
        heard: list[bytes] = []
        with pytest.raises(UpstreamProtocolError):
            heard.extend(map(parser.feed, pieces))
        assert b"".join(heard).strip(b"\x00") == b""


@pytest.mark.parametrize(
    "body",
    [
        ERROR_TEXT,
        FLAT_ERROR,
        b'{"error":"Unauthorized"}',
        b' {\n  "error": {"message": "x"}}',
        b'{"detail":"Not Found"}',
        b"RIFF\x24\xf0\x00\x00WAVEfmt \x10\x00\x00\x00" + bytes(100),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_a_body_that_is_no_pcm_is_refused(body: bytes, step: int) -> None:
    """A 200 whose body is an error or a file is a failure, however it is cut."""
    with pytest.raises(UpstreamProtocolError):
        read(SpeechParser(), [body[at : at + step] for at in range(0, len(body), step)])


@pytest.mark.parametrize("last", [b"{", b'{"erro', b'{"{', b'{{"e', b'{"error: {"'])
def test_only_bytes_that_may_be_error_text_wait(last: bytes) -> None:
    """Audio is passed on at once: only the beginning of error text waits for the next read."""
    audio = bytes(4800)
    parser = SpeechParser()
    assert len(parser.feed(audio + last)) >= len(audio)
    assert parser.feed(b"\x01" * 10)
    assert len(SpeechParser().feed(audio)) == len(audio)


def test_a_brace_at_the_start_of_the_audio_is_audio() -> None:
    """Audio that happens to begin like JSON is heard."""
    for audio in (b"{\x00" * 500, b"RIFF" * 500, b"{ ", b'{"'):
        assert read(SpeechParser(), [audio]) == audio


def test_half_a_sample_at_the_end_is_a_failure() -> None:
    """The engine sends whole samples: an odd end means that the audio was shifted."""
    parser = SpeechParser()
    assert parser.feed(bytes(4801)) == bytes(4800)
    with pytest.raises(UpstreamProtocolError):
        parser.finish()


def test_an_empty_body_gives_no_samples() -> None:
    """It is the caller's failure to raise."""
    assert read(SpeechParser(), []) == b""


# Chat


def event(
    audio: bytes | None = None,
    *,
    content: str = "",
    finish_reason: str | None = None,
    compact: bool = True,
) -> bytes:
    """One event as the engine writes it (docs/contract.md section 4)."""
    part = (
        audio
        if audio is None
        else {
            "id": "audio-1",
            "data": base64.b64encode(audio).decode(),
            "expires_at": 0,
            "transcript": "",
        }
    )
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "higgs",
        "choices": [
            {
                "index": 0,
                "delta": {"content": content, "audio": part},
                "logprobs": None,
                "finish_reason": finish_reason,
            }
        ],
    }
    separators = (",", ":") if compact else None
    return b"data: " + json.dumps(chunk, separators=separators).encode() + b"\n\n"


ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
DONE = b"data: [DONE]\n\n"
USAGE = (
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":9,"total_tokens":12}}\n\n'
)


@quick
@given(
    chunks=st.lists(st.binary(max_size=40), max_size=6),
    idle=st.integers(0, 5),
    compact=st.booleans(),
    line_end=st.sampled_from([b"\n", b"\r\n"]),
    places=cuts,
)
def test_any_slicing_of_the_events_gives_the_same_samples(
    chunks: list[bytes],
    idle: int,
    compact: bool,  # noqa: FBT001
    line_end: bytes,
    places: list[int],
) -> None:
    """Events cut anywhere, in either spelling and with either line end, give the same audio."""
    audio = b"".join(chunks)
    if len(audio) % 2:
        chunks.append(b"\x00")
        audio += b"\x00"
    body = ROLE + b": ping\n\n"
    for chunk in chunks:
        body += event(compact=compact) * idle + event(chunk, compact=compact)
    body += event(finish_reason="stop", compact=compact) + USAGE + DONE
    body = body.replace(b"\n", line_end)
    parser, repair = ChatParser(), WraparoundRepair()
    assert read(parser, slices(body, places)) == repair.feed(audio) + repair.finish()


def test_usage_is_passed_over_wherever_it_stands() -> None:
    """Running token counts, which some engines add to every event, are no audio."""
    body = event(b"ab").replace(b"}]}", b'}],"usage":{"total_tokens":7}}') + DONE
    assert read(ChatParser(), [body]) == b"ab"


def test_audio_behind_the_finish_event_is_kept() -> None:
    """An answer that ends by length has its tail behind the finish reason."""
    parser = ChatParser()
    body = event(b"ab") + event(finish_reason="length") + event(b"cd") + DONE
    assert read(parser, [body]) == b"abcd"


def test_a_stream_without_its_end_is_a_failure() -> None:
    """A broken-off answer never passes for a whole one."""
    parser = ChatParser()
    assert parser.feed(event(b"ab") + event(finish_reason="stop")) == b"ab"
    with pytest.raises(UpstreamProtocolError):
        parser.finish()


def test_an_unterminated_last_line_counts() -> None:
    """The end is the end with or without a line end behind it."""
    assert read(ChatParser(), [event(b"ab") + DONE.strip()]) == b"ab"


def test_a_reply_in_text_has_no_samples() -> None:
    """It is the caller's failure to raise; the text itself is not kept."""
    parser = ChatParser()
    body = event(content="I cannot") + event(content=" sing", finish_reason="stop") + DONE
    assert read(parser, [body]) == b""
    assert not any("sing" in str(value) for value in vars(parser).values())


@pytest.mark.parametrize(
    "body",
    [
        b"data: " + ERROR_TEXT + b"\n\n" + DONE,
        event(b"ab") + b"data: " + ERROR_TEXT + b"\n\n" + DONE,
        b"data: " + FLAT_ERROR + b"\n\n" + DONE,
        FLAT_ERROR,
        FLAT_ERROR + b"\n",
        ERROR_TEXT,
        b"Internal Server Error",
        b"data: {\n\n" + DONE,
        b"data: []\n\n" + DONE,
        b"data: 7\n\n" + DONE,
        b'data: {"choices":{}}\n\n' + DONE,
        b'data: {"choices":[7]}\n\n' + DONE,
        b'data: {"choices":[{"delta":[1]}]}\n\n' + DONE,
        b'data: {"choices":[{"delta":{"audio":"x"}}]}\n\n' + DONE,
        b'data: {"choices":[{"delta":{"audio":{"data":7}}}]}\n\n' + DONE,
        b'data: {"choices":[{"delta":{"audio":{"data":"a=b="}}}]}\n\n' + DONE,
        b'data: {"choices":[{"delta":{"audio":{"data":"YWJj!ZA=="}}}]}\n\n' + DONE,
        event().replace(b"}]}", b'}],"error":{"code":400}}') + DONE,
        b'data: {"choices":[{"delta":{"audio":{"data":"\xc3\xa9"}}}]}\n\n' + DONE,
        b"data: \xff\xfe\n\n" + DONE,
        b"data: " + b"[" * 100_000 + b"\n\n" + DONE,
        event(b"abc") + DONE,
        b"",
        bytes(1000),
    ],
)
@pytest.mark.parametrize("step", [11, 1_000_000])
def test_what_is_no_sound_event_stream_is_refused(body: bytes, step: int) -> None:
    """Error events, other bodies, broken JSON or base64 and half samples are failures."""
    with pytest.raises(UpstreamProtocolError) as caught:
        read(ChatParser(), [body[at : at + step] for at in range(0, len(body), step)])
    assert "secret" not in caught.value.message


def test_a_line_without_end_is_bounded() -> None:
    """An upstream cannot fill the gateway's memory with one line."""
    parser = ChatParser()
    piece = b"data: " + b"x" * 65_530
    with pytest.raises(UpstreamProtocolError):
        read(parser, [piece] * (2 + MOST_LINE_BYTES // len(piece)))
    assert parser._parts_bytes < MOST_LINE_BYTES + 2 * len(piece)


def test_the_longest_event_that_is_asked_for_is_read() -> None:
    """A chunk of 250 tokens with its tail passes."""
    audio = bytes(range(256)) * 7 * 290
    body = event(audio) + DONE
    pieces = [body[at : at + 65_536] for at in range(0, len(body), 65_536)]
    assert read(ChatParser(), pieces) == audio


# Refusals


@pytest.mark.parametrize(
    ("status", "body", "kind", "retryable"),
    [
        (400, FLAT_ERROR, UpstreamRejected, False),
        (400, b'{"object":"error","message":"secret","param":null}', UpstreamRejected, False),
        (413, b"", UpstreamRejected, False),
        (415, b'{"detail":"Unsupported Media Type: secret"}', UpstreamRejected, False),
        (422, b'{"detail":[{"input":"secret"}]}', UpstreamRejected, False),
        (401, b'{"error":"Unauthorized"}', UpstreamProtocolError, True),
        (404, FLAT_ERROR, UpstreamRouteUnknown, True),
        (404, b'{"detail":"Not Found"}', UpstreamRouteUnknown, True),
        (429, b"secret", UpstreamBusy, True),
        (500, b"Internal Server Error", UpstreamProtocolError, True),
        (500, b"", UpstreamProtocolError, True),
        (503, b"<html>secret</html>", UpstreamBusy, True),
        (302, b"", UpstreamProtocolError, True),
        (204, b"\xff", UpstreamProtocolError, True),
    ],
)
def test_a_refusal_is_told_by_its_status(
    status: int,
    body: bytes,
    kind: type[GatewayError],
    retryable: bool,  # noqa: FBT001
) -> None:
    """Which statuses are worth another attempt, and that no answer repeats the upstream's text."""
    error = parse_error_body(status, body)
    assert type(error) is kind
    assert error.retryable is retryable
    assert "secret" not in error.message
    assert "`x`" not in error.message


def test_a_wrong_upstream_key_says_so() -> None:
    """The operator reads in the log what to change."""
    assert "API key" in parse_error_body(401, b'{"error":"Unauthorized"}').message


@pytest.mark.parametrize("nested", [False, True])
def test_text_that_the_voice_cannot_say_is_the_clients_error(nested: bool) -> None:  # noqa: FBT001
    """The engine's own words reach the client, as a 400."""
    envelope = {
        "object": "error",
        "message": "This voice speaks English only.",
        "type": "BadRequestError",
        "param": "unspeakable_text",
        "code": 400,
    }
    body = json.dumps({"error": envelope} if nested else envelope).encode()
    error = parse_error_body(400, body)
    assert type(error) is UnspeakableText
    assert error.message == "This voice speaks English only."
    assert error.status == 400


# Lists


def test_models_are_listed_in_order() -> None:
    """The first listed model is the default one."""
    body = b'{"object":"list","data":[{"id":"higgs","object":"model"},{"id":"other"}]}'
    assert parse_models(body) == ("higgs", "other")


@pytest.mark.parametrize(
    "body",
    [
        b'["belinda","vex"]',
        b'{"voices":["belinda","vex"]}',
        b'{"voices":[{"id":"belinda","name":"Belinda"},{"name":"vex"}]}',
        b'["belinda","vex","belinda"]',
    ],
)
def test_voices_are_read_in_every_shape(body: bytes) -> None:
    """A bare list, or objects as other engines write them."""
    assert parse_voices(body) == ("belinda", "vex")


@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"7", b"{}", b'{"voices":7}', b'{"data":7}', b"[7]", b"[null]", b"[{}]", b'[""]'],
)
def test_a_list_of_another_shape_is_refused(body: bytes) -> None:
    """A wrong list is an upstream's failure, not an empty list."""
    with pytest.raises(UpstreamProtocolError):
        parse_voices(body)
    with pytest.raises(UpstreamProtocolError):
        parse_models(body)
