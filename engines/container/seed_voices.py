"""Copy the image's own voice presets into an empty folder: `seed_voices.py FOLDER OWNER`.

It runs inside the engine's image, before the engine: with `--voice-presets-dir` the engine reads
that folder instead of its own, so it must hold the image's eight presets first. A folder that has
a `config.json` is left as it is, except that the gateway, who adds voices, comes to own it.
"""

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

INSIDE_PACKAGE = Path("entrypoints", "bosonai", "voice_presets")  # docs/contract.md section 5
CONFIG = "config.json"


def candidates() -> Iterator[Path]:
    """Where the presets may lie: beside the code, else anywhere on the disk."""
    found = importlib.util.find_spec("vllm")
    for folder in (found.submodule_search_locations or []) if found else []:
        yield Path(folder) / INSIDE_PACKAGE
    for top in ("/usr/local/lib", "/usr/lib", "/opt", "/vllm-workspace"):
        yield from (path.parent for path in Path(top).rglob(f"voice_presets/{CONFIG}"))


def seed(folder: Path, source: Path) -> int:
    """Copy `source` into `folder`, the list of voices last; return the number of files."""
    files = [path for path in source.iterdir() if path.is_file() and path.name != CONFIG]
    for path in files:
        shutil.copyfile(path, folder / path.name)
    # With the list in place the folder counts as seeded: a copy cut short is done again.
    shutil.copyfile(source / CONFIG, folder / f".{CONFIG}")
    (folder / f".{CONFIG}").rename(folder / CONFIG)
    return len(files) + 1


def main() -> None:
    """Seed the folder where it is empty, and give it to its owner."""
    folder, owner = Path(sys.argv[1]), int(sys.argv[2])
    if (folder / CONFIG).exists():
        print(f"{folder} has its voices")
    else:
        source = next((path for path in candidates() if (path / CONFIG).is_file()), None)
        if source is None:
            sys.exit("no voice_presets/config.json in this image: put voices into the volume")
        print(f"{seed(folder, source)} files from {source} to {folder}")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner, owner)


if __name__ == "__main__":
    main()
