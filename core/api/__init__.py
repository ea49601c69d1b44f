"""Core's gRPC API: submit, get, list, cancel, erase, still-wanted, and the views that clients are shown.

Rules live in `core.domain`, not here. Begin with `service`; `grpc_api` is the thin shell that speaks protobuf.
"""
