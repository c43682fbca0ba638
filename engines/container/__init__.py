"""The engine's container, through the Docker SDK, for people without Compose.

The serving path never touches the Docker socket; only the command `speech-gateway container` does.
`fetch_weights.py`, `seed_voices.py` and `engine_health.py` run inside the engine's image.
"""
