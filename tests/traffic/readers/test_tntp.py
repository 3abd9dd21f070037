"""Files of the TransportationNetworks collection, with all that is odd about them."""

import numpy as np
import pytest

import incentax as ix

from ..files import stored

NET = """<NUMBER OF ZONES> {zones}
<NUMBER OF NODES> {nodes}
<FIRST THRU NODE> {first}
<NUMBER OF LINKS> {links}
<ORIGINAL HEADER>~\tInit node\tTerm node\t;
<END OF METADATA>\t\t~ columns\t;

~\tinit_node\tterm_node\tcapacity\tlength\tfree_flow_time\tb\tpower\tspeed\ttoll\tlink_type\t;
"""
ROW = "\t1\t2\t100\t3\t5\t0.15\t4\t0\t2\t1\t;\n"
TRIPS = "<NUMBER OF ZONES> 2\n<TOTAL OD FLOW> {total}\n<END OF METADATA>\n\nOrigin 1\n{rows}\n"


@pytest.fixture
def read(tmp_path):
    """Writes the rows after a heading that fits them, and reads both files."""

    def reading(rows, trips="2 : 50;", *, total=None, heading=None, **weights):
        count = sum(bool(row.strip("; \t\r\n")) for row in rows.splitlines())
        known = {"zones": 2, "nodes": 3, "first": 1, "links": count} | (heading or {})
        text = NET.format(**known) + rows
        (tmp_path / "net").write_text(text, newline="")
        values = [float(part.split(":")[1]) for part in trips.split(";") if ":" in part]
        (tmp_path / "trips").write_text(
            TRIPS.format(total=sum(values) if total is None else total, rows=trips)
        )
        return ix.traffic.read_tntp(tmp_path / "net", tmp_path / "trips", **weights)

    return reading


@pytest.mark.parametrize(
    "rows",
    [
        ROW,
        ROW.replace("\n", "\r\n"),
        ROW.replace("\t;", ";"),
        ROW.replace("\t;", ""),
        " \t1     \t2 \t100.0 \t 3.0 \t  5.0 \t0.15 \t4.0 \t0.0 \t2.0 \t1 \t; \n",
        "1 2 100 3 5 0.15 4 0 2 1 ;\n",
        ROW + "\t\t\t\t\t\n\n",
        "\t1 2 100 3 5 0.15 4 0 2 1\t;\n",
    ],
)
def test_rows_as_files_have_them(read, rows):
    network, demand = read(rows, toll_weight=0.1, distance_weight=0.5)
    assert network.number_of_links == 1
    assert network.number_of_nodes == 3
    np.testing.assert_allclose(network.capacity, [100])
    np.testing.assert_allclose(network.free_flow_time, [5])
    np.testing.assert_allclose((network.b[0], network.power[0]), (0.15, 4))
    np.testing.assert_allclose(network.fixed_cost, [0.1 * 2 + 0.5 * 3])
    np.testing.assert_array_equal(demand.pairs, [[0, 1]])


def test_trips_as_files_have_them(read):
    network, demand = read(
        ROW + ROW.replace("\t1\t2", "\t2\t3"),
        "1 : 7.0;  2 :\t1e1;   3 : 0.0;\n3 :5 ; ~ comment",
    )
    np.testing.assert_array_equal(demand.pairs, [[0, 1], [0, 2]])
    np.testing.assert_array_equal(demand.trips, [10, 5])
    assert demand.within_zones == 7
    assert network.name_of_link(1) == "2 (2-3)"


def test_trips_on_the_line_of_their_origin(read, tmp_path):
    read(ROW)
    (tmp_path / "trips").write_text(
        "<END OF METADATA>\nOrigin 1 2 : 50; 3 : 40;\nOrigin 2\n1 : 5;\n"
    )
    _, demand = ix.traffic.read_tntp(tmp_path / "net", tmp_path / "trips")
    np.testing.assert_array_equal(demand.trips, [50, 40, 5])


