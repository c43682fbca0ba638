"""Users of a speech gateway for locust: listeners, downloads, and people who leave half-way.

    locust -f loadtest/locustfile.py --host http://127.0.0.1:8888
    locust -f loadtest/locustfile.py,loadtest/shapes/spike.py --headless --html report.html
Beside each request's own row there are rows of custom metrics in milliseconds: `first audio`,
`longest gap`, `underrun` and `real-time factor x1000`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import gevent
import requests
from locust import HttpUser, between, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtest.listening import Listener
from loadtest.prose import sentences

VOICES = ("alloy", "ash", "coral", "echo", "nova", "sage")
SPEECH = "/v1/audio/speech"
TIMEOUT_SECONDS = 120
READ_BYTES = 65_536
# How long people's texts are, in sentences, with weights: chat answers are mostly short.
LENGTHS = {1: 50, 2: 25, 4: 15, 10: 8, 40: 2}


@events.init_command_line_parser.add_listener
def add_arguments(parser: LocustArgumentParser) -> None:
    """Options of these users, also in the web page."""
    parser.add_argument(
        "--api-key", default="", env_var="GATEWAY_KEY", is_secret=True, help="bearer key"
    )
    parser.add_argument(
        "--think-seconds", type=float, default=5.0, help="mean pause between two requests of a user"
    )


def texts() -> Iterator[str]:
    """Texts of realistic lengths, none twice in a long while."""
    source = sentences()
    while True:
        (count,) = random.choices(list(LENGTHS), list(LENGTHS.values()))
        yield " ".join(next(source) for _ in range(count))


TEXTS = texts()


def tell(environment: Environment, name: str, value: float) -> None:
    """Add to a row of a custom metric, and not to the line that sums up requests."""
    environment.stats.get(name, "metric").log(round(value), 0)


class SpeechUser(HttpUser):
    """What all users share."""

    abstract = True

    def wait_time(self) -> float:
        """A pause of a human length around the mean."""
        mean = self.environment.parsed_options.think_seconds
        return float(between(0.2 * mean, 1.8 * mean)(self))

    def on_start(self) -> None:
        """Send the key with every request."""
        key = self.environment.parsed_options.api_key
        if key:
            self.client.headers["Authorization"] = f"Bearer {key}"

    def body(self, response_format: str) -> dict[str, Any]:
        """A request's fields."""
        return {
            "model": "tts-1",
            "input": next(TEXTS),
            "voice": random.choice(VOICES),
            "response_format": response_format,
        }


class ListeningUser(SpeechUser):
    """Plays answers while they come, as a chat front end does."""

    weight = 6

    @task(5)
    def mp3(self) -> None:
        """The format that most clients ask for."""
        self._listen("mp3")

    @task(3)
    def wav(self) -> None:
        """Browsers and desktop players."""
        self._listen("wav")

    @task(2)
    def pcm(self) -> None:
        """Voice agents."""
        self._listen("pcm")

    def _listen(self, response_format: str) -> None:
        began = time.monotonic()
        heard = Listener(response_format, began)
        with self.client.post(
            SPEECH,
            json=self.body(response_format),
            name=f"{SPEECH} {response_format}",
            stream=True,
            catch_response=True,
            timeout=TIMEOUT_SECONDS,
        ) as answer:
            try:
                if answer.ok:
                    for data in answer.iter_content(READ_BYTES):
                        heard.hear(data, time.monotonic())
            except requests.RequestException as error:
                answer.failure(f"broken off: {type(error).__name__}")
            elapsed = time.monotonic() - began
            # locust's own figure ends at the headers of a streamed answer.
            answer.request_meta["response_time"] = elapsed * 1000
            answer.request_meta["response_length"] = heard.size_bytes
            if answer.ok and not heard.audio_seconds:
                answer.failure("no audio")
        if heard.first_audio_seconds is not None and heard.audio_seconds:
            tell(self.environment, "first audio", heard.first_audio_seconds * 1000)
            tell(self.environment, "longest gap", heard.longest_gap_seconds * 1000)
            tell(self.environment, "underrun", heard.underrun_seconds * 1000)
            tell(self.environment, "real-time factor x1000", elapsed / heard.audio_seconds * 1000)


class DownloadingUser(SpeechUser):
    """Wants the whole file, as audiobook tools do."""

    weight = 2

    @task(2)
    def generate(self) -> None:
        """The legacy route."""
        self.client.post("/generate", json={"text": next(TEXTS)}, timeout=TIMEOUT_SECONDS)

    @task(1)
    def opus(self) -> None:
        """A compressed file."""
        self.client.post(
            SPEECH, json=self.body("opus"), name=f"{SPEECH} opus", timeout=TIMEOUT_SECONDS
        )

    @task(1)
    def flac(self) -> None:
        """A file without loss."""
        self.client.post(
            SPEECH, json=self.body("flac"), name=f"{SPEECH} flac", timeout=TIMEOUT_SECONDS
        )


class LeavingUser(SpeechUser):
    """Presses stop half-way: the GPU must be free again at once."""

    weight = 1

    @task
    def leave(self) -> None:
        """Read for a moment, then close the connection."""
        patience = random.uniform(0.05, 1.5)
        with self.client.post(
            SPEECH,
            json=self.body("mp3"),
            name=f"{SPEECH} left",
            stream=True,
            catch_response=True,
            timeout=TIMEOUT_SECONDS,
        ) as answer:
            if answer.ok:
                with gevent.Timeout(patience, exception=False):
                    for _ in answer.iter_content(READ_BYTES):
                        pass
                answer.success()
            answer.close()
