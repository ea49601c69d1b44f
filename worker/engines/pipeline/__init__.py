"""Any diffusers pipeline as it is, one call for a batch of equal requests.

Nothing here may change what a stock pipeline draws. Begin with `engine`; `capabilities` says what a model can do.
"""
