"""`/tts`: devnen's fields and formats, and whose body it is."""

from __future__ import annotations

import io
from typing import Any

import av
import httpx
import pytest

from engines.simulator.waveform import expected_pcm
from tests.api.chatterbox.conftest import RECORDING

TEXT = "Hello there, my friend."
PCM = expected_pcm(TEXT, "belinda")


def say(client: httpx.Client, **fields: Any) -> httpx.Response:
    """Ask for the text by a preset."""
    return client.post("/tts", json={"text": TEXT, "predefined_voice_id": "Belinda.wav", **fields})


@pytest.mark.parametrize(
    ("ending", "codec"), [("wav", "pcm_s16le"), ("opus", "opus"), ("mp3", "mp3")]
)
def test_a_format_has_devnens_type_and_name(client: httpx.Client, ending: str, codec: str) -> None:
    """`audio/` and the format's own name, and a file that holds it."""
    answer = say(client, output_format=ending)
    assert answer.headers["content-type"] == f"audio/{ending}"
    disposition = answer.headers["content-disposition"]
    assert disposition.startswith('attachment; filename="tts_output_')
    assert disposition.endswith(f'.{ending}"')
    with av.open(io.BytesIO(answer.content)) as container:
        assert container.streams.audio[0].codec_context.name.startswith(codec)


def test_it_is_wav_when_nothing_else_is_asked_for(client: httpx.Client) -> None:
    """A file with exact sizes; as a stream where that is asked for."""
    answer = say(client)
    assert answer.content[44:] == PCM
    assert int(answer.headers["content-length"]) == len(answer.content)
    streamed = say(client, stream=True)
    assert "content-length" not in streamed.headers
    assert streamed.content[44:] == PCM


def test_the_mode_says_which_field_names_the_voice(client: httpx.Client, bob: str) -> None:
    """A preset or a voice of the library, with or without its file's ending."""
    for name in ("belinda", "BELINDA.wav", "belinda.mp3"):
        assert say(client, predefined_voice_id=name).content[44:] == PCM, name
    clone = {"voice_mode": "clone", "predefined_voice_id": None}
    cloned = say(client, **clone, reference_audio_filename=f"{bob}.wav")
    assert cloned.status_code == 200
    assert cloned.content[44:] != PCM
    assert say(client, predefined_voice_id="Bob.mp3").content == cloned.content


def test_a_path_of_chatterbox_means_the_library_s_voice_of_that_file(
    client: httpx.Client, bob: str
) -> None:
    """On every surface; what else it may name is refused, in the surface's shape."""
    clone = {"voice_mode": "clone", "predefined_voice_id": None}
    cloned = say(client, **clone, reference_audio_filename=f"{bob}.wav").content
    pcm = cloned[44:]
    path = "/app/voices/Bob.wav"
    assert say(client, audio_prompt_path=path).content[44:] == pcm
    answer = client.post("/audio/speech", json={"input": TEXT, "audio_prompt_path": path})
    assert answer.content[44:] == pcm
    fields = {"input": TEXT, "model": "tts-1", "response_format": "pcm"}
    answer = client.post("/v1/audio/speech", json={**fields, "audio_prompt_path": path})
    assert answer.content == pcm
    answer = client.post("/generate", json={"text": TEXT, "audio_prompt_path": "bob.mp3"})
    assert answer.content[44:] == pcm
    for path, body in (("/audio/speech", {"input": TEXT}), ("/v1/audio/speech", fields)):
        for field in ("audio_prompt_path", "reference_audio_url"):
            answer = client.post(path, json={**body, field: "https://example.com/x.wav"})
            assert answer.status_code in {400, 422}, (path, field)
            assert field in answer.text


def test_a_mode_without_its_field_is_told_which(client: httpx.Client) -> None:
    """400 and a sentence."""
    answer = say(client, predefined_voice_id=None)
    assert answer.status_code == 400
    assert "predefined_voice_id" in answer.json()["detail"]
    answer = say(client, voice_mode="clone")
    assert answer.status_code == 400
    assert "reference_audio_filename" in answer.json()["detail"]


@pytest.mark.parametrize("name", ["Emily.wav", "../bob.wav", "/etc/passwd", "x" * 256, "\0"])
def test_a_voice_that_is_not_there_is_404_with_the_list(client: httpx.Client, name: str) -> None:
    """No fallback: its users choose from the list."""
    for fields in (
        {"predefined_voice_id": name},
        {"voice_mode": "clone", "reference_audio_filename": name},
    ):
        answer = say(client, **fields)
        assert answer.status_code == 404
        assert "belinda" in answer.json()["detail"]


def test_numbers_are_not_checked_for_their_range(client: httpx.Client) -> None:
    """As with its own server: what is out of reach is taken as near as there is."""
    wild = {
        "temperature": -3,
        "exaggeration": 40,
        "cfg_weight": -1,
        "seed": -(10**30),
        "speed_factor": 100,
        "language": "tlh",
        "split_text": False,
        "chunk_size": 500,
    }
    assert say(client, **wild).status_code == 200
    assert say(client, **dict.fromkeys(wild)).status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", ""),
        ("text", 7),
        ("voice_mode", "sing"),
        ("output_format", "aac"),
        ("chunk_size", 49),
        ("chunk_size", 501),
        ("temperature", "warm"),
        ("split_text", "maybe"),
    ],
)
def test_a_field_of_another_type_is_refused_by_name(
    client: httpx.Client, field: str, value: Any
) -> None:
    """422 with FastAPI's list."""
    answer = say(client, **{field: value})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", field]


