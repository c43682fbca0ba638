"""The voice library in the folder that the engine reads."""
