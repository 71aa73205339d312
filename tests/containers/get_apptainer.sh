#!/bin/bash
# Bring a real Apptainer for the tests, on Debian 12, which has none of its own: the package of Debian's unstable suite,
# from the mirror that apt uses, with the C library that it needs beside it. Nothing of the system is changed but for
# a few small tools that apt installs. Needs root.
# usage: get_apptainer.sh FOLDER        afterwards: PATH=FOLDER/usr/bin:$PATH
set -euo pipefail
folder=$(realpath -m "${1:?usage: get_apptainer.sh FOLDER}")
[ -x "$folder/usr/bin/apptainer" ] && exit 0
say() { echo "get_apptainer: $*" >&2; }
command -v apt-get >/dev/null || { say "error: needs Debian's apt-get"; exit 1; }
[ "$(id -u)" = 0 ] || { say "error: needs root"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

apt-get update -q >/dev/null
for tool in patchelf mksquashfs squashfuse_ll fuse-overlayfs; do
    command -v $tool >/dev/null && continue
    apt-get install -y -q --no-install-recommends patchelf squashfs-tools squashfuse fuse3 fuse-overlayfs >/dev/null
done
mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -v -e security -e '^file:' | sort | uniq -c | sort -rn | awk 'NR == 1 {print $2}')

# an apt of its own, so that the system's never sees the other suite
mkdir -p "$work"/etc/{apt.conf.d,preferences.d,sources.list.d} "$work"/lists/partial "$work"/cache/archives/partial "$work"/debs
: >"$work/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$work/etc/sources.list"
cat >"$work/apt.conf" <<CONF
Dir::Etc "$work/etc"; Dir::Etc::parts "$work/etc/apt.conf.d"; Dir::Etc::sourcelist "$work/etc/sources.list";
Dir::Etc::sourceparts "$work/etc/sources.list.d"; Dir::State::lists "$work/lists"; Dir::State::status "$work/status";
Dir::Cache "$work/cache"; Acquire::Languages "none"; APT::Sandbox::User "root"; Acquire::Check-Valid-Until "false";
CONF
export APT_CONFIG=$work/apt.conf
apt-get update -q >/dev/null
(cd "$work/debs" && apt-get download -q apptainer libc6 libseccomp2 libsqlite3-0 libgcc-s1 >/dev/null)
made=$work/made
mkdir "$made"
for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$made"; done

# its programs are to find the newer C library in its folder, and no other program is to
libraries=usr/lib/x86_64-linux-gnu
for program in usr/bin/apptainer $libraries/apptainer/bin/starter; do
    patchelf --set-interpreter "$folder/$libraries/ld-linux-x86-64.so.2" --force-rpath \
        --set-rpath "$folder/$libraries" "$made/$program"
done
ln -sfn ../etc "$made/usr/etc"
ln -sfn ../../etc "$made/usr/lib/etc"
mkdir -p "$made"/usr/{,lib/}var/lib/apptainer/mnt/session
# a root in a container of its own may lack some of the capabilities that are the default
sed -i 's/^root default capabilities.*/root default capabilities = no/' "$made/etc/apptainer/apptainer.conf"
mkdir -p "$(dirname "$folder")"
rm -rf "$folder"
mv "$made" "$folder"
"$folder/usr/bin/apptainer" --version >&2
