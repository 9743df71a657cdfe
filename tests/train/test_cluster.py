"""Environments of clusters: the place of a process in each, or the sentence that it gets."""

import os

import pytest

from vitjax.train.cluster import NO_PROXY, Machine, Place, find_place, first_node, tasks_by_node
from vitjax.train.processes import default_wait, leave_out_proxy

SLURM = {
    "SLURM_JOB_ID": "4097", "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "gpu[007-010],big1",
    "SLURM_STEP_NUM_NODES": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "1(x4)", "SLURM_PROCID": "2", "SLURM_LOCALID": "0",
    "SLURM_NODEID": "2",
}  # fmt: skip
SLURM_TASK_A_GPU = {
    **SLURM,
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_PROCID": "6",
    "SLURM_LOCALID": "2",
    "SLURM_NODEID": "1",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_MCA_orte_hnp_uri": "8192.0;tcp://127.0.0.1,10.96.0.1,10.148.0.1:34911",
}
OPEN_MPI_5 = {k: v for k, v in OPEN_MPI.items() if "uri" not in k} | {
    "PMIX_NAMESPACE": "prterun-login1-1234@1"
}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "3"}
GKE = {
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    "TPU_WORKER_ID": "1",
    "TPU_WORKER_HOSTNAMES": "run-slice-0-0.run,run-slice-0-1.run",
}
SLICES = {
    "MEGASCALE_NUM_SLICES": "2",
    "MEGASCALE_SLICE_ID": "1",
    "MEGASCALE_COORDINATOR_ADDRESS": "run-slice-0-0.run:8080",
}
TORCHRUN = {
    "WORLD_SIZE": "16", "RANK": "9", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8",
    "MASTER_ADDR": "10.0.0.5", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none",
}  # fmt: skip
SKYPILOT = {
    "SKYPILOT_NUM_NODES": "2",
    "SKYPILOT_NODE_RANK": "1",
    "SKYPILOT_NODE_IPS": "10.0.0.5\n10.0.0.6",
    "SKYPILOT_NUM_GPUS_PER_NODE": "8",
}
XPK = {
    "NNODES": "4",
    "NODE_RANK": "3",
    "JAX_COORDINATOR_PORT": "6002",
    "JAX_COORDINATOR_ADDRESS": "run-slice-job-0-0.run",
}
EIGHT = {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}
FOUR = {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}


def vm(**attributes: str) -> Machine:
    """A TPU VM, with attributes at its metadata server."""
    return Machine(tpu=True, metadata=lambda key: attributes.get(key.replace("-", "_")))


