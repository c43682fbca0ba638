"""What a request's generations will be, decided before anything is waited for.

The prompt's size, what segments share of each other, and the bounds of each generation: the engine
ends a runaway, a cut and a whole answer alike (docs/contract.md section 2), so the length that a
text allows is the only judge.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import field, replace
from enum import Enum

from gateway import value
from gateway.audio.pcm import ENGINE_SAMPLE_RATE_HZ
from gateway.errors import InvalidRequest
from gateway.settings import Settings
from gateway.speech.request import SpeechRequest
from gateway.text.cuts import SPEAKER_TAG
from gateway.text.dialogue import FIRST_SPEAKER, iter_generations, parse_turns
from gateway.text.estimate import looks_silent, speech_seconds
from gateway.text.normalise import normalise
from gateway.text.sanitise import sanitise_text
from gateway.text.split import Segment, iter_segments
from gateway.text.spoken_text import spoken_form
from gateway.text.tokens import (
    CONTEXT_TOKENS,
    CUT_OVERHEAD_TOKENS,
    DEFAULT_PROMPT_TOKENS,
    OVERHEAD_TOKENS,
    TOKENS_PER_SECOND,
    fits_context,
    free_tokens,
    max_tokens,
    text_tokens,
)
from gateway.text.writing_systems import without_foreign
from gateway.upstream.client import Timeouts
from gateway.upstream.dialect import (
    BUFFERED,
    PROFILES,
    SAMPLES_PER_TOKEN,
    Chunking,
    Generation,
    Reference,
    Sampling,
)
from gateway.upstream.known_servers import OPENAI_VOICE_NAMES

REFERENCE_OVERHEAD_TOKENS = 16
# A request's own prompt takes at most this share of the engine's context: what remains holds a
# segment's text, the audio of earlier segments that goes along, and the audio to be made.
MOST_PROMPT_SHARE = 0.5
CHARACTERS_OF_ONE_TIMEOUT = 4096  # OpenAI's longest input; longer ones get more time
# Segments whose voice hangs on an earlier segment's audio wait for it, and carry it in the prompt.
ANCHOR_LIKELY_SECONDS = 20.0
ANCHORED_LIKELY_SECONDS = 40.0


# Below temperature 1 the container may miss the end: a tighter bound.
COLD_LENGTH_FACTOR = 1.5
COLD_BASE_SECONDS = 2.0  # breath and pauses around a short text


# Voices of speakers that nobody chose, in the order in which they begin to speak: every engine has
# some voice for each of these names.
TURN_VOICES = OPENAI_VOICE_NAMES


class Context(Enum):
    """Which earlier segments a segment is given as references, besides the request's own."""

    NONE = "none"  # a preset or a reference fixes the voice: segments are independent
    FIRST = "first"  # the first segment's audio fixes the voice of all others
    DIALOGUE = "dialogue"  # the first fixes the voices, the one before carries the conversation

    def needed(self, number: int) -> tuple[int, ...]:
        """Numbers of the segments whose audio goes along with one; 0 is the first."""
        if self is Context.NONE or number == 0:
            return ()
        if self is Context.FIRST or number == 1:
            return (0,)
        return (0, number - 1)


@value
class GenerationPlan:
    """One generation, and what its text allows its audio to be.

    Attributes:
        generation: The upstream call.
        shortest_samples: Audio below this is no honest reading.
        longest_samples: Audio above this is a runaway.
        bounded_by_client: The client's own max_tokens is the tighter bound.
        quiet_limit_seconds: Near-silence of this length is a runaway.
        warmer: What is done instead when it runs away: the plan at the engine's own temperature,
            where a lower one was asked for and nothing is sent before all of it is there.
    """

    generation: Generation
    shortest_samples: int
    longest_samples: int
    bounded_by_client: bool
    quiet_limit_seconds: float
    warmer: GenerationPlan | None = None


