"""What the local stack reads from the logs of its services."""

import pytest

from core.domain import provenance
from core.log import files
from infra.local import tail


@pytest.mark.parametrize(
    ("advice", "recipes"),
    [
        (files.PUT_BACK, ["just restore FILE", "just init"]),
        (provenance.GO_ON, ["just backup FILE", "just restore FILE --replace"]),
    ],
)
def test_commands_that_core_advises_are_told_as_recipes_of_the_stack(advice: str, recipes: list[str]) -> None:
    said = tail.config_error_text(f"darkroom: the event log x is away: {advice}")
    assert "python -m core" not in said
    assert all(f"`{each}`" in said for each in recipes)


def test_only_what_a_service_says_of_its_settings_is_a_complaint() -> None:
    assert tail.config_error_text("something `python -m core init`") == ""
