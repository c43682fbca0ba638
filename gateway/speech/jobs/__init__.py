"""Long texts as jobs."""
