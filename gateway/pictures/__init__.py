"""Pictures over HTTP: signed URLs, ranges, and streams from the store in bounded memory."""
