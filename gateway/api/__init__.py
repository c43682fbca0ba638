"""The APIs that clients speak; the only code that knows their request and response shapes."""
