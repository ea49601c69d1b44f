"""Erasing generations for good: on request, by operators and by retention, and the deletion of their objects.

Nothing here may decide what a client sees. Begin with `eraser`, then `object_deletions`.
"""
