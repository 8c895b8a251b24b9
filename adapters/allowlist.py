"""Which features may be edited, checked against the setting, the model and the SAE in use."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ..core.checks import check_features
from ..core.errors import InputError
from ..core.records import Allowlist
from ..core.settings import Setting


@dataclass(frozen=True)
class Allowed:
    """Features that may be edited, with the allowlist that names them, if one does."""

    features: list[int] | None
    """Indices, rising; None: all."""
    allowlist: Allowlist | None = None
    name: str = "allowlist"
    """What messages call the allowlist: its path, where it has one."""

    @classmethod
    def by(cls, allowlist: "Allowlist | Path", setting: Setting) -> Self:
        """The features of an allowlist, or of its file, that was made for a setting's model and SAE.

        Raises:
            InputError: no such file, no allowlist, or one for another model or SAE.

        """
        name = "allowlist"
        if isinstance(allowlist, Path):
            name, allowlist = f"allowlist {allowlist}", Allowlist.read(allowlist)
        allowed = cls(check_features(allowlist.features, name), allowlist, name)
        allowed.check_setting(setting)
        return allowed

    def check_setting(self, setting: Setting) -> None:
        """Refuse a setting that names another model or SAE; one given in memory has no name.

        Raises:
            InputError: it does.

        """
        if self.allowlist is None or self.allowlist.sae.in_memory is not None:
            return
        model, sae = self.allowlist.model, self.allowlist.sae
        if model.name != setting.model.name:
            raise InputError(
                f"{self.name} is for model {model.name!r}, the setting's is {setting.model.name!r}; "
                "expected the same; give the allowlist of this setting"
            )
        # Directories may have moved: of these the fingerprint decides.
        source = (setting.sae.release, setting.sae.id)
        if sae.path is None and (sae.release, sae.id) != source:
            raise InputError(
                f"{self.name} is for SAE {sae.label}, the setting's is {setting.sae.label}; expected "
                "the same; give the allowlist of this setting"
            )

    def check_sae(self, fingerprint: str, hook: str) -> None:
        """Refuse another SAE or hook point than the allowlist was made for.

        Raises:
            InputError: it is another.

        """
        if self.allowlist is None:
            return
        self._compare("SAE", self.allowlist.sae.fingerprint, fingerprint)
        if hook != self.allowlist.hook:
            raise InputError(
                f"{self.name} is for {self.allowlist.hook}, the setting's SAE reads {hook}; "
                "expected the same; give the allowlist of this setting"
            )

    def check_model(self, fingerprint: str) -> None:
        """Refuse another model than the allowlist was made for.

        Raises:
            InputError: it is another.

        """
        if self.allowlist is not None:
            self._compare("model", self.allowlist.model.fingerprint, fingerprint)

    def _compare(self, kind: str, expected: str, actual: str) -> None:
        if actual != expected:
            raise InputError(
                f"{self.name} was made for the {kind} of fingerprint {expected}, the setting's has "
                f"{actual}; expected the same; give the allowlist of this setting, or make it anew"
            )
