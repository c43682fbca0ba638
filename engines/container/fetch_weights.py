"""Download the repositories that the engine's image loads, by commit, before the engine starts.

Runs inside the engine's image and uses its huggingface_hub: `fetch_weights.py`, settings from the
environment. The hub's `main` branches hold another layout since 2026-04-04, which the image cannot
load (docs/contract.md section 7). Afterwards the cache holds:

- `snapshots/COMMIT`: a link to each repository's files, which the engine gets as a folder;
- `hub/models--bosonai--hubert_base/refs/main`: the commit of the repository that the engine loads
  by name, so that it finds it offline;
- `weights.lock.json`: the commit of each repository that is complete.
"""

import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

# The bars of huggingface_hub end no line: a container's log would not show them.
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

HUBERT = "bosonai/hubert_base"  # the codec loads it by this name, without a revision
COMMIT = re.compile(r"[0-9a-f]{40}")
LICENCE = (
    "The weights are not under this project's licence: they are Boson AI's, under the Boson Higgs "
    "Audio 2 Community License. Read it before you use them: {endpoint}/{model}"
)
DIGEST = (
    "The digest that was pulled, to pin HIGGS_IMAGE by: "
    "docker image inspect --format '{{{{.RepoDigests}}}}' {image}"
)
PROGRESS_SECONDS = float(os.environ.get("WEIGHTS_PROGRESS_SECONDS", "10"))
TRIES = 5
PAUSE_SECONDS = float(os.environ.get("WEIGHTS_PAUSE_SECONDS", "10"))
GIGABYTE = 1e9


class WeightsError(Exception):
    """The weights cannot be had; the message is one sentence that says what to do."""


class Repository(NamedTuple):
    """A repository of the hub.

    Attributes:
        name: OWNER/NAME.
        variable: The setting that names its commit.
        commit: The commit, or empty for the one that is locked, else the hub's newest.
        missing: Says of a folder what the engine's loader would miss in it, or nothing.
    """

    name: str
    variable: str
    commit: str
    missing: Callable[[Path], str]

    @property
    def folder(self) -> Path:
        """Where the cache keeps it."""
        return Path(constants.HF_HUB_CACHE, "models--" + self.name.replace("/", "--"))


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def missing_in_model(folder: Path) -> str:
    """What the generation model lacks: its shards, or the layout that the image knows."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if str(config.get("model_type", "")).startswith("higgs_audio_v2"):
        return "its config.json is of the newer layout (model_type higgs_audio_v2)"
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return "" if (folder / "model.safetensors").exists() else "it has no model.safetensors"
    shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return next((f"it has no {shard}" for shard in shards if not (folder / shard).exists()), "")


def missing_in_codec(folder: Path) -> str:
    """What the codec lacks: its loader reads `model.pth`, and nothing else will do."""
    if not (folder / "model.pth").exists():
        return "it has no model.pth, which the image's loader reads: it is of the newer layout"
    return "" if (folder / "config.json").exists() else "it has no config.json"


def missing_in_hubert(folder: Path) -> str:
    """What the semantic model lacks."""
    if not (folder / "config.json").exists():
        return "it has no config.json"
    files = ("model.safetensors", "pytorch_model.bin")
    return "" if any((folder / name).exists() for name in files) else "it has no weights"


def repositories(environment: Mapping[str, str]) -> list[Repository]:
    """The three that the image loads.

    Raises:
        WeightsError: A setting is missing, or names no commit.
    """
    variables = ("HIGGS_MODEL_REVISION", "HIGGS_AUDIO_TOKENIZER_REVISION", "HIGGS_HUBERT_REVISION")
    names = (environment.get("HIGGS_MODEL"), environment.get("HIGGS_AUDIO_TOKENIZER"), HUBERT)
    checks = (missing_in_model, missing_in_codec, missing_in_hubert)
    found = []
    for name, variable, check in zip(names, variables, checks, strict=True):
        if not name:
            raise WeightsError("HIGGS_MODEL and HIGGS_AUDIO_TOKENIZER must name repositories")
        repository = Repository(name, variable, environment.get(variable, ""), check)
        found.append(repository)
        if not COMMIT.fullmatch(repository.commit) and (repository.commit or name != HUBERT):
            raise WeightsError(
                f"{repository.variable}={repository.commit} is no commit of 40 hexadecimal digits: "
                "a branch moves, and the image loads one layout alone"
            )
    return found


def locked(home: Path) -> dict[str, str]:
    """The commit of each repository that was fetched whole."""
    try:
        read = json.loads((home / "weights.lock.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def replace(path: Path, text: str) -> None:
    """Write a file so that no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    new.rename(path)


def commit_of(repository: Repository, lock: Mapping[str, str]) -> str:
    """The commit to fetch: the setting's, else the locked one, else the hub's, else the cache's.

    Raises:
        WeightsError: None of them is known.
    """
    chosen = repository.commit or lock.get(repository.name, "")
    if chosen:
        return chosen
    try:
        return str(HfApi().model_info(repository.name).sha)
    except Exception as error:  # noqa: BLE001  (each version of the library has other ones)
        main = repository.folder / "refs" / "main"
        if main.exists():
            return main.read_text(encoding="utf-8").strip()
        raise WeightsError(
            f"the newest commit of {repository.name} cannot be asked of {constants.ENDPOINT} "
            f"({_first_line(error)}): set {repository.variable}, or HF_TOKEN where it wants one"
        ) from None


