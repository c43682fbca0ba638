"""The README and the tables of docs/: what they say is what the code does."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

from gateway.audio.encoders import ENCODERS
from gateway.commands.settings import as_text
from gateway.settings import Settings, variable_name
from gateway.voices.aliases import OPENAI_VOICES
from tests.running import Gateway

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
ADDRESS = "http://127.0.0.1:8888"
# 42: which client sends no model, and further names of models, only an operator can know.
MOST_SETTINGS, MOST_LINES = 40, 200


def _section(name: str) -> str:
    text = (ROOT / "docs" / f"{name}.md").read_text("utf-8")
    return text.split(f"<!-- {name}:begin -->\n")[1].split(f"<!-- {name}:end -->")[0].rstrip()


def _rows(table: str) -> list[list[str]]:
    rows = [line.strip("|").split("|") for line in table.splitlines()[2:]]
    return [[cell.strip().strip("`") for cell in row] for row in rows]


def _snippet(language: str, word: str) -> str:
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return next(snippet for snippet in found if word in snippet)


def test_the_tables_are_those_that_the_script_makes() -> None:
    """Whoever changes a setting runs `scripts/settings_table --write`."""
    made = subprocess.run(
        [sys.executable, ROOT / "scripts" / "settings_table"],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    assert made.rstrip() == _section("settings") + "\n\n" + _section("voices")


def test_every_documented_setting_stands_in_its_table_and_there_are_few() -> None:
    """Name, default and meaning of each, in the order of the class, and no other."""
    rows = _rows(_section("settings"))
    script = runpy.run_path(str(ROOT / "scripts" / "settings_table"), run_name="settings_table")
    undocumented = script["UNDOCUMENTED"]
    assert set(Settings.model_fields) >= undocumented
    documented = {f: i for f, i in Settings.model_fields.items() if f not in undocumented}
    assert len(documented) <= MOST_SETTINGS
    assert [row[0] for row in rows] == [variable_name(field) for field in documented]
    for (_, default, _, meaning), (field, info) in zip(rows, documented.items(), strict=True):
        assert meaning == " ".join((info.description or "").split())
        if field != "voice_aliases":  # its default is the table of voices
            expected = as_text(info.default) if info.default_factory is None else "(user data)"
            assert default == expected


def test_the_13_voices_stand_in_their_table() -> None:
    """With the presets that they mean."""
    assert dict(_rows(_section("voices"))) == OPENAI_VOICES


def test_the_readme_is_short() -> None:
    """What it is, two commands, speak, voices, GPU, measure, where to read on."""
    assert len(README.splitlines()) <= MOST_LINES


def test_every_response_format_stands_in_the_readme() -> None:
    """With its content type."""
    for name, encoder in ENCODERS.items():
        assert re.search(rf"^\| `{name}`.* \| `{encoder.content_type}` \|", README, re.MULTILINE)


def test_every_file_that_the_readme_links_exists() -> None:
    """Links within the repository lead somewhere."""
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in t]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_every_make_target_in_the_readme_exists() -> None:
    """And `make help` lists it."""
    told = subprocess.run(
        ["make", "-s", "help"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=120
    ).stdout
    targets = set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE))
    assert targets
    assert targets - set(re.findall(r"make ([a-z]+)", told)) == set()


def _run_example(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, timeout=120)


def test_the_curl_example_works(gateway: Gateway, tmp_path: Path) -> None:
    """Typed as it stands, it leaves an MP3 file."""
    _run_example(["sh", "-c", _snippet("sh", "curl").replace(ADDRESS, gateway.url)], tmp_path)
    assert (tmp_path / "hello.mp3").read_bytes()[0] == 0xFF  # an MPEG frame's sync


def test_the_python_example_works(gateway: Gateway, tmp_path: Path) -> None:
    """Typed as it stands, it leaves a WAV file."""
    example = _snippet("python", "OpenAI").replace(ADDRESS, gateway.url)
    _run_example([sys.executable, "-c", example], tmp_path)
    assert (tmp_path / "hello.wav").read_bytes().startswith(b"RIFF")
