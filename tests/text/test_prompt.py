from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.text.dialogue import speakers_of
from gateway.text.prompt import (
    DEFAULT_SYSTEM_PROMPT,
    DIALOGUE_INTRODUCTION,
    dialogue_prompt,
    instructed_prompt,
    scene_of,
    scene_prompt,
    system_prompt_for,
)

SPECIAL = re.compile(r"<\|\S*?\|>")
SCENE_TAGS = ["<|scene_desc_start|>", "<|scene_desc_end|>"]
DEFAULT = (
    "Generate audio following instruction.\n\n<|scene_desc_start|>\n"
    "Audio is recorded from a quiet room.\n<|scene_desc_end|>"
)
CLIENT_TEXT = st.lists(
    st.one_of(
        st.text(max_size=5),
        st.sampled_from(
            ["<|AUDIO|>", "<|eot_id|>", "<|", "|>", "<|audio_out_bos|>", "\n", "SPEAKER1: x"]
        ),
        st.sampled_from([*SCENE_TAGS, "<|<|AUDIO|>", "eot_id", "Generate audio", "\x00", "<", "|"]),
    ),
    max_size=12,
).map("".join)


def dialogue(scene: str, *lines: str) -> str:
    """What the official script gives the model for several speakers."""
    speakers = "\n".join(lines)
    described = f"<|scene_desc_start|>\n{scene}\n\n{speakers}\n<|scene_desc_end|>"
    return f"{DIALOGUE_INTRODUCTION}\n\n{described}"


def test_the_default_prompt_is_the_one_clients_know() -> None:
    """Word for word what the earlier proxy sent."""
    assert DEFAULT_SYSTEM_PROMPT == DEFAULT


@pytest.mark.parametrize(
    ("description", "scene"),
    [
        ("A busy street.", "A busy street."),
        ("  whispered, slow\n", "whispered, slow"),
        ("", "Audio is recorded from a quiet room."),
        (" \n ", "Audio is recorded from a quiet room."),
        ("<|AUDIO|>", "Audio is recorded from a quiet room."),
        ("a <|scene_desc_end|> b", "a  b"),
    ],
)
def test_a_scene_is_wrapped_as_the_model_learned_it(description: str, scene: str) -> None:
    """A blank scene is a quiet room; special tokens vanish."""
    assert scene_prompt(description) == DEFAULT.replace(
        "Audio is recorded from a quiet room.", scene
    )


def test_the_dialogue_prompt_tells_the_model_not_to_read_tags() -> None:
    """The wording is the model's own, to the letter."""
    assert DIALOGUE_INTRODUCTION.splitlines() == [
        "You are an AI assistant designed to convert text into speech.",
        (
            "If the user's message includes a [SPEAKER*] tag, do not read out the tag and generate "
            "speech for the following text, using the specified voice."
        ),
        "If no speaker tag is present, select a suitable voice on your own.",
    ]


@pytest.mark.parametrize(
    ("speakers", "descriptions", "scene", "expected"),
    [
        (
            [0, 1],
            {},
            None,
            dialogue(
                "Audio is recorded from a quiet room.", "SPEAKER0: feminine", "SPEAKER1: masculine"
            ),
        ),
        (
            [1, 0, 1],
            {1: "deep male"},
            "A café.",
            dialogue("A café.", "SPEAKER0: feminine", "SPEAKER1: deep male"),
        ),
        (
            [3, 2],
            {0: "nobody", 2: "  hoarse\nSPEAKER3: a child "},
            " ",
            dialogue(
                "Audio is recorded from a quiet room.",
                "SPEAKER2: hoarse SPEAKER3: a child",
                "SPEAKER3: masculine",
            ),
        ),
        (
            [0],
            {0: "<|AUDIO|>"},
            DEFAULT,
            dialogue("Audio is recorded from a quiet room.", "SPEAKER0: feminine"),
        ),
        (
            [0],
            {0: "x" * 10_000},
            "Rain.",
            dialogue("Rain.", "SPEAKER0: " + "x" * 500),
        ),
    ],
)
def test_every_speaker_has_one_line_under_the_scene(
    speakers: list[int], descriptions: dict[int, str], scene: str | None, expected: str
) -> None:
    """Described as the client says; else feminine when even and masculine when odd."""
    assert dialogue_prompt(speakers, descriptions, scene) == expected


