"""The HTTP server below the routes: the sockets it listens on, and its connections with their limits.

Nothing here may know what a generation is. Begin with `listener`; `aiohttp_private` has what is private to aiohttp.
"""