TPU, BARE = Machine(tpu=True), Machine()
SLICE = "\n".join(f"{k}: '{v}'" for k, v in SLICES.items())
PLACES = {
    "a laptop": ({}, BARE, Place()),
    "one GPU": ({"CUDA_VISIBLE_DEVICES": "0"}, Machine(gpus=1), Place()),
    "eight GPUs": ({}, Machine(gpus=8), Place()),
    "SLURM, a task a node": (
        {**SLURM, **EIGHT}, BARE, Place("SLURM", "gpu007:61441", 4, 2, 4, None),
    ),
    "SLURM, a task a GPU, all seen": (
        {**SLURM_TASK_A_GPU, **FOUR}, BARE, Place("SLURM", "gpu007:61441", 8, 6, 2, (2,)),
    ),
    "SLURM, a task a GPU, its own seen": (
        {**SLURM_TASK_A_GPU, "CUDA_VISIBLE_DEVICES": "0"}, BARE,
        Place("SLURM", "gpu007:61441", 8, 6, 2, None),
    ),
    "SLURM, a task for two GPUs": (
        {**SLURM_TASK_A_GPU}, Machine(gpus=8), Place("SLURM", "gpu007:61441", 8, 6, 2, (4, 5)),
    ),
    "SLURM, GPUs and the CPU chosen": (
        {**SLURM_TASK_A_GPU, **FOUR, "JAX_PLATFORMS": "cpu"}, BARE,
        Place("SLURM", "gpu007:61441", 8, 6, 2, None),
    ),
    "SLURM, a second step and another address": (
        {**SLURM, "SLURM_STEP_ID": "1", "JAX_COORDINATOR_ADDRESS": "ib007"}, BARE,
        Place("SLURM", "ib007:61538", 4, 2, 4),
    ),
    "SLURM, one task": ({**SLURM, "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"}, BARE, Place()),
    "Open MPI 4": ({**OPEN_MPI}, BARE, Place("Open MPI", "10.96.0.1:61442", 4, 3, 2, None)),
    "Open MPI 4.1, both": (
        {**OPEN_MPI, "OMPI_MCA_orte_hnp_uri": "8192.0;tcp://10.0.0.2:60795;tcp6://[fd00::2]:32819"},
        BARE, Place("Open MPI", "10.0.0.2:61442", 4, 3, 2, None),
    ),
    "Open MPI 4, IPv6": (
        {**OPEN_MPI, "OMPI_MCA_orte_hnp_uri": "8192.0;tcp6://[2620:10d::2,fe80::b9b]:43370"}, BARE,
        Place("Open MPI", "[2620:10d::2]:61442", 4, 3, 2, None),
    ),
    "Open MPI 5, one host": (
        {**OPEN_MPI_5, "OMPI_COMM_WORLD_LOCAL_SIZE": "4", "JAX_COORDINATOR_PORT": "7000", **FOUR},
        BARE, Place("Open MPI", "localhost:7000", 4, 3, 1, (1,)),
    ),
    "Open MPI 5, two hosts": (
        {**OPEN_MPI_5, "JAX_COORDINATOR_ADDRESS": "node1:7000"}, BARE,
        Place("Open MPI", "node1:7000", 4, 3, 2),
    ),
    "TPU on Kubernetes": (
        GKE, TPU, Place("TPU, by its variables", "run-slice-0-0.run:8476", 2, 1, 2),
    ),
    "TPU on Kubernetes, two slices": (
        {**GKE, **SLICES}, TPU,
        Place("TPU, by its variables, 2 slices", "run-slice-0-0.run:8476", 4, 3, 4),
    ),
    "TPU on Kubernetes, one host": (
        {"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "localhost"}, TPU, Place("TPU of one host"),
    ),
    "Kaggle": ({"TPU_PROCESS_ADDRESSES": "local"}, TPU, Place("TPU of one host")),
    "TPU VM of four hosts": (
        {}, vm(worker_network_endpoints="a:1:10.0.0.2,b:2:10.0.0.3", agent_worker_number="1"),
        Place("TPU VM", "10.0.0.2:8476", 2, 1, 2),
    ),
    "TPU VM, newer metadata, two slices": (
        {}, vm(worker_network_endpoints="h0,h1", agent_worker_number="0", tpu_env=SLICE),
        Place("TPU VM, 2 slices", "run-slice-0-0.run:8476", 4, 2, 4),
    ),
    "TPU VM of one host": (
        {}, vm(worker_network_endpoints="a:1:10.0.0.2", agent_worker_number="0"),
        Place("TPU of one host"),
    ),
    "TPU, no metadata wanted": ({"TPU_SKIP_MDS_QUERY": "1"}, TPU, Place("TPU of one host")),
    "TPU, and the CPU chosen": ({**GKE, "JAX_PLATFORMS": "cpu"}, TPU, Place()),
    "torchrun": (
        {**TORCHRUN, **EIGHT}, BARE, Place("torchrun", "10.0.0.5:29501", 16, 9, 2, (1,)),
    ),
    "torchrun's variables, by another program": (
        {k: v for k, v in TORCHRUN.items() if k != "TORCHELASTIC_RUN_ID"}, BARE,
        Place("torchrun", "10.0.0.5:29500", 16, 9, 2),
    ),
    "SkyPilot": ({**SKYPILOT, **EIGHT}, BARE, Place("SkyPilot", "10.0.0.5:8476", 2, 1, 2)),
    "a notebook's pod": ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, BARE, Place()),
    "pods that jax asks about": (
        POD, Machine(kubernetes=True),
        Place("Kubernetes, by its API", count=0, hosts=0, asked="k8s"),
    ),
    "a JobSet of GPUs": (
        {**POD, "JAX_COORDINATOR_ADDRESS": "run-workers-0-0.run:8476", "JAX_NUM_PROCESSES": "4"},
        BARE, Place("JAX_COORDINATOR_ADDRESS", "run-workers-0-0.run:8476", 4, 3, 0),
    ),
    "a pod that runs alone": (
        {**POD, "JAX_NUM_PROCESSES": "1"}, BARE, Place("JAX_NUM_PROCESSES=1"),
    ),
    "xpk": (XPK, BARE, Place("JAX_COORDINATOR_ADDRESS", "run-slice-job-0-0.run:6002", 4, 3, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_place(name: str) -> None:
    env, machine, place = PLACES[name]
    assert find_place(env, machine) == place
    assert place.alone == (place.count == 1)


def at(**addresses: str) -> Machine:
    return Machine(hostname="gpu009", resolve=lambda host: addresses.get(host, ""))


REFUSED = {
    "three tasks for four GPUs": (
        {**SLURM_TASK_A_GPU, "SLURM_STEP_TASKS_PER_NODE": "3(x2)", **FOUR}, BARE,
        r"3 processes of this host see 4 GPUs, .* set JAX_LOCAL_DEVICE_IDS",
    ),
    "Open MPI 5, two hosts": (OPEN_MPI_5, BARE, "Open MPI 5 does not say .*mpirun -x JAX_COORD"),
    "Open MPI 4, loopback alone": (
        {**OPEN_MPI, "OMPI_MCA_orte_hnp_uri": "8192.0;tcp://127.0.0.1:34911"}, BARE,
        "coordinator 127.0.0.1 is each host's own .* there are 2 hosts: give it the address",
    ),
    "SLURM, a name that is loopback here": (
        SLURM, at(gpu007="127.0.1.1"), "coordinator gpu007 is 127.0.1.1 here, .* there are 4 hosts",
    ),
    "TPU, worker unknown": (
        {"TPU_WORKER_HOSTNAMES": "a,b"}, TPU, "TPU has 2 hosts, and nothing says which this is",
    ),
    "SkyPilot, loopback": (
        {**SKYPILOT, "SKYPILOT_NODE_IPS": "127.0.0.1\n127.0.0.1"}, BARE, "there are 2 hosts",
    ),
    "an Indexed Job": (POD, BARE, "variables do not name the other pods. Set JAX_COORDINATOR_ADD"),
    "an address alone": (
        {"JAX_COORDINATOR_ADDRESS": "a:1"}, BARE, "set JAX_NUM_PROCESSES and JAX_PROCESS_ID",
    ),
    "an index too high": ({**XPK, "NODE_RANK": "4"}, BARE, "process 4 is not one of 0 to 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_one_sentence(name: str) -> None:
    env, machine, words = REFUSED[name]
    with pytest.raises(ValueError, match=words) as caught:
        find_place(env, machine)
    assert "\n" not in str(caught.value)


def test_flags_come_before_the_environment() -> None:
    place = find_place({**SLURM_TASK_A_GPU, **FOUR}, BARE, "10.0.0.1:8476", 2, 1)
    assert place == Place("flags", "10.0.0.1:8476", 2, 1, 0, (2,))
    assert find_place(SLURM, BARE, count=1).alone
    assert find_place({**SLURM, "JAX_LOCAL_DEVICE_IDS": "3,1"}, BARE).devices == (3, 1)
    for several in (("localhost:1234", 2, -1), ("localhost", 2, 0), ("a:1", 2, 2), ("", 0, 1)):
        with pytest.raises(ValueError, match="several processes need all three"):
            find_place({}, BARE, *several)


def test_what_should_be_known_is_noted() -> None:
    assert "without srun" in find_place({"SLURM_NTASKS": "8"}, BARE).notes[0]
    assert find_place({"SLURM_NTASKS": "1"}, BARE).notes == ()
    assert "its chips alone" in find_place({}, TPU).notes[0]
    own = at(gpu009="127.0.1.1")  # Debian writes a host's own name so
    (note,) = find_place({**SLURM, "SLURM_STEP_NODELIST": "gpu[009,011]"}, own).notes
    assert "gpu009 is 127.0.1.1 here" in note
    (note,) = find_place({"http_proxy": "p:80", **SLURM}, BARE).notes
    assert note == "http_proxy set: the way to gpu007 leaves the proxy out."
    assert find_place({"http_proxy": "p:80"}, BARE).notes == ()


def test_the_proxy_is_left_out_for_the_coordinator(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "10.0.0.0/8")
    leave_out_proxy("node1")
    assert NO_PROXY not in os.environ
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    leave_out_proxy("node1")
    assert os.environ[NO_PROXY] == "10.0.0.0/8,node1"


def test_lists_of_slurm() -> None:
    lists = ("n1", "n1,m2", "n[001-015],m2", "n[001,007-015]", "r[1-2]n[3-4],x", "n[7]-ib")
    assert [first_node(text) for text in lists] == ["n1", "n1", "n001", "n001", "r1n3", "n7-ib"]
    assert tasks_by_node("8(x2),4") == [8, 8, 4]


def test_large_pods_are_waited_for_longer() -> None:
    assert [default_wait(n) for n in (4, 256, 0)] == [300, 1800, 1800]
