"""The operations of the public API, in the order in which the documentation lists them."""

from gateway.operations import Operation
from gateway.routes import catalogue, docs, generations, health, images, index

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
