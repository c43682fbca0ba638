"""What an engine's refusal says: context figures to act on, and a sentence fit for a log.

An engine's own words may echo the input (docs/contract.md section 2), so they never reach a client
and reach the log only without what the request said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MOST_SENTENCE_CHARACTERS = 300
# vLLM's sentence for a prompt and a bound that exceed the context (docs/contract.md section 2).
_CONTEXT = re.compile(
    r"maximum context length is (\d{1,7}) tokens\. However, you requested \d{1,7} tokens "
    r"\((\d{1,7}) in the messages"
)
_PATH = re.compile(r"(?:[A-Za-z]:)?(?:[\\/][\w.\-]+){2,}|\w+://\S+")
_FOREIGN = re.compile(r"[^\x20-\x7e]+")
_WORD = re.compile(r"\w{3,}")
LEFT_OUT = "[…]"


def context_figures(sentence: str) -> tuple[int, int] | None:
    """The context and the prompt's tokens of a refusal for length, or None for any other."""
    found = _CONTEXT.search(sentence)
    return (int(found[1]), int(found[2])) if found else None


def scrub(sentence: str, texts: Iterable[str]) -> str:
    """An engine's sentence without paths, addresses and words of the request.

    Args:
        sentence: As the engine sent it.
        texts: All that the request said.
    """
    said = {word.casefold() for text in texts for word in _WORD.findall(text)}
    words = _PATH.sub(LEFT_OUT, _FOREIGN.sub(" ", sentence[: 4 * MOST_SENTENCE_CHARACTERS]))
    words = _WORD.sub(lambda word: LEFT_OUT if word[0].casefold() in said else word[0], words)
    words = re.sub(r"(?:\[…\]\W*){2,}", LEFT_OUT + " ", words)
    return " ".join(words.split())[:MOST_SENTENCE_CHARACTERS]
