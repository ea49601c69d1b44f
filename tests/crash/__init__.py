POISONED_SEED = 666
"""What the poisoned worker dies of."""
