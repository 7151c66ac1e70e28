# SPDX-License-Identifier: Apache-2.0
# Whether this build has the CUDA backend, and for which devices: KDHPC_HAS_CUDA, KDHPC_CUDA_TEXT; and whether it has
# NCCL between them: KDHPC_HAS_NCCL, KDHPC_NCCL_INCLUDE, KDHPC_NCCL_LIBRARY_DIR (where its library probably is).
#
# Machine code for the data-centre GPUs since sm_80 that the toolkit knows, and PTX of the newest for what comes later.
# CMAKE_CUDA_ARCHITECTURES overrides, e.g. 90 to build in a third of the time.  Kernels are not sanitized (tests run them
# on the host's emulator for that), so AUTO leaves them out of sanitizer builds.
set(KDHPC_HAS_CUDA OFF)
set(KDHPC_HAS_NCCL OFF)
set(KDHPC_CUDA_TEXT "not built: KDHPC_CUDA=${KDHPC_CUDA}")
if(KDHPC_CUDA STREQUAL "OFF" OR (KDHPC_CUDA STREQUAL "AUTO" AND KDHPC_SANITIZE))
    return()
endif()
include(CheckLanguage)
if(NOT CMAKE_CUDA_COMPILER)
    set(ENV{PATH} "$ENV{PATH}:/usr/local/cuda/bin") # where the toolkit's installer leaves it
    check_language(CUDA)
endif()
find_package(CUDAToolkit QUIET)
if(NOT CMAKE_CUDA_COMPILER OR NOT CUDAToolkit_FOUND OR CUDAToolkit_VERSION VERSION_LESS 12)
    set(KDHPC_CUDA_TEXT "no nvcc that works, or no toolkit of version 12 or newer: put nvcc on PATH or set CMAKE_CUDA_COMPILER")
    if(KDHPC_CUDA STREQUAL "ON")
        message(FATAL_ERROR "KDHPC_CUDA=ON: ${KDHPC_CUDA_TEXT}")
    endif()
    return()
endif()
if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
    if(CUDAToolkit_VERSION VERSION_GREATER_EQUAL 12.8)
        set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100)
    endif()
endif()
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)

list(TRANSFORM CMAKE_CUDA_ARCHITECTURES REPLACE "-(real|virtual)$" "" OUTPUT_VARIABLE names)
list(TRANSFORM names PREPEND "sm_")
list(REMOVE_DUPLICATES names)
list(JOIN names " " KDHPC_CUDA_NAMES)
set(KDHPC_HAS_CUDA ON)
set(KDHPC_CUDA_TEXT "CUDA ${CUDAToolkit_VERSION} for ${KDHPC_CUDA_NAMES}")

find_path(KDHPC_NCCL_INCLUDE nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
if(KDHPC_NCCL_INCLUDE)
    set(KDHPC_HAS_NCCL ON)
    find_library(KDHPC_NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS ${KDHPC_NCCL_INCLUDE}/../lib ${CUDAToolkit_LIBRARY_DIR})
    set(KDHPC_NCCL_LIBRARY_DIR "")
    if(KDHPC_NCCL_LIBRARY)
        get_filename_component(KDHPC_NCCL_LIBRARY_DIR ${KDHPC_NCCL_LIBRARY} DIRECTORY)
    endif()
endif()
