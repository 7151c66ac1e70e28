# SPDX-License-Identifier: Apache-2.0
# What this build has.
add_feature_info(MPI TRUE "${MPI_C_LIBRARY_VERSION_STRING}")
add_feature_info(parallel-HDF5 TRUE "${HDF5_VERSION}")
add_feature_info(OpenBLAS TRUE "${KDHPC_OPENBLAS}")
add_feature_info(sentencepiece TRUE "${SENTENCEPIECE_VERSION}")
add_feature_info(faults KDHPC_FAULTS "fault sites for the tests")
add_feature_info(tests BUILD_TESTING "ctest")
feature_summary(WHAT ENABLED_FEATURES DISABLED_FEATURES)
