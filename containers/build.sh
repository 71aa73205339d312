#!/bin/bash
# Builds the study's image: Debian 12's Python and the study lock's packages, nothing of this project. The code comes from
# the work tree, so that editing it needs no new image. Two ways in, one content:
#   study-<sha256>.sqfs   for Apptainer, named by its digest
#   study.tar             for podman and docker: podman import containers/study.tar speciate
# The torch build is the one that .envs/study has. Needs Debian's mmdebstrap and squashfs-tools, and root.
# usage: containers/build.sh [MIRROR]     MIRROR: another mirror of Debian, for instance a dated snapshot
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
suite=bookworm
python=3.11
export SOURCE_DATE_EPOCH=1735689600 TZ=UTC LC_ALL=C

say() { echo "image: $*" >&2; }
for tool in mmdebstrap sqfstar; do
    command -v $tool >/dev/null || { say "error: needs $tool (apt-get install mmdebstrap squashfs-tools)"; exit 1; }
done
[ -s .envs/study/build.json ] || { say "error: no .envs/study; run make environment first"; exit 1; }
field() { .envs/study/bin/python -c 'import json, sys; print(eval(sys.argv[1], json.load(open(".envs/study/build.json"))))' "$1"; }
lock=$(field lock)
work=containers/build
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
.envs/study/bin/python -I -m pip download --quiet --no-deps --require-hashes "${fits[@]}" "${locks[@]}" --dest $work/wheels
cp envs/*.lock $work/wheels/

cat >$work/install.sh <<INSTALL
set -eu
cd /wheels
python3 -m venv --without-pip /opt/study
/opt/study/bin/python -I pip-*.whl/pip install --quiet --no-index --find-links . --no-deps --require-hashes --no-compile \
    --root-user-action ignore ${locks[@]//envs\//}
/opt/study/bin/python -I -m compileall -q --invalidation-mode unchecked-hash -x '/transformers/models/|/tests?/' /opt/study/lib || true
INSTALL

say "building Debian $suite with them"
mmdebstrap --quiet --variant=essential --include=python3,python3-venv,ca-certificates,procps --components=main \
    --aptopt='Acquire::Check-Valid-Until "false"' --dpkgopt=path-exclude='/usr/share/{doc,man,locale}/*' \
    --customize-hook="copy-in $work/wheels /" --customize-hook="upload $work/install.sh /wheels/install.sh" \
    --customize-hook='chroot "$1" sh /wheels/install.sh' --customize-hook='rm -rf "$1/wheels"' \
    --customize-hook='rm -rf "$1"/var/log/* "$1"/var/cache/* "$1"/var/lib/apt/lists/* "$1"/tmp/* "$1"/root/.cache "$1"/etc/hostname' \
    --customize-hook='printf "PATH=/opt/study/bin:/usr/bin:/bin\n" >"$1/etc/environment"' \
    --customize-hook='mkdir -p "$1/.singularity.d/env" && printf "export PATH=/opt/study/bin:/usr/bin:/bin\n" >"$1/.singularity.d/env/90-environment.sh"' \
    $suite containers/study.tar "$@"

say "packing"
rm -f $work/study.sqfs
sqfstar -quiet -no-progress -comp zstd -mkfs-time $SOURCE_DATE_EPOCH $work/study.sqfs <containers/study.tar
digest=$(sha256sum $work/study.sqfs | cut -d' ' -f1)
mv $work/study.sqfs containers/study-"${digest:0:16}".sqfs
cat >containers/images.lock.yaml <<YAML
# Written by containers/build.sh: which image the profile 'container' runs, and what is in it.
study:
  file: containers/study-${digest:0:16}.sqfs
  sha256: $digest
  tar_sha256: $(sha256sum containers/study.tar | cut -d' ' -f1)
  lock: envs/$lock
  lock_sha256: $(sha256sum envs/"$lock" | cut -d' ' -f1)
  torch: $(field 'torch["file"]')
  torch_sha256: $(field 'torch["sha256"]')
YAML
rm -rf $work
say "containers/study-${digest:0:16}.sqfs ($(du -h containers/study-"${digest:0:16}".sqfs | cut -f1)); wrote containers/images.lock.yaml"
