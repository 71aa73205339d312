"""Run a program inside the sandbox: this file runs alone, as process 1 of new namespaces, and needs nothing of ours.

Process 1 is trusted. It builds a root of folders that may only be read and of an empty /tmp, and forks. The child gives
up every right, runs the program and then its tests, and reports over a pipe. Process 1 judges the child by what came
over the pipe and by how it ended. It writes that as one line of JSON.

A child that ends before its tests have ended has not passed, whatever its status: the word that says so reaches the
child only after the program's own lines. Builtins are put back before the tests. A program that studies this very file
could still report a success that it has not earned, as any program can that shares a process with its tests.
"""

import builtins
import ctypes
import json
import os
import resource
import secrets
import select
import signal
import sys
import time
import types

MOUNT_RDONLY, MOUNT_NOSUID, MOUNT_NODEV, MOUNT_REMOUNT, MOUNT_BIND, MOUNT_REC = 1, 2, 4, 32, 4096, 16384
MOUNT_PRIVATE, DETACH, RELATIME = 1 << 18, 2, 1 << 21
KEPT_FLAGS = 2 | 4 | 8 | 1024 | 2048
"""nosuid, nodev, noexec, noatime, nodiratime: what a remount must not take away; the same bits in statvfs and mount."""
NO_NEW_PRIVILEGES, DROP_BOUNDING = 38, 24
NOBODY = 65534
SAFE, DEFINED = b"safe\n", b"defined\n"
"""Reports of the child: all rights are given up; the program's own lines have run."""
LONGEST_REPORT = 4096
"""Most bytes that the child may report."""
LIBC = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> None:
    """Call a function of the C library.

    Raises:
        OSError: it fails; the message names it.
    """
    if getattr(LIBC, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def mount(source: str, target: str, kind: str | None, flags: int, *, data: str | None = None) -> None:
    call(
        "mount",
        *(source.encode(), target.encode(), None if kind is None else kind.encode(), ctypes.c_ulong(flags)),
        None if data is None else data.encode(),
    )


def bind(folder: str, root: str) -> None:
    """Show a folder of the machine at the same path below `root`, for reading only, with all that is mounted in it."""
    target = root + folder
    os.makedirs(target, exist_ok=True)
    mount(folder, target, None, MOUNT_BIND | MOUNT_REC)
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    for point in points:
        if point == target or point.startswith(target + "/"):
            kept = os.statvfs(point).f_flag & KEPT_FLAGS
            mount("none", point, None, MOUNT_REMOUNT | MOUNT_BIND | MOUNT_RDONLY | MOUNT_NOSUID | MOUNT_NODEV | kept)


def enter_root() -> None:
    """Make a root in which only the C library, this Python's library and an empty /tmp are to be seen."""
    mount("none", "/", None, MOUNT_REC | MOUNT_PRIVATE)
    root = "/tmp"  # on top of the machine's, in this namespace alone
    mount("tmpfs", root, "tmpfs", MOUNT_NOSUID | MOUNT_NODEV, data="size=1m,nr_inodes=1000,mode=755")
    os.mkdir(root + "/old")
    inside = root + "/inside"
    for folder in ("/usr", "/lib", "/lib64", os.path.join(sys.base_prefix, "lib")):
        if os.path.islink(folder):
            os.makedirs(inside, exist_ok=True)
            os.symlink(os.readlink(folder), inside + folder)
        elif os.path.isdir(folder) and not os.path.isdir(inside + folder):
            bind(folder, inside)
    os.mkdir(inside + "/tmp")
    mount("tmpfs", inside + "/tmp", "tmpfs", MOUNT_NOSUID | MOUNT_NODEV, data="size=16m,nr_inodes=256,mode=777")
    os.mkdir(inside + "/dev")
    open(inside + "/dev/null", "w").close()
    mount("/dev/null", inside + "/dev/null", None, MOUNT_BIND)
    with open("/proc/sys/kernel/shmall", "w", encoding="ascii") as shared:  # memory that no limit of a process counts
        shared.write("0")
    call("pivot_root", root.encode(), (root + "/old").encode())
    os.chdir("/")
    call("umount2", b"/old", DETACH)
    mount("none", "/", None, MOUNT_REMOUNT | MOUNT_RDONLY | MOUNT_NOSUID | MOUNT_NODEV, data="size=1m")
    os.chroot("/inside")  # who lives in a chroot cannot make a user namespace, in which it would have rights again
    os.chdir("/tmp")


def give_up_rights(request: dict[str, object]) -> None:
    """Limit this process, and take from it every right that it could use against the rest."""
    seconds, memory = int(float(str(request["seconds"]))) + 1, int(str(request["megabytes"])) << 20
    limits = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: 8 << 20,
        resource.RLIMIT_NOFILE: 32,
        resource.RLIMIT_NPROC: 1,  # neither a process nor a thread more
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for which, most in limits.items():
        resource.setrlimit(which, (most, most))
    for capability in range(64):
        LIBC.prctl(DROP_BOUNDING, capability, 0, 0, 0)  # fails for numbers that this kernel does not have
    if request["root"]:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    call("capset", header, none)
    call("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    null = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)


def run_tests(request: dict[str, object], read: int, write: int) -> None:
    """Run the program and then its tests, and report how that went."""
    say, hear, parse, run, text = os.write, os.read, json.loads, exec, str
    kept, kinds = dict(vars(builtins)), type
    try:
        space = vars(types.ModuleType("__program__"))
        run(compile(text(request["program"]), "program", "exec"), space)
        say(write, DEFINED)
        told = parse(hear(read, 1 << 20))
        sys.settrace(None)
        sys.setprofile(None)
        builtins.__dict__.update(kept)
        run(compile(told["test"], "test", "exec"), space)
        run("check(" + told["entry_point"] + ")", space)
        say(write, told["word"].encode() + b"\n")
    except BaseException as error:
        line = kinds(error).__name__
        try:
            line += ": " + text(error)
        except BaseException:
            line += ": (no message)"
        say(write, b"failed " + line[:300].encode(errors="replace").replace(b"\n", b" ") + b"\n")
    os._exit(0)


def judge(request: dict[str, object], child: int, read: int, write: int) -> dict[str, object]:
    """Return whether the child has passed, and else why not."""
    deadline, report, word, told = time.monotonic() + float(str(request["seconds"])), b"", secrets.token_hex(16), False
    while (left := deadline - time.monotonic()) > 0 and len(report) < LONGEST_REPORT:
        if not select.select([read], [], [], left)[0]:
            break
        part = os.read(read, LONGEST_REPORT)
        if not part:
            status = os.waitpid(child, 0)[1]
            if os.WIFSIGNALED(status):
                name = signal.Signals(os.WTERMSIG(status)).name
                return {"passed": False, "reason": f"was ended by {name} before its tests had ended"}
            code = os.waitstatus_to_exitcode(status)
            return {"passed": False, "reason": f"ended itself with status {code} before its tests had ended"}
        report += part
        if report.startswith(b"unsafe "):  # said before the program could say anything
            raise SystemExit(report.decode(errors="replace").strip())
        if report.startswith(SAFE + DEFINED) and not told:
            told = True
            sent = {"test": request["test"], "entry_point": request["entry_point"], "word": word}
            os.write(write, json.dumps(sent).encode())
        last = report.removeprefix(SAFE).removeprefix(DEFINED)
        if last.endswith(b"\n"):
            if told and last == word.encode() + b"\n":
                return {"passed": True, "reason": ""}
            return {"passed": False, "reason": last.decode(errors="replace").strip().removeprefix("failed ")}
    if len(report) >= LONGEST_REPORT:
        return {"passed": False, "reason": "wrote more into its report than a report holds"}
    return {"passed": False, "reason": f"had not ended after {request['seconds']} s"}


def main() -> None:
    """Read the request from standard input, run it, and print the verdict."""
    request = json.loads(sys.stdin.read())
    enter_root()
    from_child, to_parent = os.pipe()
    from_parent, to_child = os.pipe()
    output = os.dup(1)
    child = os.fork()
    if child == 0:
        os.close(output)
        os.close(from_child)
        os.close(to_child)
        try:
            give_up_rights(request)
        except BaseException as error:
            os.write(to_parent, f"unsafe {error}\n".encode())
            os._exit(1)
        os.write(to_parent, SAFE)
        run_tests(request, from_parent, to_parent)
    os.close(to_parent)
    os.close(from_parent)
    verdict = judge(request, child, from_child, to_child)
    os.write(output, json.dumps(verdict).encode())
    os._exit(0)  # process 1 ends, and with it all that the program may have left


if __name__ == "__main__":
    main()
