# SPDX-License-Identifier: Apache-2.0
# kd_add_layer(NAME SOURCES ... LAYERS ... PRIVATE ...): one static library for a layer.
#
# A layer sees its own headers and those of the layers it is linked to, nothing else:
# each layer's headers are reached through an include root of its own, so a stray
# include does not compile.  Libraries from outside are PRIVATE.
function(kd_add_layer name)
    cmake_parse_arguments(L "" "" "SOURCES;LAYERS;PRIVATE" ${ARGN})
    set(root ${PROJECT_BINARY_DIR}/include-roots/${name})
    file(MAKE_DIRECTORY ${root}/kdhpc)
    file(CREATE_LINK ${PROJECT_SOURCE_DIR}/include/kdhpc/${name} ${root}/kdhpc/${name} SYMBOLIC)
    add_library(kd_${name} STATIC ${L_SOURCES})
    target_include_directories(kd_${name} PUBLIC ${root} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
    list(TRANSFORM L_LAYERS PREPEND kd_)
    target_link_libraries(kd_${name} PUBLIC ${L_LAYERS} PRIVATE kd_flags ${L_PRIVATE})
endfunction()
