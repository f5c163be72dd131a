#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The part of playbooks/bootstrap.yml that runs on a host, which has no Python.
#
#   bootstrap.sh look DIRECTORY               says what there is, as lines of KEY=VALUE
#   bootstrap.sh install DIRECTORY SHA256 AT  unpacks the archive that follows this script at byte AT
#   bootstrap.sh remove DIRECTORY
#
# DIRECTORY/<sha256>/ is an interpreter each, and DIRECTORY/current links to one of them.
set -eu
umask 022

fail() {
	echo "bootstrap: $*" >&2
	exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

version() {
	"$1" -I -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null || :
}

look() {
	found=$directory
	while [ ! -d "$found" ]; do found=$(dirname "$found"); done
	echo "own=$(version /usr/bin/python3)"
	link=$(readlink "$directory/current" || :)
	echo "current=${link%%/*}"
	echo "version=$(version "$directory/current/bin/python3")"
	echo "machine=$(uname -m)"
	echo "free_kb=$(df -Pk "$found" | tail -n 1 | awk '{print $4}')"
	for tool in tar gzip zstd xz sha256sum awk; do ! has $tool || echo "tool=$tool"; done
}

install() {
	mkdir -p "$directory"
	rm -rf "$directory"/.new.*
	new=$(mktemp -d "$directory/.new.XXXXXX")
	chmod 0755 "$new"
	# nothing stays of what is refused, neither a folder that was made for it
	trap 'rm -rf "$new"; rmdir "$directory" 2>/dev/null || :' EXIT
	tail -c "+$at" "$0" >"$new/archive"
	got=$(sha256sum "$new/archive" | cut -d ' ' -f 1)
	[ "$got" = "$sha256" ] || fail "bootstrap_sha256 = $sha256: the archive that arrived has" \
		"$got; nothing was unpacked"
	case $(od -An -tx1 -N4 "$new/archive" | tr -d ' ') in
	1f8b*) unpack=gzip ;;
	28b52ffd) unpack=zstd ;;
	fd377a58) unpack=xz ;;
	*) fail "bootstrap_python: neither a tar.gz, nor a tar.zst, nor a tar.xz" ;;
	esac
	has $unpack || fail "bootstrap_python: needs $unpack, which this host has not; give it as tar.gz"
	mkdir "$new/tree"
	$unpack -dc "$new/archive" | tar -xof - -C "$new/tree"
	for place in python python/install .; do
		[ ! -e "$new/tree/$place/bin/python3" ] || break
	done
	[ -e "$new/tree/$place/bin/python3" ] ||
		fail "bootstrap_python: has no python/bin/python3; expected the layout of" \
			"python-build-standalone"
	"$new/tree/$place/bin/python3" -I -c 'import ctypes, hashlib, json, ssl' 2>"$new/said" ||
		fail "bootstrap_python: does not run on this host ($(uname -m), C library" \
			"$(libc)): $(tail -n 1 "$new/said"); expected an archive for its machine and library"
	# so that no first use of a module writes byte code; files of tests need not compile
	"$new/tree/$place/bin/python3" -I -m compileall -q "$new/tree/$place/lib" >/dev/null 2>&1 || :
	rm -rf "${directory:?}/$sha256"
	mv "$new/tree" "$directory/$sha256"
	ln -s "$sha256/$place" "$new/current"
	mv -T "$new/current" "$directory/current"
	for other in "$directory"/*; do
		case ${other##*/} in current | "$sha256") ;; *) rm -rf "$other" ;; esac
	done
	echo "version=$(version "$directory/current/bin/python3")"
}

libc() {
	for loader in /lib/ld-musl-*; do [ ! -e "$loader" ] || { echo musl && return; }; done
	getconf GNU_LIBC_VERSION 2>/dev/null || echo unknown
}

verb=$1 directory=$2
case $verb in
look) look ;;
install) sha256=$3 at=$4 && install ;;
remove) rm -rf "$directory" ;;
esac
exit # what follows is no text
