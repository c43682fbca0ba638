"""What a text takes of the engine's context, and how many audio tokens that leaves.

The container refuses a request whose text and `max_tokens` together exceed `max_model_len`
(docs/contract.md section 2). The gateway has no tokenizer, so it counts an upper bound: no prompt
that passes here is refused there.
"""

from __future__ import annotations

import math

from gateway.text.estimate import PAUSE, speech_seconds

TOKENS_PER_SECOND = 25  # of audio, docs/contract.md section 2
OVERHEAD_TOKENS = 11  # tokens used = frames + 11, same section
CUT_OVERHEAD_TOKENS = 8  # an answer that is cut at n tokens has n - 8 frames; n - 9 on chat
CONTEXT_TOKENS = 8192  # the container's default max_model_len, docs/contract.md section 1
# What the chat template and a preset's transcript or the default scene take of the context: 54 to
# 92 tokens for the container's own presets (docs/contract.md section 2).
DEFAULT_PROMPT_TOKENS = 96
ROOM_TOKENS = CONTEXT_TOKENS - DEFAULT_PROMPT_TOKENS  # what it leaves for a text and its audio
# How much longer than likely the audio of a text may be and still fit the context.
LIKELY_MARGIN = 1.2
_FINAL_STOP_TOKENS = 1  # normalising ends a text with a full stop
# What that stop takes of a segment: itself, and its reading.
STOP_TOKENS = _FINAL_STOP_TOKENS + math.ceil(LIKELY_MARGIN * TOKENS_PER_SECOND * PAUSE.likely)


def text_tokens(text: str) -> int:
    """The most tokens that a text can take: its bytes of UTF-8.

    Byte-level BPE, which Llama 3's tokenizer is, begins with one token a byte and only ever merges
    them. Amharic and spaced digits come to 93 to 100 % of this bound, ordinary English to 22 %.
    """
    return len(text if text.isascii() else text.encode("utf-8", "surrogatepass"))


def free_tokens(text: str, room_tokens: int) -> int:
    """Tokens that a text leaves for its audio; negative where it exceeds the context.

    Args:
        text: What is said.
        room_tokens: What everything else in the prompt leaves of the engine's context at least.
    """
    return room_tokens - text_tokens(text) - _FINAL_STOP_TOKENS


def likely_tokens(text: str) -> int:
    """Tokens of an ordinary reading, with a margin."""
    seconds = LIKELY_MARGIN * speech_seconds(text).likely_seconds
    return OVERHEAD_TOKENS + math.ceil(TOKENS_PER_SECOND * seconds)


def fits_context(text: str, room_tokens: int = ROOM_TOKENS) -> bool:
    """Whether one generation can say the text with room to spare; arguments as `free_tokens`."""
    return likely_tokens(text) <= free_tokens(text, room_tokens)


def max_tokens(text: str, free: int, seconds_per_character_factor: float = 1.0) -> int:
    """The bound of a generation: audio tokens of the longest plausible reading, plus overhead.

    Prompt, text and this bound never exceed the context together. Where `fits_context` holds, it
    is enough for an ordinary reading.

    Args:
        text: What is said.
        free: `free_tokens` of the text.
        seconds_per_character_factor: Widens (or narrows) the bound.
    """
    longest_seconds = speech_seconds(text).widened_seconds(seconds_per_character_factor)
    return min(math.ceil(TOKENS_PER_SECOND * longest_seconds) + OVERHEAD_TOKENS, free)


def estimate_input_tokens(text: str) -> int:
    """A text's tokens for usage reports: one for every four bytes of UTF-8, at least one.

    Llama 3's tokenizer takes about four letters of English, two of Cyrillic and somewhat more than
    one Chinese character a token, which is four bytes each.
    """
    return max(1, -(-text_tokens(text) // 4))
