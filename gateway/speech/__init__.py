"""The straight line from a speech request to encoded audio."""
