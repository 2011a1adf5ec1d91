# What an application does with docker-py: every method of containers, exec, volumes, networks, images and the system that a
# single daemon has. Each step asserts what must be so and prints what any daemon must answer; the test compares the two.
import io
import json
import queue
import re
import sys
import tarfile
import threading

import docker
from docker import errors, types
from docker.models import containers, images, networks, volumes

ADDRESS, ARCHIVE = sys.argv[1:3]

# Methods that were called, by the class that has them.
CALLED = set()
# Not here: what needs a registry or a builder, what others inherit, and what swarms have.
ELSEWHERE = {
    "build", "push", "pull", "search", "get_registry_data", "prune_builds", "login", "from_env", "model", "prepare_model",
    "configs", "nodes", "plugins", "secrets", "services", "swarm", "id_attribute",
}
CLASSES = [
    docker.DockerClient, containers.Container, containers.ContainerCollection, volumes.Volume, volumes.VolumeCollection,
    networks.Network, networks.NetworkCollection, images.Image, images.ImageCollection,
]
LOW = [
    "attach", "attach_socket", "containers", "create_container", "create_container_config", "create_host_config",
    "create_endpoint_config", "create_networking_config", "exec_create", "exec_inspect", "exec_resize", "exec_start", "port",
    "inspect_container", "inspect_image", "inspect_network", "inspect_volume", "import_image_from_data", "wait", "resize",
]


def watch(owner, name):
    inner = getattr(owner, name)

    def called(*args, **kwargs):
        CALLED.add((owner.__name__, name))
        return inner(*args, **kwargs)

    setattr(owner, name, called)


def watched():
    for owner in CLASSES:
        for name, value in list(vars(owner).items()):
            if name.startswith("_") or name in ELSEWHERE:
                continue
            if isinstance(value, property):
                def get(self, value=value, owner=owner, name=name):
                    CALLED.add((owner.__name__, name))
                    return value.fget(self)

                setattr(owner, name, property(get))
            elif callable(value):
                watch(owner, name)
            yield owner.__name__, name
    for name in LOW:
        watch(docker.APIClient, name)
        yield "APIClient", name


WANTED = set(watched())


def plain(value):
    text = json.dumps(value, sort_keys=True, default=lambda other: other.decode() if isinstance(other, bytes) else str(other))
    text = re.sub(r"\b[0-9a-f]{64}\b", "ID", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "SHORT", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.?\d*Z", "TIME", text)
    return re.sub(r"02:42(:[0-9a-f]{2}){4}", "MAC", text)


def say(what, value=None):
    print(f"{what}: {plain(value)}", flush=True)


def refused(what, error, action):
    try:
        action()
    except error as refusal:
        say(what, [refusal.status_code, refusal.explanation])
    else:
        raise AssertionError(f"{what}: not refused")


client = docker.DockerClient(base_url=ADDRESS, version="1.41", timeout=60)
low = client.api


def system():
    assert client.ping() is True
    version = client.version()
    assert version["Os"] == "linux" and version["Version"] and version["ApiVersion"]
    info = client.info()
    say("info", {key: info[key] for key in ["Containers", "ContainersRunning", "ContainersPaused", "ContainersStopped",
                                            "OSType", "Architecture", "NCPU", "MemTotal", "CgroupDriver", "CgroupVersion",
                                            "MemoryLimit", "SwapLimit", "PidsLimit", "CpuCfsQuota", "IPv4Forwarding",
                                            "Swarm", "LoggingDriver", "IndexServerAddress", "SecurityOptions", "Isolation"]
                 if key not in ["Swarm"]})
    say("df", {kind: len(things or []) for kind, things in client.df().items() if kind not in ["BuilderSize", "LayersSize"]})


def all_images():
    with open(ARCHIVE, "rb") as archive:
        loaded = client.images.load(archive.read())
    say("load", [image.tags for image in loaded])
    image = client.images.get("busybox:latest")
    assert image.id.startswith("sha256:") and image.short_id.startswith("sha256:")
    say("image", [image.tags, image.labels, image.attrs["Os"], image.attrs["Architecture"], image.attrs["Config"]["Cmd"]])
    say("history", [[layer["CreatedBy"], layer["Size"] > 0, layer["Tags"]] for layer in image.history()])
    assert image.tag("example.org/copy", tag="one", force=True)
    image.reload()
    say("tags", sorted(image.tags))
    saved = b"".join(client.images.get("example.org/copy:one").save(named=True))
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))
    say("saved", [manifest[0]["RepoTags"], len(manifest[0]["Layers"])])
    say("listed", sorted(tag for image in client.images.list(filters={"reference": "example.org/*"}) for tag in image.tags))
    say("all", len(client.images.list(name="busybox", all=True)))
    say("inspected", sorted(low.inspect_image("busybox")["RepoTags"]))
    client.images.remove("example.org/copy:one")
    refused("gone", errors.ImageNotFound, lambda: client.images.get("example.org/copy:one"))
    refused("nobody's", errors.NotFound, lambda: client.images.remove("nobody/has:it"))
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("file"), io.BytesIO(b""))
    low.import_image_from_data(layer.getvalue(), repository="imported", tag="now")
    say("imported", client.images.get("imported:now").attrs["Config"]["Cmd"])
    pruned = client.images.prune(filters={"dangling": False, "label": ["nobody=has"]})
    say("pruned", pruned["ImagesDeleted"])
    client.images.get("imported:now").remove(force=True)


