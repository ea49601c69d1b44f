"""The service that clients talk to: the REST API over core's gRPC API, and the pictures. It keeps no state of its own.

Rooms: `routes` (the operations), `models` (what is said in JSON), `edge` (what a request must be), `pictures`,
`core_client` and `server`. Begin with `routes.generations`.
"""
