# haul_layer(NAME HEADERS … SOURCES … LINKS …): a static library; LINKS says which way it may look.
# Every header compiles alone: target all_verify_interface_header_sets.
set(CMAKE_VERIFY_INTERFACE_HEADER_SETS ON)
function(haul_layer name)
  cmake_parse_arguments(arg "" "" "HEADERS;SOURCES;LINKS" ${ARGN})
  add_library(${name} STATIC ${arg_SOURCES})
  target_sources(${name} PUBLIC FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR} FILES ${arg_HEADERS})
  target_link_libraries(${name} PUBLIC haul_flags ${arg_LINKS})
endfunction()

# haul_protobuf(NAME BASE DIR FILES …): messages compiled by protoc-c, without our warnings.
function(haul_protobuf name base)
  set(out ${PROJECT_BINARY_DIR}/gen)
  file(MAKE_DIRECTORY ${out})
  foreach(proto IN LISTS ARGN)
    string(REGEX REPLACE "\\.proto$" "" stem ${proto})
    add_custom_command(OUTPUT ${out}/${stem}.pb-c.c ${out}/${stem}.pb-c.h
      COMMAND ${PROTOC_C} --c_out=${out} -I${base} ${base}/${proto}
      DEPENDS ${base}/${proto} VERBATIM)
    list(APPEND sources ${out}/${stem}.pb-c.c)
  endforeach()
  add_library(${name} STATIC ${sources})
  target_include_directories(${name} SYSTEM PUBLIC ${out})
  target_link_libraries(${name} PUBLIC PkgConfig::protobuf_c)
  target_compile_options(${name} PRIVATE -w)
endfunction()

# haul_descriptors(NAME BASE FILES …): a FileDescriptorSet of these files and their imports, as the bytes
# NAME[] and their number NAME_size in a library of that name.
function(haul_descriptors name base)
  set(out ${PROJECT_BINARY_DIR}/gen/${name})
  list(TRANSFORM ARGN PREPEND ${base}/ OUTPUT_VARIABLE files)
  add_custom_command(OUTPUT ${out}.c BYPRODUCTS ${out}.pb
    COMMAND ${PROTOC_C} --include_imports --descriptor_set_out=${out}.pb -I${base} ${files}
    COMMAND ${CMAKE_COMMAND} -DIN=${out}.pb -DOUT=${out}.c -DNAME=${name} -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
    DEPENDS ${files} ${PROJECT_SOURCE_DIR}/cmake/embed.cmake VERBATIM)
  add_library(${name} STATIC ${out}.c)
endfunction()