def all_volumes():
    volume = client.volumes.create(name="books", driver="local", labels={"kind": "books"})
    assert volume.id == volume.name == "books" and volume.short_id == "books"
    volume.reload()
    say("volume", {key: volume.attrs[key] for key in ["Name", "Driver", "Labels", "Options", "Scope"]})
    say("volumes", [volume.name for volume in client.volumes.list(filters={"label": "kind=books"})])
    say("inspected", low.inspect_volume("books")["Name"])
    client.volumes.get("books").remove()
    refused("gone", errors.NotFound, lambda: client.volumes.get("books"))
    client.volumes.create(labels={"kind": "loose"})
    pruned = client.volumes.prune(filters={"label": ["kind=loose"]})
    say("pruned", [len(pruned["VolumesDeleted"]), pruned["SpaceReclaimed"]])


def all_networks():
    pool = types.IPAMConfig(pool_configs=[types.IPAMPool(subnet="10.99.0.0/24", gateway="10.99.0.1")])
    network = client.networks.create("lane", driver="bridge", ipam=pool, labels={"kind": "lane"}, internal=True)
    assert network.id.startswith(network.short_id) and network.name == "lane"
    network.reload()
    say("network", {key: network.attrs[key] for key in ["Name", "Driver", "Scope", "Internal", "EnableIPv6", "Labels", "Options"]})
    say("ipam", network.attrs["IPAM"])
    walker = client.containers.run("busybox", "sleep 600", detach=True, name="walker", network_mode="none")
    refused("none", errors.APIError, lambda: network.connect(walker))
    walker.remove(force=True)
    walker = client.containers.run("busybox", "sleep 600", detach=True, name="walker")
    network.connect(walker, ipv4_address="10.99.0.50", aliases=["stroller"])
    network.reload()
    say("walkers", [container.name for container in network.containers])
    walker.reload()
    settings = walker.attrs["NetworkSettings"]["Networks"]["lane"]
    say("settings", [settings["IPAddress"], settings["IPAMConfig"], settings["Aliases"], settings["Gateway"]])
    say("endpoints", [[one["Name"], one["IPv4Address"]] for one in low.inspect_network("lane")["Containers"].values()])
    refused("in use", errors.APIError, network.remove)
    network.disconnect(walker, force=True)
    walker.remove(force=True)
    say("lanes", [network.name for network in client.networks.list(names=["lane"], filters={"driver": "bridge"})])
    say("default", sorted(network.name for network in client.networks.list()))
    client.networks.get("lane").remove()
    client.networks.create("unused", labels={"kind": "unused"})
    say("pruned", client.networks.prune(filters={"label": "kind=unused"})["NetworksDeleted"])
    refused("gone", errors.NotFound, lambda: client.networks.get("unused"))


