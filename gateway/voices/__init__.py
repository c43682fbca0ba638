"""Voices by name: what a client's word for a voice means on the upstreams."""
