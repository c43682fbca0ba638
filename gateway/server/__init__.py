"""What surrounds uvicorn: connections, shutdown and the engine process."""