def runs():
    say("output", client.containers.run("busybox", ["echo", "hello"], remove=True))
    both = client.containers.run("busybox", "sh -c 'echo out; echo err >&2'", remove=True, stdout=True, stderr=True)
    # Two pipes: which is read first is by chance.
    say("both", sorted(both.splitlines()))
    try:
        client.containers.run("busybox", "sh -c 'echo no >&2; exit 3'", remove=True)
    except errors.ContainerError as failed:
        say("failed", [failed.exit_status, failed.stderr])
    try:
        client.containers.run("busybox", "nosuch")
    except errors.APIError as failed:
        assert "executable file not found in $PATH" in failed.explanation
        say("not found", failed.status_code)
    client.containers.prune()
    seen = client.containers.run(
        "busybox", "sh -c 'id; pwd; hostname; env | sort; cat /data/file; ulimit -n; cat /proc/sys/net/core/somaxconn'",
        remove=True, environment={"A": "b"}, user="1000:7", working_dir="/tmp", hostname="box", group_add=["42"],
        volumes={"shelf": {"bind": "/data", "mode": "rw"}}, tmpfs={"/fast": "size=1m"}, read_only=True, mem_limit="64m",
        nano_cpus=500000000, pids_limit=50, shm_size="1m", sysctls={"net.core.somaxconn": "77"},
        ulimits=[types.Ulimit(name="nofile", soft=99, hard=99)], cap_drop=["ALL"], security_opt=["no-new-privileges"],
        entrypoint=["sh", "-c", "exec \"$@\"", "entry"], labels=["one"], extra_hosts={"far": "10.1.2.3"}, init=True,
    ) if client.containers.run("busybox", "sh -c 'echo in a volume >/data/file'", remove=True,
                               mounts=[types.Mount("/data", "shelf", type="volume")]) == b"" else None
    say("seen", seen)
    client.volumes.get("shelf").remove(force=True)


def life():
    container = client.containers.create(
        "busybox", "sh -c 'trap \"exit 7\" TERM; echo begun; while :; do sleep 0.1; done'", name="lively",
        labels={"kind": "lively"}, ports={"80/tcp": ("127.0.0.1", 18080)}, stop_signal="SIGTERM",
        healthcheck={"test": ["CMD", "true"], "interval": 3600 * 10**9}, restart_policy={"Name": "on-failure", "MaximumRetryCount": 1},
    )
    say("created", [container.name, container.status, container.labels, container.image.tags, container.health])
    assert container.id.startswith(container.short_id)
    container.start()
    container.reload()
    say("ports", [container.status, container.ports, low.port("lively", 80)])
    refused("name", errors.APIError, lambda: client.containers.create("busybox", name="lively"))
    for line in container.logs(stream=True, follow=True):
        say("log", line)
        break
    say("tail", container.logs(tail=1, stdout=True, stderr=False))
    assert re.match(rb"\d{4}-.*Z begun\n", container.logs(timestamps=True))
    container.pause()
    container.reload()
    say("paused", container.status)
    container.unpause()
    top = container.top()
    say("top", [top["Titles"], len(top["Processes"]) >= 1])
    say("top of", container.top(ps_args="-o pid,comm")["Titles"])
    once = container.stats(stream=False)
    say("stats", sorted(once))
    say("live", sorted(next(container.stats(stream=True, decode=True)))[:3])
    container.update(mem_limit="100m", memswap_limit="200m", cpu_shares=512, restart_policy={"Name": "no"})
    container.reload()
    host = container.attrs["HostConfig"]
    say("updated", [host["Memory"], host["MemorySwap"], host["CpuShares"], host["RestartPolicy"]])
    container.rename("livelier")
    say("renamed", client.containers.get("livelier").name)
    say("listed", [one.name for one in client.containers.list(filters={"label": "kind=lively", "status": "running"})])
    say("sparse", len(client.containers.list(all=True, sparse=True, limit=1)))
    say("line", [[one["Image"], one["State"], one["Labels"], one["Ports"]] for one in low.containers(filters={"name": "livelier"})])
    container.restart(timeout=5)
    container.reload()
    say("restarted", container.status)
    container.stop(timeout=10)
    say("stopped", container.wait())
    container.start()
    container.kill(signal="SIGKILL")
    say("killed", container.wait(condition="not-running"))
    say("waited", low.wait(container.id, timeout=10))
    refused("kill", errors.APIError, container.kill)
    refused("running", errors.APIError, lambda: (container.start(), container.remove()))
    container.remove(force=True, v=True)
    refused("gone", errors.NotFound, lambda: client.containers.get("livelier"))


def execs():
    container = client.containers.run("busybox", "sleep 600", detach=True, name="worker", network_mode="none")
    result = container.exec_run("sh -c 'echo out; echo err >&2; exit 4'", demux=True)
    say("exec", [result.exit_code, result.output])
    say("as", container.exec_run("sh -c 'id -u; pwd; echo $A'", user="1000", workdir="/tmp", environment={"A": "b"}).output)
    say("tty", container.exec_run("tty", tty=True, stdin=True).output)
    say("stream", [chunk for chunk in container.exec_run("echo streamed", stream=True).output])
    say("detached", container.exec_run("true", detach=True).output)
    made = low.exec_create(container.id, ["cat"], stdin=True, tty=False)["Id"]
    socket = low.exec_start(made, socket=True)
    raw = getattr(socket, "_sock", socket)
    raw.sendall(b"over a socket\n")
    raw.shutdown(1)
    heard = b""
    while chunk := raw.recv(4096):
        heard += chunk
    socket.close()
    say("socket", heard[8:])
    inspected = low.exec_inspect(made)
    say("inspected", [inspected["Running"], inspected["ExitCode"], inspected["ProcessConfig"]["entrypoint"], inspected["OpenStdin"]])
    waits = low.exec_create(container.id, ["sleep", "600"], tty=True)["Id"]
    low.exec_start(waits, detach=True, tty=True)
    low.exec_resize(waits, height=40, width=100)
    refused("no exec", errors.NotFound, lambda: low.exec_inspect("f" * 64))
    container.pause()
    refused("paused", errors.APIError, lambda: container.exec_run("true"))
    container.unpause()
    container.remove(force=True)


