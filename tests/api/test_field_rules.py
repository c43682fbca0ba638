"""The one rule by which fields of speech requests are read, on every surface."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from gateway.api.chatterbox.devnen.tts import DevnenBody
from gateway.api.chatterbox.travisvn.long_text_schemas import HistoryQuery, ListQuery, LongBody
from gateway.api.chatterbox.travisvn.speech import TravisvnBody
from gateway.api.chatterbox.travisvn.status import PastQuery, StatusQuery
from gateway.api.field_rules import ADDRESSES
from gateway.api.generate import GenerateBody
from gateway.api.jobs import JobBody, JobsQuery
from gateway.api.modelless import is_modelless
from gateway.api.openai_voices import VoicesQuery
from gateway.api.schemas import SpeechBody, parse_json, validation_error
from gateway.errors import InvalidRequest

LONG = "word " * 700
TEXTS: dict[type[BaseModel], dict[str, Any]] = {
    SpeechBody: {"input": "x"},
    JobBody: {"input": "x"},
    GenerateBody: {"text": "x"},
    TravisvnBody: {"input": "x"},
    LongBody: {"input": LONG},
    DevnenBody: {"text": "x"},
}
SURFACES = pytest.mark.parametrize("model", TEXTS)


def read(model: type[BaseModel], /, **fields: Any) -> Any:
    """A body of a surface."""
    return model.model_validate({**TEXTS[model], **fields})


@SURFACES
@pytest.mark.parametrize("unset", [None, "", "  ", "None", "null", "undefined"])
def test_null_and_blank_text_are_not_given(model: type[BaseModel], unset: str | None) -> None:
    """In every field but the text itself: the body equals one that leaves it out."""
    bare = read(model)
    for name, field in model.model_fields.items():
        if not field.is_required():
            assert read(model, **{name: unset}) == bare, name
            assert read(model, **{name: unset}).model_fields_set == bare.model_fields_set
    for unknown in ("reference_audio_url", "something"):
        assert read(model, **{unknown: unset}) == bare


@SURFACES
def test_the_text_itself_is_required(model: type[BaseModel]) -> None:
    """Null is then "missing", and blank text stays what it is, for the surface to refuse."""
    (text,) = TEXTS[model]
    with pytest.raises(ValidationError, match=f"(?s){text}.*required"):
        read(model, **{text: None})
    with pytest.raises(ValidationError):
        read(model, **{text: 5})


@pytest.mark.parametrize(
    ("model", "given", "meant"),
    [
        (SpeechBody, {"speed": "1.5"}, {"speed": 1.5}),
        (SpeechBody, {"top_k": " 50 ", "seed": "-3"}, {"top_k": 50, "seed": -3}),
        (SpeechBody, {"top_k": 50.0}, {"top_k": 50}),
        (SpeechBody, {"stream": "false"}, {"stream": False}),
        (SpeechBody, {"stream": "True"}, {"stream": True}),
        (SpeechBody, {"sample_rate": "16000"}, {"sample_rate": 16000}),
        (SpeechBody, {"response_format": "MP3"}, {"response_format": "mp3"}),
        (SpeechBody, {"response_format": " Wav "}, {"response_format": "wav"}),
        (SpeechBody, {"response_format": "WAV ", "speed": "1.0 "},
         {"response_format": "wav", "speed": 1.0}),
        (SpeechBody, {"stream": "yes", "speed": "1e0"}, {"stream": True, "speed": 1.0}),
        (SpeechBody, {"stream_format": "SSE"}, {"stream_format": "sse"}),
        (SpeechBody, {"normalize": "0"}, {"normalize": False}),
        (SpeechBody, {"ref_audio": "UklG", "ref_text": "Hi."},
         {"reference_audio_base64": "UklG", "reference_text": "Hi."}),
        (GenerateBody, {"ref_audio": "UklG", "ref_text": "Hi."},
         {"reference_audio_base64": "UklG", "reference_text": "Hi."}),
        (GenerateBody, {"temperature": "0.7", "stream": "yes"},
         {"temperature": 0.7, "stream": True}),
        (GenerateBody, {"response_format": "FLAC"}, {"response_format": "flac"}),
        (TravisvnBody, {"stream_format": "SSE", "exaggeration": "0.7"},
         {"stream_format": "sse", "exaggeration": 0.7}),
        (TravisvnBody, {"streaming_quality": "High"}, {"streaming_quality": "high"}),
        (DevnenBody, {"output_format": "MP3", "split_text": "true", "voice_mode": "Clone"},
         {"output_format": "mp3", "split_text": True, "voice_mode": "clone"}),
    ],
)  # fmt: skip
def test_text_is_what_it_says(
    model: type[BaseModel], given: dict[str, Any], meant: dict[str, Any]
) -> None:
    """Numbers and truths as text, words of a list in any case."""
    body = read(model, **given)
    assert {name: getattr(body, name) for name in meant} == meant


@pytest.mark.parametrize(
    ("model", "field", "value"),
    [
        (SpeechBody, "speed", True),
        (SpeechBody, "top_k", True),
        (SpeechBody, "speed", "fast"),
        (SpeechBody, "speed", "nan"),
        (SpeechBody, "speed", "inf"),
        (SpeechBody, "speed", "9"),
        (SpeechBody, "sample_rate", "11025"),
        (SpeechBody, "stream", "maybe"),
        (SpeechBody, "voice", 7),
        (SpeechBody, "top_k", 1.5),
        (GenerateBody, "temperature", False),
        (GenerateBody, "max_tokens", "1"),
        (TravisvnBody, "exaggeration", "7"),
        (TravisvnBody, "cfg_weight", True),
        (DevnenBody, "chunk_size", "5"),
    ],
)
def test_what_text_cannot_be_is_refused(model: type[BaseModel], field: str, value: object) -> None:
    """Bounds hold for numbers in text, and a truth is no number; the field is named."""
    with pytest.raises(ValidationError) as refused:
        read(model, **{field: value})
    assert validation_error(refused.value).param == field


@pytest.mark.parametrize("unset", [None, "", " ", "null", "None"])
def test_an_unset_model_is_none(unset: str | None) -> None:
    """Whose client it is does not hang on how it leaves the model out."""
    assert is_modelless({"input": "Hi.", "model": unset, "instructions": unset})
    assert not is_modelless({"input": "Hi.", "model": "tts-1", "instructions": unset})


@pytest.mark.parametrize(
    ("model", "field", "most"),
    [
        (JobsQuery, "limit", 100),
        (VoicesQuery, "limit", 1000),
        (PastQuery, "limit", 50),
        (StatusQuery, "history_limit", 20),
        (ListQuery, "limit", 100),
        (HistoryQuery, "limit", 100),
    ],
)
def test_every_limit_of_a_list_is_read_alike(model: type[BaseModel], field: str, most: int) -> None:
    """A whole number within bounds, however it is written; unset, it is the default."""
    default = model.model_validate({})
    for unset in ("", " ", "null"):
        assert model.model_validate({field: unset}) == default
    for good in ("1", f"{most}", f" {most} ", f"000000000000{most}"):
        assert getattr(model.model_validate({field: good}), field) == int(good)
    for wrong in ("0", f"{most + 1}", f"0000000{most}9", "-1", "x", "²", "1.5", "true", "9" * 5000):
        with pytest.raises(ValidationError):
            model.model_validate({field: wrong})


@SURFACES
@pytest.mark.parametrize("field", ADDRESSES)
def test_what_would_be_fetched_is_refused_by_name(model: type[BaseModel], field: str) -> None:
    """An ignored field would give another voice than was asked for."""
    with pytest.raises(ValidationError) as refused:
        read(model, **{field: "http://example.com/a.wav"})
    error = validation_error(refused.value)
    assert error.param == field
    assert "reference_audio_base64" in error.message


@SURFACES
def test_the_schema_tells_no_field_that_is_always_refused(model: type[BaseModel]) -> None:
    """Nor the names by which the rule knows it."""
    assert not {"fetched", *ADDRESSES} & set(model.model_json_schema()["properties"])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"input": "a",}', "line 1, column 15"),
        (b'{"input": "a"\n"voice": 1}', "line 2, column 1"),
        (b"{'input': 'a'}", "line 1, column 2"),
        (b'{"input": "\xff"}', "byte 11 is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"seed": ' + b"1" * 5000 + b"}", "too many digits"),
        (b"input=a&voice=b", "line 1, column 1"),
    ],
)
def test_what_is_not_json_is_told_where_and_why(body: bytes, words: str) -> None:
    """The place, and nothing of the body itself."""
    with pytest.raises(InvalidRequest, match="is not JSON: ") as refused:
        parse_json(body)
    assert words in refused.value.message
