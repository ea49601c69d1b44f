"""The GPU's loop: which images share the next step, on which model, and the record of what each one cost.

Nothing here may receive, upload or delete. Begin with `loop`, then `session` (one batch key's running batch).
"""
