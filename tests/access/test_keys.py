"""Keys: how they are written, kept, compared and exchanged."""

from __future__ import annotations

import argparse
import hashlib
import hmac
import logging
import os
import stat
from pathlib import Path

import pytest

from gateway.access.keys import (
    MOST_FILE_BYTES,
    MOST_KEYS,
    RELOAD_SECONDS,
    Key,
    KeyRing,
    digest_of,
    file_line,
    new_key,
    parse_file,
    parse_keys,
    read_key_file,
)
from gateway.access.rate_limits import Limits
from gateway.commands.keys import run_keys
from gateway.commands.main import build_parser
from gateway.commands.settings import describe
from gateway.settings import SettingsError, load_settings

SECRET = "sg-correct-horse-battery-staple"  # noqa: S105  (what the tests look for)
BASE64 = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA="


class Clock:
    """A clock that goes when it is told."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.seconds


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("GATEWAY_"):
            monkeypatch.delenv(name)


def ring(text: str) -> KeyRing:
    """A ring of keys from the environment."""
    return KeyRing(parse_keys(text))


def name_of(found: Key | None) -> str | None:
    """The name of a found key."""
    return found.name if found else None


@pytest.mark.parametrize(
    ("text", "shown", "name"),
    [
        ("k1", b"k1", "key-1"),
        ("k1, bob = k2 ".replace(" = ", "="), b"k2", "bob"),
        ("alice=a=b=", b"a=b=", "alice"),
        (BASE64, BASE64.encode(), "key-1"),
        (f"alice={BASE64}", BASE64.encode(), "alice"),
        (f"alice=sha256:{hashlib.sha256(b'k').hexdigest()}", b"k", "alice"),
        (f"sha256:{hashlib.sha256(b'k').hexdigest().upper()}", b"k", "key-1"),
    ],
)
def test_a_key_is_written_alone_or_behind_its_name(text: str, shown: bytes, name: str) -> None:
    """An entry is cut at its first equals sign; base64's own at the end belong to the key."""
    assert name_of(ring(text).find(shown)) == name


@pytest.mark.parametrize(
    "text",
    [
        "alice=",
        "alice==",
        "=secret-value",
        "al ice=secret-value",
        "anonymous=secret-value",
        "alice=secret value",
        "alice=sécret-value",
        "x" * 300,
        "a" * 65 + "=secret-value",
        ",",
        ",".join(f"k{i}" for i in range(MOST_KEYS + 1)),
    ],
)
def test_a_list_that_cannot_be_meant_stops_the_start_without_showing_a_key(text: str) -> None:
    """A forgotten key must not become a guessable one, and an error goes to logs."""
    with pytest.raises(SettingsError, match="GATEWAY_API_KEYS: ") as caught:
        load_settings(api_keys=text)
    assert "secret" not in str(caught.value)
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    "shown",
    [
        b"",
        SECRET.encode()[:-1],
        SECRET.encode()[1:],
        SECRET.encode() + b"x",
        SECRET.upper().encode(),
        SECRET.encode() + b"\x00",
        b"\xff\xfe" + SECRET.encode(),
        SECRET.encode() * 4000,
        digest_of(SECRET.encode()),
        b"sha256:" + digest_of(SECRET.encode()).hex().encode(),
        f"alice={SECRET}".encode(),
    ],
)
def test_only_the_very_key_fits(shown: bytes) -> None:
    """No prefix, other case or padding; nor the hash, which a stolen file would give away."""
    assert ring(f"alice={SECRET}").find(shown) is None


