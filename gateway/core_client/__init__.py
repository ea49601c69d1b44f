"""The gateway's side of core's gRPC API: calls with deadlines, coalesced submissions, lanes per kind of call.

Nothing here may know HTTP. Begin with `client`.
"""
