#!/bin/sh
# The first process of a User-Mode Linux whose disk counts by projects: limits of volumes and of writable layers. Prints as
# `uml.sh` does.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/mnt TMPDIR=/mnt DOCKER_HOST=unix:///run/s
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /mnt
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for module in fs/overlayfs/overlay fs/quota/quota_tree fs/quota/quota_v2 net/netfilter/nfnetlink net/netfilter/nf_tables; do
    busybox insmod "/usr/lib/uml/modules/$(uname -r)/kernel/$module.ko"
done
ip link set lo up

place=$1 gantry=$2
exec 2>/mnt/errors
say() { echo "@ $1 $(shift; "$@" 2>&1 | tr '\n' ' ')"; }
mkdir /mnt/disk
busybox mknod /mnt/ubda b 98 0
mount -t ext4 -o prjquota /mnt/ubda /mnt/disk
"$gantry" daemon -H "$DOCKER_HOST" --data-root /mnt/disk/data --exec-root /run/g --pidfile /run/pid --bridge none >/mnt/log 2>&1 &
daemon=$!
until "$gantry" version; do kill -0 $daemon || break; sleep 0.1; done >/mnt/version
"$gantry" load -qi "$place/image.tar" >/mnt/loaded
# Writes twice what fits, and tells what did.
fill='dd if=/dev/zero of=$0/f bs=64k count=128 2>/dev/null && echo all || echo $(($(stat -c %s $0/f) / 1000000))M'
run() { "$gantry" run --rm --network none "$@"; }

say volume "$gantry" volume create --opt size=4m small
say full run -v small:/v busybox sh -c "$fill" /v
say shown run -v small:/v busybox sh -c 'df -k /v | tail -n1 | tr -s " " | cut -d" " -f2'
"$gantry" volume clone small copy >/mnt/made
say copy run -v copy:/v busybox sh -c "rm /v/f; $fill" /v
"$gantry" volume create large >/mnt/made
say unlimited run -v large:/v busybox sh -c "$fill" /v
say layer run --storage-opt size=4m busybox sh -c "$fill" /root
say beside run busybox sh -c "$fill" /root
# What a limit was of is free for the next.
"$gantry" volume rm small large copy >/mnt/removed
for round in 1 2 3; do
    "$gantry" volume create --opt size=4m again >/mnt/made
    "$gantry" volume rm again >/mnt/removed
done
"$gantry" volume create --opt size=9m again >/mnt/made
say again run -v again:/v busybox sh -c "$fill" /v
"$gantry" volume rm again >/mnt/removed
say check "$gantry" system check --strict
cat /mnt/errors /mnt/log
exec busybox poweroff -f
