"""What a request must be before any handler sees it: its framing, its Host and Origin, and CORS."""
