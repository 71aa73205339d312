"""A whole Slurm on this one machine: munge, a controller, and several nodes, on the loopback address.

It has a folder and ports of its own. It looks for its configuration and its socket where the system's are, which the
tests' own mount namespace hides (__main__.py), so neither another Slurm nor another munge is touched. It has no
database, as a small cluster may have none: job states come from the controller.
"""

import os
import pathlib
import signal
import socket
import subprocess

from tests.cluster.clone import until

NODES = ("n1", "n2", "n3", "n4")
CONF = pathlib.Path("/etc/slurm/slurm.conf")
MUNGE_SOCKET = pathlib.Path("/run/munge/munge.socket.2")
FIELDS = {
    "id": ("JobID", 12),
    "state": ("State", 16),
    "partition": ("Partition", 12),
    "nodes": ("NodeList", 12),
    "comment": ("Comment", 200),
    "folder": ("WorkDir", 250),
    "restarts": ("RestartCnt", 6),
    "name": ("Name", 150),
}
"""What is asked of squeue about each job: our name -> its name and the width of its column."""
LOST = ("FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE")
"""States of a job that has ended and stays so."""
# `main`: the default; its jobs spread over its nodes. `late`: closed until a test opens it. `doomed`: its first choice
# is the node that dies. `low` and `high`: the second takes the first's node away.
PARTITIONS = """
PartitionName=main Nodes=n1,n2 Default=YES LLN=YES PriorityTier=1 MaxTime=INFINITE
PartitionName=late Nodes=n1,n2 PriorityTier=1 MaxTime=INFINITE State=DOWN
PartitionName=doomed Nodes=n2,n3 PriorityTier=1 MaxTime=INFINITE
PartitionName=low Nodes=n4 PriorityTier=1 PreemptMode=REQUEUE MaxTime=INFINITE
PartitionName=high Nodes=n4 PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE
"""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def call(*command: str, check: bool = True) -> str:
    """Run a program of Slurm; return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"{' '.join(command)}: {done.stderr or done.stdout}"
    return done.stdout


def configuration(folder: pathlib.Path, host: str) -> str:
    """Return slurm.conf."""
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=2 RealMemory=24000 "
        f"Weight={1 if name == 'n3' else 10} State=UNKNOWN"
        for name in NODES
    )
    return f"""ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={free_port()}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0
ReturnToService=2
SlurmdTimeout=10
KillWait=2
MinJobAge=7200
JobRequeue=1
JobAcctGatherType=jobacct_gather/linux
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
{nodes}
{PARTITIONS}"""


class Slurm:
    """Start a Slurm in `folder`, ask it about jobs, and end it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.host = socket.gethostname().split(".")[0]

    def start(self) -> None:
        """Start every daemon, and wait until all nodes are idle."""
        for name in ("state", "log", "munge", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        key = self.folder / "munge/munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        CONF.write_text(configuration(self.folder, self.host))
        call(
            "munged",
            "--force",
            f"--key-file={key}",
            f"--socket={MUNGE_SOCKET}",
            f"--pid-file={self.folder}/munged.pid",
            f"--log-file={self.folder}/log/munged.log",
            f"--seed-file={self.folder}/munge/seed",
        )
        call("slurmctld", "-c")
        for node in NODES:
            self.start_node(node)
        until("all nodes to be idle", lambda: "idle" in call("sinfo", "-h", "-o", "%T %D", check=False)
              and len(call("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split()) >= len(NODES), 60)  # fmt: skip

    def start_node(self, node: str) -> None:
        call("slurmd", "-N", node)

    def kill_node(self, node: str) -> None:
        """Kill a node as a lost power supply does: its daemon and every process of its jobs, at once."""
        jobs = {job for job, fields in self.jobs().items() if fields["nodes"] == node}
        # first what would tell the controller that a job has ended: the daemon, and the children that hold its jobs.
        # A job whose script dies before them counts as failed, not as lost with its node, and is not started again
        with_kill(int((self.folder / f"slurmd.{node}.pid").read_text()))
        for pid, words in commands():
            if words.startswith("slurmstepd") and any(f"[{job}." in words for job in jobs):
                with_kill(pid)
        for pid, values in environments():
            if values.get("SLURM_JOB_ID") in jobs:
                with_kill(pid)

    def stop(self) -> None:
        """End the daemons; the process namespace ends what they leave."""
        for file in (*self.folder.glob("slurmd.*.pid"), self.folder / "slurmctld.pid", self.folder / "munged.pid"):
            if file.is_file():
                with_kill(int(file.read_text()), signal.SIGTERM)

    def jobs(self, states: str = "all") -> dict[str, dict[str, str]]:
        """Return the jobs of these states: number -> its fields."""
        text = call("squeue", "-h", "-t", states, "-O", ",".join(f"{name}:{width}" for name, width in FIELDS.values()))
        found = {}
        for line in text.splitlines():
            fields, at = {}, 0
            for key, (_, width) in FIELDS.items():
                fields[key] = line[at : at + width].strip()
                at += width
            found[fields["id"]] = fields
        return found

    def submitted(self, folder: pathlib.Path) -> dict[str, dict[str, str]]:
        """Return the jobs that were submitted from a folder and are still remembered."""
        return {job: fields for job, fields in self.jobs().items() if fields["folder"] == str(folder)}

    def running(self, folder: pathlib.Path, state: str = "RUNNING") -> str:
        """Wait until a job of a folder has a state; return its number."""

        def found() -> str:
            jobs = self.submitted(folder).items()
            return next((job for job, fields in jobs if fields["state"] == state), "")

        return until(f"a job of {folder} to be {state}", found)

    def waiting(self, folder: pathlib.Path) -> str:
        """Wait until a job of a folder is in the queue; return its number."""
        return self.running(folder, "PENDING")

    def states(self, folder: pathlib.Path) -> list[str]:
        """Return the states of all jobs that a folder has submitted."""
        return [fields["state"] for fields in self.submitted(folder).values()]

    def at_once(self, job: str) -> None:
        """Lift the two minutes for which Slurm holds a job that it has put back into the queue."""

        def tried() -> bool:
            fields = self.jobs()[job]
            assert fields["state"] not in LOST, f"job {job} is {fields['state']}: Slurm does not start it again"
            if fields["state"] == "PENDING":
                call("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)
            # before Slurm has noticed what happened, the job seems to run still
            again = fields["restarts"] != "0"
            assert again or fields["state"] != "COMPLETED", f"job {job} ended before anything happened to it"
            return again and fields["state"] in ("RUNNING", "COMPLETED")

        until(f"job {job} to start again", tried)


def with_kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal; a process that has ended needs none."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def pids() -> list[int]:
    """Return all processes that can be seen here."""
    return [int(path.name) for path in pathlib.Path("/proc").iterdir() if path.name.isdecimal()]


def commands() -> list[tuple[int, str]]:
    """Return every process and its command line."""
    found = []
    for pid in pids():
        try:
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        found.append((pid, words))
    return found


def environments() -> list[tuple[int, dict[str, str]]]:
    """Return every process and its environment."""
    found = []
    for pid in pids():
        try:
            content = pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        found.append((pid, dict(part.partition("=")[::2] for part in content.split("\0") if "=" in part)))
    return found


def trainers(folder: pathlib.Path) -> list[int]:
    """Return the processes that train in a folder."""
    found = []
    for pid, words in commands():
        try:
            here = os.readlink(f"/proc/{pid}/cwd")
        except OSError:
            continue
        if here == str(folder) and " speciate train " in words and words.startswith("python"):
            found.append(pid)
    return found
