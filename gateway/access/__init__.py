"""Who may do what: keys, limits and the middleware that asks for them."""
