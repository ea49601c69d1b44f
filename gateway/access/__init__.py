"""Who may call, how often, and how many requests at once: API keys, rate limits, and the limit on requests in flight.

Nothing here may import aiohttp or know a route. Begin with `keys`.
"""
