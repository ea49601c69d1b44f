"""The service that clients talk to: the REST API over core's gRPC API, and the pictures. It keeps no state of its own.

Packages, each of which imports only those before it: `edge` (checks on a request before a handler sees it),
`access` (keys and limits), `server` (sockets and connections), `pictures`, `core_client`, `bodies` (JSON),
`served_models` and `routes` (the operations). Begin with `routes.generations`.
"""
