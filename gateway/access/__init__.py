"""Authentication, authorisation and rate limits of requests."""
