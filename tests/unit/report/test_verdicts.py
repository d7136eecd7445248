"""Values with their uncertainties as text, and the table that is read."""

import math

import pytest

from emm.analyse.parquet import write_table
from emm.errors import UserError
from emm.report.verdicts import (
    VERDICTS,
    certainty,
    counts,
    listed,
    percent,
    quantity,
    read_replication,
)

NAN, INF = math.nan, math.inf
RATIO = "memorization_ratio"


@pytest.mark.parametrize(
    ("numbers", "metric", "text", "interval"),
    [
        ((92.1, 91.6, 92.6), RATIO, "92.1 ± 0.5 %", ""),
        ((92.09, 92.09, 92.09), RATIO, "92.09 %", ""),
        ((92.1, NAN, NAN), RATIO, "92.1 %", ""),
        ((98.6, 97.1, 99.2), RATIO, "98.6 %", "97.1 to 99.2"),
        ((100.0, 99.24, 100.0), RATIO, "100.0 %", "99.2 to 100.0"),
        ((0.0, 0.0, 0.76), RATIO, "0.0 %", "0.0 to 0.8"),
        ((25.0, 22.0, 28.0), RATIO, "25 ± 3 %", ""),
        ((5.0, 3.7, 6.4), RATIO, "5.0 ± 1.4 %", ""),
        ((90.0, 90.0, 100.0), RATIO, "≥ 90 %", ""),
        ((90.0, 0.0, 90.0), RATIO, "≤ 90 %", ""),
        ((100.0, NAN, NAN), RATIO, "100 %", ""),
        ((1000.0, 900.0, 1300.0), "emm", "1,000 images", "900 to 1,300"),
        ((5000.0, 4500.0, 5500.0), "emm", "5,000 ± 500 images", ""),
        ((NAN, 1000.0, INF), "emm", "≥ 1,000 images", ""),
        ((1000.0, 1000.0, INF), "emm", "≥ 1,000 images", ""),
        ((NAN, -INF, 500.0), "emm", "≤ 500 images", ""),
        ((NAN, 500.0, 1000.0), "emm", "500 to 1,000 images", ""),
        ((1000.0, 800.0, INF), "emm", "1,000 images", "800 to ∞"),
        ((24.7545, NAN, NAN), "emm", "24.8 images", ""),
        ((94.0, 91.56, 95.77), RATIO, "94.0 %", "91.6 to 95.8"),
        ((6.35, NAN, NAN), "knn_distance", "6.35 grey levels", ""),
        ((6.0, 4.0, 8.0), "argmax_num_blocks", "6.0 ± 2.0", ""),
        ((NAN, NAN, NAN), RATIO, "", ""),
    ],
)
def test_quantity(numbers, metric, text, interval):
    assert quantity(*numbers, metric) == (text, interval)


def test_a_printed_value_keeps_its_zeros():
    assert quantity(91.4, NAN, NAN, RATIO, 2) == ("91.40 %", "")
    assert quantity(92.09, 88.88, 95.3, RATIO, 2) == ("92.09 ± 3.21 %", "")
    assert quantity(99.88, 99.46, 100.0, RATIO, 2) == ("99.88 %", "99.46 to 100.00")


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0.97, "97 %"), (1.0, "> 99 %"), (0.0, "< 1 %"), (0.994, "> 99 %"), (NAN, "")],
)
def test_percent(probability, text):
    assert percent(probability) == text


def test_certainty_says_what_it_is_of():
    assert certainty("contradicted", 0.99) == ("99 %", "")
    assert certainty("undecided", 0.82) == ("82 %", "that it is true")
    assert certainty("undecided", NAN) == ("", "")


def test_counts_come_in_the_order_of_interest(replication):
    numbers = counts(replication)
    assert numbers == {
        "claim": {"contradicted": 1, "supported": 1, "not measured": 1},
        "value": {"outside": 2, "within": 1, "not measured": 1},
    }
    for kind, of in numbers.items():
        assert list(of) == [verdict for verdict in VERDICTS[kind] if verdict in of]
    assert listed(numbers["value"]) == "2 outside, 1 within, 1 not measured"


def test_a_written_table_is_read(replication, tmp_path):
    path = tmp_path / "replication.parquet"
    write_table(path, replication)
    assert read_replication(path)["id"].tolist() == replication["id"].tolist()
    write_table(path, replication.iloc[:0])
    assert read_replication(path).empty


def test_other_tables_are_refused(replication, tmp_path):
    path = tmp_path / "replication.parquet"
    write_table(path, replication.drop(columns="support"))
    with pytest.raises(UserError, match=r"replication.parquet: no column 'support'"):
        read_replication(path)
    write_table(path, replication.assign(verdict="fine"))
    with pytest.raises(UserError, match="cannot be 'fine'"):
        read_replication(path)
