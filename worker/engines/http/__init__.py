"""Any model server with an OpenAI-style images endpoint as an engine.

Nothing here may load weights. Begin with `engine`; `judge` decides what a failed call means.
"""
