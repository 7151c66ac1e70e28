#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Pack the program, every test that needs a GPU, their fixtures and the benchmarks, with the libraries and the MPI run
# time that they need, for a machine that has a GPU and its driver but perhaps no MPI, HDF5, BLAS or network:
#   tests/gpu/pack.sh [BUILD_DIR] OUT_DIR       here: OUT_DIR/kdhpc-gpu.tar.xz
#   tar -xJf kdhpc-gpu.tar.xz -C /tmp/b && /tmp/b/run.sh        there (tests/gpu/run.sh --help)
#   /tmp/b/run [-np N] kdhpc --mode ...                         there, the program itself
# CUDA's libraries (cuBLAS, NCCL) come from that machine, from its toolkit or from Python's nvidia packages; its C library
# must be as new as this one's.  Without BUILD_DIR the build is made in build-gpu, for any x86-64 processor with AVX2 and
# for KD_GPU_ARCHS (90: H100, H200).
set -euo pipefail
[ $# -ge 1 ] && [ $# -le 2 ] && [ "${1:0:1}" != - ] || {
    sed -n '3,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$root/build-gpu
if [ $# = 2 ]; then
    build=$(cd "$1" && pwd)
    shift
else
    cmake -S "$root" -B "$build" -G Ninja -DKDHPC_CUDA=ON -DKDHPC_ARCH=x86-64-v3 "-DCMAKE_CUDA_ARCHITECTURES=${KD_GPU_ARCHS:-90}"
    cmake --build "$build"
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)/kdhpc-gpu.tar.xz
if grep -q '^KDHPC_ARCH:[A-Z]*=native' "$build/CMakeCache.txt"; then
    echo "pack: $build is built for this machine's processor; another may lack its instructions (-DKDHPC_ARCH=x86-64-v3)" >&2
fi

b=$(mktemp -d)
trap 'rm -rf "$b"' EXIT
mkdir -p "$b"/{bin,wrap,lib,src/tests,src/src/mode,src/inputs} "$b"/ompi/{bin,lib/openmpi3,etc,share} "$b/pmix/lib/pmix"

# programs and tests, and what tests read
python3 "$root/tests/gpu/list_tests.py" "$build" gpu "$b/tests.json" "$b"
cp "$build/src/kdhpc" "$b/bin/"
cp -r "$root"/tests/{gpu,support,device,mpi,golden} "$b/src/tests/"
rm -rf "$b"/src/tests/golden/{tokenizers,*.py,*_golden.h} "$b"/src/tests/support/cuda_host
find "$b/src/tests" -name __pycache__ -prune -exec rm -rf {} +
cp -r "$root/inputs/tiny" "$b/src/inputs/"
cp "$root/src/mode/bench_lengths.h" "$b/src/src/mode/"

# Open MPI: its programs, and its components but those for networks and launchers that one node does without
lib=/usr/lib/$(gcc -print-multiarch)
components=$lib/openmpi/lib/openmpi3
[ -d "$components" ] || {
    echo "pack: no Open MPI 4 at $components: packing knows Debian's and Ubuntu's (apt-get install libopenmpi-dev openmpi-bin)" >&2
    exit 1
}
unused='_(ofi|ucx|openib|verbs|psm|psm2|usnic|portals4|slurm|gridengine|tm|lsf|alps|loadleveler|flux|monitoring|lustre)($|_)'
for f in "$components"/mca_*.so; do
    name=$(basename "$f" .so)
    [[ $name =~ $unused || $name =~ ^mca_(spml|scoll|sshmem|memheap|atomic)_ ]] || cp -L "$f" "$b/ompi/lib/openmpi3/"
done
cp -L /usr/bin/orterun "$b/ompi/bin/mpirun"
cp -L /usr/bin/orted "$b/ompi/bin/orted"
cp -rL /usr/share/openmpi "$b/ompi/share/"
cp -rL /etc/openmpi/. "$b/ompi/etc/"
if [ -d "$lib/pmix2" ]; then
    cp -L "$lib"/pmix2/lib/pmix/*.so "$b/pmix/lib/pmix/"
    cp -rL "$lib/pmix2/share" "$b/pmix/"
fi

# libraries: all but the C library, the driver's and CUDA's
theirs='^(linux-vdso|ld-linux|libc\.|libm\.|libdl\.|libpthread\.|librt\.|libresolv\.|libutil\.|libcuda\.|libnvidia|libcudart|libcublas|libnccl|libnvrtc|libnvJitLink)'
find "$b/bin" "$b/ompi" "$b/pmix" -type f \( -name '*.so' -o -perm -u+x \) -print0 | xargs -0 -n 1 ldd 2>/dev/null |
    awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }' | sort -u | while read -r name path; do
    [[ $name =~ $theirs ]] || cp -L "$path" "$b/lib/$name"
done
find "$b/bin" "$b/lib" "$b/ompi" "$b/pmix" -type f \( -name '*.so*' -o -perm -u+x \) -exec strip --strip-unneeded {} + 2>/dev/null || true

cp "$root/tests/gpu/bundle_environment.sh" "$b/environment.sh"
cat >"$b/run" <<'RUN'
#!/usr/bin/env bash
# run [-np N] PROGRAM ARGS...: a packed program, alone or on N ranks
here=$(cd "$(dirname "$0")" && pwd)
. "$here/environment.sh" "$here"
np=""
if [ "$1" = -np ]; then
    np=$2
    shift 2
fi
program=$here/bin/$1
shift
export LD_LIBRARY_PATH=$KD_LIBRARY_PATH
exec ${np:+"$here/ompi/bin/mpirun" -np "$np" --bind-to none} "$program" "$@"
RUN
cat >"$b/run.sh" <<'RUN'
#!/usr/bin/env bash
here=$(cd "$(dirname "$0")" && pwd)
exec "$here/src/tests/gpu/run.sh" --bundle "$here" "$@"
RUN
# for scripts, whose other commands must not meet packed libraries
for f in "$b"/bin/* "$b/ompi/bin/mpirun"; do
    cat >"$b/wrap/$(basename "$f")" <<RUN
#!/usr/bin/env bash
export LD_LIBRARY_PATH=\$KD_LIBRARY_PATH
exec "\$(dirname "\$0")/../${f#"$b/"}" "\$@"
RUN
done
chmod +x "$b/run" "$b/run.sh" "$b"/wrap/*

# one window over all programs: the kernels, which each of them holds, are stored once
tar -C "$b" --sort=name --owner=0 --group=0 --mtime=@0 -cf - . | xz -T1 -6 --lzma2=preset=6,dict=128MiB >"$out.part"
mv "$out.part" "$out"
ls -l "$out" | awk '{ printf "%s: %.1f MiB\n", $NF, $5 / 1048576 }'
