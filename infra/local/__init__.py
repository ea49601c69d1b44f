"""The whole of darkroom on this machine: `python -m infra.local up | down | status | demo PROMPT`.

An emulator of SQS and S3 on loopback with its data on disk, core, workers and gateways, kept alive by supervisord.
It starts the services as programs and imports none of them.
"""
