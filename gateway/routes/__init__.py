"""The operations of the public API, in the order in which the documentation lists them, and what surrounds them.

`middleware` runs around every handler; `context` is what handlers are given; `openapi` describes the operations.
Nothing here may know gRPC or sockets. Begin with `generations`.
"""

from gateway.routes import catalogue, docs, generations, health, images, index
from gateway.routes.operations import Operation

OPERATIONS: tuple[Operation, ...] = (
    generations.create,
    generations.list_page,
    generations.get,
    generations.cancel,
    generations.erase,
    images.get,
    catalogue.list_models,
    health.healthz,
    health.readyz,
    index.index,
    docs.openapi,
    docs.page,
    docs.asset,
)