def files():
    container = client.containers.run("busybox", "sleep 600", detach=True, name="files", network_mode="none")
    sent = io.BytesIO()
    with tarfile.open(fileobj=sent, mode="w") as archive:
        header = tarfile.TarInfo("note")
        header.size, header.mode, header.uid = 5, 0o640, 1000
        archive.addfile(header, io.BytesIO(b"hello"))
    assert container.put_archive("/tmp", sent.getvalue())
    chunks, stat = container.get_archive("/tmp/note", chunk_size=512)
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        member = archive.getmember("note")
        say("got", [archive.extractfile(member).read(), oct(member.mode), member.uid])
    say("stat", [stat["name"], stat["size"], stat["linkTarget"]])
    container.exec_run("sh -c 'rm -r /home; echo x >/etc/new; chmod 700 /tmp'")
    say("diff", sorted([change["Kind"], change["Path"]] for change in container.diff()))
    with tarfile.open(fileobj=io.BytesIO(b"".join(container.export()))) as archive:
        names = archive.getnames()
    say("export", ["tmp/note" in names, "etc/new" in names, "home" in names])
    image = container.commit(repository="committed", tag="now", message="why", author="who", changes=["CMD [\"cat\", \"/etc/new\"]"])
    say("commit", [image.tags, image.attrs["Comment"], image.attrs["Author"], image.attrs["Config"]["Cmd"]])
    say("runs", client.containers.run("committed:now", remove=True, network_mode="none"))
    refused("missing", errors.NotFound, lambda: container.get_archive("/no/such"))
    container.remove(force=True)
    client.images.remove("committed:now")


def attached():
    container = client.containers.create("busybox", "sh -c 'read line; echo heard $line; echo aside >&2'", stdin_open=True, network_mode="none")
    socket = container.attach_socket(params={"stdin": 1, "stream": 1})
    raw = getattr(socket, "_sock", socket)
    container.start()
    output = container.attach(stream=True, logs=True, stdout=True, stderr=True, demux=True)
    raw.sendall(b"a word\n")
    socket.close()
    say("attached", sorted((list(pair) for pair in output), key=str))
    say("ended", container.wait()["StatusCode"])
    # dockerd may hang up before it has told anything.
    assert container.attach(logs=True, stream=False) in (b"", b"heard a word\naside\n", b"aside\nheard a word\n")
    container.remove()
    config = low.create_container(
        "busybox", ["sleep", "600"], tty=True, stdin_open=True, name="screen",
        host_config=low.create_host_config(network_mode="bridge", mem_limit="32m"),
        networking_config=low.create_networking_config({"bridge": low.create_endpoint_config()}),
    )
    screen = client.containers.get(config["Id"])
    screen.start()
    screen.resize(height=30, width=90)
    say("size", screen.exec_run("stty size", tty=True).exit_code)
    say("inspected", low.inspect_container("screen")["HostConfig"]["Memory"])
    screen.remove(force=True)


def events():
    heard = queue.Queue()
    stream = client.events(decode=True, filters={"type": "container", "label": "kind=noisy"})
    reader = threading.Thread(target=lambda: [heard.put(event) for event in stream], daemon=True)
    reader.start()
    client.containers.run("busybox", "true", name="noisy", labels={"kind": "noisy"}, network_mode="none")
    client.containers.prune(filters={"label": ["kind=noisy"]})
    told = []
    while not told or told[-1][0] != "destroy":
        event = heard.get(timeout=60)
        told.append([event["Action"], event["Actor"]["Attributes"]["name"]])
    stream.close()
    # It attaches before it starts; who is heard first is by chance.
    say("events", sorted(told))


for step in [all_images, system, all_volumes, all_networks, runs, life, execs, files, attached, events]:
    print(f"== {step.__name__}")
    step()
client.close()
missing = sorted(name for name in WANTED - CALLED)
assert not missing, missing
