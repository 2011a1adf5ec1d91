#!/bin/sh
# What a container is to the process inside it: one JSON object per line, of a section, a key and a value.
PATH=/bin
export PATH
me=$$
file() { [ -r "$2" ] && awk -v part="$1" -v key="$3" '{ gsub("\t", " "); printf "%s\t%s%s\t%s\n", part, key, (NR > 1 ? "+" NR : ""), $0 }' "$2"; }
words() { awk -v part="$1" '{ gsub("\t", " "); key = $1; sub(":$", "", key); sub("^[^ ]+ *", ""); printf "%s\t%s\t%s\n", part, key, $0 }'; }
{
    grep -E '^(Umask|Uid|Gid|Groups|SigBlk|SigIgn|Cap[A-Z][a-z]*|NoNewPrivs|Seccomp|Cpus_allowed_list|Mems_allowed_list):' /proc/$me/status | words status
    awk 'NR > 1 { key = substr($0, 1, 25); gsub(" +$", "", key); gsub(" ", "_", key); print key, substr($0, 27) }' /proc/$me/limits | tr -s ' ' | words limits
    awk '$5 !~ "^/dev/shm/" { at = 7; shared = ""; while ($at != "-") { split($at, kind, ":"); shared = shared " " kind[1]; at++ } more = $(at+1) == "overlay" ? "" : " (" $(at+3) ")"; printf "mounts\t%s\t%s (%s)%s %s %s%s\n", $5, $4, $6, shared, $(at+1), $(at+2), more }' /proc/$me/mountinfo
    tr '\0' '\n' </proc/$me/environ | awk '{ name = $0; sub("=.*", "", name); printf "env\t%s\t%s\n", name, $0 }'
    printf 'process\targv\t%s\n' "$(tr '\0' '|' </proc/$me/cmdline)"
    printf 'process\tcwd\t%s\n' "$(readlink /proc/$me/cwd)"
    printf 'process\tfirst\t%s\n' "$(tr '\0' ' ' </proc/1/cmdline)"
    printf 'process\toom_score_adj\t%s\n' "$(cat /proc/$me/oom_score_adj)"
    printf 'process\ttty\t%s\n' "$(tty)"
    printf 'process\tin\t%s\n' "$(readlink /proc/$me/fd/0)"
    printf 'process\thostname\t%s\n' "$(hostname)"
    for kind in cgroup ipc mnt net pid user uts; do printf 'namespaces\t%s\t%s\n' $kind "$(readlink /proc/$me/ns/$kind)"; done
    awk -F: '{ printf "cgroup\t%s\t%s\n", $2, $3 }' /proc/$me/cgroup
    for one in memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes memory/memory.memsw.limit_in_bytes \
        memory/memory.swappiness memory/memory.oom_control memory/memory.kmem.limit_in_bytes \
        memory/memory.kmem.tcp.limit_in_bytes memory/memory.use_hierarchy cpu/cpu.shares cpu/cpu.cfs_period_us cpu/cpu.cfs_quota_us \
        cpu/cpu.rt_period_us cpu/cpu.rt_runtime_us cpuset/cpuset.cpus cpuset/cpuset.mems pids/pids.max \
        blkio/blkio.weight blkio/blkio.bfq.weight blkio/blkio.throttle.read_bps_device \
        blkio/blkio.throttle.write_bps_device blkio/blkio.throttle.read_iops_device blkio/blkio.throttle.write_iops_device; do
        file limit /sys/fs/cgroup/$one "${one#*/}"
    done
    [ -r /sys/fs/cgroup/cgroup.controllers ] && for one in memory.max memory.low memory.high memory.swap.max cpu.weight cpu.max \
        cpuset.cpus cpuset.mems pids.max io.weight io.bfq.weight io.max; do
        file limit /sys/fs/cgroup/$one $one
    done
    file confined /proc/$me/attr/apparmor/current profile
    [ -r /sys/fs/cgroup/devices/devices.list ] && awk '{ printf "rules\t%s %s %s\tallowed\n", $1, $2, $3 }' /sys/fs/cgroup/devices/devices.list
    find /dev | grep -v -e '^/dev/pts/[0-9]' -e '^/dev/shm/' | xargs stat -c '%n %F %a %u:%g %t:%T' | words devices
    find /dev -type l | while read -r link; do printf 'links\t%s\t%s\n' "$link" "$(readlink "$link")"; done
    for one in kernel/msgmax kernel/shmmax kernel/shm_rmid_forced fs/mqueue/msg_max kernel/hostname kernel/domainname net/core/somaxconn \
        net/ipv4/ip_forward net/ipv4/ip_unprivileged_port_start net/ipv4/ping_group_range net/ipv4/conf/all/rp_filter net/ipv6/conf/all/disable_ipv6; do
        file sysctls /proc/sys/$one $one
    done
    for one in hostname hosts; do file etc /etc/$one $one; done
    grep -v '^#' /etc/resolv.conf | grep . | awk '{ printf "resolver\t%02d\t%s\n", NR, $0 }'
    df -k /dev/shm | tail -n 1 | awk '{ printf "shm\tsize\t%s %s\n", $1, $2 }'
    ip -o addr | awk '{ family = $3; $1 = ""; sub("valid_lft.*", ""); sub("^ *", ""); printf "addresses\t%s %s\t%s\n", $1, family, $0 }'
    ip -o link | sed 's/@if[0-9]*//; s/ qlen [0-9]*//' | awk '{ name = $2; $1 = ""; sub("^ *", ""); gsub("\\\\", ""); printf "links\t%s\t%s\n", name, $0 }'
    ip route | awk '{ printf "routes\t%s\t%s\n", $1, $0 }'
} | awk -F '\t' '{ for (at = 1; at <= 3; at++) { gsub(/\\/, "\\\\", $at); gsub(/"/, "\\\"", $at) } printf "{\"part\": \"%s\", \"key\": \"%s\", \"value\": \"%s\"}\n", $1, $2, $3 }'
