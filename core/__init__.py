"""The service that owns the event log: it accepts generations, dispatches their images, publishes their pictures.

Rooms, each may import those before it: `domain`, `log`, `runtime`, `dispatch`, `results`, `erasure`, `api`; `assembly`
joins them, and `app` opens the real adapters behind `ports`. Begin with `domain.state`.
"""
