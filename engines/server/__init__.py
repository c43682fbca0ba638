"""The HTTP side of the engines' contract."""
