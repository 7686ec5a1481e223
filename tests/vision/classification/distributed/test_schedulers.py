"""A node's place by the variables of srun and torchrun, as these set them."""

import pytest

from official.vision.classification.distributed.schedulers import Place, first_host, place_of
from official.vision.classification.errors import UsageError

# What srun -N 2 --ntasks-per-node 1 gave to its second task (Slurm 23.02's manual has the names).
SRUN = {
    "SLURM_JOB_ID": "31415",
    "SLURM_JOB_NODELIST": "gpu[3-4]",
    "SLURM_STEP_NODELIST": "gpu[3-4]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURM_PROCID": "1",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "0",
}
# torchrun --nnodes 2 --nproc-per-node 1, second node.
TORCHRUN = {
    "MASTER_ADDR": "10.0.0.7",
    "MASTER_PORT": "29400",
    "WORLD_SIZE": "2",
    "RANK": "1",
    "LOCAL_WORLD_SIZE": "1",
    "LOCAL_RANK": "0",
    "GROUP_RANK": "1",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}


def test_srun():
    assert place_of(SRUN) == Place("Slurm", 2, 1, "gpu3", 21415)


def test_srun_with_several_tasks_on_a_node():
    several = {
        **SRUN,
        "SLURM_STEP_NUM_TASKS": "5",
        "SLURM_STEP_TASKS_PER_NODE": "3,2",
        "SLURM_PROCID": "4",
        "SLURM_LOCALID": "1",
    }
    assert place_of(several) == Place("Slurm", 5, 4, "gpu3", 21415, 1, 2)


def test_torchrun_whose_agent_has_its_port():
    assert place_of(TORCHRUN) == Place("torchrun", 2, 1, "10.0.0.7", 23456)
    several = {**TORCHRUN, "WORLD_SIZE": "16", "RANK": "11", "LOCAL_WORLD_SIZE": "8"}
    several["LOCAL_RANK"] = "3"
    assert place_of(several) == Place("torchrun", 16, 11, "10.0.0.7", 23456, 3, 8)


def test_variables_that_are_set_without_torchrun():
    """As Kubernetes' operators do."""
    plain = {key: TORCHRUN[key] for key in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK")}
    assert place_of(plain) == Place("torchrun", 2, 1, "10.0.0.7", 29400)


def test_torchrun_within_srun():
    assert place_of({**SRUN, **TORCHRUN}).scheduler == "torchrun"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "2", "RANK": "0"},
        {**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"},
        {**TORCHRUN, "WORLD_SIZE": "two"},
        {**TORCHRUN, "WORLD_SIZE": "-2"},
        {**TORCHRUN, "RANK": "\u0661"},
        {**TORCHRUN, "RANK": "1" * 5000},
        # The script of a job itself, and an allocation, are not steps of it.
        {key: value for key, value in SRUN.items() if "STEP" not in key},
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
    ],
)
def test_what_names_no_place(environment):
    assert place_of(environment) is None


@pytest.mark.parametrize(
    "change", [{"RANK": "2"}, {"LOCAL_RANK": "1"}, {"LOCAL_WORLD_SIZE": "3"}, {"LOCAL_RANK": "9"}]
)
def test_variables_that_contradict_each_other(change):
    with pytest.raises(UsageError, match="the variables of torchrun make no sense"):
        place_of({**TORCHRUN, **change})


def test_a_port_that_is_none():
    plain = {**TORCHRUN, "TORCHELASTIC_USE_AGENT_STORE": "", "MASTER_PORT": "70000"}
    with pytest.raises(UsageError, match="make no sense"):
        place_of(plain)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[003-010,012],login1", "gpu003"),
        ("a", "a"),
        ("a,b", "a"),
        ("r1i[2-3]n[4,7]", "r1i2n4"),
        ("n[1-2]-ib,x", "n1-ib"),
        ("node1.example.org,b", "node1.example.org"),
    ],
)
def test_the_first_of_slurms_nodes(nodes, first):
    """As scontrol show hostnames lists them."""
    assert first_host(nodes) == first


def test_tasks_by_node_of_very_many_nodes():
    many = {**SRUN, "SLURM_STEP_TASKS_PER_NODE": "1(x999999999999),2"}
    assert place_of(many).locals == 1
