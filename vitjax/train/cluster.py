"""Place of a process among those of a run, read from its environment before jax is asked.

jax finds processes too, but gives one device to each task of SLURM and Open MPI, even to the only
task of a host, and asks servers that are not everywhere (jax 0.10 to 0.12). So everything is found
here, and jax is told; of Kubernetes' API alone jax asks itself.
"""

import dataclasses
import functools
import ipaddress
import re
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

PORT = 8476
"""Of the coordinator, where neither the environment nor a job's number gives one."""
HIGH_PORTS = 61440, 4096
"""First and number of the ports above those that Linux gives to outgoing connections."""
PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
"""Variables by which gRPC, which connects the processes, would go through a proxy."""
NO_PROXY = "no_grpc_proxy"
"""Variable of the hosts that gRPC reaches without one; where it is unset, `no_proxy` is read."""
ADDRESS = "JAX_COORDINATOR_ADDRESS"
OVERRIDE = f"set {ADDRESS}=HOST:PORT, of process 0, for all processes"
Env = Mapping[str, str]


class Machine(NamedTuple):
    """What a process can learn of its machine, besides its variables.

    Attributes:
      tpu: there are device files of a TPU, and its library.
      gpus: NVIDIA's device files.
      kubernetes: the package of this name is installed.
      hostname: of this host.
      metadata: attribute → value at Google's metadata server; None if there is none.
      resolve: host name → address; "" if it has none.
    """

    tpu: bool = False
    gpus: int = 0
    kubernetes: bool = False
    hostname: str = ""
    metadata: Callable[[str], str | None] = lambda key: None
    resolve: Callable[[str], str] = lambda host: ""


@dataclasses.dataclass(frozen=True)
class Place:
    """Place of a process among those of a run.

    Attributes:
      launcher: what started the processes, or how they were found.
      coordinator: "host:port" of process 0; empty for a single process.
      count, index: number of processes, and which this is.
      hosts: on which they run; 0 if unknown.
      devices: numbers of its own among the GPUs that it sees; None: all of them.
      asked: jax's name of a service that it has to ask for all this; else empty.
      notes: what is not wrong, but should be known.
    """

    launcher: str = "one process"
    coordinator: str = ""
    count: int = 1
    index: int = 0
    hosts: int = 1
    devices: tuple[int, ...] | None = None
    asked: str = ""
    notes: tuple[str, ...] = ()

    @property
    def alone(self) -> bool:
        """Whether no other process belongs to the run."""
        return self.count == 1 and not self.asked


def find_place(
    env: Env, machine: Machine, coordinator: str = "", count: int = 0, index: int = -1
) -> Place:
    """Find the place of this process among those of its run.

    Args:
      coordinator, count, index: as given on the command line.

    Raises:
      ValueError: the environment says too little, or cannot work; the message says what to do.
    """
    if coordinator or count or index >= 0:
        place = _by_flags(env, machine, coordinator, count, index)
    else:
        finders = (_variables, _open_mpi, _slurm, _torchrun, _tpu, _skypilot, _kubernetes, _single)
        place = next(place for find in finders if (place := find(env, machine)))
    return _reachable(place, env, machine)


def _by_flags(env: Env, machine: Machine, coordinator: str, count: int, index: int) -> Place:
    if count == 1 and index < 1 and not coordinator:
        return Place("--num_processes=1")
    host, _, port = coordinator.rpartition(":")
    if not (host and port.isdigit() and 0 <= index < count):
        raise ValueError(
            f"--coordinator={coordinator or '?'} --num_processes={count} --process_id={index}: "
            "several processes need all three, as in --coordinator=10.0.0.1:8476 "
            "--num_processes=4 --process_id=0, with another id, from 0 to 3, for each; and "
            "--num_processes=1 runs alone, whatever the environment says."
        )
    local, of = _local(env)
    return Place("flags", coordinator, count, index, 0, _own_devices(env, machine, local, of))