def test_columns_that_play_no_part_may_hold_anything(read):
    row = "\t1\t2\t100\tNA\t5\t0.15\t4\tinf\tNA\t1\t;\n"
    network, _ = read(row)
    assert network.fixed_cost[0] == 0
    with pytest.raises(ValueError, match="line 9: expected a number for toll"):
        read(row, toll_weight=1.0)


def test_zones_that_no_path_passes(read):
    network, _ = read(ROW, heading={"first": 3})
    assert network.first_through_node == 2


def test_numbers_that_do_not_run_from_one(read):
    """Nodes have the names of the file, which may be any numbers."""
    rows = ROW.replace("\t1\t2", "\t2146237932\t7") + ROW.replace("\t1\t2", "\t7\t1")
    network, demand = read(rows, "7 : 3;")
    assert network.node_names.tolist() == [1, 7, 2146237932]
    assert network.name_of_link(0) == "1 (2146237932-7)"
    np.testing.assert_array_equal(demand.pairs, [[0, 1]])


def test_an_empty_column_shifts_nothing(read):
    """A connector of length 0 takes no time, whether its column is empty or infinite."""
    for time in ("", "inf"):
        with pytest.warns(UserWarning, match=r"1 links of length 0 (.|\n)*line 9"):
            network, _ = read(f"\t1\t2\t0\t0.0\t{time}\t0.15\t4\t0.0\t0\t0\t;\n")
        assert network.free_flow_time[0] == 0
        assert (network.b[0], network.power[0]) == (0.15, 4)


def test_parallel_links_are_kept(read):
    network, _ = read(ROW + ROW.replace("\t5\t", "\t6\t"))
    assert network.number_of_links == 2
    with pytest.warns(UserWarning, match=r"1 links stand twice(.|\\n)*lines 9 and 10 from 1 to 2"):
        network, _ = read(ROW + ROW)
    assert network.number_of_links == 2


@pytest.mark.parametrize(
    ("rows", "trips", "more", "words"),
    [
        (ROW.replace("100", "many"), "2 : 1;", {}, r"net, line 9: expected a number for capacity"),
        (ROW.replace("100", "-1"), "2 : 1;", {}, r"line 9: expected a capacity > 0, got -1"),
        (ROW.replace("100", "0"), "2 : 1;", {}, r"line 9: expected a capacity > 0, got 0"),
        (ROW.replace("\t5\t", "\t-5\t"), "2 : 1;", {}, r"free_flow_time >= 0, got -5"),
        (ROW.replace("\t5\t", "\tinf\t"), "2 : 1;", {}, r"finite number for free_flow_time"),
        (ROW.replace("\t0.15\t", "\t\t"), "2 : 1;", {}, r"for b, got an empty column"),
        ("\t1\t2\t100\n", "2 : 1;", {}, r"line 9: expected 7 columns or more"),
        (ROW, "2 : 1;", {"heading": {"links": 5}}, r"expected 5 rows(.|\n)*got 1(.|\n)*cut"),
        (ROW, "2 : 1;", {"heading": {"nodes": 1}}, "expected 1 nodes(.|\\n)*got 2, the last 2"),
        (ROW, "2 : 1;", {"heading": {"zones": 9}}, r"trips, line 1: expected 9 zones"),
        (ROW, "2 : 1;", {"total": 70}, r"expected 70 trips in all(.|\n)*got 1"),
        (ROW, "9 : 1;", {}, r"trips, line 6: expected a node of the network(.|\n)*got 9"),
        (ROW, "2 : -1;", {}, r"line 6: expected a number of trips >= 0, got -1"),
        (ROW, "2 : -1;", {"total": 5}, r"line 6: expected a number of trips >= 0, got -1"),
        (ROW, "2 : 1; 2 : 3;", {}, r"line 6: expected each pair of zones once, got 1 to 2 again"),
        (ROW + ROW, "2 : 1;", {"heading": {"links": 1}}, r"expected 1 rows(.|\n)*got 2$"),
        (ROW.replace("\t1\t2", "\t0\t2"), "2 : 1;", {}, r"line 9: expected nodes numbered from 1"),
        ("~ term_node init_node capacity length free_flow_time b power ;\n" + ROW, "2 : 1;", {},
         r"line 9: expected columns in the order init_node, term_node"),
        (ROW, "2 : 1;\n3", {}, r"line 7: expected `destination : trips;`, got '3'"),
        (ROW, "1 : 4;", {}, "no trips between two zones"),
    ],
)  # fmt: skip
def test_refusals_name_file_line_and_what_was_expected(read, rows, trips, more, words):
    with pytest.raises(ValueError, match=words):
        read(rows, trips, **more)


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ix.traffic.read_tntp(tmp_path / "nowhere")
    (tmp_path / "half").write_text("<NUMBER OF ZONES> 2\n")
    with pytest.raises(ValueError, match="END OF METADATA"):
        ix.traffic.read_tntp(tmp_path / "half")


