"""From a decoded picture to a settled message: encode, upload, reply, delete; bounded stages that overlap rendering.

Nothing here may choose what is rendered. Begin with `delivery`.
"""
