"""What at least two processes share and what is not product. Imports nothing of ours outside this package."""
