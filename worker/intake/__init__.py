"""Prefetching: how many messages to receive ahead of the GPU, and what becomes of each.

Nothing here may touch the GPU. Begin with `receiver`, then `prefetch` and `job_intake`.
"""
