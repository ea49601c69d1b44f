"""Code that at least two processes share and that is no product logic. Imports none of our other packages."""
