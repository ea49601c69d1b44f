"""The names that a request's `scheduler` may have, for every process. Each model takes some of them."""

NAMES = ("ddim", "euler", "dpmpp_2m", "flow_euler", "flow_dpmpp_2m")
"""The first three are for models that predict noise or velocity, the others for flow matching."""
