"""Jobs in SQLite, their audio in files: what one process has stored, every other one goes on with.

Every change is one transaction. What a process writes for a job that it works on holds only while
it is the job's holder: one that was stopped, and goes on after another has taken its job over,
changes nothing. No clock decides about that; see `Store.take`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.audio.pcm import BYTES_PER_SAMPLE, ENGINE_BYTES_PER_SECOND
from gateway.errors import (
    GatewayError,
    JobNotFound,
    JobStoreBusy,
    JobStoreFull,
    QueueFull,
    WrongJobState,
)
from gateway.speech.jobs.files import write_file
from gateway.speech.jobs.job import (
    ACTIVE,
    ALL,
    FINAL,
    OPEN,
    Chapter,
    Job,
    Notes,
    SegmentRecord,
    State,
    request_fields,
    request_of,
)
from gateway.speech.request import SpeechRequest
from gateway.text.boundary import Boundary

PREVIEW_CHARACTERS = 200
BUSY_SECONDS = 5.0  # another process writes for a few milliseconds at a time
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
  id TEXT PRIMARY KEY, owner TEXT, state TEXT NOT NULL, fields TEXT NOT NULL, text TEXT NOT NULL,
  notes TEXT NOT NULL, created REAL NOT NULL, updated REAL NOT NULL,
  started REAL, ended REAL, error TEXT, segments INTEGER NOT NULL, likely_seconds REAL NOT NULL,
  made_seconds REAL NOT NULL DEFAULT 0, stored_bytes INTEGER NOT NULL DEFAULT 0, stored_name TEXT,
  chapters TEXT NOT NULL, paragraph_pause_seconds REAL NOT NULL,
  chapter_pause_seconds REAL NOT NULL,
  holder TEXT, beat INTEGER NOT NULL DEFAULT 0, version INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, created);
CREATE TABLE IF NOT EXISTS segments (
  job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, number INTEGER NOT NULL,
  text TEXT NOT NULL, before INTEGER NOT NULL, file TEXT, samples INTEGER NOT NULL DEFAULT 0,
  tries INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (job, number)
) WITHOUT ROWID;
"""
_ACTIVE = json.dumps(sorted(ACTIVE))
_JOBS = (
    f"SELECT id, owner, state, fields, substr(text, 1, {PREVIEW_CHARACTERS}) AS preview, "  # noqa: S608
    "length(text) AS text_characters, notes, created, updated, started, ended, "
    "error, segments, (SELECT count(file) FROM segments WHERE job = jobs.id) AS segments_made, "
    "likely_seconds, made_seconds, stored_bytes, stored_name, chapters, "
    "paragraph_pause_seconds, chapter_pause_seconds, holder, beat, version FROM jobs"
)


@dataclass(frozen=True, slots=True)
class NewJob:
    """What is stored of a new job; see `Job`."""

    owner: str | None
    request: SpeechRequest
    notes: Notes
    segments: tuple[SegmentRecord, ...]
    chapters: tuple[Chapter, ...]
    likely_seconds: float
    paragraph_pause_seconds: float
    chapter_pause_seconds: float


class LeaseLost(Exception):
    """Another process holds the job's lease, or the job is paused, ended or deleted."""