@value
class PreparedSpeech:
    """A request with everything that follows from it and the settings.

    Attributes:
        request: What to say, by whom, in which format.
        context: What its later segments are given of earlier ones.
        room_tokens: What everything in its prompt but the text leaves of the context at least.
        context_tokens: max_model_len of the engine.
        turn_by_turn: Each turn of a dialogue is a generation of its own, without its tag.
    """

    request: SpeechRequest
    context: Context
    room_tokens: int
    context_tokens: int
    _settings: Settings = field(repr=False)
    turn_by_turn: bool = False

    @property
    def timeout_seconds(self) -> float:
        """Bound of the whole request: a long text may take as many times longer as it is longer."""
        parts = 1 + len(self.request.text.written) // CHARACTERS_OF_ONE_TIMEOUT
        return parts * self._settings.request_timeout_seconds

    def segments(self) -> Iterator[Segment]:
        """What each generation says, lazily; segments that are silent are left out."""
        return self._spoken_segments(self.request.text.spoken)

    def segments_of(self, written: str) -> Iterator[Segment]:
        """What each generation of a part of the text says, lazily, as `segments` does."""
        text = self.request.text
        spoken = spoken_form(written) if text.normalised else written
        if text.scripts is not None:
            spoken = without_foreign(spoken, text.scripts)[0]
        return self._spoken_segments(spoken)

    def _spoken_segments(self, text: str) -> Iterator[Segment]:
        whole = self.request.text.spoken  # judged already
        return (
            segment
            for segment in self._all_segments(text)
            if segment.text is whole or not looks_silent(sanitise_text(segment.text))
        )

    def _all_segments(self, text: str) -> Iterator[Segment]:
        if self.context is Context.DIALOGUE or self.turn_by_turn:
            return iter_generations(
                parse_turns(text),
                one_turn_each=self.turn_by_turn,
                likely_seconds_budget=ANCHORED_LIKELY_SECONDS,
                room_tokens=self.room_tokens,
            )
        if self.context is Context.FIRST:
            return iter_segments(
                text,
                likely_seconds_budget=ANCHORED_LIKELY_SECONDS,
                first_likely_seconds_budget=ANCHOR_LIKELY_SECONDS,
                room_tokens=self.room_tokens,
            )
        return iter_segments(text, room_tokens=self.room_tokens)

    def plan(self, text: str, earlier: tuple[Reference, ...] = ()) -> GenerationPlan:
        """Decide what an upstream is asked for and what it may answer.

        Args:
            text: The text, or one segment of it; it is sanitised here, as the last of all steps.
            earlier: Earlier segments, the most important first: as many as leave room for the
                text go along as references.

        Raises:
            InvalidRequest: Prompt and text leave no room for audio.
        """
        if self.request.text.normalised and text is not self.request.text.spoken:
            text = normalise(text)  # a segment ends with a stop, too
        text = sanitise_text(text)
        if self.turn_by_turn:
            return self._one_turn(text)
        while earlier and not fits_context(text, self._room_tokens(earlier)):
            earlier = earlier[:-1]
        return self.plan_exactly(text, earlier, self.request.sampling)

    def _one_turn(self, text: str) -> GenerationPlan:
        """The plan of a turn for an engine that reads no dialogue: its speaker's voice alone."""
        tag = SPEAKER_TAG.match(text)
        speaker = int(tag[1]) if tag else FIRST_SPEAKER
        text = SPEAKER_TAG.sub("", text).strip()
        request = self.request
        references = tuple(
            replace(reference, transcript=reference.transcript[found.end() :].strip())
            for reference in request.references
            if (found := SPEAKER_TAG.match(reference.transcript)) and int(found[1]) == speaker
        )
        place = request.text.speakers.index(speaker) if speaker in request.text.speakers else 0
        voice = dict(request.speaker_voices).get(speaker)
        if voice is None:
            voice = request.voice if place == 0 else None
        alone = replace(
            request,
            voice=None if references else voice or TURN_VOICES[place % len(TURN_VOICES)],
            system_prompt=None,
            references=references,
        )
        room_tokens = self.context_tokens - _prompt_tokens(alone)
        turn = replace(self, request=alone, room_tokens=room_tokens)
        return turn.plan_exactly(text, (), request.sampling)

    def plan_exactly(
        self, text: str, earlier: tuple[Reference, ...], sampling: Sampling
    ) -> GenerationPlan:
        """The plan of a text that is sanitised, with these references and this sampling."""
        request, settings = self.request, self._settings
        free = free_tokens(text, self._room_tokens(earlier))
        tokens = max_tokens(text, free, settings.plausible_length_factor)
        if tokens <= OVERHEAD_TOKENS:
            raise InvalidRequest(
                f"The engine's context of {self.context_tokens} tokens is too short for this text.",
                param="input",
            )
        warmer = None
        if sampling.temperature is not None and sampling.temperature < 1:
            if request.buffered:
                warmer = self.plan_exactly(text, earlier, replace(sampling, temperature=None))
            tokens = min(tokens, cold_tokens(text))
        asked = sampling.max_tokens or tokens
        bounded_by_client = asked < tokens
        tokens = asked if bounded_by_client else tokens
        shortest_samples = int(speech_seconds(text).shortest_seconds * ENGINE_SAMPLE_RATE_HZ)
        return GenerationPlan(
            generation=Generation(
                text=text,
                voice=request.voice,
                system_prompt=request.system_prompt,
                references=(*request.references, *earlier),
                sampling=sampling,
                max_tokens=tokens,
                chunking=chunking_of(settings, buffered=request.buffered),
                prompt_tokens=self.context_tokens - free,
                model=request.model,
            ),
            # A client that bounds the tokens itself has asked for a cut.
            shortest_samples=0 if bounded_by_client else shortest_samples,
            longest_samples=max(1, tokens - CUT_OVERHEAD_TOKENS) * SAMPLES_PER_TOKEN,
            bounded_by_client=bounded_by_client,
            quiet_limit_seconds=settings.quiet_limit_seconds,
            warmer=None if bounded_by_client else warmer,
        )

    def _room_tokens(self, earlier: tuple[Reference, ...]) -> int:
        """What the prompt with these references leaves of the engine's context."""
        return self.room_tokens - sum(map(_reference_tokens, earlier))


