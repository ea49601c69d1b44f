"""From latents to a settled message: decode, encode, upload, reply, delete, each stage bounded and beside the GPU.

Nothing here may choose what is rendered. Begin with `delivery`.
"""
