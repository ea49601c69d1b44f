"""The step-level engine: images join and leave a running batch between two denoising steps.

Nothing here may know jobs, queues or deadlines. Begin with `engine`, then `denoiser`.
"""
