"""Which features may be edited, checked against the model and the SAE in use."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from torch import Tensor

from ..core.checks import check_features
from ..core.errors import InputError
from ..core.networks import fingerprint_contents, fingerprint_tensors
from ..core.records import Allowlist


@dataclass(frozen=True)
class Allowed:
    """Features that may be edited, with the allowlist that names them, if one does."""

    features: list[int] | None
    """Indices, rising; None: all."""
    allowlist: Allowlist | None = None
    name: str = "allowlist"
    """What messages call the allowlist: its path, where it has one."""

    @classmethod
    def by(cls, allowlist: "Allowlist | Path") -> Self:
        """The features of an allowlist, or of its file.

        Whether it was made for a model and an SAE, their weights decide, whatever they are called:
        :meth:`check_model`, :meth:`check_sae`.

        Raises:
            InputError: no such file, or no allowlist.

        """
        name = "allowlist"
        if isinstance(allowlist, Path):
            name, allowlist = f"allowlist {allowlist}", Allowlist.read(allowlist)
        return cls(check_features(allowlist.features, name), allowlist, name)

    def check_sae(self, fingerprint: str, hook: str) -> None:
        """Refuse another SAE or hook point than the allowlist was made for.

        Raises:
            InputError: it is another.

        """
        if self.allowlist is None:
            return
        known = self.allowlist.sae
        if fingerprint != known.fingerprint:
            raise self._is_for(f"the SAE {known.label}", known.fingerprint, fingerprint)
        if hook != self.allowlist.hook:
            raise InputError(
                f"{self.name} is for {self.allowlist.hook}, the SAE in use reads {hook}; expected the "
                "same; give the allowlist of this SAE"
            )

    def check_model(self, parameters: dict[str, Tensor]) -> None:
        """Refuse another model than the allowlist was made for; its number format may be another.

        Args:
            parameters: the model's, by name.

        Raises:
            InputError: it is another.

        """
        if self.allowlist is None:
            return
        known, found = self.allowlist.model, fingerprint_tensors(parameters)
        if found == known.fingerprint:
            return
        # Older allowlists know the model in one format alone.
        if known.contents is None or known.contents != fingerprint_contents(parameters):
            raise self._is_for(f"the model {known.name}", known.fingerprint, found)

    def _is_for(self, what: str, expected: str, actual: str) -> InputError:
        return InputError(
            f"{self.name} was made for {what} of fingerprint {expected}, the one in use has {actual}; "
            "expected the same; give the allowlist of this one, or make it anew"
        )
