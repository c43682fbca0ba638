"""The engine's container, through the Docker SDK, for people without Compose.

The serving path never needs the Docker socket; only the command `speech-gateway container` and,
where `GATEWAY_CONTAINER` names one, a watcher beside it use this room.
"""
