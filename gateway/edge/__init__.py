"""The checks on a request before a handler sees it: its framing, its Host and Origin, and CORS."""
