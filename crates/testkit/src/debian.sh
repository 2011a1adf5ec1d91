# Makes two trees in the working directory, which a fresh mount namespace sees alone: base/, a minimal Debian, and top/,
# what installing the packages that are its arguments changed in it, with deletions as layers have them.
suite=bookworm
mirror=http://deb.debian.org/debian
set -eu
eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
[ -z "${http_proxy:-}" ] || export http_proxy
debootstrap --variant=minbase "$suite" base "$mirror"
rm -rf base/var/cache/apt/archives/*.deb base/var/log/*.log
find base/dev -mindepth 1 -delete

mkdir top work root
mount -t overlay -o "lowerdir=$PWD/base,upperdir=$PWD/top,workdir=$PWD/work" overlay root
mount -t tmpfs dev root/dev
for device in null zero full random urandom tty; do
    touch "root/dev/$device"
    mount --bind "/dev/$device" "root/dev/$device"
done
mount -t proc proc root/proc
cp /etc/resolv.conf root/etc/resolv.conf
printf '#!/bin/sh\nexit 101\n' >root/usr/sbin/policy-rc.d
chmod +x root/usr/sbin/policy-rc.d
env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive ${http_proxy:+"http_proxy=$http_proxy"} \
    chroot root apt-get install -y --no-install-recommends "$@"
rm -rf root/usr/sbin/policy-rc.d root/etc/resolv.conf root/var/log/*.log
rm -rf root/var/cache/apt/archives/*.deb root/var/cache/apt/*.bin root/var/cache/debconf/*-old
if [ -d root/var/log/nginx ]; then
    ln -sf /dev/stdout root/var/log/nginx/access.log
    ln -sf /dev/stderr root/var/log/nginx/error.log
fi
umount -R root

find top -type c | while read -r deleted; do
    rm "$deleted"
    : >"${deleted%/*}/.wh.${deleted##*/}"
done
rm -rf base/var/lib/apt/lists/*
