# SPDX-License-Identifier: GPL-3.0-or-later
# Turns a Debian host into a stand-in for CentOS Stream 9: rpm and dnf with a signed repository on
# the host, which has what the roles install, packed anew from Debian's files under EL's names and
# paths; apt and dpkg are gone. $PACKAGES are Debian's names of what is needed for that.
set -e
repository=/srv/repository
key=/etc/pki/rpm-gpg/RPM-GPG-KEY-stand-in
work=$(mktemp -d)
export GNUPGHOME=$work/gnupg

apt-get -q update
DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends $PACKAGES
mkdir -p -m 0700 "$GNUPGHOME"
mkdir -p /etc/rpm /etc/sysconfig /etc/yum.repos.d "${key%/*}" "$repository"
ln -sf bash /bin/sh

# Debian's rpm keeps its database in the home directory, and compiles what it packs.
cat >/etc/rpm/macros <<'END'
%_dbpath /var/lib/rpm
%dist .el9
%rhel 9
%__gpg /usr/bin/gpg
%_gpg_name stand-in
%_build_id_links none
%debug_package %{nil}
%__os_install_post %{nil}
END

# package NAME VERSION [REQUIRES ...]: makes an RPM of what is in $work/NAME, with the entries of
# $work/NAME.files and the script $work/NAME.post
package() {
	name=$1 version=$2
	shift 2
	{
		printf 'Name: %s\nVersion: %s\nRelease: 1.el9\n' "$name" "$version"
		printf 'Summary: Stand-in\nLicense: of its files\nAutoReqProv: no\n'
		printf '%s\n' "$@"
		printf '%%description\nNot of CentOS: Debian files under the names of EL.\n'
		printf '%%install\nmkdir -p %%{buildroot}\ncp -a %s/. %%{buildroot}/\n' "$work/$name"
		[ ! -e "$work/$name.post" ] || { echo %post; cat "$work/$name.post"; }
		printf '%%files -f %s\n' "$work/$name.files"
	} >"$work/$name.spec"
	rpmbuild --quiet -bb --define "_topdir $work/build" --define "_rpmdir $repository" \
		--define '_rpmfilename %%{NAME}.rpm' "$work/$name.spec"
}

# take NAME PACKAGES...: moves the files of Debian packages to $work/NAME
take() {
	name=$1
	shift
	mkdir "$work/$name"
	dpkg -L "$@" | sed -E 's:^/(bin|sbin|lib)/:/usr/\1/:' | sort -u | while read -r path; do
		case $path in /usr/share/doc/* | /etc/init.d/*) continue ;; esac
		[ -d "$path" ] || [ ! -e "$path" ] || echo "$path"
	done >"$work/taken"
	sed 's:^/::' "$work/taken" | tar -C / -cf - -T - | tar -C "$work/$name" -xf -
	xargs rm <"$work/taken"
	# what is empty now goes, and byte code: a folder alone is a package to Python
	dpkg -L "$@" | sort -ru | while read -r path; do
		[ ! -d "$path" ] || rm -rf "$path/__pycache__"
		[ ! -d "$path" ] || rmdir "$path" 2>/dev/null || :
	done
}

# list NAME: writes the entries of all its files, those below /etc as configuration
list() {
	(cd "$work/$1" && find . ! -type d -printf '/%P\n') |
		sed 's:^/etc/:%config(noreplace) &:' >"$work/$1.files"
}

# version PACKAGE: of a Debian package, without epoch and revision
version() {
	dpkg-query -W -f '${Version}' "$1" | sed 's/^[0-9]*://; s/[-+].*//'
}

number=$(version chrony)
take chrony chrony
(
	cd "$work/chrony"
	units=usr/lib/systemd/system
	mkdir -p etc/sysconfig
	printf '%s\n' 'pool 2.centos.pool.ntp.org iburst' 'driftfile /var/lib/chrony/drift' \
		'makestep 1.0 3' rtcsync 'logdir /var/log/chrony' >etc/chrony.conf
	sed -e 's/\$DAEMON_OPTS/$OPTIONS/; s:/etc/default/chrony:/etc/sysconfig/chronyd:' \
		-e '/^Alias=/d; /^ConfigurationDirectory=/d' $units/chrony.service >$units/chronyd.service
	# the program has Debian's path built in
	echo 'OPTIONS="-F 1 -f /etc/chrony.conf"' >etc/sysconfig/chronyd
	rm -rf $units/chrony.service etc/chrony etc/default etc/network etc/ppp etc/dhcp
)
list chrony
printf '%%dir %%attr(750,_chrony,_chrony) /var/%s/chrony\n' lib log >>"$work/chrony.files"
mkdir -p "$work/chrony/var/lib/chrony" "$work/chrony/var/log/chrony"
echo 'systemctl --no-reload preset chronyd.service >/dev/null 2>&1 || :' >"$work/chrony.post"
package chrony "$number"

