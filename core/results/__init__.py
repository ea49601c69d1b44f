"""From a worker's reply to a published picture: replies become commands, temporary objects become public ones.

Nothing here may dispatch; an image that failed goes back to `dispatch` through the log. Begin with `reply_consumer`.
"""
