#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Packs this host's Python as a self-contained one would be, and a tree that only looks like one;
# then takes it away from the host.
set -e
name=$(basename "$(readlink /usr/bin/python3)")
mkdir -p /tmp/good/python/bin /tmp/good/python/lib /tmp/bad/python/bin
cp -a "/usr/bin/$name" /tmp/good/python/bin/
cp -a "/usr/lib/$name" /tmp/good/python/lib/
find /tmp/good -name __pycache__ -prune -exec rm -r {} +
ln -s "$name" /tmp/good/python/bin/python3
ln -s /bin/false /tmp/bad/python/bin/python3
for kind in good bad; do tar -czf "/root/$kind.tar.gz" -C "/tmp/$kind" python; done
rm -r /tmp/good /tmp/bad /usr/bin/python3* /usr/lib/python3*
