"""What counts as an integer in JSON: gateway and engine server read their requests by the same rule."""


def whole(value: object) -> object:
    """A float without a fraction as the integer it is, anything else as it is.

    JSON has one kind of number, and JSON Schema counts 256.0 and 1e2 as integers; serialisers that know only floats
    write them so. A double that stands for an integer of ours (below 2^53) is exact.
    """
    return int(value) if isinstance(value, float) and value.is_integer() else value
