"""What happens to text before it reaches an engine: pure code without I/O, asyncio or HTTP."""
