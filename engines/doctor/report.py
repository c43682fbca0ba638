"""What an examination has found, as JSON and as one page to attach to an issue."""

from __future__ import annotations

import base64
import html
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway import __version__
from gateway.audio.encoders.wav import wav_file


@dataclass(frozen=True, slots=True)
class Speed:
    """What so many streams at once got.

    Attributes:
        tokens_per_second: Audio tokens of all streams; 25 are a second of sound.
        first_audio_seconds: Median time to the first sound.
        underrun_seconds: Longest silence of a player that starts at once.
    """

    streams: int
    tokens_per_second: float
    first_audio_seconds: float
    underrun_seconds: float


@dataclass(slots=True)
class Report:
    """All that was found."""

    url: str
    version: str = __version__
    capabilities: dict[str, Any] = field(default_factory=dict)
    cards: list[str] = field(default_factory=list)
    checks: dict[str, str] = field(default_factory=dict)
    speeds: list[Speed] = field(default_factory=list)
    limit_tokens_per_second: float | None = None
    word_errors: dict[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Checks that did not pass."""
        return sum(result != "ok" for result in self.checks.values())


def write_html(report: Report, samples: dict[str, bytes], path: Path) -> None:
    """One file with everything in it, the sound too."""
    rows = [f"<tr><td>{html.escape(n)}<td>{html.escape(r)}" for n, r in report.checks.items()]
    speeds = [
        f"<tr><td>{s.streams}<td>{s.tokens_per_second}<td>{s.tokens_per_second / 25:.1f}"
        f"<td>{s.first_audio_seconds}<td>{s.underrun_seconds}"
        for s in report.speeds
    ]
    players = [
        f'<p>{name}<br><audio controls src="data:audio/wav;base64,'
        f'{base64.b64encode(wav_file(pcm)).decode()}"></audio>'
        for name, pcm in samples.items()
    ]
    words = f"Word errors: {report.word_errors}" if report.word_errors else ""
    facts = html.escape(json.dumps(report.capabilities, indent=1))
    path.write_text(
        "<!doctype html><meta charset=utf-8><title>speech-gateway doctor</title>"
        "<style>body{font:16px sans-serif;max-width:50em;margin:2em auto}td{padding:.2em 1em}"
        f"</style><h1>{html.escape(report.url)}</h1><p>{html.escape('; '.join(report.cards))}"
        f"<h2>Checks</h2><table>{''.join(rows)}</table><h2>Speed</h2><table><tr><th>streams"
        "<th>tokens/s<th>audio s/s<th>first audio, s<th>underrun, s"
        f"{''.join(speeds)}</table><p>Limit by memory bandwidth, one stream: "
        f"{report.limit_tokens_per_second} tokens/s<h2>Samples</h2>{''.join(players)}"
        f"<p>{html.escape(words)}<h2>Engine</h2><pre>{facts}</pre>",
        encoding="utf-8",
    )
