"""Open WebUI's audio routes with its database and settings: `python open_webui_audio.py BASE_URL`.

The environment says that it is the slim edition, with a `DATA_DIR` of the test's own.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

from common import TEXT, heard, tell
from fastapi import FastAPI
from fastapi.testclient import TestClient
from open_webui.models.config import Config
from open_webui.routers import audio


async def point_at(base_url: str) -> None:
    """What an administrator enters as text-to-speech settings."""
    await Config.upsert(
        {
            "audio.tts.engine": "openai",
            "audio.tts.openai.api_base_url": base_url,
            "audio.tts.openai.api_key": "unused",
            "audio.tts.model": "tts-1",
            "audio.tts.voice": "alloy",
        }
    )


def main(base_url: str) -> None:
    """Its menus, a chat message read aloud twice (the second from its cache), and a refusal."""
    app = FastAPI()
    app.include_router(audio.router, prefix="/api/v1/audio")
    user = SimpleNamespace(id="1", role="admin", name="A user", email="a@example.com")
    for needed in (audio.get_verified_user, audio.get_admin_user):
        app.dependency_overrides[needed] = lambda: user

    @app.get("/begin")
    async def begin() -> None:
        await point_at(base_url)

    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        client.get("/begin").raise_for_status()
        speech = "/api/v1/audio/speech"
        body = {"input": TEXT, "voice": "nova"}
        answers = [client.post(speech, json=body) for _ in range(2)]
        found = {f"{number}": heard(answer.content, "mp3") for number, answer in enumerate(answers)}
        refused = client.post(speech, json={"input": TEXT, "voice": "nobody"})
        tell(
            heard=found,
            types=[answer.headers["content-type"] for answer in answers],
            voices=client.get("/api/v1/audio/voices").json()["voices"],
            models=client.get("/api/v1/audio/models").json()["models"],
            refused=f"{refused.status_code} {refused.text}",
            left=False,
        )


if __name__ == "__main__":
    main(sys.argv[1])
