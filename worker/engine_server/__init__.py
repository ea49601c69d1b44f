"""`python -m worker engine-server`: one model of the models file, served to other processes.

`over_uds` lets one worker drive the engine step by step; `over_http` takes requests of many callers, which `driver`
batches. The other ends are `worker.engines.child_process.engine` and `worker.engines.http.engine`.
"""
