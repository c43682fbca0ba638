"""PCM in, response formats out: pure code without I/O, asyncio or HTTP."""