number=$(version firewalld)
take firewalld firewalld python3-firewall
list firewalld
echo 'systemctl --no-reload preset firewalld.service >/dev/null 2>&1 || :' >"$work/firewalld.post"
package firewalld "$number" 'Requires: nftables'

number=$(version nftables)
take nftables nftables
(
	cd "$work/nftables"
	mkdir -p etc/sysconfig
	mv etc/nftables.conf etc/sysconfig/nftables.conf
	sed -i 's:/etc/nftables.conf:/etc/sysconfig/nftables.conf:' usr/lib/systemd/system/nftables.service
)
list nftables
package nftables "$number"

number=$(version python3-cryptography)
take python3-cryptography python3-cryptography
list python3-cryptography
package python3-cryptography "$number"

number=$(version openssh-server | sed 's/p.*//')
take openssh-server openssh-server openssh-sftp-server
(
	cd "$work/openssh-server"
	mv usr/lib/systemd/system/ssh.service usr/lib/systemd/system/sshd.service
	sed -i '/^Alias=/d' usr/lib/systemd/system/sshd.service
	mv usr/share/openssh/sshd_config etc/ssh/
)
list openssh-server
echo 'ssh-keygen -A >/dev/null; systemctl --no-reload preset sshd.service >/dev/null 2>&1 || :' \
	>"$work/openssh-server.post"
package openssh-server "$number"
rm -f /etc/ssh/ssh_host_* /etc/ssh/sshd_config

# What the host is; and what the rest of it counts as
mkdir -p "$work/centos-stream-release/etc" "$work/centos-stream-release/usr/lib"
(
	cd "$work/centos-stream-release"
	cat >usr/lib/os-release <<'END'
NAME="CentOS Stream"
VERSION="9"
ID="centos"
ID_LIKE="rhel fedora"
VERSION_ID="9"
PLATFORM_ID="platform:el9"
PRETTY_NAME="CentOS Stream 9"
CPE_NAME="cpe:/o:centos:centos:9"
VARIANT="stand-in"
END
	ln -s ../usr/lib/os-release etc/os-release
	echo 'CentOS Stream release 9' >etc/centos-release
	ln -s centos-release etc/redhat-release
	ln -s centos-release etc/system-release
)
(cd "$work/centos-stream-release" && find . ! -type d -printf '/%P\n') \
	>"$work/centos-stream-release.files"
python=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
package centos-stream-release 9.0 'Provides: system-release = 9' \
	'Provides: system-release(releasever) = 9' "Provides: python$python = $python" \
	'Provides: /bin/sh' 'Provides: systemd = 252' 'Provides: python3 = '"$python"

# The repository is signed, and the key that signed it goes with this script.
gpg -q --batch --passphrase '' --quick-gen-key stand-in rsa3072 sign never
gpg --export --armor stand-in >"$key"
rpm --import "$key"
rpmsign --addsign "$repository"/*.rpm >/dev/null
createrepo_c -q "$repository"
cat >/etc/yum.repos.d/stand-in.repo <<END
[stand-in]
name=Stand-in for BaseOS and AppStream
baseurl=file://$repository
gpgcheck=1
gpgkey=file://$key
END
printf '[main]\ngpgcheck=1\nbest=True\nskip_if_unavailable=False\n' >/etc/dnf/dnf.conf
sed -i 's/^enabled *=.*/enabled = false/' /etc/dnf/plugins/local.conf 2>/dev/null || :
ln -sf dnf-3 /usr/bin/dnf
gpgconf --kill all

rm -f /etc/os-release /usr/lib/os-release /etc/debian_version /etc/issue
rpm -i "$repository/centos-stream-release.rpm"
rm -rf "$work" /etc/init.d/* /etc/rc?.d /etc/apt /etc/dpkg /etc/chrony /var/lib/apt /var/cache/apt /var/lib/dpkg \
	/var/cache/debconf /usr/lib/apt /usr/bin/apt* /usr/bin/dpkg* /usr/sbin/dpkg* \
	/usr/lib/python3/dist-packages/apt* /usr/lib/systemd/system/apt-* /usr/lib/systemd/system/dpkg-* \
	/etc/systemd/system/*.wants/apt-* /etc/systemd/system/*.wants/dpkg-* \
	/etc/systemd/system/*.wants/chrony* /etc/systemd/system/chrony* \
	/etc/systemd/system/*.wants/firewalld* /etc/systemd/system/dbus-*firewall* \
	/etc/systemd/system/*.wants/ssh* /etc/systemd/system/ssh*
dnf -q -y install chrony nftables openssh-server
: >/etc/machine-id
