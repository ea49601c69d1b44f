"""A tiny text-to-image model of coloured shapes: its weights, its training, and the checker of its pictures.

The worker loads `weights/` like any other diffusers folder; tests use `checker` to see whether a picture is the
one that its prompt asked for. Nothing here knows of queues, stores or the worker itself.
"""
