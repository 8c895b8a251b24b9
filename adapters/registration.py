"""The method's place in PEFT."""

NAME = "cleansteer"


def register() -> None:
    """Make PEFT know the method, as type ``CLEANSTEER``; what it knows already stays as it is.

    Afterwards ``peft.get_peft_model`` takes a :class:`SaeAdapterConfig`, and
    ``peft.PeftModel.from_pretrained`` a directory that such an adapter was saved in. May be called
    again.
    """
    from aenum import extend_enum
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.utils import PeftType, register_peft_method

    member = NAME.upper()
    if member not in PeftType.__members__:
        # PEFT's registry takes names of this enum alone.
        extend_enum(PeftType, member, member)
    if PeftType[member] in PEFT_TYPE_TO_CONFIG_MAPPING:
        return
    from .config import SaeAdapterConfig
    from .model import SaeAdapterModel

    register_peft_method(
        name=NAME,
        config_cls=SaeAdapterConfig,
        model_cls=SaeAdapterModel,
        prefix=SaeAdapterModel.prefix,
    )
