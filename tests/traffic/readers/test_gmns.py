"""Networks as CSV files of the General Modeling Network Specification."""

import numpy as np
import pytest

import incentax as ix

LINKS = """from_node_id,to_node_id,directed,length,lanes,free_speed,capacity,vdf_alpha,vdf_beta
10,20,1,2,2,60,900,0.15,4
20,30,0,1,1,30,800,,
"""
NODES = """node_id,x_coord,y_coord,zone_id,node_type
20,1,0,,
10,0,0,1,centroid
30,2,0,2,centroid
"""
DEMAND = "o_zone_id,d_zone_id,volume\n1,2,500\n1,1,30\n2,1,0\n"


@pytest.fixture
def files(tmp_path):
    for name, text in (("link", LINKS), ("node", NODES), ("demand", DEMAND)):
        (tmp_path / f"{name}.csv").write_text(text)
    return tmp_path


def test_a_network_is_read(files):
    network, demand = ix.traffic.read_gmns(
        files / "link.csv", files / "node.csv", files / "demand.csv"
    )
    # Centroids first, which no path passes; a road without a direction is two links.
    assert network.node_names.tolist() == ["10", "30", "20"]
    assert network.first_through_node == 2
    names = [network.name_of_link(link) for link in range(3)]
    assert names == ["1 (10-20)", "2 (20-30)", "3 (30-20)"]
    np.testing.assert_allclose(network.free_flow_time, [2, 2, 2])
    np.testing.assert_allclose(network.capacity, [1800, 800, 800])
    np.testing.assert_allclose(network.power, [4, 4, 4])
    np.testing.assert_array_equal(network.position, [[0, 0], [2, 0], [1, 0]])
    np.testing.assert_array_equal(demand.pairs, [[0, 1]])
    np.testing.assert_array_equal(demand.trips, [500])
    assert demand.within_zones == 30
    alone, none = ix.traffic.read_gmns(files / "link.csv")
    assert none is None
    assert alone.node_names.tolist() == ["10", "20", "30"]
    assert alone.position is None


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("link", "capacity", "cap", r"link\.csv, line 1: expected a column capacity"),
        ("link", "900", "", r"link\.csv, line 2: expected a number for capacity"),
        ("link", "60,900", "0,900", r"line 2: expected a free_speed > 0"),
        ("link", "20,30,0", "20,99,0", r"line 3: expected one of the 3 nodes(.|\n)*99"),
        ("link", "0.15,4", "0.15", r"line 2: expected 9 columns"),
        ("demand", "1,2,500", "1,2,five", r"demand\.csv, line 2: expected a number for volume"),
        (
            "demand",
            "1,2,500",
            "1,7,500",
            r"line 2: expected a zone that is one node(.|\n)*for 7, got \[\]",
        ),
    ],
)
def test_refusals(files, file, old, new, words):
    path = files / f"{file}.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=words):
        ix.traffic.read_gmns(files / "link.csv", files / "node.csv", files / "demand.csv")


def test_a_zone_is_one_node(files):
    """Several nodes of a zone are told; a centroid among them is the one."""
    nodes = files / "node.csv"
    for old, new, words in (
        ("20,1,0,,", "20,1,0,2,", r"line 2: expected a zone that is one node(.|\n)*for 2"),
        ("30,2,0,2", "30,2,0,9", r"for 2, got \[\]"),
        ("30,2,0,2", "10,2,0,2", r"node\.csv, line 4: expected a node that has not stood before"),
    ):
        nodes.write_text(NODES.replace("30,2,0,2,centroid", "30,2,0,2,").replace(old, new, 1))
        with pytest.raises(ValueError, match=words):
            ix.traffic.read_gmns(files / "link.csv", nodes, files / "demand.csv")
    nodes.write_text(NODES.replace("20,1,0,,", "20,1,0,2,"))
    _, demand = ix.traffic.read_gmns(files / "link.csv", nodes, files / "demand.csv")
    np.testing.assert_array_equal(demand.pairs, [[0, 1]])


def test_names_that_are_no_numbers_stand_in_their_order(files):
    (files / "link.csv").write_text(
        "from_node_id,to_node_id,capacity,length,free_speed\nwork,home,1,1,1\nshop,10,1,1,1\n"
    )
    network, _ = ix.traffic.read_gmns(files / "link.csv")
    assert network.node_names.tolist() == ["10", "home", "shop", "work"]


def test_names_in_another_encoding_are_no_obstacle(files):
    text = LINKS.replace("vdf_beta\n", "vdf_beta,name\n").replace("4\n", "4,Straße\n", 1)
    (files / "link.csv").write_bytes(text.replace(",,\n", ",,,\n").encode("latin-1"))
    network, _ = ix.traffic.read_gmns(files / "link.csv")
    assert network.number_of_links == 3
