# SPDX-License-Identifier: Apache-2.0
# What a builder may choose, and the flags that every target of ours gets.
include(FeatureSummary)

option(KDHPC_WERROR "Warnings are errors" OFF)
option(KDHPC_FAULTS "Named fault sites fail on demand (KD_FAULT=site:rank), for the tests" ON)
set(KDHPC_SANITIZE "" CACHE STRING "Sanitizers, e.g. address,undefined")
set(KDHPC_CUDA AUTO CACHE STRING "The CUDA backend: ON, OFF, or AUTO for ON where nvcc and its toolkit are found")
set_property(CACHE KDHPC_CUDA PROPERTY STRINGS AUTO ON OFF)
option(KDHPC_FUZZ "libFuzzer programs of the fuzz targets (clang)" OFF)
set(KDHPC_ARCH "native" CACHE STRING "Value of -march for the CPU kernels; empty: the compiler's default")

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Build type" FORCE)
endif()
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)

add_library(kd_flags INTERFACE)
target_compile_definitions(kd_flags INTERFACE _GNU_SOURCE KDHPC_VERSION="${PROJECT_VERSION}" $<$<BOOL:${KDHPC_FAULTS}>:KDHPC_FAULTS>)
target_compile_options(kd_flags INTERFACE
    $<$<COMPILE_LANGUAGE:C,CXX>:-Wall;-Wextra;-Wshadow;-ffp-contract=fast>
    $<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes;-Wmissing-prototypes>
    $<$<AND:$<BOOL:${KDHPC_WERROR}>,$<COMPILE_LANGUAGE:C,CXX>>:-Werror>
    $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Wshadow>
    $<$<AND:$<BOOL:${KDHPC_WERROR}>,$<COMPILE_LANGUAGE:CUDA>>:-Werror=all-warnings>)
if(KDHPC_SANITIZE)
    target_compile_options(kd_flags INTERFACE
        $<$<COMPILE_LANGUAGE:C,CXX>:-fsanitize=${KDHPC_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all>)
    target_link_options(kd_flags INTERFACE -fsanitize=${KDHPC_SANITIZE})
endif()
if(KDHPC_FUZZ) # a fuzzer must see which branches of the libraries an input takes
    target_compile_options(kd_flags INTERFACE $<$<COMPILE_LANGUAGE:C,CXX>:-fsanitize=fuzzer-no-link>)
endif()
