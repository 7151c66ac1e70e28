# SPDX-License-Identifier: Apache-2.0
# Where packed programs find their MPI, and in KD_LIBRARY_PATH their libraries; sourced with the folder of the bundle:
#   . environment.sh DIR
# CUDA's libraries are the machine's: those of its toolkit, else those of the nvidia packages of its python3.  The path is
# not exported as LD_LIBRARY_PATH, since the machine's own programs (Python, the shell) must not meet packed libraries.
kd_cuda=/usr/local/cuda/lib64
while read -r kd_dir; do
    kd_cuda=$kd_cuda:$kd_dir
done < <(python3 -c '
import glob, os, sys
for p in sys.path:
    for d in sorted(glob.glob(os.path.join(p or ".", "nvidia", "*", "lib"))):
        print(d)
' 2>/dev/null)
# A driver that sits outside the loader's folders.
for kd_dir in /usr/local/nvidia/lib64 /usr/local/nvidia/lib; do
    [ ! -d "$kd_dir" ] || kd_cuda=$kd_cuda:$kd_dir
done
export KD_LIBRARY_PATH=$1/lib:$kd_cuda${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export OPAL_PREFIX=$1/ompi OPAL_LIBDIR=$1/ompi/lib OPAL_PKGLIBDIR=$1/ompi/lib/openmpi3 OPAL_DATADIR=$1/ompi/share
export OPAL_PKGDATADIR=$1/ompi/share/openmpi OPAL_SYSCONFDIR=$1/ompi/etc
export PMIX_PREFIX=$1/pmix PMIX_INSTALL_PREFIX=$1/pmix PMIX_PKGLIBDIR=$1/pmix/lib/pmix PMIX_LIBDIR=$1/pmix/lib
export PMIX_DATADIR=$1/pmix/share PMIX_PKGDATADIR=$1/pmix/share/pmix PMIX_SYSCONFDIR=$1/pmix/etc PMIX_MCA_gds=hash
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_plm=isolated OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader
export OMPI_MCA_btl_vader_single_copy_mechanism=none
