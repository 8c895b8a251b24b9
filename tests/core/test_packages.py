"""Checks of what is given."""

import pytest
from cleansteer.core import checks
from cleansteer.core.errors import InputError


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("peft", r"cleansteer\[train\] brings; pip install 'cleansteer\[train\]'$"),
        ("tensorboard", "no extra of cleansteer brings it; pip install tensorboard$"),
    ],
)
def test_the_remedy_brings_the_package(
    name: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=f"package {name} is not installed; .*{told}"):
        checks.check_packages(name)