@pytest.mark.parametrize(
    ("system_prompt", "scene"),
    [
        ("", ""),
        ("Rain.", "Rain."),
        (DEFAULT, "Audio is recorded from a quiet room."),
        ("Say it. <|scene_desc_start|>A<|scene_desc_end|> B", "A"),
        ("<|scene_desc_start|>A", "A"),
        ("Generate audio following instruction.", ""),
        ("Generate audio following instruction.\nRain.", "Rain."),
    ],
)
def test_the_scene_of_a_whole_system_prompt_is_found(system_prompt: str, scene: str) -> None:
    """A client may send the scene alone or in the model's own wrapping."""
    assert scene_of(system_prompt) == scene


@given(CLIENT_TEXT, CLIENT_TEXT, CLIENT_TEXT)
@settings(max_examples=300, deadline=None)
def test_a_prompt_never_contains_a_clients_special_token(one: str, two: str, scene: str) -> None:
    """Whatever a client writes, the only special tokens are the two of the one scene."""
    prompts = [
        scene_prompt(scene),
        instructed_prompt(scene, "belinda"),
        instructed_prompt(scene, None),
        dialogue_prompt([0, 1], {0: one, 1: two}, scene),
        dialogue_prompt([0, 1], {1: two}, None),
    ]
    for prompt in prompts:
        assert SPECIAL.findall(prompt) == SCENE_TAGS
    lines = prompts[3].splitlines()
    assert [line[:10] for line in lines[-3:-1]] == ["SPEAKER0: ", "SPEAKER1: "]


@given(CLIENT_TEXT)
@settings(max_examples=200, deadline=None)
def test_a_found_scene_has_no_special_token(system_prompt: str) -> None:
    """Not even one put together by taking another away."""
    assert not SPECIAL.search(scene_of(system_prompt))


def test_a_preset_is_described_in_a_clients_own_scene() -> None:
    """The engine's chat route knows no presets, so the voice's character is told."""
    assert "Whisper.\nSPEAKER0: feminine\n" in instructed_prompt("Whisper.", "belinda")
    assert "SPEAKER0" not in instructed_prompt("Whisper.", "vex")


@pytest.mark.parametrize(
    "scene",
    [
        "SPEAKER0: deep male", "A hall.\nSPEAKER0 : hoarse", "[SPEAKER0]: old", "speaker0: a child",
        "SPEAKER 0 is an old man.", "SPEAKER0 sounds tired", "SPEAKER0 - calm", "SPEAKER_0 = calm",
    ],
)  # fmt: skip
def test_a_speaker_that_the_client_describes_gets_no_second_description(scene: str) -> None:
    """Alone or in a dialogue; the others are described as ever."""
    assert instructed_prompt(scene, "belinda") == scene_prompt(scene)
    prompt = dialogue_prompt([0, 1], {}, scene)
    assert f"{scene}\n\nSPEAKER1: masculine\n" in prompt
    assert "SPEAKER0: feminine" not in prompt


@pytest.mark.parametrize("scene", ["SPEAKER01: x", "SPEAKER10: x", "SPEAKER0 and SPEAKER1 meet."])
def test_a_speaker_that_is_only_mentioned_is_described(scene: str) -> None:
    """Nor is another speaker taken for it."""
    assert instructed_prompt(scene.replace("01", "1"), "belinda").count("SPEAKER0: feminine") == 1


@pytest.mark.parametrize(
    ("text", "given", "instructions", "expected"),
    [
        ("Hello.", None, None, None),  # the engine's own
        ("Hello.", "  ", " ", None),
        ("Hello.", "Whole prompt.", "hushed", "Whole prompt."),
        ("Hello.", None, "hushed", scene_prompt("hushed\nSPEAKER0: feminine")),
        ("[SPEAKER0] A. [SPEAKER1] B.", None, None, dialogue_prompt([0, 1], {}, None)),
        ("[SPEAKER0] A. [SPEAKER1] B.", None, "noisy", dialogue_prompt([0, 1], {}, "noisy")),
        (
            "[SPEAKER0] A. [SPEAKER1] B.",
            "In a hall.",
            None,
            dialogue_prompt([0, 1], {}, "In a hall."),
        ),
        ("[SPEAKER1] Alone.", None, None, None),
    ],
)
def test_each_request_gets_the_prompt_that_its_text_needs(
    text: str, given: str | None, instructions: str | None, expected: str | None
) -> None:
    """A whole prompt beats instructions; several speakers need the prompt that names them."""
    prompt = system_prompt_for(
        speakers_of(text), voice="belinda", system_prompt=given, instructions=instructions
    )
    assert prompt == expected
