"""HTTP: reads a request, calls `app`, shapes the answer. No pixels, no storage."""
