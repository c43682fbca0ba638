"""Routes of travisvn's Chatterbox server."""
