"""What clients send and get, as pydantic models: the validation and the documentation are made of the same ones."""
