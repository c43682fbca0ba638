"""From a validated body to a `Job`: messages read, references decoded and measured.

Pure code after docs/contract.md sections 2 and 4.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import soundfile as sf

from engines.server.contract import (
    PRESET_TEXT_TOKENS,
    TEMPLATE_TOKENS,
    ChatFields,
    ContractError,
    SpeechFields,
    bound_tokens,
    check_encodable,
    check_sampling,
    decode_base64,
    most_tokens,
    reference_tokens,
)
from engines.voice import DEFAULT_CHUNK_TOKENS, Job, plain_pcm
from gateway.audio.pcm import seconds_of
from gateway.voices.samples.sniff import demuxer_of, without_id3

MOST_AUDIOS = 50
REFERENCE_FORMATS = ("wav", "mp3")  # the name is checked, then the bytes decide


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What a process is set up for.

    Attributes:
        context_tokens: max_model_len.
        preset_tokens: Prompt tokens of a preset's own reference; 0 where a preset needs none.
        count_tokens: The tokenizer: how many tokens a text has.
    """

    context_tokens: int
    preset_tokens: int = 0
    count_tokens: Callable[[str], int] = most_tokens


def speech_job(
    fields: SpeechFields,
    presets: tuple[str, ...],
    limits: EngineLimits,
    request_id: str,
    preset_text: str | None = None,
) -> Job:
    """The job of a speech request; an unknown voice is the first preset's, without a word.

    Args:
        fields: The body.
        presets: The voice's own.
        limits: What the process is set up for.
        request_id: In the log.
        preset_text: Transcript or scene of a preset from a folder, which stands in the prompt.
    """
    check_sampling(fields.temperature, fields.top_p, fields.top_k)
    check_encodable(fields.input)
    prompt_tokens = PRESET_TEXT_TOKENS
    if preset_text is not None:
        prompt_tokens = TEMPLATE_TOKENS + limits.count_tokens(preset_text)
    prompt_tokens += limits.count_tokens(fields.input)
    return Job(
        text=fields.input,
        preset=fields.voice if fields.voice in presets else presets[0],
        system_prompt=None,
        references=(),
        max_tokens=bound_tokens(prompt_tokens, fields.max_tokens, limits.context_tokens),
        temperature=fields.temperature,
        top_p=fields.top_p,
        top_k=fields.top_k,
        seed=fields.seed,
        request_id=request_id,
        chunk_tokens=fields.audio_chunk_size or DEFAULT_CHUNK_TOKENS,
        overlap_tokens=fields.audio_chunk_overlap_size or DEFAULT_CHUNK_TOKENS,
        prompt_tokens=prompt_tokens + limits.preset_tokens,
    )


def chat_job(fields: ChatFields, limits: EngineLimits, request_id: str) -> Job:
    """The job of a chat request: system prompt, (transcript, audio) pairs, the last user text."""
    if not fields.messages:
        raise ContractError(500, "Internal Server Error")
    if fields.stream_options and not fields.stream:
        raise ContractError(400, "Stream options can only be defined when `stream=True`.")
    check_sampling(fields.temperature, fields.top_p, fields.top_k)
    system, text, references = read_messages(fields.messages)
    written = [system or "", text, *(transcript for transcript, _ in references)]
    check_encodable("".join(written))
    seconds = [audio_seconds(audio) for _, audio in references]
    prompt_tokens = TEMPLATE_TOKENS + sum(map(limits.count_tokens, written))
    asked = fields.max_completion_tokens
    asked = fields.max_tokens if asked is None else asked
    # Without a stream the audio is decoded in one piece; the knobs are for streams.
    size = fields.audio.audio_chunk_size or DEFAULT_CHUNK_TOKENS
    return Job(
        text=text,
        preset=None,
        system_prompt=system,
        references=references,
        max_tokens=bound_tokens(prompt_tokens, asked, limits.context_tokens),
        temperature=fields.temperature,
        top_p=fields.top_p,
        top_k=fields.top_k,
        seed=fields.seed,
        request_id=request_id,
        chunk_tokens=size if fields.stream else limits.context_tokens,
        overlap_tokens=fields.audio.audio_chunk_overlap_size or DEFAULT_CHUNK_TOKENS,
        prompt_tokens=prompt_tokens + sum(map(reference_tokens, seconds)),
        reference_seconds=sum(seconds),
        every_token=fields.stream,
    )


def read_messages(
    messages: list[dict[str, Any]],
) -> tuple[str | None, str, tuple[tuple[str, bytes], ...]]:
    """System prompt, text to say and references of a conversation.

    A user's text right before an audio is that audio's transcript; the last one is to be said.

    Raises:
        ContractError: Unreadable audio, or more than 50.
    """
    system, pending, references = None, "", []
    for message in messages:
        role, content = message.get("role"), message.get("content")
        audio = _audio_of(content)
        if role == "system":
            system = _text_of(content)
        elif audio is not None:
            references.append((pending, audio))
            pending = ""
        elif role == "user":
            pending = _text_of(content)
    if len(references) > MOST_AUDIOS:
        raise ContractError(400, f"At most {MOST_AUDIOS} audio(s) may be provided in one request.")
    return system, pending, tuple(references)


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [part.get("text", "") for part in content if isinstance(part, dict)]
        return "".join(text for text in texts if isinstance(text, str))
    return ""


def _audio_of(content: Any) -> bytes | None:
    if not isinstance(content, list):
        return None
    for part in content:
        if isinstance(part, dict) and part.get("type") == "audio_url":
            # The container fetches it. Here nothing is fetched: what sends this shall notice.
            raise ContractError(400, "This engine fetches no addresses: send input_audio.")
        if isinstance(part, dict) and part.get("type") == "input_audio":
            audio = part.get("input_audio")
            if not isinstance(audio, dict) or audio.get("format") not in REFERENCE_FORMATS:
                raise ContractError(400, "4 validation errors for ValidatorIterator")
            data = audio.get("data", "")
            if not isinstance(data, str):
                raise ContractError(400, "4 validation errors for ValidatorIterator")
            try:
                return decode_base64(data)
            except ValueError as error:
                raise ContractError(400, str(error)) from None
    return None


def audio_seconds(audio: bytes) -> float:
    """Length of a reference, whatever its format is called.

    Raises:
        ContractError: 400 as from the container's own reader.
    """
    pcm = plain_pcm(audio)
    if pcm is not None:
        return seconds_of(len(pcm))
    source = io.BytesIO(audio)
    try:
        # libsndfile knows 25 formats, and some of their readers write to standard output.
        if demuxer_of(without_id3(audio)) is None:
            raise ValueError
        return float(sf.info(source).duration)
    except (sf.LibsndfileError, ValueError):
        raise ContractError(400, f"Error opening {source!r}: Format not recognised.") from None
