"""The deployment, on a real Docker engine."""
