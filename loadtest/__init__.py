"""Load tests and measurements, each a module to run with `python -m loadtest.NAME`."""
