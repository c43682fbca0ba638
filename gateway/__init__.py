"""A self-hosted speech gateway: OpenAI's speech API in front of a Higgs Audio v2 engine.

The straight line of one request, room by room:

    surfaces/   a client's HTTP request  -> SpeechRequest (request.py)
    text/       normalise, split, sanitise; estimate its length
    admission   a slot, or a place in the bounded queue
    upstream/   lease an engine, speak its dialect, parse PCM off the wire
    audio/      tempo, sample rate, encode
    surfaces/   response bytes

speech.py runs that line; engine/ holds processes that speak the container's contract.
"""

__version__ = "0.1.0"
