"""Machines from files: what ships is whole, what is wrong is said in one line."""

import math

import pytest
import torch
import yaml

from cegm.lab.forecast import machine as machine_module
from cegm.lab.forecast.machine import HERE, read_machine

GOOD = {
    "kind": "cuda", "devices": 4, "memory": 1e9, "float32_flops": 1e12, "bfloat16_flops": 4e12, "memory_bandwidth": 1e11,
    "node_bandwidth": 1e10, "network_bandwidth": 1e9, "price_per_device_hour": 2.0,
}  # fmt: skip


@pytest.fixture
def written(tmp_path):
    def write(**changes):
        entry = {name: value for name, value in {**GOOD, **changes}.items() if value != "absent"}
        path = tmp_path / "machines.yaml"
        path.write_text(yaml.safe_dump({"mine": entry}))
        return str(path)

    return write


def refused(path, name="mine"):
    with pytest.raises(ValueError, match=r".") as caught:
        read_machine(path, name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["h100-node", "h200-node", "epyc-core"])
def test_the_machines_that_ship(name):
    machine = read_machine("", name)
    assert machine.price_per_device_hour is None  # a price is the user's
    assert machine.memory > 1e9
    assert machine.link(1) == math.inf


def test_data_sheets():
    h100, h200 = read_machine("", "h100-node"), read_machine("", "h200-node")
    assert h100.bfloat16_flops == h200.bfloat16_flops == 1979e12 / 2  # the sheet's number is with sparsity
    assert (h100.memory, h200.memory) == (80e9, 141e9)
    assert h100.network_bandwidth == 400e9 / 8


def test_links(written):
    machine = read_machine(written(), "mine")
    assert (machine.link(1), machine.link(4), machine.link(5)) == (math.inf, 1e10, 1e9)


def test_a_number_may_be_written_as_yaml_reads_it_as_text(tmp_path):
    path = tmp_path / "machines.yaml"
    lines = [f"  {name}: {value}" for name, value in GOOD.items() if name != "memory"]
    path.write_text("\n".join(["mine:", *lines, "  memory: 80e9"]))
    assert read_machine(str(path), "mine").memory == 80e9


@pytest.mark.parametrize("name", GOOD)
def test_a_machine_without_a_field(name, written):
    assert f"machine 'mine' has no {name}; add it" in refused(written(**{name: "absent"}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"memory": -1}, "has memory=-1; give a number above 0"),
        ({"memory": None}, "has memory=None; give a number above 0"),
        ({"memory": True}, "has memory=True; give a number above 0"),
        ({"float32_flops": "fast"}, "has float32_flops='fast'; give a number above 0"),
        ({"memory_bandwidth": math.inf}, "has memory_bandwidth=inf; give a number above 0"),
        ({"devices": 1.5}, "has devices=1.5; give a whole number"),
        ({"kind": "tpu"}, "has kind 'tpu'; use one of cpu, cuda"),
        ({"memroy": 1}, "has an unknown field 'memroy'; did you mean 'memory'?"),
    ],
)
def test_what_cannot_be_is_named(changes, said, written):
    assert said in refused(written(**changes))


def test_an_unknown_machine_and_a_missing_file(written):
    assert "machine 'h10-node' is not in machines.yaml; did you mean 'h100-node'?" in refused("", "h10-node")
    assert "does not exist" in refused("nowhere.yaml")


def test_a_machine_that_is_no_mapping(tmp_path):
    path = tmp_path / "machines.yaml"
    path.write_text("mine: 8")
    assert "must hold names and values" in refused(str(path))


def test_devices_that_nothing_connects(written):
    machine = read_machine(written(network_bandwidth=None), "mine")
    with pytest.raises(ValueError, match="devices=5: machine 'mine' has 4 a node and no network_bandwidth"):
        machine.link(5)


def test_the_machine_that_runs_this(monkeypatch, tmp_path):
    monkeypatch.setattr(machine_module, "SIDE", {"cpu": 64, "cuda": 64})
    found = read_machine("", HERE)
    assert (found.name, found.devices, found.price_per_device_hour) == ("here", 1, None)
    assert found.kind == ("cuda" if torch.cuda.is_available() else "cpu")
    assert min(found.memory, found.float32_flops, found.memory_bandwidth) > 1e6
    (tmp_path / "machines.yaml").write_text(yaml.safe_dump({HERE: GOOD}))
    assert read_machine(str(tmp_path / "machines.yaml"), HERE).devices == 4  # a file that says otherwise wins


def test_its_speed_is_that_of_the_fastest_of_some_products(monkeypatch):
    clock = iter([0.0, 9.0, 10.0, 12.0, 12.0, 13.0, 13.0, 17.0, 17.0, 19.0, 19.0, 21.0])
    monkeypatch.setattr(machine_module.time, "perf_counter", lambda: next(clock))
    assert machine_module._seconds(lambda: None) == 1.0
