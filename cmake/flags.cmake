# Flags live on one target, linked by everything we write (not by generated code).
add_library(haul_flags INTERFACE)
target_compile_definitions(haul_flags INTERFACE _GNU_SOURCE _FILE_OFFSET_BITS=64 HAUL_VERSION="${PROJECT_VERSION}")
target_compile_options(haul_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wformat=2 -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes
  -Wvla -Wundef -Wwrite-strings -fno-common
  # Texts are cut on purpose, into buffers of a known size.
  -Wno-format-truncation)
target_include_directories(haul_flags INTERFACE ${PROJECT_SOURCE_DIR})
if(HAUL_WERROR)
  target_compile_options(haul_flags INTERFACE -Werror)
endif()
if(HAUL_SANITIZE)
  add_compile_options(-fsanitize=${HAUL_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  string(REPLACE ",fuzzer-no-link" "" link_sanitize "${HAUL_SANITIZE}")
  add_link_options(-fsanitize=${link_sanitize})
else()
  add_compile_options(-fstack-protector-strong)
  add_link_options(-Wl,-z,relro,-z,now)
  if(CMAKE_BUILD_TYPE STREQUAL RelWithDebInfo)
    add_compile_options(-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
  endif()
endif()
if(HAUL_COVERAGE)
  add_compile_options(--coverage)
  add_link_options(--coverage)
endif()
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
