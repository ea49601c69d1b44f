"""What counts as an integer in JSON: gateway and engine server read their requests by the same rule."""


def whole(value: object) -> object:
    """A float without a fraction as an int; any other value unchanged.

    JSON has one kind of number, and JSON Schema counts 256.0 and 1e2 as integers; serialisers that know only floats
    write them so. A double holds every integer below 2^53 exactly, which is the range used here.
    """
    return int(value) if isinstance(value, float) and value.is_integer() else value
