"""What is known of the models behind the API: what the models file allows, and what workers report through core.

Nothing here may know HTTP. Begin with `reports`.
"""
