#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Packs this host's Python as a self-contained one would be, in both layouts, and a tree that only
# looks like one; then takes it away from the host. The host unpacks zstd, if it can be had: that
# may be only on a network, and without it that part is not run. It never unpacks xz.
set -e
if command -v apt-get >/dev/null; then
	apt-get -q update && apt-get -qy install --no-install-recommends zstd || :
fi
rm -f /usr/bin/xz
name=$(basename "$(readlink /usr/bin/python3)")
good=/tmp/good/python bad=/tmp/bad/python full=/tmp/full/python packed=/root/packed
mkdir -p $good/bin $good/lib $bad/bin $full $packed
cp -a "/usr/bin/$name" $good/bin/
cp -a "/usr/lib/$name" $good/lib/
find $good -name __pycache__ -prune -exec rm -r {} +
ln -s "$name" $good/bin/python3
ln -s /bin/false $bad/bin/python3
for kind in good bad; do tar -czf "$packed/$kind.tar.gz" -C "/tmp/$kind" python; done
mv $good $full/install
tar -cf /tmp/full.tar -C /tmp/full python
! command -v zstd >/dev/null || zstd -q /tmp/full.tar -o $packed/full.tar.zst
rm -r /tmp/good /tmp/bad /tmp/full /tmp/full.tar /usr/bin/python3* /usr/lib/python3*
