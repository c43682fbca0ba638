"""The dialects: a new one is a file beside `higgs.py` and `openai.py`, and a row here."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.upstream.detection import Answers, Found, Recognise
from gateway.upstream.higgs import recognise_higgs
from gateway.upstream.openai import recognise_openai

# By the name in GATEWAY_UPSTREAMS; the first one that an address is recognised by holds.
DIALECTS: Mapping[str, Recognise] = {
    "higgs": recognise_higgs,
    "openai": recognise_openai,
}


def split_address(address: str) -> tuple[str | None, str]:
    """The dialect that an entry of GATEWAY_UPSTREAMS names (`openai+http://…`), and its address."""
    for name in DIALECTS:
        if address.startswith(name + "+"):
            return name, address[len(name) + 1 :]
    return None, address


def identify(address: str, named: str | None, answers: Answers) -> Found | None:
    """What an address is, or None where nothing tells a speech engine.

    Args:
        address: Without a dialect's name.
        named: The dialect that the settings name.
        answers: What it answered.
    """
    found = (
        recognise(address, answers, named=name == named)
        for name, recognise in DIALECTS.items()
        if named in {None, name}
    )
    return next(filter(None, found), None)
