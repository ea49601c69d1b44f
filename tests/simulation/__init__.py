"""The production core and workers under a seeded virtual-time loop, with everything around them simulated and faulty.

One seed is one run, to the last event. `python -m tests.simulation --schedules N --seed S` runs many.
"""
