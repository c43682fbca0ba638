"""Shapes of load, one a file: locust takes what it finds in the files that are named to it."""
