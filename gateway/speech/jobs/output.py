"""A job's stored segments as one encoded file."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.audio.encoders.wav import HEADER_BYTES, header
from gateway.audio.join import Joiner
from gateway.audio.pcm import ENGINE_SAMPLE_RATE_HZ
from gateway.audio.transcoder import BitRates, Transcoder
from gateway.errors import SegmentLost
from gateway.speech.jobs.files import whole_file
from gateway.speech.jobs.job import SegmentRecord
from gateway.speech.request import SpeechRequest
from gateway.text.boundary import Boundary

PIECE_BYTES = 2 * ENGINE_SAMPLE_RATE_HZ * 10  # of a segment, so that little is in memory


@dataclass(frozen=True, slots=True)
class Output:
    """Pieces of encoded audio, and what is known when all of them were taken.

    Attributes:
        folder: Holds the segments' files.
        segments: All of them made.
        request: For the format, speed and sample rate.
        pauses_seconds: At the joins.
        bit_rates: Of the lossy formats.
    """

    folder: Path
    segments: Sequence[SegmentRecord]
    request: SpeechRequest
    pauses_seconds: Mapping[Boundary, float]
    bit_rates: BitRates

    def transcoder(self) -> Transcoder:
        """The codec of the request's format."""
        return Transcoder(
            self.request.response_format,
            speed=self.request.speed,
            sample_rate_hz=self.request.sample_rate_hz,
            bit_rates=self.bit_rates,
        )

    def pieces(
        self, transcoder: Transcoder, starts_seconds: dict[int, float]
    ) -> Generator[bytes, None, None]:
        """Encode all segments, one after the other; some pieces are empty.

        Args:
            transcoder: A new one; closed at the end.
            starts_seconds: Receives where each segment begins in the audio.

        Raises:
            SegmentLost: A file is gone.
            EncodingError: The codec failed.
        """
        joiner = Joiner(self.pauses_seconds)
        try:
            for segment in self.segments:
                joiner.start_segment(segment.before)
                starts_seconds[segment.number] = transcoder.output_seconds
                for pcm in self._pcm(segment):
                    yield transcoder.feed(joiner.feed(pcm))
                yield transcoder.feed(joiner.end_segment())
            yield transcoder.feed(joiner.finish())
            yield transcoder.finish()
        finally:
            transcoder.close()

    def _pcm(self, segment: SegmentRecord) -> Iterator[bytes]:
        try:
            with (self.folder / str(segment.file)).open("rb") as file:
                while pcm := file.read(PIECE_BYTES):
                    yield pcm
        except OSError as error:
            raise SegmentLost(
                f"The stored audio of segment {segment.number} is gone; retry makes it again."
            ) from error

    def write(self, path: Path) -> tuple[float, dict[int, float]]:
        """Encode into a file, which has its name only when it is whole; blocks.

        Returns:
            Seconds of audio, and where each segment begins in it.

        Raises:
            SegmentLost: A segment's file is gone.
            EncodingError: The codec failed.
            OSError: The disk is full.
        """
        transcoder = self.transcoder()
        starts_seconds: dict[int, float] = {}
        with whole_file(path) as file:
            for data in self.pieces(transcoder, starts_seconds):
                file.write(data)
            if self.request.response_format == "wav":  # now the sizes are known
                size = file.tell() - HEADER_BYTES
                file.seek(0)
                file.write(header(transcoder.sample_rate_hz, size))
        return transcoder.output_seconds, starts_seconds
