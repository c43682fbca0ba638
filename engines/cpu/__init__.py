"""The CPU voice."""