def test_every_key_is_compared_with_even_after_one_has_fitted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The time of an answer does not tell where in the list a key stands."""
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert name_of(ring("a=1,b=2,c=3").find(b"1")) == "a"
    assert compared == [(32, 32)] * 3


def test_keys_are_shown_nowhere() -> None:
    """Neither settings nor their repr, nor those of the keys made of them, hold any."""
    settings = load_settings(api_keys=f"alice={SECRET},root={BASE64} admin")
    shown = f"{describe(settings)} {settings!r} {settings.key_ring().keys!r}"
    digest = digest_of(SECRET.encode())
    for part in (SECRET, BASE64, digest.hex(), repr(digest)[2:-1]):
        assert part not in shown
    assert "alice" in shown
    assert describe(settings)["GATEWAY_API_KEYS"] == "********"


def test_two_keys_of_one_name_are_one_caller_while_one_replaces_the_other() -> None:
    """Both fit, so that clients can change over; but they may not differ in what they open."""
    both = ring("alice=old,alice=new")
    assert name_of(both.find(b"old")) == name_of(both.find(b"new")) == "alice"
    with pytest.raises(SettingsError, match="alice"):
        load_settings(api_keys="alice=one,alice=two admin")


def test_a_key_may_have_rights_and_limits_behind_it() -> None:
    """As in the keys file; one without a name may have them, too."""
    keys = ring("alice=k1 requests_per_minute=5, k2 admin")
    alice, root = keys.find(b"k1"), keys.find(b"k2")
    assert alice is not None
    assert root is not None
    assert (alice.admin, alice.limits) == (False, Limits(5))
    assert (root.name, root.admin) == ("key-2", True)


def test_a_key_that_stands_twice_is_refused() -> None:
    """Which rights it has must not depend on the order."""
    with pytest.raises(SettingsError, match="twice"):
        load_settings(api_keys="alice=same,bob=same admin")


def test_a_file_holds_hashes_rights_and_limits() -> None:
    """Comments and empty lines are for people."""
    text = "# staff\n\n" + file_line("alice", "k1") + "\r\n"
    text += file_line("root", "k2", admin=True, limits=Limits(60, 0.5)) + "\n"
    assert "k1" not in text
    alice, root = parse_file(text.encode())
    assert (alice.name, alice.admin, alice.limits) == ("alice", False, Limits())
    assert (root.name, root.admin, root.limits) == ("root", True, Limits(60, 0.5))


@pytest.mark.parametrize(
    "line",
    [
        b"alice=plain-secret",
        b"plain-secret",
        b"alice=sha256:" + b"0" * 63,
        b"alice=sha256:" + b"0" * 64 + b" adm",
        b"alice=sha256:" + b"0" * 64 + b" requests_per_minute=",
        b"alice=sha256:" + b"0" * 64 + b" requests_per_minute=-1",
        b"alice=sha256:" + b"0" * 64 + b" requests_per_minute=nan",
        b"anonymous=sha256:" + b"0" * 64,
        b"\xff\xfe\x00",
    ],
)
def test_a_wrong_file_is_refused_at_the_start_without_showing_it(
    line: bytes, tmp_path: Path
) -> None:
    """A plain key in the file is a mistake that is told before it is used."""
    path = tmp_path / "keys"
    path.write_bytes(b"# first\n" + line + b"\n")
    with pytest.raises(SettingsError, match="GATEWAY_API_KEYS_FILE: ") as caught:
        load_settings(api_keys_file=str(path))
    assert "plain-secret" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_plain_file_stops_the_start(tmp_path: Path) -> None:
    """A gateway that was to be guarded never starts unguarded."""
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing", "pipe", "."):
        with pytest.raises(SettingsError, match="GATEWAY_API_KEYS_FILE: "):
            load_settings(api_keys_file=str(tmp_path / name))


def test_an_empty_file_guards_with_no_key_at_all(tmp_path: Path) -> None:
    """No key is not the same as no guard."""
    path = tmp_path / "keys"
    path.touch()
    settings = load_settings(api_keys_file=str(path))
    assert settings.guarded
    assert settings.key_ring().keys == ()


def test_a_changed_file_is_taken_up_within_a_second(tmp_path: Path) -> None:
    """New keys open, taken back ones do not, and those of the environment stay."""
    path, clock = tmp_path / "keys", Clock()
    path.write_text(file_line("alice", "k1") + "\n")
    keys = KeyRing(parse_keys("root=k0 admin"), path, clock)
    path.write_text(file_line("bob", "k2") + "\n")  # of the same size, in the same moment
    assert not keys.reload(), "the file was looked at more than once a second"
    clock.seconds += RELOAD_SECONDS
    assert keys.reload()
    assert [name_of(keys.find(key)) for key in (b"k0", b"k1", b"k2")] == ["root", None, "bob"]
    clock.seconds += RELOAD_SECONDS
    assert not keys.reload(), "nothing has changed"


def test_a_torn_or_lost_file_keeps_the_keys_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An editor that is still writing locks nobody out, and lets nobody in."""
    path, clock = tmp_path / "keys", Clock()
    line = file_line("alice", "k1") + "\n"
    path.write_text(line)
    keys = KeyRing((), path, clock)
    for torn in (line[:40], "", line + "bob=k2\n", None):
        if torn is None:
            path.unlink()
        else:
            path.write_text(torn)
        caplog.clear()
        for _ in range(3):
            clock.seconds += RELOAD_SECONDS
            assert not keys.reload()
        assert name_of(keys.find(b"k1")) == "alice"
        assert [r.levelno for r in caplog.records] == [logging.ERROR]
        assert "k2" not in caplog.text
    path.write_text("# nobody\n")
    clock.seconds += RELOAD_SECONDS
    assert keys.reload()
    assert keys.find(b"k1") is None


