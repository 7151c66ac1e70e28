# SPDX-License-Identifier: Apache-2.0
# What this build has.
add_feature_info(compiler TRUE "${CMAKE_C_COMPILER_ID} ${CMAKE_C_COMPILER_VERSION}, ${CMAKE_BUILD_TYPE}, -march=${KDHPC_ARCH}")
add_feature_info(MPI TRUE "${MPI_C_VERSION} at ${MPIEXEC_EXECUTABLE}")
add_feature_info(parallel-HDF5 TRUE "${HDF5_VERSION}")
add_feature_info(OpenBLAS TRUE "${KDHPC_OPENBLAS}")
add_feature_info(OpenMP TRUE "${OpenMP_C_VERSION}")
add_feature_info(CUDA KDHPC_HAS_CUDA "${KDHPC_CUDA_TEXT}")
add_feature_info(sentencepiece TRUE "${SENTENCEPIECE_VERSION}")
add_feature_info(warnings-as-errors KDHPC_WERROR "-Werror")
add_feature_info(sanitizers KDHPC_SANITIZE "${KDHPC_SANITIZE}")
add_feature_info(faults KDHPC_FAULTS "fault sites for the tests")
add_feature_info(tests BUILD_TESTING "ctest")
feature_summary(WHAT ENABLED_FEATURES DISABLED_FEATURES)