def lacks(repository: Repository, commit: str) -> str:
    """What the loader would miss of a commit in the cache; empty where nothing."""
    folder = repository.folder / "snapshots" / commit
    if not folder.is_dir():
        return "it is not in the cache"
    try:
        return repository.missing(folder)
    except (OSError, ValueError, LookupError) as error:
        return f"it cannot be read ({error})"


class Progress:
    """Prints now and then how much of a repository is on the disk.

    Args:
        repository: Which.
        total_bytes: Its size.
    """

    def __init__(self, repository: Repository, total_bytes: int) -> None:
        self._repository = repository
        self._total_bytes = total_bytes
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        """Begin."""
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        """End."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        before = on_disk_bytes(self._repository)
        while not self._ended.wait(PROGRESS_SECONDS):
            now = on_disk_bytes(self._repository)
            say(
                f"{self._repository.name}: {now / GIGABYTE:.2f} of "
                f"{self._total_bytes / GIGABYTE:.2f} GB, "
                f"{max(0, now - before) / PROGRESS_SECONDS / 1e6:.0f} MB/s"
            )
            before = now


def on_disk_bytes(repository: Repository) -> int:
    """Size of what the cache holds of a repository, unfinished files included."""
    total = 0
    for path in (repository.folder / "blobs").glob("*"):
        try:
            total += path.stat().st_blocks * 512  # an unfinished file may have its full length
        except OSError:
            continue
    return total


def fetch(repository: Repository, commit: str) -> None:
    """Download what the cache lacks of a commit.

    Raises:
        WeightsError: There is no room.
        OSError: The hub cannot be reached, or refuses.
    """
    files = HfApi().model_info(repository.name, revision=commit, files_metadata=True).siblings
    total = sum(file.size or 0 for file in files or ())
    repository.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(repository.folder).free
    wanted = total - on_disk_bytes(repository)
    if wanted > free:
        raise WeightsError(
            f"{repository.name} needs {wanted / GIGABYTE:.1f} GB more, and the disk of "
            f"{constants.HF_HOME} has {free / GIGABYTE:.1f} GB free"
        )
    say(f"{repository.name}: fetching {total / GIGABYTE:.2f} GB of commit {commit}")
    with Progress(repository, total):
        snapshot_download(repository.name, revision=commit)


def fetch_patiently(repository: Repository, commit: str) -> None:
    """Download, going on where a connection broke.

    Raises:
        WeightsError: It cannot be had.
    """
    for tried in range(1, TRIES + 1):
        try:
            fetch(repository, commit)
        except RepositoryNotFoundError:  # also where its licence must be accepted first
            raise WeightsError(
                f"{constants.ENDPOINT} does not give {repository.name} to you: accept its licence "
                "there, and set HF_TOKEN to a token of your account"
            ) from None
        except RevisionNotFoundError:
            raise WeightsError(
                f"{repository.name} has no commit {commit}: check {repository.variable}"
            ) from None
        except WeightsError:
            raise
        except Exception as error:  # noqa: BLE001  (each version of the library has other ones)
            say(f"{repository.name}: {_first_line(error)} (try {tried} of {TRIES})")
        else:
            return
        time.sleep(PAUSE_SECONDS if tried < TRIES else 0)
    raise WeightsError(
        f"{repository.name} could not be fetched from {constants.ENDPOINT}; HF_ENDPOINT names "
        "another one. What was fetched is kept, and a later start goes on from there"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def provide(repository: Repository, home: Path) -> str:
    """Have one repository in the cache, whole, with its link; return its commit.

    Raises:
        WeightsError: It cannot be had, or is not what the image loads.
    """
    commit = commit_of(repository, locked(home))
    # A cache that was filled elsewhere holds it whole, whatever the lock says.
    if lacks(repository, commit):
        fetch_patiently(repository, commit)
    reason = lacks(repository, commit)
    if reason:
        raise WeightsError(f"{repository.name} at {commit} does not fit the image: {reason}")
    link = home / "snapshots" / commit
    link.parent.mkdir(parents=True, exist_ok=True)
    target = os.path.relpath(repository.folder / "snapshots" / commit, link.parent)
    if not link.is_symlink() or str(link.readlink()) != target:
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    if repository.name == HUBERT:
        replace(repository.folder / "refs" / "main", commit)
    replace(
        home / "weights.lock.json",
        json.dumps({**locked(home), repository.name: commit}, indent=2) + "\n",
    )
    say(f"{repository.name}: commit {commit} is complete")
    return commit


def main() -> None:
    """Provide all of them."""
    home = Path(constants.HF_HOME)
    try:
        wanted = repositories(os.environ)
        if image := os.environ.get(
            "HIGGS_IMAGE"
        ):  # Compose names it; nothing in it knows its digest
            say(DIGEST.format(image=image))
        say(LICENCE.format(endpoint=constants.ENDPOINT, model=wanted[0].name))
        for repository in wanted:
            provide(repository, home)
    except WeightsError as error:
        sys.exit(f"weights: {error}")
    except OSError as error:
        sys.exit(f"weights: {_first_line(error)}")


if __name__ == "__main__":
    main()
