"""The settings that ship with the package."""

from cleansteer.core.bundled import bundled_settings
from cleansteer.core.settings import read_setting


def test_every_bundled_setting_is_called_like_its_file() -> None:
    settings = bundled_settings()
    assert list(settings) == sorted(settings)
    assert settings
    for name, path in settings.items():
        assert read_setting(path).name == name
