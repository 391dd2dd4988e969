"""A short text file: every other thing that may be at its path is named in one line."""

import os
import re

import pytest

from saxs_pipeline.text_file import LARGEST_BYTES, TextKind, read_text
from saxs_pipeline.types import BadInput

TABLE = TextKind("table", ".csv", "CSV, for example t_s,r_nm")


def test_the_text_without_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfr_nm,\xc3\xa5\n")
    assert read_text(path, TABLE) == "r_nm,å\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe1", "is not text (UTF-8); a table is CSV, for example t_s,r_nm"),
        (b"1,2\0", "is not text (UTF-8); a table is CSV, for example t_s,r_nm"),
        (b" " * (LARGEST_BYTES + 1), "holds 10 MB; a table is short: CSV, for example t_s,r_nm"),
    ],
)
def test_files_of_another_kind(tmp_path, content, message):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=f"^{re.escape(f'{path}: {message}')}$"):
        read_text(path, TABLE)


def test_what_is_no_file(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # reading it would wait for ever
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, message in (
        (tmp_path, "is a folder; give the table in it"),
        (pipe, "is no file; a table is CSV"),
        (tmp_path / "none.csv", "table not found; give the path of a .csv file"),
        (loop, "cannot be read: "),
    ):
        with pytest.raises(BadInput, match=message) as caught:
            read_text(path, TABLE)
        assert len(caught.value.messages) == 1
