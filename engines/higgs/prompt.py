"""The prompt of a generation: turns of text and audio, as transformers' chat template writes them.

Only this file puts special tokens into a prompt. Text of clients is tokenized with their spelling
taken as ordinary characters, so `<|AUDIO|>` in a text is read out, not obeyed.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import HiggsAudioV2Config

from engines.higgs.generation import CODEBOOKS, Prompt, delay

SCENE_TAG = re.compile(r"(<\|scene_desc_(?:start|end)\|>)")
# What a prompt needs of a vocabulary; the ids are those in the tokenizer.json of
# bosonai/higgs-audio-v2-generation-3B-base, for models without a tokenizer (`--model random`).
LLAMA_IDS = {
    "<|begin_of_text|>": 128000,
    "<|start_header_id|>": 128006,
    "<|end_header_id|>": 128007,
    "<|eot_id|>": 128009,
    "<|audio_eos|>": 128012,
}

BYTES_PER_RANDOM_TOKEN = 4


class TextTokenizer(Protocol):
    """A vocabulary.

    Attributes:
        special: Ids of special tokens; those of LLAMA_IDS are among them.
    """

    special: dict[str, int]

    def encode(self, text: str) -> list[int]:
        """Ids of a text; a special token's spelling in it is ordinary text."""


class CheckpointTokenizer:
    """The tokenizer of a checkpoint.

    Args:
        folder: Holds tokenizer.json.

    Raises:
        ValueError: There is none, or a token that prompts need is not in it.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ValueError(f"{folder} has no tokenizer.json")
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.encode_special_tokens = True
        added = self._tokenizer.get_added_tokens_decoder()
        self.special = {token.content: number for number, token in added.items()}
        missing = [name for name in LLAMA_IDS if name not in self.special]
        if missing:
            raise ValueError(f"{path} lacks {', '.join(missing)}")

    def encode(self, text: str) -> list[int]:
        """Ids of a text.

        Raises:
            ValueError: A special token is among them, which the tokenizer should have split.
        """
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if not set(ids).isdisjoint(self.special.values()):
            raise ValueError("the text contains a token that only the engine may use")
        return list(ids)


class RandomTokenizer:
    """Four bytes are a token, about as in Llama 3's vocabulary: for models with random weights."""

    special = LLAMA_IDS

    def encode(self, text: str) -> list[int]:
        """Ids below those of special tokens."""
        data = text.encode()
        first_special = min(LLAMA_IDS.values())
        return [
            zlib.crc32(data[at : at + BYTES_PER_RANDOM_TOKEN]) % first_special
            for at in range(0, len(data), BYTES_PER_RANDOM_TOKEN)
        ]


def tokenizer_of(folder: Path | None) -> TextTokenizer:
    """The tokenizer of a checkpoint's folder, or of random weights where there is none."""
    return RandomTokenizer() if folder is None else CheckpointTokenizer(folder)


@dataclass(frozen=True, slots=True)
class PromptBuilder:
    """Writes prompts for one model.

    Attributes:
        tokenizer: Its vocabulary.
        config: Its ids of audio tokens.
    """

    tokenizer: TextTokenizer
    config: HiggsAudioV2Config

    def count(self, text: str) -> int:
        """Tokens of a text of a client."""
        return len(self.tokenizer.encode(text))

    def build(
        self, system: str, references: Sequence[tuple[str, NDArray[np.integer]]], text: str
    ) -> Prompt:
        """Write system turn, references, the text, and the begin of the answer.

        Args:
            system: System prompt; the tags of a scene description in it are special tokens where
                the vocabulary has them.
            references: (transcript, codes [codebooks, frames]) in order: a user's turn and the
                assistant's answer each.
            text: What to say.

        Raises:
            ValueError: A text holds what cannot be tokenized.
        """
        begin = self.tokenizer.special["<|begin_of_text|>"]
        ids = [begin, *self._turn("system", self._scene(system))]
        for transcript, codes in references:
            ids += self._turn("user", self._plain(transcript))
            ids += self._turn("assistant", self._audio(codes.shape[1]))
        shared = len(ids)
        ids += self._turn("user", self._plain(text))
        ids += self._turn("assistant", [self.config.audio_bos_token_id])[:-1]
        rows = [delay(codes) for _, codes in references]
        none = np.zeros((0, CODEBOOKS), np.int16)
        return Prompt(np.array(ids, np.int32), np.concatenate([none, *rows]), shared)

    def _turn(self, role: str, content: list[int]) -> list[int]:
        special = self.tokenizer.special
        header = [*self.tokenizer.encode(role), special["<|end_header_id|>"]]
        if content and role == "assistant":
            content = [*self.tokenizer.encode("\n\n"), *content]
        return [special["<|start_header_id|>"], *header, *content, special["<|eot_id|>"]]

    def _plain(self, text: str) -> list[int]:
        # With the line ends that follow the header: byte-pair merges may cross from one to other.
        return self.tokenizer.encode("\n\n" + text.strip())

    def _scene(self, system: str) -> list[int]:
        ids: list[int] = []
        for piece in SCENE_TAG.split("\n\n" + system.strip()):
            tag = self.tokenizer.special.get(piece) if SCENE_TAG.fullmatch(piece) else None
            ids += self.tokenizer.encode(piece) if tag is None else [tag]
        return ids

    def _audio(self, frames: int) -> list[int]:
        config = self.config
        # As the processor's: BOS, frames and EOS are audio tokens, the rows of the delay others.
        return [
            config.audio_bos_token_id,
            *[config.audio_token_id] * (frames + 2),
            *[config.audio_delay_token_id] * (CODEBOOKS - 1),
            self.tokenizer.special["<|audio_eos|>"],
        ]
