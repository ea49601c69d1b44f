"""The service that owns the event log: it accepts generations, dispatches their images, publishes their pictures.

Its rooms, each of which may import only those before it: `domain`, `log`, `runtime`, `dispatch`, `results`, `erasure`,
`api`. `assembly` wires them together, and `app` builds the real adapters behind `ports`. Begin with `domain.state`.
"""
