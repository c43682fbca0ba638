"""Engines that make audio: their addresses, health, dialects and wire formats."""
