"""The contract between darkroom's processes: messages, their envelope, their limits. No logic, no I/O."""
