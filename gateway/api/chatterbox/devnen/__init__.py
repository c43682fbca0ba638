"""Routes of devnen's Chatterbox server."""
