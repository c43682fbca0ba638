"""Voice samples: decoding, checks and loudness."""