class Store:
    """The jobs of one folder; every method blocks, and is called in one thread at a time.

    Args:
        folder: Holds `jobs.sqlite3` and one folder a job; made where it is missing.
        most_bytes: Audio of all jobs together; a new job must be likely to fit.

    Raises:
        OSError, sqlite3.Error: The folder cannot be used.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._database = sqlite3.connect(
            folder / "jobs.sqlite3",
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        self._database.row_factory = sqlite3.Row
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def folder_of(self, job_id: str) -> Path:
        """Where a job's files are; ids are made here, so none leads out of the folder."""
        return self._folder / job_id

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Several statements, all or none.

        Raises:
            JobStoreBusy: Another process has held the database for long.
            JobStoreFull: The disk is full.
        """
        try:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                yield
        except sqlite3.OperationalError as error:
            raise _translated(error) from error

    @contextlib.contextmanager
    def _held_by(self, holder: str, job_id: str) -> Iterator[None]:
        """A transaction on a job that this process holds.

        Raises:
            LeaseLost: The job is another's now.
            JobStoreBusy, JobStoreFull: As in `_transaction`.
        """
        with self._transaction():
            if not self._run("SELECT 1 FROM jobs WHERE id = ? AND holder = ?", (job_id, holder)):
                raise LeaseLost
            yield

    def _run(self, statement: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        """Run one statement, and return its rows; the errors are those of `_transaction`."""
        try:
            return self._database.execute(statement, values).fetchall()
        except sqlite3.OperationalError as error:
            raise _translated(error) from error

    def _one(self, query: str, job_id: str) -> sqlite3.Row:
        rows = self._run(f"{query} WHERE id = ?", (job_id,))
        if not rows:
            raise JobNotFound("There is no such job.")
        return rows[0]

    # What clients ask for

    def add(self, new: NewJob, most_open: int) -> Job:
        """Store a new job, where fewer than so many are not over.

        Raises:
            QueueFull: There are too many.
            JobStoreFull: Its audio would probably not fit, or the disk is full.
        """
        if len(self.jobs(OPEN)) >= most_open:
            raise QueueFull(
                f"There are {most_open} jobs that are not over.", retry_after_seconds=60
            )
        needed = int(new.likely_seconds * ENGINE_BYTES_PER_SECOND)
        if self.used_bytes() + needed > self._most_bytes:
            raise JobStoreFull(
                f"The jobs' audio may take {self._most_bytes} bytes; this text would probably take "
                f"{needed} more than there is. Delete jobs, or raise GATEWAY_JOBS_MAX_BYTES."
            )
        job_id = uuid.uuid4().hex
        folder = self.folder_of(job_id)
        try:
            folder.mkdir(mode=0o700)
            for number, reference in enumerate(new.request.references):
                (folder / f"reference-{number}.wav").write_bytes(reference.wav)
            with self._transaction():
                self._insert(job_id, new)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise JobStoreFull(f"The job cannot be stored: {error.strerror}.") from error
            raise
        return self.get(job_id)

    def _insert(self, job_id: str, new: NewJob) -> None:
        now = time.time()
        row = {
            "id": job_id,
            "owner": new.owner,
            "state": State.PENDING,
            "fields": json.dumps(request_fields(new.request)),
            "text": new.request.text.written,
            "notes": json.dumps(asdict(new.notes)),
            "created": now,
            "updated": now,
            "segments": len(new.segments),
            "likely_seconds": new.likely_seconds,
            "chapters": json.dumps([asdict(chapter) for chapter in new.chapters]),
            "paragraph_pause_seconds": new.paragraph_pause_seconds,
            "chapter_pause_seconds": new.chapter_pause_seconds,
        }
        places = ", ".join("?" * len(row))
        insert = f"INSERT INTO jobs ({', '.join(row)}) VALUES ({places})"  # noqa: S608  (constants)
        self._run(insert, tuple(row.values()))
        self._database.executemany(
            "INSERT INTO segments (job, number, text, before) VALUES (?, ?, ?, ?)",
            [(job_id, each.number, each.text, each.before) for each in new.segments],
        )

    def get(self, job_id: str) -> Job:
        """A job.

        Raises:
            JobNotFound: There is none of this id.
        """
        return _job(self._one(_JOBS, job_id))

    def jobs(self, among: frozenset[State] = ALL) -> list[Job]:
        """The jobs in some states, the newest first."""
        rows = self._run(
            f"{_JOBS} WHERE state IN (SELECT value FROM json_each(?)) "  # noqa: S608  (constants)
            "ORDER BY created DESC, id",
            (json.dumps(sorted(among)),),
        )
        return [_job(row) for row in rows]

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state that any is in."""
        rows = self._run("SELECT state, count(*) AS jobs FROM jobs GROUP BY state")
        return {row["state"]: row["jobs"] for row in rows}

    def search(self, text: str) -> set[str]:
        """Ids of the jobs whose text or name contains a text, in any letter case."""
        rows = self._run(
            "SELECT id FROM jobs WHERE instr(lower(text), lower(?1)) OR "
            "instr(lower(coalesce(json_extract(notes, '$.display_name'), '')), lower(?1))",
            (text,),
        )
        return {row["id"] for row in rows}

    def request(self, job_id: str) -> SpeechRequest:
        """What a job says and how, references included.

        Raises:
            JobNotFound: There is none of this id.
            OSError: A reference's file is gone.
        """
        row = self._one("SELECT fields, text FROM jobs", job_id)
        fields = json.loads(row["fields"])
        folder = self.folder_of(job_id)
        count = len(fields["transcripts"])
        wavs = [(folder / f"reference-{number}.wav").read_bytes() for number in range(count)]
        return request_of(fields, row["text"], wavs)

    def segments(self, job_id: str) -> list[SegmentRecord]:
        """A job's segments, in order."""
        rows = self._run(
            "SELECT number, text, before, file, samples, tries FROM segments WHERE job = ? "
            "ORDER BY number",
            (job_id,),
        )
        return [
            SegmentRecord(**{**row, "before": Boundary(row["before"])}) for row in map(dict, rows)
        ]

    def annotate(self, job_id: str, notes: Notes) -> None:
        """Replace a client's notes."""
        self._run(
            "UPDATE jobs SET notes = ?, version = version + 1 WHERE id = ?",
            (json.dumps(asdict(notes)), job_id),
        )

    def enter(self, job_id: str, state: State, among: frozenset[State]) -> Job:
        """Put a job into another state; its holder loses it.

        Args:
            job_id: Its id.
            state: The new one.
            among: States from which it may come.

        Raises:
            JobNotFound: There is none of this id.
            WrongJobState: It is in another state.
        """
        now = time.time()
        changed = self._run(
            "UPDATE jobs SET state = ?, updated = ?, ended = ?, error = NULL, holder = NULL, "
            "version = version + 1 WHERE id = ? AND state IN (SELECT value FROM json_each(?)) "
            "RETURNING id",
            (state, now, now if state in FINAL else None, job_id, json.dumps(sorted(among))),
        )
        job = self.get(job_id)
        if not changed:
            raise WrongJobState(f"The job is {job.state}.")
        return job

    def delete(self, job_id: str) -> None:
        """Forget a job and its files; one that is not there is forgotten already."""
        self._run("DELETE FROM jobs WHERE id = ?", (job_id,))
        shutil.rmtree(self.folder_of(job_id), ignore_errors=True)

    def used_bytes(self) -> int:
        """What the jobs' audio takes, and what those that are not over will probably take."""
        rows = self._run(
            "SELECT coalesce(sum(stored_bytes), 0) + 2 * coalesce((SELECT sum(samples) FROM "
            "segments), 0) AS used FROM jobs"
        )
        open_seconds = sum(
            max(0.0, job.likely_seconds - job.made_seconds) for job in self.jobs(OPEN)
        )
        return int(rows[0]["used"] + open_seconds * ENGINE_BYTES_PER_SECOND)

    # What the process that works on a job does

    def take(self, job: Job, holder: str) -> bool:
        """Take a job's lease, if the job has not changed since it was read.

        A holder counts its heartbeats in the row. Who sees the same holder and the same count for
        long, by its own monotonic clock, takes the job over; clocks are never compared.
        """
        taken = self._run(
            "UPDATE jobs SET holder = ?, beat = beat + 1, state = ?, updated = ?3, started = "
            "coalesce(started, ?3), version = version + 1 WHERE id = ? AND holder IS ? AND "
            "beat = ? AND state IN (SELECT value FROM json_each(?)) RETURNING id",
            (holder, State.PROCESSING, time.time(), job.id, job.holder, job.beat, _ACTIVE),
        )
        return bool(taken)

    def beat(self, holder: str) -> set[str]:
        """Count a heartbeat in every job of a holder; the ids of these jobs."""
        rows = self._run("UPDATE jobs SET beat = beat + 1 WHERE holder = ? RETURNING id", (holder,))
        return {row["id"] for row in rows}

    def release(self, holder: str) -> None:
        """Give up all jobs of a holder: another process may go on with them at once."""
        self._run("UPDATE jobs SET holder = NULL WHERE holder = ?", (holder,))

    def keep_segment(
        self, job_id: str, holder: str, number: int, pcm: bytes, *, seconds: float
    ) -> str:
        """Store a segment's audio: the file first, whole and under its own name, then its row.

        Returns:
            The file's name.

        Raises:
            LeaseLost: The job is another's now; the file is gone again.
            JobStoreFull: The disk is full.
        """
        name = f"segment-{number}-{uuid.uuid4().hex[:8]}.pcm"
        path = self.folder_of(job_id) / name
        try:
            write_file(path, pcm)
            with self._held_by(holder, job_id):
                self._run(
                    "UPDATE segments SET file = ?, samples = ? WHERE job = ? AND number = ?",
                    (name, len(pcm) // BYTES_PER_SAMPLE, job_id, number),
                )
                self._run(
                    "UPDATE jobs SET made_seconds = made_seconds + ?, updated = ?, "
                    "version = version + 1 WHERE id = ?",
                    (seconds, time.time(), job_id),
                )
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise JobStoreFull(f"The audio cannot be stored: {error.strerror}.") from error
            raise
        return name

    def count_try(self, job_id: str, holder: str, number: int) -> None:
        """Count a generation of a segment that failed.

        Raises:
            LeaseLost: The job is another's now.
        """
        with self._held_by(holder, job_id):
            self._run(
                "UPDATE segments SET tries = tries + 1 WHERE job = ? AND number = ?",
                (job_id, number),
            )

    def finish(
        self,
        job_id: str,
        holder: str,
        stored: Path,
        *,
        seconds: float,
        chapters: Sequence[Chapter],
    ) -> None:
        """Complete a job whose audio is in a file of its folder.

        Raises:
            LeaseLost: The job is another's now.
        """
        size, told = stored.stat().st_size, json.dumps([asdict(chapter) for chapter in chapters])
        with self._held_by(holder, job_id):
            self._run(
                "UPDATE jobs SET state = ?, updated = ?2, ended = ?2, holder = NULL, stored_bytes "
                "= ?, stored_name = ?, made_seconds = ?, chapters = ?, version = version + 1 "
                "WHERE id = ?",
                (State.COMPLETED, time.time(), size, stored.name, seconds, told, job_id),
            )

    def fail(self, job_id: str, message: str, *, holder: str | None = None) -> None:
        """End a job with the reason, unless another process works on it by now."""
        self._run(
            "UPDATE jobs SET state = ?, error = ?, updated = ?3, ended = ?3, holder = NULL, "
            "version = version + 1 WHERE id = ? AND holder IS ?",
            (State.FAILED, message, time.time(), job_id, holder),
        )

    def forget_segments(self, job_id: str, numbers: Sequence[int]) -> None:
        """Make segments again whose files are gone, and the audio that was made of them."""
        with self._transaction():
            self._run(
                "UPDATE segments SET file = NULL, samples = 0 "
                "WHERE job = ? AND number IN (SELECT value FROM json_each(?))",
                (job_id, json.dumps(numbers)),
            )
            self._run(
                "UPDATE jobs SET stored_bytes = 0, stored_name = NULL, made_seconds = (SELECT "
                "coalesce(sum(samples), 0) / 24000.0 FROM segments WHERE job = jobs.id), "
                "version = version + 1 WHERE id = ?",
                (job_id,),
            )

    def recover(self, job_id: str) -> None:
        """Make rows and files agree: after a kill, or when files were removed by hand.

        Segments whose file is gone or cut are made again; files that no row names are removed.
        """
        folder, segments = self.folder_of(job_id), self.segments(job_id)
        lost = [
            each.number
            for each in segments
            if each.file and _size(folder / each.file) != BYTES_PER_SAMPLE * each.samples
        ]
        if lost:
            self.forget_segments(job_id, lost)
        named = {each.file for each in segments}
        for path in folder.iterdir():
            if path.name not in named and not path.name.startswith("reference-"):
                path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _translated(error: sqlite3.OperationalError) -> GatewayError:
    if error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
        return JobStoreFull("The disk that holds the jobs is full or fails.")
    return JobStoreBusy("The store of jobs is busy; try again later.", retry_after_seconds=5)


def _job(row: sqlite3.Row) -> Job:
    fields = dict(row)
    notes = json.loads(fields["notes"])
    fields |= {
        "state": State(fields["state"]),
        "fields": json.loads(fields["fields"]),
        "notes": Notes(**{**notes, "tags": tuple(notes["tags"])}),
        "chapters": tuple(Chapter(**chapter) for chapter in json.loads(fields["chapters"])),
    }
    return Job(**fields)