def test_a_blank_text_is_refused(client: httpx.Client) -> None:
    """There is nothing to say."""
    answer = say(client, text="  \n ")
    assert answer.status_code == 400
    assert isinstance(answer.json()["detail"], str)


def test_the_field_of_the_text_says_whose_body_it_is(client: httpx.Client) -> None:
    """`input` is travisvn's with its default voice, `text` devnen's; both together are devnen's."""
    travisvns = client.post("/tts", json={"input": TEXT})
    assert travisvns.headers["content-disposition"].endswith("speech.wav")
    both = say(client, input="Something else.")
    assert both.content[44:] == PCM
    neither = client.post("/tts", json={})
    assert neither.status_code == 422
    assert neither.json()["detail"][0]["loc"] == ["body", "text"]


def test_speed_factor_changes_the_length(client: httpx.Client) -> None:
    """Half as fast is twice as long."""
    slow = len(say(client, speed_factor=0.5).content)
    assert slow == pytest.approx(2 * len(PCM), rel=0.15)


def test_uploads_become_voices_and_say_which_did_not(client: httpx.Client) -> None:
    """A part of them is a success; none is 400, with the reason for each."""
    files: list[tuple[str, tuple[str, bytes]]] = [
        ("files", ("Gianna.wav", RECORDING)),
        ("files", ("../../O'Brien (1).wav", RECORDING)),
        ("files", ("broken.wav", b"hello")),
    ]
    answer = client.post("/upload_reference", files=files)
    assert answer.status_code == 200
    body = answer.json()
    assert body["uploaded_files"] == ["Gianna.wav", "OBrien 1.wav"]
    assert body["all_reference_files"] == ["Gianna.wav", "OBrien 1.wav"]
    assert [error["filename"] for error in body["errors"]] == ["broken.wav"]
    assert all(error["error"] for error in body["errors"])
    notes = ("files", ("notes.txt", b"hello"))
    answer = client.post("/upload_predefined_voice", files=[files[2], notes])
    assert answer.status_code == 400
    assert answer.json()["uploaded_files"] == []
    # Its page shows the message alone then.
    assert "notes.txt: Invalid file type." in answer.json()["message"]


def test_an_upload_of_a_known_name_leaves_the_voice_as_it_is(client: httpx.Client) -> None:
    """As its own server does."""
    files = {"files": ("Gianna.wav", RECORDING)}
    for _ in range(2):
        answer = client.post("/upload_predefined_voice", files=files)
        assert answer.json()["uploaded_files"] == ["Gianna.wav"]
    assert client.get("/voices").json()["count"] == 1
    listed = answer.json()["all_predefined_voices"]
    assert {"display_name": "Gianna", "filename": "Gianna.wav"} in listed


def test_two_files_whose_names_are_cleaned_to_one_are_not_taken_for_one(
    client: httpx.Client,
) -> None:
    """The second is refused with the reason; the first again is the voice that it is."""

    def upload(name: str) -> dict[str, Any]:
        answer = client.post("/upload_reference", files={"files": (name, RECORDING)})
        body: dict[str, Any] = answer.json()
        return body

    assert upload("Anna (1).wav")["uploaded_files"] == ["Anna 1.wav"]
    assert upload("Anna (1).wav")["uploaded_files"] == ["Anna 1.wav"]
    refused = upload("Anna [1].wav")
    assert refused["uploaded_files"] == []
    assert "Anna 1" in refused["errors"][0]["error"]


@pytest.mark.parametrize("name", ["  .wav", "\u3000.mp3", ".wav ", "\u2605.wav"])
def test_files_without_a_name_are_known_by_what_they_contain(
    client: httpx.Client, name: str
) -> None:
    """Whatever signs stand in the place of one; another recording is another voice."""

    def upload(name: str, data: bytes) -> list[str]:
        answer = client.post("/upload_reference", files={"files": (name, data)})
        assert answer.status_code == 200, answer.text
        uploaded: list[str] = answer.json()["uploaded_files"]
        return uploaded

    known = upload(".wav", RECORDING)
    assert known[0].startswith("recording-")
    assert upload(name, RECORDING) == known
    assert upload(name, RECORDING + bytes(2)) != known


def test_the_default_voice_is_one_of_the_list(client: httpx.Client) -> None:
    """A page chooses it in the list of voices, where an alias would be nothing."""

    def default() -> str:
        data = client.get("/api/ui/initial-data").json()
        name: str = data["config"]["tts_engine"]["default_voice_id"]
        assert name in {voice["filename"] for voice in data["predefined_voices"]}
        return name

    unnamed = client.post("/audio/speech", json={"input": TEXT})
    assert say(client, predefined_voice_id=default()).content[44:] == unnamed.content[44:]
    client.post("/upload_reference", files={"files": ("Gianna.wav", RECORDING)})
    client.post("/voices/default", data={"voice_name": "Gianna"})
    assert default() == "Gianna.wav"


def test_settings_stay_as_they_are(client: httpx.Client) -> None:
    """Whatever is sent, the answer is polite and the configuration the same."""
    before = client.get("/api/ui/initial-data").json()["config"]
    for path in ("/save_settings", "/reset_settings", "/restart_server", "/api/unload"):
        answer = client.post(path, content=b"\xff{not json")
        assert answer.status_code == 200
        assert "nothing was changed" in answer.json()["message"]
    assert client.get("/api/ui/initial-data").json()["config"] == before
