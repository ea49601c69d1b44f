"""The JSON of requests and answers: pydantic models that validate and document it, and the way to and from bytes.

Nothing here may decide anything or call core. Begin with `requests`; `views` makes the body of a generation.
"""
