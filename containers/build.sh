#!/bin/bash
# Builds the study's image: Debian 12's Python and the study lock's packages, nothing of this project. The code comes from
# the work tree, so that editing it needs no new image. Two ways in, one content:
#   .envs/images/study-<digest>.sqfs   for Apptainer, named by its sha256
#   .envs/images/study.tar             for podman and docker: podman import .envs/images/study.tar speciate-study
# The torch build is the one that .envs/study has. Needs Debian's mmdebstrap and squashfs-tools, and root.
# usage: containers/build.sh [MIRROR]     MIRROR: another mirror of Debian, for instance a dated snapshot
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
suite=bookworm
python=3.11
export SOURCE_DATE_EPOCH=1735689600 TZ=UTC LC_ALL=C

say() { echo "image: $*" >&2; }
for tool in mmdebstrap mksquashfs; do
    command -v $tool >/dev/null || { say "error: needs $tool (apt-get install mmdebstrap squashfs-tools)"; exit 1; }
done
[ -s .envs/study/build.json ] || { say "error: no .envs/study; run make environment first"; exit 1; }
field() { .envs/study/bin/python -c 'import json, sys; print(eval(sys.argv[1], json.load(open(".envs/study/build.json"))))' "$1"; }
lock=$(field lock)
images=.envs/images
work=$images/build
rm -rf $work
mkdir -p $work/wheels

# The packages are fetched out here, where pip is set up, and installed in there without a network.
say "fetching the wheels of envs/$lock for Python $python"
locks=(-r envs/"$lock")
[ "$lock" = study-cuda.lock ] || locks+=(-r envs/torch-cpu.lock)
machine=$(uname -m)
fits=(--only-binary :all: --implementation cp --python-version $python --abi cp${python/./} --abi abi3 --abi none)
for glibc in 28 27 26 24 17 12 5; do fits+=(--platform "manylinux_2_${glibc}_$machine"); done
fits+=(--platform "manylinux2014_$machine" --platform "linux_$machine")
.envs/study/bin/python -I -m pip download -qq --no-deps --require-hashes "${fits[@]}" "${locks[@]}" --dest $work/wheels
cp envs/*.lock $work/wheels/

seldom=$(PYTHONPATH=envs .envs/study/bin/python -c 'import build; print(build.SELDOM_IMPORTED)')
cat >$work/wheels/install.sh <<INSTALL
set -eu
cd /wheels
set -- pip-*.whl
python3 "\$1/pip" install -qq --isolated --no-index --find-links . --no-deps --require-hashes --no-compile --break-system-packages \
    --root-user-action ignore ${locks[@]//envs\//}
ln -s /usr/bin/python3 /usr/local/bin/python
python -m compileall -q --invalidation-mode unchecked-hash -x '$seldom' /usr/local/lib || true
rm -rf /wheels /var/log/* /var/cache/* /var/lib/apt/lists/* /tmp/* /root/.cache /etc/hostname
INSTALL

say "building Debian $suite with them"
mmdebstrap --quiet --variant=essential --include=python3,python3-distutils,libstdc++6,ca-certificates,git,procps --components=main \
    --aptopt='Acquire::Check-Valid-Until "false"' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook="copy-in $work/wheels /" --customize-hook='chroot "$1" sh /wheels/install.sh' \
    $suite $images/study.tar "$@"

say "packing"
mksquashfs - $work/study.sqfs -tar -quiet -no-progress -comp zstd -Xcompression-level 6 <$images/study.tar 2>$work/packing.log ||
    { cat $work/packing.log >&2; exit 1; }
digest=$(sha256sum $work/study.sqfs | cut -d' ' -f1)
image=$images/study-${digest:0:16}.sqfs
mv $work/study.sqfs "$image"
rm -r $work
cat >containers/images.lock.yaml <<YAML
# Written by containers/build.sh: which image the profile 'container' runs, and what is in it.
study:
  file: $image
  sha256: $digest
  tar_sha256: $(sha256sum $images/study.tar | cut -d' ' -f1)
  debian: $suite
  python: "$python"
  lock: envs/$lock
  lock_sha256: $(sha256sum envs/"$lock" | cut -d' ' -f1)
  torch: $(field 'torch["file"]')
  torch_sha256: $(field 'torch["sha256"]')
YAML
say "$image ($(du -h "$image" | cut -f1)); wrote containers/images.lock.yaml"
