# Everything haul links, all from Debian 13's packages.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(nng CONFIG QUIET)
if(NOT nng_FOUND)
  message(FATAL_ERROR "nng is missing: install libnng-dev (Debian 13). "
    "On another system run ./test.sh, which builds in a Debian 13 root.")
endif()
# nng's CMake package does not always say its version: the header does.
get_target_property(nng_include nng::nng INTERFACE_INCLUDE_DIRECTORIES)
find_file(nng_header nng/nng.h PATHS ${nng_include} REQUIRED)
file(STRINGS ${nng_header} nng_version_lines REGEX "define NNG_(MAJOR|MINOR|PATCH)_VERSION")
string(REGEX REPLACE ".*MAJOR_VERSION ([0-9]+).*MINOR_VERSION ([0-9]+).*PATCH_VERSION ([0-9]+).*"
  "\\1.\\2.\\3" nng_version "${nng_version_lines}")
if(nng_version VERSION_LESS 1.10)
  message(FATAL_ERROR "nng ${nng_version} is unfit: before 1.10 one unauthenticated connection can end a "
    "listener for good and closing a pipe in mid-transfer can hang the process. haul needs nng 1.10 or 1.11 (Debian 13).")
endif()
if(nng_version VERSION_EQUAL 1.12.0 OR nng_version VERSION_GREATER_EQUAL 2)
  message(FATAL_ERROR "nng ${nng_version} is unfit: in 1.12.0 a listener dies under reconnects, 2.x has another API. "
    "haul needs nng 1.10 or 1.11 (Debian 13).")
endif()
find_package(OpenSSL 3.5 REQUIRED)
pkg_check_modules(protobuf_c REQUIRED IMPORTED_TARGET libprotobuf-c>=1.4)
pkg_check_modules(cjson REQUIRED IMPORTED_TARGET libcjson)
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(lz4 REQUIRED IMPORTED_TARGET liblz4)
pkg_check_modules(zstd REQUIRED IMPORTED_TARGET libzstd)
find_program(PROTOC_C protoc-c REQUIRED)
find_path(CRIU_PROTO_DIR criu/rpc.proto REQUIRED)