def test_positions(read, tmp_path):
    read(ROW)
    (tmp_path / "nodes").write_text("node\tX\tY\t;\n1\t0.5\t1\t;\n2\t 2 \t\t3\t;\n3 4 5\n")
    network, demand = ix.traffic.read_tntp(tmp_path / "net", nodes=tmp_path / "nodes")
    assert demand is None
    np.testing.assert_array_equal(network.position, [[0.5, 1], [2, 3], [4, 5]])
    (tmp_path / "nodes").write_text("1 0 0\n")
    with pytest.raises(ValueError, match="position for node 2, got none"):
        ix.traffic.read_tntp(tmp_path / "net", nodes=tmp_path / "nodes")


@pytest.mark.parametrize(
    ("name", "nodes", "links", "first", "pairs", "trips"),
    [
        ("Braess", 4, 5, 0, 1, 6),
        ("friedrichshain-center", 224, 523, 23, 506, 11_205.1),
        ("EMA", 74, 258, 0, 1_113, 65_576.375),
        ("Anaheim", 416, 914, 38, 1_406, 104_694.4),
        ("Winnipeg", 1_052, 2_836, 147, 4_344, 64_775),
        ("Barcelona", 1_020, 2_522, 110, 7_922, 184_679.561),
        ("ChicagoSketch", 933, 2_950, 0, 93_135, 1_137_493.44),
        ("Terrassa-Asym", 1_609, 3_264, 55, 2_215, 25_225_746.76),
    ],
)
def test_stored_networks(name, nodes, links, first, pairs, trips):
    network, demand = stored(name)
    assert (network.number_of_nodes, network.number_of_links) == (nodes, links)
    assert network.first_through_node == first
    assert len(demand.trips) == pairs
    np.testing.assert_allclose(demand.trips.sum(), trips, rtol=1e-8)


def test_a_network_with_links_that_stand_twice():
    with pytest.warns(UserWarning, match="links stand twice"):
        network, demand = stored("berlin-center")
    assert (network.number_of_nodes, network.number_of_links) == (12_981, 28_376)
    np.testing.assert_allclose(demand.trips.sum(), 168_222.302)


def test_a_network_whose_zones_have_long_numbers():
    with pytest.warns(UserWarning, match="98 links of length 0"):
        network, demand = stored("munich")
    assert (network.number_of_nodes, network.number_of_links) == (742, 1_872)
    assert len(demand.trips) == 66_885
    np.testing.assert_allclose(demand.trips.sum() + demand.within_zones, 2_264_377.3)


def test_sioux_falls_is_the_stored_one():
    network, demand = stored("SiouxFalls")
    ours, trips = ix.traffic.sioux_falls()
    for key in ("tail", "head", "capacity", "free_flow_time", "b", "power"):
        np.testing.assert_allclose(getattr(network, key), getattr(ours, key), rtol=1e-6)
    np.testing.assert_array_equal(demand.trips, trips.trips)