def _variables(env: Env, machine: Machine) -> Place | None:
    """Read jax's variables, and those that xpk and JobSets set beside them."""
    count = _number(env, "JAX_NUM_PROCESSES", "JAX_PROCESS_COUNT", "NNODES")
    if count == 1 and "JAX_NUM_PROCESSES" in env:
        return Place("JAX_NUM_PROCESSES=1")
    index = _number(env, "JAX_PROCESS_ID", "NODE_RANK", "JOB_COMPLETION_INDEX")
    if ADDRESS not in env or count is None or index is None:
        return None  # an address alone belongs to a launcher that says the rest
    if not 0 <= index < count:
        raise ValueError(f"{ADDRESS} is set, and process {index} is not one of 0 to {count - 1}.")
    local, of = _local(env)
    devices = _own_devices(env, machine, local, of)
    return Place(ADDRESS, _address(env, "", PORT), count, index, 0, devices)


def _open_mpi(env: Env, machine: Machine) -> Place | None:
    count = _number(env, "OMPI_COMM_WORLD_SIZE") or 1
    if count == 1:
        return None
    local, of = _local(env)
    index, hosts = int(env["OMPI_COMM_WORLD_RANK"]), -(-count // of)
    devices = _own_devices(env, machine, local, of)
    uri, name = env.get("OMPI_MCA_orte_hnp_uri", ""), "Open MPI"
    if uri:  # "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911", of mpirun; not in Open MPI 5
        listed = re.search(r"tcp6?://\[?([^\];]+?)\]?:\d+(;|$)", uri)
        addresses = listed.group(1).split(",") if listed else []
        host = next((a for a in addresses if not _is_loopback(a)), (addresses or [""])[0])
        port = _high_port(int(uri.partition(".")[0]) >> 12)
    else:
        host, port = "", _high_port(zlib.crc32(env.get("PMIX_NAMESPACE", "").encode()))
    if not host and hosts > 1 and ADDRESS not in env:
        raise ValueError(
            f"Open MPI 5 does not say on which host process 0 is: {OVERRIDE} "
            f"(mpirun -x {ADDRESS}=…)."
        )
    coordinator = _address(env, host or "localhost", port)
    return Place(name, coordinator, count, index, hosts, devices)


def _slurm(env: Env, machine: Machine) -> Place | None:
    count = _number(env, "SLURM_STEP_NUM_TASKS") or 1
    if count == 1 or "SLURM_STEP_NODELIST" not in env:
        return None
    local, of = _local(env)
    nodes = _number(env, "SLURM_STEP_NUM_NODES", "SLURM_NNODES") or 1
    # Steps of one job may run beside each other on one node.
    port = _high_port(int(env["SLURM_JOB_ID"]) + 97 * (_number(env, "SLURM_STEP_ID") or 0))
    coordinator = _address(env, first_node(env["SLURM_STEP_NODELIST"]), port)
    devices = _own_devices(env, machine, local, of)
    return Place("SLURM", coordinator, count, int(env["SLURM_PROCID"]), nodes, devices)


def _torchrun(env: Env, machine: Machine) -> Place | None:
    count = _number(env, "WORLD_SIZE") or 1
    if count == 1 or not {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= env.keys():
        return None
    local, of = _local(env)
    # torchrun itself listens at its port; other programs with these variables do not.
    port = int(env["MASTER_PORT"]) + ("TORCHELASTIC_RUN_ID" in env)
    coordinator = _address(env, env["MASTER_ADDR"], port)
    devices = _own_devices(env, machine, local, of)
    return Place("torchrun", coordinator, count, int(env["RANK"]), -(-count // of), devices)


def _tpu(env: Env, machine: Machine) -> Place | None:
    """Find the hosts of a TPU: Kubernetes sets variables, a TPU VM has a metadata server."""
    if not machine.tpu or "tpu" not in (env.get("JAX_PLATFORMS") or "tpu"):
        return None
    told = env.get("TPU_PROCESS_ADDRESSES") or env.get("TPU_WORKER_HOSTNAMES")
    index, say, name = env.get("TPU_WORKER_ID"), env.get, "TPU, by its variables"
    if told is None:
        if "TPU_SKIP_MDS_QUERY" in env:
            return Place("TPU of one host")
        told = machine.metadata("worker-network-endpoints")
        if told is None:
            text = (
                "There is a TPU, and neither variables (TPU_WORKER_HOSTNAMES) nor a metadata "
                "server tell of other hosts: this runs on its chips alone."
            )
            return Place("TPU of one host", notes=(text,))
        index, name = machine.metadata("agent-worker-number"), "TPU VM"
        say = _tpu_env(machine.metadata("tpu-env") or "").get
    entries = (entry.split(":") for entry in told.split(","))
    # An entry is a host, "host:port", or on older TPU VMs "name:number:address".
    hosts = [entry[2] if len(entry) == 3 else entry[0] for entry in entries]
    slices = int(say("MEGASCALE_NUM_SLICES") or 1)
    if len(hosts) * slices == 1:
        return Place("TPU of one host")
    if index is None:
        raise ValueError(
            f"The TPU has {len(hosts)} hosts, and nothing says which this is: set TPU_WORKER_ID, "
            "from 0, on each."
        )
    place = int(index) + int(say("MEGASCALE_SLICE_ID") or 0) * len(hosts)
    host = (say("MEGASCALE_COORDINATOR_ADDRESS") or hosts[0]).split(":")[0]
    count = len(hosts) * slices
    name += f", {slices} slices" if slices > 1 else ""
    return Place(name, _address(env, host, PORT), count, place, count)


def _skypilot(env: Env, machine: Machine) -> Place | None:
    count = _number(env, "SKYPILOT_NUM_NODES") or 1
    if count == 1:
        return None
    host = env["SKYPILOT_NODE_IPS"].split()[0]
    return Place(
        "SkyPilot", _address(env, host, PORT), count, int(env["SKYPILOT_NODE_RANK"]), count
    )


def _kubernetes(env: Env, machine: Machine) -> Place | None:
    if not {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= env.keys():
        return None
    if machine.kubernetes:
        return Place("Kubernetes, by its API", count=0, hosts=0, asked="k8s")
    raise ValueError(
        "This is a pod of an Indexed Job, whose variables do not name the other pods. "
        f"{OVERRIDE[0].upper()}{OVERRIDE[1:]}, and JAX_NUM_PROCESSES, as `vitjax launch "
        "jobset-gpu` does; or JAX_NUM_PROCESSES=1 if each pod runs alone; or install the package "
        "`kubernetes` and let the pods read Jobs and Services."
    )


def _single(env: Env, machine: Machine) -> Place:
    """Return the place of a process that nothing says to have others."""
    tasks = _number(env, "SLURM_NTASKS") or 1
    if tasks > 1 and "SLURM_STEP_NUM_TASKS" not in env:
        text = f"This SLURM job has {tasks} tasks, and without srun before the command one runs."
        return Place("SLURM without srun", notes=(text,))
    if ADDRESS in env:
        raise ValueError(
            f"{ADDRESS}={env[ADDRESS]} is set, and nothing says how many processes there are and "
            "which this is: set JAX_NUM_PROCESSES and JAX_PROCESS_ID, or unset it."
        )
    return Place()


def _reachable(place: Place, env: Env, machine: Machine) -> Place:
    """Check that all hosts can reach the coordinator.

    Raises:
      ValueError: its address is the loopback one of each host.
    """
    if not place.coordinator:
        return place
    host, notes = place.coordinator.rpartition(":")[0].strip("[]"), [*place.notes]
    address = host if _is_loopback(host) else machine.resolve(host)
    if _is_loopback(address):
        here = host.split(".")[0] == machine.hostname.split(".")[0]
        seen = "" if address == host else f"{address} here, which is "
        text = f"The coordinator {host} is {seen}each host's own address"
        if place.hosts > 1 and not (here and host != address):
            raise ValueError(
                f"{text}, and there are {place.hosts} hosts: give it the address by which the "
                f"others reach process 0 (in DNS or /etc/hosts), or {OVERRIDE}."
            )
        if place.hosts != 1:
            notes.append(f"{text}; the others must see another one, or be on this host.")
    if found := [name for name in PROXIES if env.get(name)]:
        notes.append(f"{' and '.join(found)} set: the way to {host} leaves the proxy out.")
    return dataclasses.replace(place, notes=tuple(notes))


def _local(env: Env) -> tuple[int, int]:
    """Read which process of this host this is, and how many it has."""
    if "OMPI_COMM_WORLD_LOCAL_RANK" in env:
        size = _number(env, "OMPI_COMM_WORLD_LOCAL_SIZE") or 1
        return int(env["OMPI_COMM_WORLD_LOCAL_RANK"]), size
    if "SLURM_LOCALID" in env and "SLURM_STEP_NUM_TASKS" in env:
        counts = tasks_by_node(env.get("SLURM_STEP_TASKS_PER_NODE", "1"))
        node = min(_number(env, "SLURM_NODEID") or 0, len(counts) - 1)
        return int(env["SLURM_LOCALID"]), counts[node]
    return _number(env, "LOCAL_RANK") or 0, _number(env, "LOCAL_WORLD_SIZE") or 1


def _own_devices(env: Env, machine: Machine, local: int, of: int) -> tuple[int, ...] | None:
    """Share the GPUs that each process of a host sees: one process has all, eight have one each.

    Raises:
      ValueError: they cannot be shared evenly.
    """
    if chosen := env.get("JAX_LOCAL_DEVICE_IDS"):
        return tuple(int(number) for number in chosen.split(","))
    shown = [env[k] for k in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES") if k in env]
    gpus = len([name for name in shown[0].split(",") if name]) if shown else machine.gpus
    if of == 1 or gpus <= 1 or env.get("JAX_PLATFORMS") == "cpu":
        return None  # one GPU: the launcher gave each process its own
    if gpus % of:
        raise ValueError(
            f"{of} processes of this host see {gpus} GPUs, which cannot be shared evenly: start "
            "one process a host, one for each GPU, or set JAX_LOCAL_DEVICE_IDS for each."
        )
    each = gpus // of
    return tuple(range(local * each, (local + 1) * each))


def first_node(nodes: str) -> str:
    """Return the first host of SLURM's list: "node[007-015,3],other" is "node007"."""
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", re.split(r",(?![^\[]*\])", nodes)[0])


def tasks_by_node(text: str) -> list[int]:
    """Expand SLURM's numbers of tasks: "8(x2),4" is [8, 8, 4]."""
    counts: list[int] = []
    for part in text.split(","):
        number, _, times = part.partition("(x")
        counts += [int(number)] * int(times.rstrip(")") or 1)
    return counts


def _tpu_env(text: str) -> dict[str, str]:
    """Read a TPU VM's attribute "tpu-env", whose lines are KEY: 'value'."""
    rows = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip().strip("'\"") for key, _, value in rows}


def _address(env: Env, host: str, port: int) -> str:
    """Return "host:port", as jax's variables say if they do."""
    given, port_given = env.get(ADDRESS, ""), env.get("JAX_COORDINATOR_PORT", str(port))
    if re.fullmatch(r".*[^:]:\d+|\[.*\]:\d+", given):
        return given
    host = given or host
    return f"[{host}]:{port_given}" if ":" in host.strip("[]") else f"{host}:{port_given}"


def _high_port(number: int) -> int:
    first, count = HIGH_PORTS
    return first + number % count


def _number(env: Env, *names: str) -> int | None:
    """Read the first of the variables that is set to a number."""
    return next((int(env[name]) for name in names if env.get(name, "").isdigit()), None)


@functools.cache
def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.startswith("localhost.")
