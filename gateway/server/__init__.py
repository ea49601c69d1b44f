"""The HTTP server below the routes: listening, connections, overload, and the middleware around every request.

Nothing here may know what a generation is. Begin with `middleware`.
"""
