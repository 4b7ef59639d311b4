"""Sources: where an original comes from. An id in the object store, or a URL."""
