"""Ways to reach a model, all behind `contract.Engine`. Importing this package imports no model library."""
