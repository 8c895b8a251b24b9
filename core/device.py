"""Where tensors are put."""

from .errors import InputError


def check_device(device: str) -> None:
    """Refuse a device that is not available here.

    Raises:
        InputError: it is not.

    """
    import torch

    kind, _, number = device.partition(":")
    there = {
        "cpu": not number,
        "cuda": torch.cuda.is_available()
        and (not number or (number.isdigit() and int(number) < torch.cuda.device_count())),
        "mps": torch.backends.mps.is_available() and not number,
    }
    if not there.get(kind, False):
        usable = [name for name, usable in there.items() if usable] or ["cpu"]
        raise InputError(
            f"device {device!r} is not available here, expected one of {', '.join(usable)}; change "
            "--device"
        )
