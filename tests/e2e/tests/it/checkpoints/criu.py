#!/usr/bin/python3
"""Stands in for CRIU: speaks its RPC, writes down what it is asked, and does as much of it as a test can see.

A dump keeps the command of the process and ends it. A restore begins a process of its own where the real one would bring
one back: as a child of whoever asked, in the given network namespace and root, with the given pipes."""

import ctypes
import json
import os
import signal
import socket
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
DUMP, RESTORE, CHECK, VERSION = 1, 2, 3, 10


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data):
    at, found = 0, {}
    while at < len(data):
        key, at = varint(data, at)
        value, at = varint(data, at)
        if key & 7 == 2:
            value, at = data[at : at + value], at + value
        found.setdefault(key >> 3, []).append(value)
    return found


def number(field, value):
    return encoded(field << 3) + encoded(value)


def encoded(value):
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def answer(kind, success, more=b""):
    conversation.send(number(1, kind) + number(2, int(success)) + more)


def words(values):
    return [value.decode() for value in values]


def dump(options, images):
    pid = options[2][0]
    with open(f"/proc/{pid}/cmdline", "rb") as process, open(f"{images}/core", "wb") as core:
        core.write(process.read())
    if 3 not in options:
        os.kill(pid, signal.SIGKILL)
    answer(DUMP, True)


def restore(options, images):
    with open(f"{images}/core", "rb") as core:
        command = core.read().decode().replace("\0", " ").strip()
    inherited = {}
    for one in options.get(27, []):
        one = fields(one)
        inherited[one[1][0].decode()] = one[2][0]
    with open(f"{HERE}/group", "w") as group, open("/proc/self/cgroup") as own:
        group.write(own.read())
    CLONE_PARENT, CLONE_NEWNET = 0x8000, 0x40000000
    libc = ctypes.CDLL(None)
    pid = libc.syscall(56, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        if "extRootNetNS" in inherited:
            libc.setns(inherited["extRootNetNS"], CLONE_NEWNET)
        pipes = [fd for name, fd in inherited.items() if name.startswith("pipe:")]
        os.dup2(pipes[-2], 1)
        os.dup2(pipes[-1], 2)
        os.chroot(options[13][0])
        os.chdir("/")
        os.execv("/bin/sh", ["sh", "-c", f"echo on with {command}; cat /kept; exec sleep 1000"])
    answer(RESTORE, True, bytes([4 << 3 | 2, len(number(1, pid))]) + number(1, pid))


conversation = socket.socket(fileno=int(sys.argv[2]))
peer = struct.unpack("3i", conversation.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
while True:
    request = conversation.recv(1 << 16)
    if not request:
        break
    request = fields(request)
    kind, options = request[1][0], fields(request.get(2, [b""])[0])
    if kind == VERSION:
        answer(VERSION, True, bytes([10 << 3 | 2, 6]) + number(1, 4) + number(2, 1) + number(4, 2))
        continue
    images = f"/proc/{peer}/fd/{options[1][0]}"
    work = f"/proc/{peer}/fd/{options[17][0]}"
    if kind == CHECK:
        refuses = os.path.exists(f"{HERE}/refuses")
        if refuses:
            with open(f"{work}/{options[10][0].decode()}", "w") as log:
                log.write("(00.000001) Warn  (x.c:1): hm\n(00.000002) Error (x.c:2): this kernel is too new\n")
        answer(CHECK, not refuses)
        continue
    external = words(options.get(37, []))
    sources = [one.split("]:", 1)[1] for one in external if one.startswith("mnt[")]
    with open(f"{HERE}/asked", "w") as asked:
        json.dump(
            {
                "kind": kind,
                "pid": options.get(2, [0])[0],
                "leave_running": 3 in options,
                "sibling": 26 in options,
                "freezer": words(options.get(44, [])),
                "external": external,
                "missing": [one for one in sources if kind == RESTORE and not os.path.exists(one)],
            },
            asked,
        )
    (dump if kind == DUMP else restore)(options, images)
