#!/bin/bash
# Bring a Chromium for the tests of pages, on Debian or Ubuntu, without root: its packages and those that it needs and
# that are not installed, from the mirrors that apt uses, unpacked into a folder. Nothing of the system is changed.
# usage: get_chromium.sh FOLDER        afterwards: FOLDER/chromium.sh
set -euo pipefail
folder=$(realpath -m "${1:?usage: get_chromium.sh FOLDER}")
[ -x "$folder/chromium.sh" ] && exit 0
say() { echo "get_chromium: $*" >&2; }
command -v apt-get >/dev/null || { say "error: needs apt-get, or a chromium on PATH"; exit 1; }
# two tests that begin at once fetch it once
mkdir -p "$(dirname "$folder")"
exec 9>"$folder.lock"
flock 9
[ -x "$folder/chromium.sh" ] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# lists and a cache of its own, which need no root; what is installed is known from the system
mkdir -p "$work"/lists/partial "$work"/cache/archives/partial "$work"/debs "$work/made"
cp "${DPKG_STATUS:-/var/lib/dpkg/status}" "$work/status"
cat >"$work/apt.conf" <<CONF
Dir::State::lists "$work/lists"; Dir::State::status "$work/status"; Dir::Cache "$work/cache"; Debug::NoLocking "true";
Acquire::Languages "none"; APT::Sandbox::User ""; Acquire::Check-Valid-Until "false"; APT::Install-Recommends "false";
CONF
export APT_CONFIG=$work/apt.conf
apt-get update -q >/dev/null 2>"$work/said" || { say "error: apt-get update: $(tail -n 1 "$work/said")"; exit 1; }
wanted=$(apt-get install --simulate -q chromium fonts-dejavu-core 2>"$work/said" | awk '$1 == "Inst" {print $2}') ||
    { say "error: $(tail -n 1 "$work/said")"; exit 1; }
[ -n "$wanted" ] || { say "error: it is installed, and not on PATH"; exit 1; }
# shellcheck disable=SC2086
(cd "$work/debs" && apt-get download -q $wanted >/dev/null 2>"$work/said") || { say "error: $(tail -n 1 "$work/said")"; exit 1; }
for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/made"; done
# another C library than that of the system's loader would not start
find "$work/made" \( -name 'libc.so.*' -o -name 'ld-linux*' -o -name 'libpthread.so.*' \) -delete
[ -x "$work/made/usr/lib/chromium/chromium" ] || { say "error: the package chromium has no usr/lib/chromium/chromium"; exit 1; }

cat >"$work/made/chromium.sh" <<'RUN'
#!/bin/sh
here=$(dirname "$(realpath "$0")")
for libraries in "$here"/usr/lib/*-linux-gnu "$here"/lib/*-linux-gnu; do
    [ -d "$libraries" ] && LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
done
export LD_LIBRARY_PATH
[ -d /etc/fonts ] || export FONTCONFIG_PATH="$here/etc/fonts"
export XDG_DATA_DIRS="$here/usr/share${XDG_DATA_DIRS:+:$XDG_DATA_DIRS}:/usr/share"
exec "$here/usr/lib/chromium/chromium" "$@"
RUN
chmod +x "$work/made/chromium.sh"
rm -rf "$folder"
mv "$work/made" "$folder"
"$folder/chromium.sh" --version >&2
