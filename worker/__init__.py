"""The service that renders: it prefetches image jobs, batches them on the GPU step by step, and delivers the pictures.

Rooms, each may import those before it: `engines`, `batching`, `holding`, `output`, `gpu`, `intake`; `assembly` joins
them, and `app` opens the real adapters behind `ports`. Begin with `gpu`.
"""
