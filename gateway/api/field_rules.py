"""How fields of a speech request are read, on every surface: one rule for what is unset or odd.

Clients in typed languages send `null` or an empty text for what they leave out, forms and shell
scripts send numbers as text, and menus send `MP3`.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

# Fields of other servers that fetch a recording or read a file of the server's machine.
ADDRESSES = (
    *("reference_audio_url", "ref_audio_url", "reference_url", "audio_url", "voice_url"),
    *("audio_prompt_url", "prompt_audio_url", "speaker_wav_url", "reference_audio_path"),
)

# What clients write for a value that they do not have; Home Assistant sends instructions "None".
UNSET = frozenset({"", "None", "null", "undefined"})

_NUMBERS = frozenset({int, float, bool})


def is_unset(value: object) -> bool:
    """Whether a client means that it gives no value."""
    return value is None or (isinstance(value, str) and value.strip() in UNSET)


def _refuse_address(_: object) -> None:
    raise PydanticCustomError(
        "address",
        "the gateway fetches no recordings; send it as reference_audio_base64, or upload a voice",
    )


def _accepted(annotation: Any) -> tuple[frozenset[Any], dict[str, Any]]:
    """The types that a field takes, and its closed list of words by their text."""
    kinds: set[Any] = set()
    words: dict[str, Any] = {}
    parts = [annotation]
    while parts:
        part = parts.pop()
        if get_origin(part) is Literal:
            words |= {str(word).lower(): word for word in get_args(part)}
        elif get_origin(part) in {Union, types.UnionType}:
            parts += get_args(part)
        elif get_origin(part) is Annotated:
            parts.append(get_args(part)[0])
        else:
            kinds.add(part)
    return frozenset(kinds), words


def _read_text(kinds: frozenset[Any], words: Mapping[str, Any], value: Any) -> Any:
    if isinstance(value, str):
        if words:
            return words.get(value.strip().lower(), value)
        return value if str in kinds else value.strip()
    if isinstance(value, bool) and bool not in kinds and kinds & _NUMBERS:
        raise PydanticCustomError("number_type", "Input should be a number, not true or false")
    return value


class LenientFields(BaseModel):
    """Fields as clients send them.

    `null` is "not given", and so is blank text, or one of UNSET, in every field but a required one;
    numbers and truths may stand as text; words of a closed list are read in any case. A truth is
    no number.
    """

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, use_attribute_docstrings=True)
    _required: ClassVar[frozenset[str]]

    @model_validator(mode="before")
    @classmethod
    def _leave_out_unset(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        required = cls._required
        return {
            name: value
            for name, value in given.items()
            if value is not None and (name in required or not is_unset(value))
        }

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Give the rule to the fields that it is for: asked by all, it cost a tenth of a body."""
        fields = cls.model_fields.items()
        cls._required = frozenset(name for name, field in fields if field.is_required())
        for name in cls.model_fields.keys() & cls.__annotations__:  # what is inherited has it
            field = cls.model_fields[name]
            kinds, words = _accepted(field.annotation)
            if words or kinds & _NUMBERS:
                field.metadata.append(BeforeValidator(partial(_read_text, kinds, words)))
        cls.model_rebuild(force=True)


class SpokenFields(LenientFields):
    """What every surface's speech request may hold besides its own fields."""

    audio_prompt_path: str | None = Field(None, max_length=1024)
    """Chatterbox's: the file of a library voice; another file is refused."""
    fetched: SkipJsonSchema[Annotated[None, BeforeValidator(_refuse_address)]] = Field(
        None, validation_alias=AliasChoices(*ADDRESSES)
    )
