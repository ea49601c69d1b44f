"""A stretch of the GPU thread's work on images of one batch key, and what it reports to the event loop.

Nothing here may await, or know queues and stores. Begin with `mailbox`, which says who may touch what, then `stepper`.
"""
