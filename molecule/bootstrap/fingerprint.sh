#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# molecule/shared/manifest.py for a host without Python: fingerprint.sh record|compare
set -eu
record=/run/fingerprint

# Without what a running host changes by itself, as there.
paths() {
	find / -xdev ! -path '/root/.ansible*' ! -path '/tmp/ansible*' ! -path '/var/lib/systemd/*' \
		! -path '/var/log/journal/*' ! -path '/var/log/messages' ! -path '/var/log/wtmp' \
		! -path "$record*" "$@"
}

# `find` of BusyBox has no -printf.
{
	paths -type d -exec stat -c '%A %U %G %n' {} +
	paths ! -type d -exec stat -c '%A %U %G %s %y %N' {} +
	paths -type f -exec sha256sum {} +
} | sort >"$record.now"
[ "$1" = record ] && exec mv "$record.now" "$record"
exec diff "$record" "$record.now"
