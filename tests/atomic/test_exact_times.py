"""Times compare as what is written, whatever a float would make of them."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recbole_m3rec.atomic.exact_times import TimesError, check_times, exact_order, unusable_times


def column(*values):
    return pa.chunked_array([pa.array(values, pa.string())])


NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30).map(str),
    st.integers(1_600_000_000_000_000_000, 1_600_000_000_000_000_100).map(str),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.builds("{}.{}".format, st.integers(-9, 9), st.integers(0, 10**20)),
    st.sampled_from(["1", "1.0", "1e0", "10E-1", "+1", " 1 ", "-0", "0", "0.0", ".5", "5."]),
)


@given(st.lists(NUMBERS, min_size=1, max_size=30))
@example(["0", "1e-400", "2E-400", "-1e-400"])
def test_numbers_of_any_length_compare_as_decimals(words):
    order = exact_order(column(*words))
    values = [Decimal(word.strip()) for word in words]
    for i in range(len(words)):
        for j in range(len(words)):
            assert (order[i] < order[j]) == (values[i] < values[j]), (words[i], words[j])


@pytest.mark.parametrize("unit", [1, 10**3, 10**9])
def test_whole_seconds_milliseconds_and_nanoseconds_keep_every_step(unit):
    times = [1_600_000_000 * unit + step for step in range(100)]
    assert np.diff(exact_order(column(*map(str, times)))).tolist() == [1] * 99


def test_unusable_times_are_named_by_kind():
    words = [
        "1",
        "",
        "nan",
        "NA",
        "inf",
        "-Infinity",
        "1e39",
        "2021-05-01",
        "1_0",
        "9" * 40,
        "1e38",
    ]
    found = {kind: rows.tolist() for kind, rows in unusable_times(column(*words)).items()}
    assert found == {
        "missing": [1, 2, 3],
        "infinite": [4, 5],
        "no number": [7, 8],
        "too large": [6, 9],
    }


def test_the_error_names_lines_and_counts_and_says_what_to_do(tmp_path):
    words = ["1", "", "2021-05-01T10:00", *["inf"] * 7]
    path = tmp_path / "x.inter"
    path.write_text("timestamp:float\tuser_id:token\n\n" + "".join(f"{w}\tu\n" for w in words))
    with pytest.raises(TimesError) as error:
        check_times(path, "timestamp", column(*words))
    for part in (
        "x.inter: of 10 times in timestamp, 1 missing (line 4)",
        "7 infinite (lines 6, 7, 8, 9, 10, … (7 in all), the first 'inf')",
        "1 no number (line 5, the first '2021-05-01T10:00')",
        "pandas.to_datetime",
    ):
        assert part in str(error.value)