def parsed(*words: str) -> argparse.Namespace:
    """`speech-gateway keys new` with arguments."""
    return build_parser().parse_args(["keys", "new", *words])


def test_a_new_key_is_shown_once_with_the_line_that_stands_for_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The key works, the line does not tell it, and no two are the same."""
    assert run_keys(parsed("alice", "--admin", "--requests-per-minute", "60")) == 0
    key, line = capsys.readouterr().out.split("\n", 1)
    (made,) = parse_file(line.encode())
    assert KeyRing([made]).find(key.encode()) == made
    assert (made.name, made.admin, made.limits) == ("alice", True, Limits(60))
    assert key not in line
    assert len(key) > 40
    assert new_key() != new_key()


def test_a_new_key_is_appended_to_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only its owner may read the file; a last line without its end is ended first."""
    path = tmp_path / "keys"
    assert run_keys(parsed("alice", "--file", str(path))) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert run_keys(parsed("bob", "--file", str(path))) == 0
    shown = capsys.readouterr().out.split()
    keys = KeyRing((), path)
    assert [name_of(keys.find(key.encode())) for key in shown] == ["alice", "bob"]


def test_a_second_key_of_a_name_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is how a key is exchanged, and may be a mistake."""
    path = str(tmp_path / "keys")
    assert run_keys(parsed("alice", "--file", path)) == 0
    assert capsys.readouterr().err == ""
    assert run_keys(parsed("alice", "--file", path)) == 0
    assert "2 keys are named alice now" in capsys.readouterr().err


def test_a_file_of_something_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistaken path destroys nothing, and shows no key that would not work."""
    path = tmp_path / "letter"
    path.write_text("Dear reader,\n")
    for words in (["alice", "--file", str(path)], ["no name"], ["a", "--requests-per-minute=-1"]):
        assert run_keys(parsed(*words)) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert len(told.err.splitlines()) == 1
    assert path.read_text() == "Dear reader,\n"


@pytest.mark.parametrize("excess", [0, 1])
def test_a_file_is_read_up_to_a_bound(tmp_path: Path, excess: int) -> None:
    """A wrong path, such as that of a recording, is told, and not read into memory."""
    path = tmp_path / "keys"
    path.write_bytes(b"#" * (MOST_FILE_BYTES + excess))
    if excess:
        with pytest.raises(ValueError, match="is above"):
            read_key_file(path)
    else:
        assert len(read_key_file(path)) == MOST_FILE_BYTES
