from collections.abc import Iterator

import pytest
import quick


@pytest.fixture(scope="module", autouse=True)
def small_predictor() -> Iterator[None]:
    """The predictor made small: tests of a study are about what is around it."""
    with pytest.MonkeyPatch.context() as patch:
        quick.cheapen(patch)
        yield
