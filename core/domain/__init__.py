"""The rules of a generation, without I/O, clock or randomness: events, commands, states, and what follows from them.

Nothing here may import asyncio, a log, or another room of core. Begin with `state` (what an image goes through), then
`decide` (which event a command becomes) and `transaction` (what one append makes durable).
"""
