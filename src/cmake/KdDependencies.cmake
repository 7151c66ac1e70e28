# SPDX-License-Identifier: Apache-2.0
# Libraries that we stand on; each is linked PRIVATE by the one layer that uses it.
find_package(MPI REQUIRED COMPONENTS C)
set(HDF5_PREFER_PARALLEL ON)
find_package(HDF5 REQUIRED COMPONENTS C)
if(NOT HDF5_IS_PARALLEL)
    message(FATAL_ERROR "HDF5 without parallel support found at ${HDF5_C_LIBRARIES}: install a parallel one "
        "(Debian: libhdf5-openmpi-dev) or point HDF5_ROOT at it")
endif()
find_package(OpenMP REQUIRED COMPONENTS C)
find_package(PkgConfig REQUIRED)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(SENTENCEPIECE REQUIRED IMPORTED_TARGET sentencepiece)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
find_package(Threads REQUIRED)

# The pthread build of OpenBLAS fights OpenMP; prefer the OpenMP build, then a serial one.
find_library(KDHPC_OPENBLAS NAMES openblas openblaso
    PATHS /usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}/openblas-openmp /usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}/openblas-serial
    NO_DEFAULT_PATH)
find_library(KDHPC_OPENBLAS NAMES openblaso openblas REQUIRED)
find_path(KDHPC_CBLAS_INCLUDE cblas.h
    HINTS /usr/include/${CMAKE_LIBRARY_ARCHITECTURE}/openblas-openmp /usr/include/${CMAKE_LIBRARY_ARCHITECTURE}/openblas-serial
    PATH_SUFFIXES openblas REQUIRED)
