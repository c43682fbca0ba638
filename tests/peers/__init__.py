"""Real servers behind the gateway, with only the model replaced."""
