/* SPDX-License-Identifier: Apache-2.0 */
/* Messages that no code was generated for, where protobuf-c's are wanted: all their fields are
 * unknown ones, which are kept and packed again as they came. */
#ifndef HAUL_PROTO_RAW_H
#define HAUL_PROTO_RAW_H

#include <protobuf-c/protobuf-c.h>

/* For unpack_message; free with message_free. */
extern const ProtobufCMessageDescriptor raw_message_descriptor;

#endif