def prepare(
    request: SpeechRequest,
    settings: Settings,
    context_tokens: int = CONTEXT_TOKENS,
    *,
    turn_by_turn: bool = False,
    keeps_voice: bool = False,
) -> PreparedSpeech:
    """Decide how a request is made.

    Args:
        request: What to say.
        settings: Bounds.
        context_tokens: max_model_len of the engine.
        turn_by_turn: Its engines read no dialogue: each turn is said alone.
        keeps_voice: Its engines keep a preset's voice beside a scene.

    Raises:
        InvalidRequest: Scene, samples and their texts leave the engine no room: it would only
            answer an error.
    """
    tokens = _prompt_tokens(request)
    most_tokens = int(context_tokens * MOST_PROMPT_SHARE)
    if tokens > most_tokens:
        raise InvalidRequest(
            f"The scene and the voice samples take up to {tokens} tokens of the engine's context; "
            f"at most {most_tokens} are allowed. Shorten the prompt, the samples or their texts."
        )
    alone = turn_by_turn or (keeps_voice and request.voice is not None)
    context = Context.NONE if alone else _context_of(request)
    room = context_tokens - tokens
    return PreparedSpeech(request, context, room, context_tokens, settings, turn_by_turn)


def _context_of(request: SpeechRequest) -> Context:
    if request.text.is_dialogue:
        return Context.DIALOGUE
    if request.references or (request.voice is not None and request.system_prompt is None):
        return Context.NONE
    return Context.FIRST


def _prompt_tokens(request: SpeechRequest) -> int:
    """The most tokens that everything in the prompt but the text can take."""
    scene = text_tokens(request.system_prompt or "")
    return DEFAULT_PROMPT_TOKENS + scene + sum(map(_reference_tokens, request.references))


def _reference_tokens(reference: Reference) -> int:
    """A reference takes 25 tokens a second and 9 around it (docs/contract.md section 4)."""
    audio_tokens = math.ceil(reference.seconds * TOKENS_PER_SECOND)
    return audio_tokens + REFERENCE_OVERHEAD_TOKENS + text_tokens(reference.transcript)


def cold_tokens(text: str) -> int:
    """The bound of a generation below temperature 1, where the container may miss the end.

    Public reports: boson-ai/higgs-audio #126 and #151 (docs/contract.md section 7).
    """
    seconds = COLD_LENGTH_FACTOR * speech_seconds(text).likely_seconds + COLD_BASE_SECONDS
    return OVERHEAD_TOKENS + math.ceil(TOKENS_PER_SECOND * seconds)


def attempt_timeouts(settings: Settings) -> Timeouts:
    """Bounds of one attempt."""
    return Timeouts(
        connect_seconds=settings.connect_timeout_seconds,
        first_audio_seconds=settings.first_audio_timeout_seconds,
        idle_seconds=settings.idle_timeout_seconds,
    )


def chunking_of(settings: Settings, *, buffered: bool) -> Chunking:
    """How the upstream shall cut its answer.

    A whole answer is cut as rarely as the timeouts allow, because each cut leaves a join: a chunk
    takes half of the shorter timeout at the slowest rate that is accepted, so an engine that hangs
    is told apart from one that is slow within the timeouts that the settings name.
    """
    if not buffered:
        return PROFILES[settings.stream_profile]
    patience_seconds = min(settings.first_audio_timeout_seconds, settings.idle_timeout_seconds) / 2
    size_tokens = int(patience_seconds * settings.slowest_tokens_per_second)
    least = PROFILES["standard"].size_tokens
    return replace(BUFFERED, size_tokens=max(least, min(size_tokens, BUFFERED.size_tokens)))
