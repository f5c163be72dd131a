#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs in the new root file system: sh prepare.sh PUBLIC_KEY MODULE...
# Makes of a bootstrapped Debian a machine with one disk, ssh for root, and SELinux enforcing with
# the policy modules named.
set -eu
key=$1
shift

echo '/dev/vda / ext4 defaults,noatime 0 1' >/etc/fstab
echo machine >/etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 machine\n' >/etc/hosts
: >/etc/machine-id
cat >/etc/systemd/system/network-user.service <<'CONF'
[Unit]
Description=The address behind qemu's user network
DefaultDependencies=no
After=systemd-udev-trigger.service
Wants=network.target
Before=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/ip address add 10.0.2.15/24 dev eth0
ExecStart=/usr/sbin/ip link set eth0 up
[Install]
WantedBy=sysinit.target
CONF
systemctl -q enable network-user auditd
# chrony and firewalls are there for those who test them. Of the rest, what has no work to do here
# would cost most of the time of a boot: this machine computes slowly.
systemctl -q disable chrony firewalld nftables
systemctl -q set-default multi-user.target
systemctl -q mask systemd-networkd.socket systemd-networkd-wait-online systemd-resolved \
  systemd-network-generator systemd-logind systemd-binfmt systemd-pstore kmod-static-nodes \
  modprobe@configfs modprobe@dm_mod modprobe@drm modprobe@efi_pstore modprobe@fuse modprobe@loop \
  proc-sys-fs-binfmt_misc.automount sys-fs-fuse-connections.mount sys-kernel-config.mount \
  sys-kernel-debug.mount sys-kernel-tracing.mount dev-mqueue.mount getty@tty1 serial-getty@ttyS0 \
  apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer \
  e2scrub_reap systemd-tmpfiles-clean.timer
mkdir -p /etc/systemd/system-generators
for generator in /usr/lib/systemd/system-generators/*; do
  case $generator in
    *-fstab-generator | *-sysv-generator) ;;
    *) ln -s /dev/null "/etc/systemd/system-generators/${generator##*/}" ;;
  esac
done
mkdir -m 700 -p /root/.ssh
echo "$key" >/root/.ssh/authorized_keys
echo 'UseDNS no' >/etc/ssh/sshd_config.d/machine.conf
rm -rf /var/cache/apt/archives/*.deb /var/lib/apt/lists/*
mkdir -p /var/lib/apt/lists/partial
touch -d 2000-01-01 /var/lib/apt/lists # empty, and not to be taken for fresh

# --- SELinux
printf 'SELINUX=enforcing\nSELINUXTYPE=default\n' >/etc/selinux/config
# Compression would be most of the work of a transaction on a slow machine.
printf '\nbzip-blocksize = 0\n' >>/etc/selinux/semanage.conf
store=/var/lib/selinux/default/active/modules
python3 - "$store" <<'PYTHON'
import bz2, pathlib, sys
for path in pathlib.Path(sys.argv[1]).glob("*/*/*"):
    content = path.read_bytes()
    if content.startswith(b"BZh"):
        path.write_bytes(bz2.decompress(content))
PYTHON
# What Debian's policy lacks for a server that is managed over ssh: firewalld may not answer who
# administers it on the bus, and without rlimitinh limits that PAM sets are undone at the login.
cat >/root/machine.cil <<'CIL'
(allow firewalld_t unconfined_t (dbus (send_msg)))
(allow unconfined_t firewalld_t (dbus (send_msg)))
(allow firewalld_t firewalld_tmpfs_t (file (execute map read write)))
(allow sshd_t unconfined_t (process (rlimitinh siginh)))
CIL
disabled=
for module in "$store"/100/*; do
  name=${module##*/}
  case " $* " in *" $name "*) ;; *) disabled="$disabled -d $name" ;; esac
done
# shellcheck disable=SC2086 # a list of options
semodule -n -i /root/machine.cil $disabled
rm /root/machine.cil
setfiles -F -T 0 -e /proc /etc/selinux/default/contexts/files/file_contexts /
