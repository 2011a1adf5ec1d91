#!/bin/sh
# The first process of a User-Mode Linux whose root is the host's, read-only. Does as the test says and prints what the
# test looks at, each on a line that begins with "@".
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/mnt TMPDIR=/mnt DOCKER_HOST=unix:///run/s
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /mnt
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for module in fs/overlayfs/overlay net/netfilter/nfnetlink net/netfilter/nf_tables; do
    busybox insmod "/usr/lib/uml/modules/$(uname -r)/kernel/$module.ko"
done
ip link set lo up

# After "--" the kernel gives its first process words as they are.
place=$1 gantry=$2
exec 2>/mnt/errors
say() { echo "@ $1 $(shift; "$@" | tr '\n' ' ')"; }
daemon() {
    "$gantry" daemon -H "$DOCKER_HOST" --data-root /mnt/data --exec-root /run/g --pidfile /run/pid --bridge none \
        --cgroup-parent /gt >>/mnt/log 2>&1 &
    daemon=$!
    # Ready when it answers.
    until "$gantry" version; do kill -0 $daemon || break; sleep 0.1; done >/mnt/version
}
run() { "$gantry" run --network none "$@"; }

daemon
"$gantry" load -qi "$place/image.tar" >/mnt/loaded
say kernel uname -r
say version "$gantry" info -f '{{.CgroupVersion}} {{.CgroupDriver}} {{.Driver}} {{.MemoryLimit}} {{.CPUSet}}'
say limits run --rm --memory 32m --memory-swap 48m --cpus 0.5 --pids-limit 77 busybox \
    sh -c 'cd /sys/fs/cgroup; cat memory.max memory.swap.max cpu.max pids.max'
say own run --rm busybox cat /proc/self/cgroup
say privileged run --rm --privileged busybox cat /proc/self/cgroup
say hosts run --name hosts --cgroupns host busybox cut -c1-7 /proc/self/cgroup
say devices run --rm busybox sh -c 'mknod /k c 1 11; head -c1 /k >/dev/null || echo refused; head -c1 /dev/zero | wc -c'
say discarded run --rm --cpuset-cpus 0 busybox echo started
run --name oom --memory 16m busybox tail /dev/zero
say oom "$gantry" inspect -f '{{.State.OOMKilled}} {{.State.ExitCode}}' oom

run -d --name one --memory 32m busybox sleep 1000 >/mnt/id
id=$(cat /mnt/id)
"$gantry" pause one >/mnt/one
say paused grep frozen "/sys/fs/cgroup/gt/$id/cgroup.events"
kill -9 $daemon
wait $daemon
daemon
say adopted "$gantry" inspect -f '{{.State.Status}}' one
"$gantry" unpause one >/mnt/one
"$gantry" update --memory 48m --memory-swap 48m one >/mnt/one
say updated "$gantry" exec one cat /sys/fs/cgroup/memory.max
say stats "$gantry" stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' one
"$gantry" kill one >/mnt/one
say killed "$gantry" wait one
"$gantry" rm one oom hosts >/mnt/one

# A bundle that brings an overlay of its own, of more layers than an option of fsconfig has room for.
mkdir -p /mnt/bundle/rootfs/bin
cp /bin/busybox /mnt/bundle/rootfs/bin/sh
layers=
for layer in 1 2 3; do
    path=/mnt/bundle/$(printf '%0120d' $layer)
    mkdir -p "$path"
    echo "of layer $layer" >"$path/file$layer"
    layers=${layers:+$layers:}$path
done
(cd /mnt/bundle && "$gantry" runtime spec)
sed -i -e "s|\"mounts\": \[|&{\"destination\":\"/over\",\"type\":\"overlay\",\"source\":\"overlay\",\"options\":[\"ro\",\"lowerdir=$layers\"]},|" \
    -e 's|"terminal": true|"terminal": false|' -e 's|"sh"|"sh","-c","read line </over/file3; echo $line; (: >/over/new) \|\| echo kept"|' \
    /mnt/bundle/config.json
say bundle "$gantry" runtime run --bundle /mnt/bundle overlaid
say left find /sys/fs/cgroup/gt -mindepth 1 -type d
say check "$gantry" system check --strict
cat /mnt/errors /mnt/log
exec busybox poweroff -f
