"""Lists of features: the same from a text and from a file, however an editor saved it."""

from pathlib import Path

import pytest
from cleansteer.core.checks import listed_features


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
@pytest.mark.parametrize("between", [b",", b"\n", b"\r\n", b", "])
@pytest.mark.parametrize("last", [b"", b"\n", b"\r\n"])
def test_a_file_says_what_a_text_says(
    start: bytes, between: bytes, last: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "features.txt"
    path.write_bytes(start + between.join([b"12", b"3", b"0"]) + last)
    assert listed_features(str(path), "--features") == listed_features("12,3,0", "--features")
